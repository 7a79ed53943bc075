"""The types of a list's further columns: found once for all splits, and told where they are not what was meant."""

from __future__ import annotations

import datetime
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit.errors import SourceError
from shardkit.sources.lists.rows import open_list, scan_lists
from shardkit.sources.options import TableColumns
from shardkit.sources.source import Source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files 0.jpg … 3.jpg."""
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    return tmp_path


def scan(*paths: Path, **more: Any) -> list[Source]:
    given: dict[str, Any] = {"classes": None, "extensions": ("jpg",), "skip_bad": False, "in_order": False}
    lists = {str(number): open_list(str(path), TableColumns()) for number, path in enumerate(paths)}
    return list(scan_lists(lists, **given | more).values())


def written(folder: Path, text: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_columns_of_text_files_have_the_types_of_their_values_and_json_has_them_as_written(folder: Path) -> None:
    path = written(folder, "path,label,age,score,ok,day,taken,zone,name\n"
                           "1.jpg,a,3,0.5,true,2024-05-01,2024-05-01 10:00:00,2024-05-01T10:00:00Z,x\n"
                           "0.jpg,b,,NaN,,,,,\n")  # fmt: skip
    (source,) = scan(path)
    assert source.column_types == {
        "age": "int64", "score": "float64", "ok": "bool", "day": "date", "taken": "timestamp", "zone": "timestamp UTC",
        "name": "string",
    }  # fmt: skip
    assert source.columns is not None
    other = next(row for row in source.columns.to_pylist() if row["age"] is None)
    assert other == dict.fromkeys(source.column_types) | {"name": ""}
    first = next(row for row in source.columns.to_pylist() if row["age"] == 3)
    assert first["day"] == datetime.date(2024, 5, 1)
    assert first["taken"] == datetime.datetime(2024, 5, 1, 10)
    assert source.inline is not None
    assert b'"day":"2024-05-01"' in b"".join(source.inline.fields["json"])


def test_json_lines_have_lists_too(folder: Path) -> None:
    path = written(folder, '{"path":"0.jpg","label":"a","box":[1,2],"tags":[1],"more":{"x":1}}\n'
                           '{"path":"1.jpg","label":"a","box":[3,4],"tags":[]}\n', "list.jsonl")  # fmt: skip
    (source,) = scan(path)
    assert source.column_types == {"box": "int64[2]"}


def test_days_in_json_lines_are_dates_and_times_are_not(folder: Path) -> None:
    path = written(folder, '{"path":"0.jpg","label":"a","day":"2024-05-01","at":"2024-05-01 10:00:00"}\n'
                           '{"path":"1.jpg","label":"a","at":"2024-05-02"}\n', "list.jsonl")  # fmt: skip
    (source,) = scan(path)
    assert source.column_types == {"day": "date", "at": "timestamp"}


def test_rows_are_those_of_the_samples(folder: Path) -> None:
    path = written(folder, "path,label,n\n2.jpg,b,2\n9.jpg,b,9\n0.jpg,b,0\n1.jpg,a,1\n")
    (source,) = scan(path, skip_bad=True)
    assert source.columns is not None
    assert [p.decode() for p in source.paths] == [f"{n}.jpg" for n in source.columns["n"].to_pylist()]
    assert sorted(source.columns["n"].to_pylist()) == [0, 1, 2]


def test_a_column_has_one_type_in_all_splits(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = written(folder, "path,label,a,b,c\n0.jpg,x,1,1,1\n", "a.csv")
    second = written(folder, "path,label,a,b\n1.jpg,x,1.5,none\n", "b.csv")
    sources = scan(first, second)
    assert [source.column_types for source in sources] == [
        {"a": "float64", "b": "string", "c": "int64"}, {"a": "float64", "b": "string"},
    ]  # fmt: skip
    assert sources[0].columns is not None
    assert sources[0].columns.to_pylist() == [{"a": 1.0, "b": "1", "c": 1}]
    assert "the column b is string in all splits, which have int64 and string" in caplog.text


def test_whole_numbers_that_no_float64_holds_become_text_beside_other_numbers(folder: Path) -> None:
    first = written(folder, f"path,label,a\n0.jpg,x,{2**53 + 1}\n", "a.csv")
    second = written(folder, "path,label,a\n1.jpg,x,1.5\n", "b.csv")
    assert [source.columns["a"].to_pylist() for source in scan(first, second) if source.columns] == [
        ["9007199254740993"], ["1.5"],
    ]  # fmt: skip


def test_lists_of_different_lengths_in_splits_are_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = written(folder, '{"path":"0.jpg","label":"a","box":[1,2]}\n', "a.jsonl")
    second = written(folder, '{"path":"1.jpg","label":"a","box":[1]}\n', "b.jsonl")
    assert [source.columns for source in scan(first, second)] == [None, None]
    assert "the column box is not in the index: it is int64[2] and int64[1]" in caplog.text


def test_what_is_not_a_column_is_named_with_the_reason(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "list.parquet"
    pq.write_table(pa.table({"path": ["0.jpg"], "label": ["a"], "raw": [b"\x00"], "none": [None], "": [1]}), path)
    with caplog.at_level(logging.INFO):
        (source,) = scan(path)
    assert source.columns is None
    told = next(message for message in caplog.messages if "not columns of the index" in message)
    assert "raw (values of the type binary have no column); none (it has no value);  (it has no name)" in told


def test_text_that_is_not_utf8_in_a_parquet_list_is_an_error_that_names_the_column(folder: Path) -> None:
    path = folder / "list.parquet"
    note = pa.array([b"\xff"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 1, note.buffers())
    pq.write_table(pa.table({"path": ["0.jpg"], "label": ["a"], "note": text}), path)
    with pytest.raises(SourceError, match=r"the column 'note' can't be read .*UTF-8"):
        scan(path)
