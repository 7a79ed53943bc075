"""The one way to open an index: held against its manifest, bounded, and never mapped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import shardkit
from shardkit.checksums import crc32c
from shardkit.errors import DestinationError, ManifestError, ShardkitError
from shardkit.shards import index_file
from shardkit.shards.index import INTEGERS, NULLABLE
from shardkit.shards.parquet import sources

SHARDS, PER_SHARD = 3, 4


@pytest.fixture
def packed(draw_tree: Any, tmp_path: Path) -> Path:
    """12 images of 2 classes in 3 shards; the prefix."""
    tree = draw_tree(tmp_path / "tree", {"blue": 6, "red": 6})
    shardkit.pack(tree, tmp_path / "out" / "train", workers=1, max_count=PER_SHARD)
    return tmp_path / "out" / "train"


def labels_of(prefix: Path) -> list[tuple[str, int]]:
    return [(sample["__key__"], sample["cls"]) for sample in shardkit.dataset(prefix)]


def vouched_for(prefix: Path, table: pa.Table, **options: Any) -> None:
    """`table` as the index of a dataset whose manifest says that it is right."""
    path, manifest = Path(f"{prefix}.parquet"), Path(f"{prefix}.json")
    with pq.ParquetWriter(path, table.schema, write_page_checksum=True, **options) as writer:
        for first in range(0, len(table), PER_SHARD):
            writer.write_table(table.slice(first, PER_SHARD), row_group_size=PER_SHARD)
    data, found = path.read_bytes(), json.loads(manifest.read_bytes())
    found["index"][0] |= {"bytes": len(data), "crc32c": f"{crc32c(data):08x}"}
    manifest.write_text(json.dumps(found))


READERS: dict[str, Callable[[Path], Any]] = {
    "dataset": labels_of,
    "labels": lambda prefix: shardkit.dataset(prefix).select("red").class_counts,
    "where": lambda prefix: len(shardkit.dataset(prefix).where(pa.compute.field("width") > 0)),
    "info": shardkit.info,
    "append": lambda prefix: shardkit.pack(prefix.parents[1] / "tree", prefix, append=True, workers=1),
    "again": lambda prefix: shardkit.pack(prefix.parents[1] / "tree", prefix, max_count=PER_SHARD, workers=1),
}


@pytest.mark.parametrize("whole_bytes", [sources.WHOLE_BYTES, 10], ids=["small", "large"])
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_an_index_that_is_not_the_manifests(
    packed: Path, reader: str, whole_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "WHOLE_BYTES", whole_bytes)
    READERS[reader](packed)
    path = Path(f"{packed}.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(f"{packed}-000000.tar", ns=(1, os.stat(f"{packed}-000000.tar").st_mtime_ns))
    if reader == "again":  # it looks at checksums where a file is newer than the dataset
        os.utime(packed.parents[1] / "tree" / "red" / "0000.jpg", ns=(2**62, 2**62))
    with pytest.raises((ManifestError, DestinationError), match=r"train\.parquet: the index is not the one"):
        READERS[reader](packed)


def test_a_large_index_of_another_packing_is_refused_though_its_size_is_the_same(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "WHOLE_BYTES", 10)
    table = pq.read_table(f"{packed}.parquet")
    vouched_for(packed, table, compression="none", use_dictionary=False)
    labels_of(packed)
    size, manifest = os.path.getsize(f"{packed}.parquet"), Path(f"{packed}.json").read_bytes()
    labels = pa.array(table["label"].to_pylist()[::-1], pa.int64())
    vouched_for(packed, table.set_column(3, "label", labels), compression="none", use_dictionary=False)
    assert os.path.getsize(f"{packed}.parquet") == size
    Path(f"{packed}.json").write_bytes(manifest)
    with pytest.raises(ManifestError, match="the index is not the one"):
        labels_of(packed)


def test_an_index_is_summed_once_for_each_process_unless_it_changes(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "WHOLE_BYTES", 10)
    summed: list[int] = []

    def counted(file: Any, size: int) -> int:
        summed.append(size)
        return crc32c(file.read(size))

    monkeypatch.setattr(sources, "crc32c_of_file", counted)
    found = labels_of(packed)
    assert labels_of(packed) == found and len(summed) == 1
    os.utime(f"{packed}.parquet", ns=(1, 1))
    assert labels_of(packed) == found and len(summed) == 2
    list(shardkit.dataset(packed, verify=True))
    assert len(summed) == 3


def test_a_large_index_that_is_cut_while_it_is_open_is_an_error(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "WHOLE_BYTES", 10)
    ds = shardkit.dataset(packed)
    next(iter(ds))
    os.truncate(f"{packed}.parquet", 100)
    with pytest.raises(ShardkitError, match=r"train\.parquet: "):
        ds.content.catalog.labels()


def test_rows_of_another_shard_are_refused(packed: Path) -> None:
    table = pq.read_table(f"{packed}.parquet")
    names = [name.replace("000001", "000007") for name in table["shard"].to_pylist()]
    vouched_for(packed, table.set_column(0, "shard", pa.array(names)))
    with pytest.raises(ManifestError, match=r"rows of .train-000007\.tar. where those of .train-000001\.tar. belong"):
        labels_of(packed)


@pytest.mark.parametrize("together", [1, PER_SHARD + 1, index_file.ROWS_TOGETHER])
def test_a_column_of_all_shards_is_the_same_however_many_are_read_together(
    packed: Path, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "ROWS_TOGETHER", together)
    table = pq.read_table(f"{packed}.parquet")
    ds = shardkit.dataset(packed)
    assert ds.labels.tolist() == table["label"].to_pylist()
    assert ds.paths.tolist() == table["path"].to_pylist()
    chosen = ds.where(pa.compute.field("width") * pa.compute.field("label") > 0)
    expected = (np.array(table["width"]) * np.array(table["label"])) > 0
    assert chosen.keys.tolist() == np.array(table["key"], object)[expected].tolist()
    some = shardkit.dataset(f"{packed}-000002.tar")
    assert some.labels.tolist() == table["label"].to_pylist()[2 * PER_SHARD :]


@pytest.mark.parametrize("together", [1, index_file.ROWS_TOGETHER])
def test_rows_of_another_shard_are_refused_where_many_are_read_together(
    packed: Path, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "ROWS_TOGETHER", together)
    table = pq.read_table(f"{packed}.parquet")
    names = table["shard"].to_pylist()
    names[2 * PER_SHARD - 1] = names[-1]
    vouched_for(packed, table.set_column(0, "shard", pa.array(names)))
    with pytest.raises(ManifestError, match=r"rows of .train-000002\.tar. where those of .train-000001\.tar. belong"):
        _ = shardkit.dataset(packed).labels


def test_an_index_that_another_tool_wrote_with_the_same_rows_is_read(packed: Path) -> None:
    expected, table = labels_of(packed), pq.read_table(f"{packed}.parquet")
    table = table.set_column(1, "key", table["key"].cast(pa.large_string()))
    table = table.set_column(4, "offset", table["offset"].cast(pa.uint64()))
    table = table.append_column("score", pa.array(np.arange(len(table)) / 7))
    vouched_for(packed, table, compression="gzip")
    assert labels_of(packed) == expected


HUGE = index_file.NUMBER_LIMIT
WRONG: dict[str, tuple[str, Any]] = {
    "a label of text": ("label", pa.array(["1"] * PER_SHARD * SHARDS)),
    "a key of numbers": ("key", pa.array(range(PER_SHARD * SHARDS))),
    "a key that is missing": ("key", pa.array([None] * PER_SHARD * SHARDS, pa.string())),
    "a list of offsets": ("offset", pa.array([[1]] * PER_SHARD * SHARDS)),
    "a checksum beyond 32 bits": ("crc32c", pa.array([1 << 40] * PER_SHARD * SHARDS)),
    "one long key again and again": ("key", pa.array(["x" * (1 << 20)] * PER_SHARD * SHARDS)),
    **{f"a huge {name}": (name, pa.array([HUGE] * PER_SHARD * SHARDS)) for name in INTEGERS if name != "crc32c"},
    **{
        f"a negative {name}": (name, pa.array([-2 if name in NULLABLE else -1] * PER_SHARD * SHARDS))
        for name in INTEGERS
    },
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("dictionary", [True, False])
def test_columns_that_can_not_be_are_refused(packed: Path, wrong: str, dictionary: bool) -> None:
    name, values = WRONG[wrong]
    table = pq.read_table(f"{packed}.parquet")
    at = table.column_names.index(name)
    vouched_for(packed, table.set_column(at, name, values), use_dictionary=dictionary)
    with pytest.raises(ManifestError, match=r"train\.parquet: |does not fit"):
        labels_of(packed)
        shardkit.info(packed)


def test_text_that_is_encoded_to_repeat_is_refused(packed: Path) -> None:
    table = pq.read_table(f"{packed}.parquet")
    vouched_for(packed, table, use_dictionary=False, column_encoding={"key": "DELTA_BYTE_ARRAY"})
    with pytest.raises(ManifestError, match="encoded as"):
        labels_of(packed)
