"""Find the samples of a tar by its headers alone: what is in the members is passed over, but for `cls`.

The rules are those of samples.py, which reads a shard in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from shardkit.errors import DamagedError
from shardkit.formats.protocol import Description, Fetch, Skimmed, SkimState, peeked_bytes
from shardkit.formats.tar.headers import (
    BLOCK,
    MAGIC,
    MAGIC_AT,
    check_end,
    cut_member,
    field_twice,
    key_again,
    parse_block,
    read_member,
    sample_name,
)
from shardkit.sample import IMAGE_FIELDS

CLS_BYTES = 4096
"""More bytes in a `cls` are not a label."""


def skim_samples(fetch: Fetch, size: int, *, place: str, state: SkimState) -> Iterator[Skimmed]:
    """The samples of a whole tar of `size` bytes, in order, as from `Format.skim`."""
    sample: _Sample | None = None
    at, shared, seen = state.at, state.records, state.keys
    while (member := read_member(fetch, at, place=place, shared=shared)) is not None:
        if member.end > size:
            raise cut_member(member, size, place)
        at = member.end
        split = sample_name(member, place)
        if split is None:
            continue
        key, field = split
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample.skimmed()
            if key in seen:
                raise key_again(place, member.start, key)
            seen.add(key)
            sample = _Sample(key, member.start)
        elif field in sample.names:
            raise field_twice(place, member.start, key, field)
        sample.add(field, member.data, member.size, member.end, fetch)
    check_end(fetch, at, place)
    if sample is not None:
        yield sample.skimmed()


def find_header(data: bytes) -> int | None:
    """The first block of `data` that is a header; None if there is none."""
    found = data.find(MAGIC, MAGIC_AT)
    while found >= 0:
        start = found - MAGIC_AT
        if start % BLOCK == 0 and len(data) - start >= BLOCK:
            try:
                parse_block(data[start : start + BLOCK], place="", offset=start)
            except DamagedError:
                pass
            else:
                return start
        found = data.find(MAGIC, found + 1)
    return None


class _Sample:
    """A sample while its members are found."""

    def __init__(self, key: str, start: int) -> None:
        self.key, self.start, self.end = key, start, start
        self.names: dict[str, None] = {}
        self.cls: bytes | None = None
        self.image, self.at, self.size, self.head = "", -1, -1, b""

    def add(self, field: str, data: int, size: int, end: int, fetch: Fetch) -> None:
        self.names[field], self.end = None, end
        if field == "cls":
            self.cls = fetch(data, size) if size <= CLS_BYTES else b"?"
        elif not self.image and field in IMAGE_FIELDS:
            self.image, self.at, self.size = field, data, size
            self.head = fetch(data, peeked_bytes(size))

    def skimmed(self) -> Skimmed:
        found = Description(
            self.key, self.start, self.end - self.start, self.names, self.image, self.at, self.size, self.cls, "", ""
        )
        return Skimmed(found, self.head)
