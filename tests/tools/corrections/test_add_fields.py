"""`add_fields`: lists in all forms, and that the fields are columns like others wherever columns are used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.errors import DatasetError
from shardkit.shards.corrections import fields

AGES = {"cat/0001": 41, "dog/0002": 7, "fox/0003": 12}


def column(source: str, name: str) -> dict[str, Any]:
    """Key -> value of a further column; without those that are null."""
    catalog = shardkit.dataset(source).content.catalog
    tables = catalog.index_tables(["key", f"meta.{name}"])
    rows = {row["key"]: row[f"meta.{name}"] for table in tables for row in table.to_pylist()}
    return {key: value for key, value in rows.items() if value is not None}


def forms(folder: Path) -> dict[str, Any]:
    """The same list in all forms."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys, ages = list(AGES), list(AGES.values())
    rows = [{"key": key, "age": age} for key, age in AGES.items()]
    (folder / "list.csv").write_text("key,age\n" + "".join(f"{key},{age}\n" for key, age in AGES.items()))
    (folder / "paths.tsv").write_text("path\tage\n" + "".join(f"{key}.jpg\t{age}\n" for key, age in AGES.items()))
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.table({"key": keys, "age": ages}), folder / "list.parquet")
    files = {name: folder / name for name in ("list.csv", "paths.tsv", "list.jsonl", "list.parquet")}
    return files | {
        "records by key": {key: {"age": age} for key, age in AGES.items()},
        "records": rows,
        "columns": {"key": keys, "age": ages},
        "arrow": pa.table({"__key__": keys, "age": ages}),
        "pandas": pd.DataFrame({"path": [f"{key}.jpg" for key in keys], "age": ages}),
        "numpy": {"key": np.array(keys), "age": np.array(ages)},
        "named as in the index": {"key": keys, "meta.age": ages},
    }


FORMS = ("list.csv", "paths.tsv", "list.jsonl", "list.parquet", "records by key", "records", "columns", "arrow",
         "pandas", "numpy", "named as in the index")  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_list_of_fields_may_have_any_of_these_forms(form: str, train: str, tmp_path: Path) -> None:
    done = shardkit.add_fields(train, forms(tmp_path)[form])
    assert (done.version, done.kind, done.changed, done.unchanged) == (2, "add-fields", 3, 0)
    assert dict(done.manifest.columns) == {"age": "int64"}
    assert column(train, "age") == AGES


TYPED: dict[str, tuple[list[Any], str]] = {
    "number": ([1.5, None, 3.0], "float64"),
    "truth": ([True, False, None], "bool"),
    "text": (["a", "b\\c", "ü"], "string"),
    "numbers": ([[1, 2], [3, 4], None], "int64[2]"),
    "box": ([[0.5, 1.0], None, [0.0, 0.25]], "float64[2]"),
}


@pytest.mark.parametrize("group_rows", [fields.GROUP_ROWS, 1], ids=["one row group", "a row group for each shard"])
def test_a_field_may_have_any_type_of_a_column(
    group_rows: int, train: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "GROUP_ROWS", group_rows)
    (tmp_path / "days.csv").write_text("key,day,at\ncat/0000,2024-05-01,2024-05-01 10:00:00\n")
    shardkit.add_fields(train, {"key": list(AGES)} | {name: values for name, (values, _) in TYPED.items()})
    done = shardkit.add_fields(train, tmp_path / "days.csv")
    types = {name: text for name, (_, text) in TYPED.items()} | {"day": "date", "at": "timestamp"}
    assert dict(done.manifest.columns) == types
    for name, (values, _) in TYPED.items():
        assert column(train, name) == {k: v for k, v in zip(AGES, values, strict=True) if v is not None}
    assert [str(value) for value in column(train, "day").values()] == ["2024-05-01"]


def test_fields_are_selected_by_and_put_into_batches_under_ranks_and_a_resume(train: str) -> None:
    import pyarrow.compute as pc

    shardkit.add_fields(train, {key: {"age": age, "city": f"c{age}"} for key, age in AGES.items()})
    data = shardkit.dataset(train, shuffle=20, seed=1)
    assert sorted(data.where(pc.field("age") > 10).keys) == ["cat/0001", "fox/0003"]
    assert len(data.where(pc.field("meta.age").is_null())) == 9
    wanted = {"age": -1, "city": None}
    seen: dict[str, Any] = {}
    for rank in (0, 1):
        part = shardkit.dataset(train, shuffle=20, seed=1, rank=rank, world_size=2)
        for batch in part.decode(size=8, columns=wanted).batch(2):
            seen |= dict(zip(batch.keys, zip(batch["age"].tolist(), batch["city"], strict=True), strict=True))
    assert seen == {key: (AGES.get(key, -1), f"c{AGES[key]}" if key in AGES else None) for key in data.keys}
    batches = data.decode(size=8, columns=wanted).batch(2)
    items = iter(batches)
    first = [next(items)["age"].tolist() for _ in range(2)]
    state = json.loads(json.dumps(batches.state_dict()))
    assert state["dataset_versions"] == [2]
    again = shardkit.dataset(train, shuffle=20, seed=1).decode(size=8, columns=wanted).batch(2)
    again.load_state_dict(state)
    ages = [age for part in (*first, *(batch["age"].tolist() for batch in again)) for age in part]
    assert sorted(ages) == sorted([41, 7, 12] + [-1] * 9)
    raw = shardkit.dataset(train).batch(4, columns=wanted)
    assert sorted(age for batch in raw for age in batch["age"].tolist()) == sorted([41, 7, 12] + [-1] * 9)
    with pytest.raises(DatasetError, match="age"):
        list(shardkit.dataset(train).decode(size=8, columns=["age"]).batch(4))


def test_a_column_of_a_list_gets_further_values_and_others_only_if_they_may_be_replaced(
    packed_once: Path, tmp_path: Path
) -> None:
    import pyarrow.compute as pc

    tree, train = packed_once / "tree", str(tmp_path / "listed" / "train")
    files = sorted(path for path in tree.rglob("*.jpg"))
    ages: list[int | None] = [20, 21, *[None] * 10]
    shardkit.pack({"path": list(map(str, files)), "label": [f.parent.name for f in files], "age": ages}, train,
                  workers=1, max_count=4)  # fmt: skip
    keys = shardkit.dataset(train, shuffle=0).keys.tolist()
    known = column(train, "age")
    free = next(key for key in keys if key not in known)
    taken = min(known)
    done = shardkit.add_fields(train, {free: {"age": 5}, taken: {"age": known[taken]}})
    assert (done.changed, done.unchanged) == (1, 1)
    assert column(train, "age") == known | {free: 5}
    with pytest.raises(shardkit.SourceError, match=f"another value of 'age' is set already for the key '{taken}'"):
        shardkit.add_fields(train, {taken: {"age": 99}})
    assert len(shardkit.log(train)) == 2
    shardkit.add_fields(train, {taken: {"age": 99}}, overwrite=True)
    assert column(train, "age") == known | {free: 5, taken: 99}
    assert shardkit.dataset(train).where(pc.field("age") > 90).keys.tolist() == [taken]
    assert shardkit.dataset(train).where(pc.field("age") < 10).keys.tolist() == [free]
    same = shardkit.add_fields(train, {taken: {"age": 99}})
    assert (same.version, same.changed, same.unchanged, same.bytes) == (3, 0, 1, 0)


def test_null_gives_no_value_and_a_second_list_fills_what_is_missing(train: str) -> None:
    shardkit.add_fields(train, [{"key": "cat/0000", "a": 1}, {"key": "cat/0001", "b": 2}])
    shardkit.add_fields(train, [{"key": "cat/0000", "b": 3}, {"key": "cat/0001", "a": 4}, {"key": "cat/0002", "a": 5}])
    assert column(train, "a") == {"cat/0000": 1, "cat/0001": 4, "cat/0002": 5}
    assert column(train, "b") == {"cat/0000": 3, "cat/0001": 2}
    assert [each.filled for each in shardkit.log(train)] == [0, 2, 3]


def test_values_of_all_samples_take_the_place_of_the_files_before(train: str) -> None:
    keys = shardkit.dataset(train).keys.tolist()
    shardkit.add_fields(train, {"cat/0000": {"score": 0.5}})
    shardkit.add_fields(train, {"cat/0000": {"score": 0.5, "other": 1}})
    for turn in range(2):
        scores = {key: {"score": float(at + turn)} for at, key in enumerate(keys)}
        done = shardkit.add_fields(train, scores, overwrite=True)
        assert done.manifest.corrections is not None
        names = [sorted(each.columns) for each in done.manifest.corrections.fields]
        assert names == [["other", "score"], ["score"]]
        assert column(train, "score") == {key: values["score"] for key, values in scores.items()}
    assert column(f"{train}@2", "score") == {"cat/0000": 0.5}
    assert shardkit.verify(train).findings == ()


def test_some_columns_of_a_list_are_chosen(train: str) -> None:
    rows = {"key": ["cat/0000"], "label": ["x"], "age": [1], "city": ["Bern"]}
    assert dict(shardkit.add_fields(train, rows, columns="age").manifest.columns) == {"age": "int64"}
    done = shardkit.add_fields(train, rows, columns="city, age")
    assert dict(done.manifest.columns) == {"age": "int64", "city": "string"}
    assert shardkit.add_fields(train, rows, columns=["city", "age"]).unchanged == 1


def test_texts_of_a_csv_stay_texts_in_a_column_of_text(train: str, tmp_path: Path) -> None:
    shardkit.add_fields(train, {"cat/0000": {"zip": "3012"}})
    (tmp_path / "list.csv").write_text("key,zip\ncat/0001,007\n")
    shardkit.add_fields(train, tmp_path / "list.csv")
    assert column(train, "zip") == {"cat/0000": "3012", "cat/0001": "007"}


def test_labels_and_deletions_do_not_move_values(train: str, labels_of: Callable[[str], dict[str, str]]) -> None:
    shardkit.delete(train, ["cat/0000", "dog/0001"])
    shardkit.add_fields(train, {key: {"age": age} for key, age in AGES.items()})
    shardkit.relabel(train, {"cat/0001": "fox"})
    shardkit.delete(train, ["fox/0003", "cat/0002"])
    assert column(train, "age") == {"cat/0001": 41, "dog/0002": 7}
    assert labels_of(train)["cat/0001"] == "fox"
    assert column(f"{train}@3", "age") == AGES
    assert "age" not in shardkit.dataset(f"{train}@2").content.catalog.manifest.columns  # type: ignore[union-attr]
