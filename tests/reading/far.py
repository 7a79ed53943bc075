"""What tests of reading from a store share: datasets in memory stores, and a store that is watched."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from shardkit.formats.tar import samples
from shardkit.location import Location, locate
from shardkit.shards.index import INTEGERS, ShardRows, write_index
from shardkit.shards.manifest import ClassEntry, IndexEntry, Manifest, ShardEntry, encode_manifest
from shardkit.storage.store import ObjectInfo, Store, open_store


def put(folder: Any, files: dict[str, bytes], options: Any = None) -> None:
    """Write objects by their names below a folder, a URL or Location."""
    store = open_store(folder if isinstance(folder, Location) else locate(folder), options)
    for name, data in files.items():
        store.put(name, io.BytesIO(data))


def files_of(prefix: str) -> dict[str, bytes]:
    """The files of a local dataset."""
    return {path.name: path.read_bytes() for path in sorted(Path(prefix).parent.glob(f"{Path(prefix).name}*"))}


def uploaded(prefix: str) -> str:
    """The files of a local dataset, copied to a store in memory; the prefix there."""
    folder = f"memory://{os.urandom(6).hex()}/some"
    put(folder, files_of(prefix))
    return f"{folder}/{Path(prefix).name}"


def told(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample without the place of its shard."""
    return {name: value for name, value in sample.items() if name != "__url__"}


class Watched:
    """A store that notes each request. `fault(nth, name, data)` may change what is read."""

    def __init__(self, inside: Store, requests: list[tuple[str, str, int, int]], fault: Any = None) -> None:
        self.inside, self.requests, self.fault, self.root = inside, requests, fault, inside.root

    def info(self, name: str) -> ObjectInfo:
        self.requests.append(("info", name, 0, 0))
        return self.inside.info(name)

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[Any]:
        data = b"".join(bytes(piece) for piece in self.inside.pieces(name, start, end))
        self.requests.append(("read", name, start, len(data)))
        yield self.fault(name, start, data) if self.fault else data

    def put(self, *arguments: Any, **options: Any) -> None:
        self.inside.put(*arguments, **options)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self.requests.append(("list", prefix, 0, 0))
        return self.inside.list(prefix)

    def delete(self, name: str) -> None:
        self.inside.delete(name)


def drawn(count: int) -> str:
    """A dataset of `count` shards of one sample each, made by hand in a store in memory; the prefix."""
    files: dict[str, bytes] = {}
    rows: list[ShardRows] = []
    for n in range(count):
        data = np.random.default_rng(n).bytes(1000)
        pieces, (image, _), size = samples.encode_sample(f"a/{n:04}", [("jpg", data), ("cls", b"0")])
        files[f"x-{n:06}.tar"] = b"".join(pieces) + samples.END
        values = [0, 0, size, image, len(data), 0, 0, google_crc32c.value(data)]
        numbers = {name: np.array([value], INTEGERS[name]) for name, value in zip(INTEGERS, values, strict=True)}
        rows.append(ShardRows(f"x-{n:06}.tar", [f"a/{n:04}"], [f"a/{n:04}.jpg"], numbers))
    entries = [ShardEntry(name, 1, len(d), f"{google_crc32c.value(d):08x}") for name, d in files.items()]
    sink = io.BytesIO()
    write_index(sink, rows)
    files["x.parquet"] = sink.getvalue()
    index = IndexEntry("x.parquet", count, len(sink.getvalue()), f"{google_crc32c.value(sink.getvalue()):08x}")
    total = sum(entry.bytes for entry in entries)
    files["x.json"] = encode_manifest(
        Manifest(
            samples=count,
            bytes=total,
            classes=(ClassEntry("a", count),),
            fields=("cls", "jpg"),
            shards=tuple(entries),
            index=(index,),
            plan="1",
        )
    )
    folder = f"memory://{os.urandom(6).hex()}"
    put(folder, files)
    return f"{folder}/x"
