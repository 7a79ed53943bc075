from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from shardkit.errors import DestinationError, StorageError
from shardkit.shards.index import INTEGERS, ShardRows
from shardkit.tools import index_spool
from shardkit.tools.index_spool import RowSpool


def rows_of(name: str, count: int, *, seek: bool) -> ShardRows:
    numbers = {column: np.arange(-1, count - 1).astype(dtype) for column, dtype in INTEGERS.items()}
    numbers["offset"] = np.arange(count)
    keys = [f"ü/{number}" for number in range(count)]
    points = [b"" if number % 2 else b"x%d" % number for number in range(count)] if seek else None
    return ShardRows(name, keys, [f"{key}.jpg" for key in keys], numbers, points)


@pytest.mark.parametrize("seek", [False, True])
def test_rows_come_back_as_they_were_in_any_order(tmp_path: Path, seek: bool) -> None:
    spool = RowSpool(str(tmp_path), seek=seek)
    given = [rows_of(f"x-{number}.tar", count, seek=seek) for number, count in enumerate((5, 0, 3))]
    for rows in given:
        spool.add(rows)
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

    monkeypatch.setattr(index_spool, "unnamed_file", lambda folder: Full())
    with pytest.raises(StorageError, match="free some space") as caught:
        RowSpool(str(tmp_path), seek=False).add(rows_of("x-0.tar", 3, seek=False))
    assert caught.value.place == str(tmp_path)


def test_a_folder_that_can_not_be_written_to_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(**options: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(index_spool.tempfile, "TemporaryFile", refuse)
    with pytest.raises(DestinationError, match="not writable"):
        RowSpool(str(tmp_path), seek=False)
