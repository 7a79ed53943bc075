"""Columns that are in temporary files: they hold what columns in memory hold, and leave nothing behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from shardkit import rng
from shardkit.errors import StorageError
from shardkit.sources import scratch as module
from shardkit.sources.columns import PathColumnBuilder
from shardkit.sources.scratch import Growing, pieces, read_through, release, scratch, sort_rows
from shardkit.sources.subset import paths_at, rows_where, taken
from shardkit.system import POSIX


@pytest.fixture(autouse=True)
def _in_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Everything above 64 bytes is in a file, and worked on seven values at a time."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(module, "SCRATCH_BYTES", 64)
    monkeypatch.setattr(module, "PIECE", 7)
    monkeypatch.setattr(module, "BUCKET", 5)
    yield
    if POSIX:
        assert list(tmp_path.iterdir()) == []


def test_pieces_cover_all_values_once() -> None:
    assert list(pieces(16)) == [(0, 7), (7, 14), (14, 16)]
    assert list(pieces(16, 8)) == [(0, 8), (8, 16)]
    assert list(pieces(0)) == []


@pytest.mark.parametrize("count", [0, 8, 9, 5000])
def test_what_is_written_to_a_column_is_there_after_its_release(count: int) -> None:
    column = scratch(count, np.int64)
    assert (module._mapping_of(column) is not None) == (count > 8)
    column[:] = np.arange(count)
    release(column, column[3:])
    assert column.tolist() == list(range(count))
    assert [value for piece in read_through(column) for value in piece.tolist()] == list(range(count))


@given(st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9), max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_growing_column_has_all_that_was_appended(runs: list[list[int]]) -> None:
    grown = Growing("i")
    expected: list[int] = []
    for number, run in enumerate(runs):
        if number % 3 == 0:
            grown.extend(run)
        elif number % 3 == 1:
            grown.frombytes(np.array(run, np.int32).tobytes())
        else:
            for value in run:
                grown.append(value)
        expected += run
        assert len(grown) == len(expected)
    column = grown.build()
    assert column.tolist() == expected
    assert column.dtype == np.int32
    assert not column.flags.writeable


def test_paths_in_a_file_are_those_that_were_added() -> None:
    builder, names = PathColumnBuilder(), [f"{'é' * (number % 4)}{number}.jpg" for number in range(100)]
    builder.extend("n/", names)
    builder.append(b"last.png")
    paths = builder.build()
    expected = [*(os.fsencode(f"n/{name}") for name in names), b"last.png"]
    assert list(paths) == expected
    assert module._mapping_of(paths.blob) is not None
    rows = np.flatnonzero(np.arange(101) % 3 != 1)
    assert list(paths_at(paths, rows)) == paths.take(rows)
    assert list(paths_at(paths, rows[:0])) == []


def test_rows_of_a_value_and_the_values_at_rows() -> None:
    column = scratch(200, np.int16)
    column[:] = np.arange(200) % 3
    rows = rows_where(column, 1)
    assert rows.tolist() == list(range(1, 200, 3))
    squares = np.arange(200, dtype=np.int64) ** 2
    assert taken(squares, rows).tolist() == (squares[1::3]).tolist()
    assert rows_where(column, 9).tolist() == taken(squares, rows[:0]).tolist() == []


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 40, 1000, 3001])
def test_rows_sorted_in_buckets_are_the_permutation_of_their_keys(count: int) -> None:
    order, permuted = scratch(count, np.int32), scratch(count, np.int64)
    values = np.arange(count, dtype=np.int64) * 10
    sort_rows(order, partial(rng.bits, 7), lambda start, end: values[start:end], permuted)
    expected = rng.permutation(count, 7)
    assert order.tolist() == expected.tolist()
    assert permuted.tolist() == (expected * 10).tolist()


def test_rows_of_equal_keys_stay_in_order() -> None:
    keys = np.array([2**63, 5, 2**63, 5, 0, 2**64 - 1] * 20, np.uint64)
    order, permuted = np.empty(120, np.int64), np.empty(120, np.uint64)
    sort_rows(order, lambda rows: keys[rows], lambda start, end: keys[start:end], permuted)
    assert order.tolist() == np.argsort(keys, kind="stable").tolist()
    assert permuted.tolist() == np.sort(keys).tolist()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no room")
@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_that_reserves_no_room_gets_zeros(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", failing(code))
    assert scratch(1000, np.int64).tolist() == [0] * 1000


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no room")
def test_a_full_disk_is_an_error_that_says_how_to_get_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "posix_fallocate", failing(errno.ENOSPC))
    with pytest.raises(StorageError, match=r"8,000 bytes can't be written there \(No space left.*TMPDIR") as caught:
        scratch(1000, np.int64)
    assert caught.value.place == str(tmp_path)


def test_a_folder_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="none: a temporary file of"):
        Growing("q").extend(list(range(100)))


def test_without_a_choice_files_are_on_a_disk_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    assert os.access(module._folder(), os.W_OK)
    if os.path.isdir("/var/tmp"):
        assert module._folder() == "/var/tmp"


def failing(code: int) -> Any:
    """A function that fails."""

    def fail(*arguments: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail
