from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from shardkit.errors import DestinationError, StorageError
from shardkit.shards.class_names import ShardLabels
from shardkit.shards.index import INTEGERS, ShardRows
from shardkit.shards.indexing import spool as spools
from shardkit.shards.indexing.shard import IndexedShard
from shardkit.shards.indexing.spool import Spool
from shardkit.shards.manifest import ShardEntry


def shard_of(name: str, count: int) -> IndexedShard:
    labels = ShardLabels(Counter({(0, "\udcff"): count}), {0: "cat"}, None)
    return IndexedShard(ShardEntry(name, count, 512 * count, ""), ("cls", "jpg"), labels, 0, "tar", '"etag"')


def rows_of(name: str, count: int, *, seek: bool) -> ShardRows:
    numbers = {column: np.arange(-1, count - 1).astype(dtype) for column, dtype in INTEGERS.items()}
    numbers["offset"] = np.arange(count)
    keys = [f"ü/{number}" for number in range(count)]
    points = [b"" if number % 2 else b"x%d" % number for number in range(count)] if seek else None
    return ShardRows(name, keys, [f"{key}.jpg" for key in keys], numbers, points)


@pytest.mark.parametrize("seek", [False, True])
def test_rows_come_back_as_they_were_in_any_order(tmp_path: Path, seek: bool) -> None:
    spool = Spool(str(tmp_path), seek=seek)
    given = [rows_of(f"x-{number}.tar", count, seek=seek) for number, count in enumerate((5, 0, 3))]
    for rows in given:
        spool.add(rows.shard, shard_of(rows.shard, len(rows)), rows)
    assert os.listdir(tmp_path) == [] or os.name == "nt"
    for number in (2, 0, 1, 2):
        found = spool.rows(number)
        assert (found.shard, found.keys, found.paths) == (
            given[number].shard, given[number].keys, given[number].paths,
        )  # fmt: skip
        assert found.seek == given[number].seek
        for column in INTEGERS:
            assert found.numbers[column].tolist() == given[number].numbers[column].tolist()
            assert found.numbers[column].dtype == given[number].numbers[column].dtype


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def seek(self, offset: int) -> None:
            pass

        def write(self, data: object) -> None:
            raise OSError(28, os.strerror(28))

        def close(self) -> None:
            pass

    monkeypatch.setattr(spools, "unnamed_file", lambda folder: Full())
    with pytest.raises(StorageError, match="free some space") as caught:
        Spool(str(tmp_path), seek=False).add("x", shard_of("x-0.tar", 3), rows_of("x-0.tar", 3, seek=False))
    assert caught.value.place == str(tmp_path)


def test_a_folder_that_can_not_be_written_to_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(**options: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(DestinationError, match="not writable"):
        Spool(str(tmp_path), seek=False)


@pytest.mark.parametrize("cut", [1, 5, 40, 200, 1000])
def test_a_file_with_a_name_is_found_by_the_next_run_up_to_where_it_was_cut(tmp_path: Path, cut: int) -> None:
    spool = Spool(str(tmp_path), seek=False, name="rows")
    for number in range(3):
        spool.add(f"key {number}", shard_of(f"x-{number}.tar", 4), rows_of(f"x-{number}.tar", 4, seek=False))
    path = tmp_path / "rows"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - cut)
    again = Spool(str(tmp_path), seek=False, name="rows")
    assert [again.find(f"key {number}") for number in range(3)] == [0, 1, None]
    assert again.shard(1) == shard_of("x-1.tar", 4) and again.rows(1).keys == rows_of("", 4, seek=False).keys
    assert again.add("key 2", shard_of("x-2.tar", 4), rows_of("x-2.tar", 4, seek=False)) == 2
    third = Spool(str(tmp_path), seek=False, name="rows")
    assert [third.find(f"key {number}") for number in range(3)] == [0, 1, 2]
    third.remove()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"no records", bytes(1000), b"\xff" * 1000])
def test_a_file_that_holds_something_else_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows").write_bytes(content)
    spool = Spool(str(tmp_path), seek=False, name="rows")
    assert spool.add("key", shard_of("x.tar", 2), rows_of("x.tar", 2, seek=False)) == 0
    assert Spool(str(tmp_path), seek=False, name="rows").find("key") == 0


def test_a_changed_byte_ends_what_is_found(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), seek=False, name="rows")
    spool.add("a", shard_of("a.tar", 2), rows_of("a.tar", 2, seek=False))
    first = (tmp_path / "rows").stat().st_size
    spool.add("b", shard_of("b.tar", 2), rows_of("b.tar", 2, seek=False))
    data = bytearray((tmp_path / "rows").read_bytes())
    data[first + 100] ^= 1
    (tmp_path / "rows").write_bytes(data)
    again = Spool(str(tmp_path), seek=False, name="rows")
    assert (again.find("a"), again.find("b")) == (0, None)
    assert (tmp_path / "rows").stat().st_size == first
