"""Columns from the field `json` of samples, made by `index`: one type over all shards, as of a list."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import shardkit
from shardkit.cli import main
from shardkit.errors import DatasetError, UsageError

SAMPLES, PER_SHARD = 12, 5

Written = Callable[..., Path]


@pytest.fixture
def written(draw_image: Any, tmp_path: Path) -> Written:
    """Writes samples with these records as their field `json`, and removes what an index would know; the prefix."""

    def write(records: list[Any], form: Any = "tar") -> Path:
        prefix = tmp_path / "there" / "web"
        samples = [{"jpg": draw_image(n, size=(16, 16)), "cls": n % 2} for n in range(len(records))]
        for sample, record in zip(samples, records, strict=True):
            if record is not None:
                sample["json"] = record if isinstance(record, bytes) else json.dumps(record).encode()
        shardkit.write(samples, prefix, format=form, max_count=PER_SHARD)
        for path in (Path(f"{prefix}.json"), Path(f"{prefix}.parquet")):
            path.unlink()
        return prefix

    return write


def records() -> list[Any]:
    return [
        {"age": n if n % 3 else None, "score": n if n < PER_SHARD else n + 0.5, "day": f"2024-05-{n + 1:02}",
         "box": [n, n + 1], "note": f"Zürich {n}", "mixed": n if n < PER_SHARD else "many", "sure": n > 3,
         "more": {"x": n}, "list": [0] * n}
        for n in range(SAMPLES)
    ]  # fmt: skip


TYPES = {"age": "int64", "score": "float64", "day": "date", "box": "int64[2]", "note": "string", "mixed": "string",
         "sure": "bool"}  # fmt: skip


@pytest.mark.parametrize("form", ["tar", "tfrecord"])
def test_values_become_columns_of_one_type(form: str, written: Written) -> None:
    prefix = written(records(), form)
    manifest = shardkit.index_shards(prefix, columns=list(TYPES))
    assert manifest.columns == TYPES
    rows = pq.read_table(f"{prefix}.parquet").to_pylist()
    for number, row in enumerate(rows):
        assert row["meta.age"] == (number if number % 3 else None)
        assert row["meta.day"] == datetime.date(2024, 5, number + 1)
        assert row["meta.box"] == [number, number + 1]
        assert row["meta.mixed"] == (str(number) if number < PER_SHARD else "many")
        assert row["meta.note"] == f"Zürich {number}"
    data = shardkit.dataset(prefix)
    assert len(data.where(pc.field("age") > 7)) == 3
    batch = next(iter(data.decode(size=8, columns=["score", "day"]).batch(SAMPLES)))
    assert batch["score"].tolist() == [n if n < PER_SHARD else n + 0.5 for n in range(SAMPLES)]
    assert shardkit.verify(prefix).sound


def test_samples_without_the_value_or_the_field_have_null(written: Written) -> None:
    prefix = written([{"age": 1}, None, {"other": 2}, [1, 2], "text", {"age": 6}])
    shardkit.index_shards(prefix, columns="age")
    assert pq.read_table(f"{prefix}.parquet")["meta.age"].to_pylist() == [1, None, None, None, None, 6]


def test_the_command_has_the_option_and_a_folder_elsewhere_works(written: Written, tmp_path: Path) -> None:
    prefix = written(records())
    assert main.run(["index", f"{prefix}-*.tar", "--out", str(tmp_path / "here") + "/", "--columns", "age,note"]) == 0
    found = shardkit.info(tmp_path / "here" / "web")
    assert found.columns == {"age": "int64", "note": "string"}
    assert len(shardkit.dataset(tmp_path / "here" / "web").where(pc.field("note") == "Zürich 4")) == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("nothing", "no sample has a value 'nothing' in a field json"),
        ("more", "'more' can't be a column: values of the type struct"),
        ("list", "'list' can't be a column: its lists have 0 to 4 numbers"),
        ("age,age", "'age' is named twice"),
        ("age,", "a name is empty"),
        ([""], "a name is empty"),
    ],
    ids=str,
)
def test_what_can_not_be_a_column_is_refused_and_nothing_is_written(
    columns: Any, message: str, written: Written
) -> None:
    prefix = written(records())
    with pytest.raises(UsageError, match=f"columns: .*{message}"):
        shardkit.index_shards(prefix, columns=columns)
    assert sorted(path.name for path in prefix.parent.iterdir()) == [f"web-{n:06}.tar" for n in range(3)]


def test_lists_of_different_lengths_in_different_shards_are_refused(written: Written) -> None:
    prefix = written([{"box": [1, 2]}] * PER_SHARD + [{"box": [1]}] * 2)
    with pytest.raises(UsageError, match=r"the values of 'box' are int64\[1\] and int64\[2\]"):
        shardkit.index_shards(prefix, columns="box")


def test_lists_beside_other_values_are_refused(written: Written) -> None:
    prefix = written([{"box": [1, 2]}, {"box": 3}])
    with pytest.raises(UsageError, match="of several kinds, some of them lists or objects"):
        shardkit.index_shards(prefix, columns="box")


def test_whole_numbers_that_do_not_fit_become_text(written: Written) -> None:
    prefix = written([{"id": 2**70}, {"id": 5}])
    assert shardkit.index_shards(prefix, columns="id").columns == {"id": "string"}
    assert pq.read_table(f"{prefix}.parquet")["meta.id"].to_pylist() == [str(2**70), "5"]


def test_a_number_that_no_float_holds_is_told(written: Written) -> None:
    prefix = written([{"id": 2**53 + 1}] * PER_SHARD + [{"id": 0.5}])
    with pytest.raises(UsageError, match="a value of float64 does not fit"):
        shardkit.index_shards(prefix, columns="id")


@pytest.mark.parametrize("wrong", [b"{", b'{"age": \xff}', b"\xff"], ids=["cut", "text", "bytes"])
def test_a_field_that_is_not_json_is_told_with_its_sample(wrong: bytes, written: Written) -> None:
    prefix = written([{"age": 1}, wrong])
    with pytest.raises(DatasetError, match="its field json can't be read"):
        shardkit.index_shards(prefix, columns="age")
