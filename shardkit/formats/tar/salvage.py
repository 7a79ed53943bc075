"""Salvage the readable members of a damaged tar shard."""

from __future__ import annotations

from collections.abc import Iterator

from shardkit.errors import DamagedError
from shardkit.formats.protocol import Salvaged, SalvagedSample, ShardData
from shardkit.formats.tar.headers import (
    BLOCK,
    MAGIC,
    MAGIC_AT,
    Member,
    cut_member,
    parse_block,
    read_member,
    sample_name,
)


def salvage(data: ShardData) -> Salvaged:
    """All members with a valid header, as samples: those of one key together, unless a field occurs twice.

    After damage it continues at the next valid header. Never raises DamagedError.
    """
    try:
        found = data.samples()
        return Salvaged([SalvagedSample(sample.key, sample.offset, sample.fields) for sample in found])
    except DamagedError:
        return _salvaged(data)


def _salvaged(data: ShardData) -> Salvaged:
    result = Salvaged()
    latest: dict[str, SalvagedSample] = {}
    last, after_damage = "", False
    for item in _members(data):
        if isinstance(item, DamagedError):
            result.damage.append(item)
            result.suspects |= {last} if last else set()
            after_damage = True
            continue
        try:
            name = sample_name(item, data.place)
        except DamagedError as exc:
            result.damage.append(exc)
            continue
        if name is None:
            continue
        key, field_name = name
        group = latest.get(key)
        if group is None or field_name in group.fields:
            group = latest[key] = SalvagedSample(key, item.start, {})
            result.samples.append(group)
        elif key != last:
            group.split = True
        group.fields[field_name] = (item.data, item.size)
        result.suspects |= {key} if after_damage else set()
        last, after_damage = key, False
    return result


def _members(data: ShardData) -> Iterator[Member | DamagedError]:
    """Members and damage in the order of the file."""
    limit, at = len(data), 0
    shared: dict[bytes, bytes] = {}

    def fetch(offset: int, n: int) -> bytes:
        return bytes(data.buffer[offset : offset + n])

    while at < limit:
        try:
            member = read_member(fetch, at, place=data.place, shared=shared)
            if member is not None and member.data + member.size > limit:
                raise cut_member(member, limit, data.place)
        except DamagedError as exc:
            yield exc
            member, again = None, at + 1
        else:
            again = at + BLOCK
        if member is not None:
            yield member
            at = member.end
            continue
        following = _next_header(data, again, limit)
        if following is None:
            return
        if again == at + BLOCK:  # after an end mark
            yield DamagedError(data.place, "there are members after the end mark", "", following)
        at = following


def _next_header(data: ShardData, at: int, limit: int) -> int | None:
    """The first byte from `at` on where a header with a correct checksum begins; None if there is none."""
    found = data.buffer.find(MAGIC, at + MAGIC_AT)
    while found >= 0:
        start = found - MAGIC_AT
        if start + BLOCK <= limit:
            try:
                parse_block(bytes(data.buffer[start : start + BLOCK]), place=data.place, offset=start)
            except DamagedError:
                pass
            else:
                return int(start)
        found = data.buffer.find(MAGIC, found + 1)
    return None
