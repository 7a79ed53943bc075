"""Find the samples of TFRecord by the lengths of their records, and the head of each Example as far as needed.

A record's length has a checksum, which is checked. Its data has one too, which can't be: long byte strings, such as the
image, are passed over. Everything else of an Example is read (example.py has the layout).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shardkit.formats.protocol import Description, Fetch, Skimmed, peeked_bytes
from shardkit.formats.tfrecord.features import FILENAME, FORMAT, KEY, LABEL, OTHER_KEY, TEXT
from shardkit.formats.tfrecord.samples import FRAME, HEAD, TfrecordSample, masked_crc, record_size, sample_of

ENTRY_BYTES = 192
"""Read of each entry at first: its lengths, and a name of up to 128 bytes."""

LONG_BYTES = 1024
"""A shorter entry is read as a whole."""

_NEEDED = frozenset(name.encode() for name in (KEY, OTHER_KEY, FILENAME, FORMAT, TEXT, LABEL))
"""Features that say what the sample is: read as a whole in any case."""


def skim_samples(
    fetch: Fetch, size: int, at: int = 0, *, place: str, describe: Callable[[TfrecordSample], Description]
) -> Iterator[Skimmed]:
    """The samples of a shard of `size` bytes from the record at byte `at` on, in order, as from `Format.skim`."""
    while at < size:
        length = record_size(fetch(at, HEAD), at, size, place)
        data = _Sparse(fetch, at + HEAD, length).read()
        sample = sample_of(data, at, place)
        found = describe(sample)
        first = found.image_offset - at - HEAD
        yield Skimmed(found, data[first : first + peeked_bytes(found.image_size)] if found.image else b"")
        at += length + FRAME


def find_record(data: bytes, left: int) -> int | None:
    """The first byte of `data` where a record of less than 4 GiB begins: a length with its checksum, which fits into
    the `left` bytes of the shard. None if there is none."""
    zeros = data.find(_HIGH, len(_HIGH))
    while zeros >= 0:
        start = zeros - len(_HIGH)
        head = data[start : start + HEAD]
        fits = start + FRAME + int.from_bytes(head[:8], "little") <= left
        if fits and len(head) == HEAD and head[8:] == masked_crc(head[:8]):
            return start
        zeros = data.find(_HIGH, zeros + 1)
    return None


_HIGH = bytes(4)
"""The upper half of such a length."""


class _Sparse:
    """An Example of which long byte strings are not fetched: they are zeros but for their first bytes."""

    def __init__(self, fetch: Fetch, base: int, size: int) -> None:
        self._fetch, self._base = fetch, base
        self._data = bytearray(size)

    def read(self) -> bytes:
        """The Example, in its full length."""
        at, size = 0, len(self._data)
        while at < size:
            at = self._features(at, size)
        return bytes(self._data)

    def _features(self, at: int, size: int) -> int:
        """Read a message of features; where it ends. All that is left is read if it is not one."""
        self._take(at, min(at + ENTRY_BYTES, size))
        body = self._length(at, 0x0A, size)
        if body is None:
            self._take(at, size)
            return size
        at, end = body
        while at < end:
            at = self._entry(at, end)
        return end

    def _entry(self, at: int, end: int) -> int:
        """Read an entry of the map, without the byte string in it if it is long; where it ends."""
        self._take(at, min(at + ENTRY_BYTES, end))
        entry = self._length(at, 0x0A, end)
        if entry is None:
            self._take(at, end)
            return end
        first, stop = entry
        value = self._byte_string(first, stop) if stop - first > LONG_BYTES else None
        if value is None:
            self._take(first, stop)
        else:
            self._take(first, value + peeked_bytes(stop - value))
        return stop

    def _byte_string(self, at: int, stop: int) -> int | None:
        """Where the value of an entry begins that is a name and one byte string up to the entry's end; None for any
        other."""
        name = self._length(at, 0x0A, stop)
        if name is None or name[1] - at > ENTRY_BYTES // 2 or bytes(self._data[slice(*name)]) in _NEEDED:
            return None
        at = name[1]
        for tag in (0x12, 0x0A, 0x0A):  # Feature, BytesList, bytes
            inner = self._length(at, tag, stop)
            if inner is None or inner[1] != stop:
                return None
            at = inner[0]
        return at

    def _length(self, at: int, tag: int, stop: int) -> tuple[int, int] | None:
        """(first byte, end) of the field at byte `at`; None if it has another tag or does not fit."""
        data = self._data
        if at >= stop or data[at] != tag:
            return None
        number, shift, at = 0, 0, at + 1
        while at < stop and shift < 35:
            number |= (data[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 0x80:
                return (at, at + number) if at + number <= stop else None
        return None

    def _take(self, start: int, end: int) -> None:
        self._data[start:end] = self._fetch(self._base + start, end - start)
