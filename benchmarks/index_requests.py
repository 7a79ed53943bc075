"""What parts of the index a reader of a store fetches: requests, bytes, and their share of the index.

    python benchmarks/index_requests.py FOLDER

FOLDER: a dataset `train` drawn by growth.py, such as SCRATCH/10000000. It is copied to a store in memory that counts.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from growth import look_up

import shardkit
from shardkit.location import locate
from shardkit.storage.store import open_store
from shardkit.storage.stores.memory import MemoryStore

STORE = "memory://index-requests/some"

requests: list[tuple[str, int]] = []


def count_requests() -> None:
    """Note what is read from stores in memory."""
    pieces = MemoryStore.pieces

    def counted(self: MemoryStore, name: str, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        found = list(pieces(self, name, start, end))
        requests.append((name, sum(map(len, found))))
        yield from found

    MemoryStore.pieces = counted  # type: ignore[method-assign]


def rows_of(count: int) -> Callable[[shardkit.Dataset], Any]:
    """Look up the index rows of one sample in each of `count` shards."""

    def look(data: shardkit.Dataset) -> Any:
        return data.content.catalog.block(np.arange(count) * (data.epoch_samples // count))

    return look


OPERATIONS: dict[str, Callable[[shardkit.Dataset], Any]] = {
    "rows of one shard": rows_of(1),
    "rows of 64 shards": rows_of(64),
    "select(classes=…)": lambda data: data.select(classes=[1, 2]).rows(),
    "where(width > 500)": lambda data: data.where(pc.field("width") > 500).rows(),
    "dataset[key]": look_up,
}


def main() -> None:
    """Copy the dataset, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder, total, store = parser.parse_args().folder, 0, open_store(locate(STORE))
    for path in sorted(folder.iterdir()):
        store.put(path.name, io.BytesIO(path.read_bytes()))
        total += path.stat().st_size if path.suffix == ".parquet" else 0
    count_requests()
    print(f"An index of {total / 1e6:.0f} MB\n\n| operation | requests | MB | share |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for name, operation in OPERATIONS.items():
            tempfile.tempdir = tempfile.mkdtemp(dir=scratch)  # without what another operation has shared
            requests.clear()
            operation(shardkit.dataset(f"{STORE}/train"))
            sizes = [size for file, size in requests if file.endswith(".parquet")]
            print(f"| {name} | {len(sizes):,} | {sum(sizes) / 1e6:.1f} | {sum(sizes) / total:.1%} |")


if __name__ == "__main__":
    main()
