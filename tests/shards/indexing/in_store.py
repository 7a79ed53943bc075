"""Shards in memory, and what indexing says of them."""

from __future__ import annotations

import io
import os
import tarfile
from typing import Any

from shardkit.errors import DatasetError
from shardkit.location import Location, locate
from shardkit.shards.indexing.shard import ShardTask, index_shard
from shardkit.storage.access import Remote
from shardkit.storage.store import open_store

Members = list[tuple[str, bytes]]


def tar_of(members: Members, format: int = tarfile.GNU_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def put(data: bytes, name: str = "x-000000.tar") -> Location:
    place = locate(f"memory://{os.urandom(6).hex()}/{name}")
    open_store(place.parent).put(name, io.BytesIO(data))
    return place


def indexed(place: Location, *, whole: bool) -> Any:
    """The shard and its rows as plain values, without the checksums; or the error."""
    info = open_store(place.parent).info(place.name)
    try:
        shard, rows = index_shard(ShardTask(place, Remote(), info, whole=whole))
    except DatasetError as exc:
        return exc.fact, exc.offset, exc.key
    numbers = {name: column.tolist() for name, column in rows.numbers.items() if name != "crc32c"}
    assert (shard.entry.crc32c == "") is not whole
    entry = (shard.entry.name, shard.entry.samples, shard.entry.bytes)
    return entry, shard.fields, shard.labels, shard.format, shard.version, rows.keys, rows.paths, numbers
