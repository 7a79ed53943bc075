"""Further columns in samples and batches: the right values in any order, and what stands for null."""

from __future__ import annotations

import datetime
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import shardkit
from shardkit.errors import DatasetError, UsageError
from shardkit.reading.batches.columns import RESERVED
from shardkit.shards.columns.arrays import nothing, shape_of, values_of
from shardkit.shards.columns.types import column_type

SAMPLES, PER_SHARD = 40, 7
COLUMNS = ["number", "score", "ok", "city", "day", "taken", "box", "point", "meta.width"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> dict[str, list[Any]]:
    """40 photos of one size with columns of all types."""
    folder = tmp_path_factory.mktemp("photos")
    draw_tree(folder / "tree", {"blue": SAMPLES // 2, "red": SAMPLES // 2})
    paths = sorted(map(str, (folder / "tree").rglob("*.*")))
    numbers = list(range(SAMPLES))
    start = datetime.datetime(2024, 5, 1)
    return {
        "path": paths, "label": [Path(path).parent.name for path in paths], "number": numbers,
        "score": [None if n % 5 == 0 else n / 3 for n in numbers], "ok": [n % 2 == 0 for n in numbers],
        "city": [None if n % 7 == 0 else f"Zürich {n}" for n in numbers],
        "day": [None if n % 6 == 0 else (start + datetime.timedelta(n)).date() for n in numbers],
        "taken": [None if n % 4 == 0 else start + datetime.timedelta(seconds=n) for n in numbers],
        "box": [[n, n + 1] for n in numbers], "point": [None if n % 3 == 0 else [n + 0.5] for n in numbers],
        "width": numbers, "age": [None if n == 11 else n for n in numbers],
        "sure": [None if n == 12 else True for n in numbers],
    }  # fmt: skip


def packed(table: dict[str, list[Any]], prefix: Path, **options: Any) -> Path:
    given: dict[str, Any] = {"max_count": PER_SHARD, "workers": 1, "columns": shardkit.TableColumns(root="/")}
    shardkit.pack(pa.table(table), prefix, **given | options)
    return prefix


@pytest.fixture(scope="module")
def prefix(table: dict[str, list[Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos, packed as tar."""
    return packed(table, tmp_path_factory.mktemp("out") / "train")


def expected(table: dict[str, list[Any]], name: str, number: int) -> Any:
    """The value of a sample as it is in `table`."""
    return table[name.removeprefix("meta.")][number]


def same(got: Any, wanted: Any) -> bool:
    if wanted is None:
        return got is None or bool(np.all(np.isnat(got) if np.asarray(got).dtype.kind == "M" else np.isnan(got)))
    if isinstance(wanted, datetime.date):
        return bool(got == np.datetime64(wanted))
    return bool(np.all(np.asarray(got) == np.asarray(wanted)))


def assert_right(batch: Any, table: dict[str, list[Any]], names: list[str]) -> int:
    """The columns of a batch are those of its samples, which `number` tells."""
    numbers = np.asarray(batch["number"]).tolist()
    for name in names:
        for number, got in zip(numbers, batch[name], strict=True):
            assert same(got, expected(table, name, number)), (name, number, got)
    return len(numbers)


def test_a_batch_has_its_columns_beside_images_and_labels(prefix: Path, table: dict[str, list[Any]]) -> None:
    data = shardkit.dataset(prefix, shuffle=20, seed=3).decode(size=8, columns=COLUMNS).batch(9)
    batches = list(data)
    assert sum(assert_right(batch, table, COLUMNS) for batch in batches) == SAMPLES
    first = batches[0]
    images, labels = first
    assert (images.shape, labels.shape) == ((9, 8, 8, 3), (9,))
    kinds = {name: first[name].dtype.str[1:] for name in COLUMNS if name != "city"}
    assert kinds == {
        "number": "i8", "score": "f8", "ok": "b1", "day": "M8[D]", "taken": "M8[us]", "box": "i8", "point": "f8",
        "meta.width": "i8",
    }  # fmt: skip
    assert (first.box.shape, first.point.shape, type(first.city)) == ((9, 2), (9, 1), list)


@pytest.mark.parametrize("format", ["tar", "tfrecord"])
def test_the_straight_way_and_that_of_single_samples_give_the_same(
    format: str, table: dict[str, list[Any]], tmp_path: Path
) -> None:
    prefix = packed(table, tmp_path / "out" / "train", format=format)
    plain = shardkit.convert(prefix, tmp_path / "plain" / "train", drop=["json"], workers=1)
    assert list(plain.columns) == [name for name in table if name not in ("path", "label")]
    ways: list[Callable[[Any], Any]] = [lambda data: data, lambda data: data.filter(lambda sample: True)]
    for source in (prefix, tmp_path / "plain" / "train"):
        for way in ways:
            data = way(shardkit.dataset(source, shuffle=20, seed=3).decode(size=8, columns=COLUMNS)).batch(9)
            found = list(data)
            assert sum(assert_right(batch, table, COLUMNS) for batch in found) == SAMPLES
            assert [getattr(found[0][name], "dtype", list) for name in COLUMNS] == [
                list if name == "city" else np.dtype(found[0][name].dtype) for name in COLUMNS
            ]


def test_single_samples_have_them_too(prefix: Path, table: dict[str, list[Any]]) -> None:
    data = shardkit.dataset(prefix).decode(columns=COLUMNS)
    sample = next(iter(data.filter(lambda sample: sample["number"] == 8)))
    assert (sample["number"], sample["city"], sample["box"].tolist(), sample["ok"]) == (8, "Zürich 8", [8, 9], True)
    assert data[3]["number"] in range(SAMPLES)
    assert data.map(lambda sample: sample["number"] * 2)[0] % 2 == 0


@pytest.mark.parametrize("way", [lambda d: d, lambda d: d.filter(lambda s: True)], ids=["straight", "filtered"])
@pytest.mark.parametrize("encoded", [False, True], ids=["raw", "encoded"])
def test_batches_that_are_not_decoded_have_them_too(
    encoded: Any, way: Callable[[Any], Any], prefix: Path, table: dict[str, list[Any]]
) -> None:
    data = way(shardkit.dataset(prefix, shuffle=10)).batch(9, encoded=encoded, columns=COLUMNS)
    batches = list(data)
    assert sum(assert_right(batch, table, COLUMNS) for batch in batches) == SAMPLES
    if encoded:
        again = pickle.loads(pickle.dumps(batches[0]))
        assert again["city"] == batches[0]["city"] and "city" not in batches[0].fields
        assert [json.loads(each)["number"] for each in again["json"]] == again["number"].tolist()


def test_ranks_workers_epochs_and_a_resume_keep_values_with_their_samples(
    prefix: Path, table: dict[str, list[Any]]
) -> None:
    numbers = []
    for rank in range(3):
        data = shardkit.dataset(prefix, shuffle=20, rank=rank, world_size=3, remainder="pad")
        data = data.decode(size=8, columns=COLUMNS).batch(4)
        for batch in data:
            assert_right(batch, table, COLUMNS)
            numbers += batch["number"].tolist()
    assert set(numbers) == set(range(SAMPLES))
    data = shardkit.dataset(prefix, shuffle=20).decode(size=8, columns=COLUMNS).batch(4)
    whole = [batch["number"].tolist() for batch in data]
    data = shardkit.dataset(prefix, shuffle=20).decode(size=8, columns=COLUMNS).batch(4)
    items = iter(data)
    seen = [next(items)["number"].tolist() for _ in range(3)]
    state = data.state_dict()
    again = shardkit.dataset(prefix, shuffle=20).decode(size=8, columns=COLUMNS).batch(4)
    again.load_state_dict(state)
    assert seen + [batch["number"].tolist() for batch in again] == whole


def test_views_and_balanced_datasets(prefix: Path, table: dict[str, list[Any]]) -> None:
    data = shardkit.dataset(prefix)
    for view in (data.where(pc.field("number") > 30), data.select("red")[::2], data.balance(), data.split(3)[1][1]):
        for batch in view.decode(size=8, columns=COLUMNS).batch(5):
            assert_right(batch, table, COLUMNS)


def test_mixed_datasets_have_null_where_one_lacks_a_column(
    prefix: Path, table: dict[str, list[Any]], tmp_path: Path
) -> None:
    few = {name: values[:10] for name, values in table.items() if name in ("path", "label", "number")}
    few["score"] = list(range(10))  # whole numbers here, others there
    other = packed(few, tmp_path / "other" / "train")
    parts = [shardkit.dataset(prefix, shuffle=8), shardkit.dataset(other, shuffle=8)]
    for data in (shardkit.concat(parts), shardkit.mix(parts, [0.5, 0.5])):
        batches = list(data.decode(size=8, columns={"number": None, "score": None, "city": "nowhere"}).batch(6))
        assert {batch["score"].dtype for batch in batches} == {np.dtype(np.float64)}
        assert {batch["number"].dtype for batch in batches} == {np.dtype(np.int64)}
        cities = [city for batch in batches for city in batch["city"]]
        assert "nowhere" in cities and None not in cities


def test_a_null_of_whole_numbers_is_an_error_that_names_the_sample(prefix: Path, table: dict[str, list[Any]]) -> None:
    data = shardkit.dataset(prefix)
    with pytest.raises(DatasetError, match=r"no value in the column 'age', which is int64; .*columns=\{'age': -1\}"):
        list(data.decode(size=8, columns=["age"]).batch(8))
    with pytest.raises(DatasetError, match=r"in the column 'sure', which is bool; .*\{'sure': False\}"):
        list(data.batch(8, columns=["sure"]))
    with pytest.raises(DatasetError, match=r"in the column 'age'"):
        list(data.decode(columns=["age"]).filter(lambda sample: True))
    with_value = data.where(pc.is_valid(pc.field("age")))
    assert sum(len(batch["age"]) for batch in with_value.decode(size=8, columns=["age"]).batch(8)) == SAMPLES - 1


def test_a_value_may_stand_for_null(prefix: Path) -> None:
    asked = {"number": None, "age": -1, "sure": False, "score": 0, "city": "", "day": datetime.date(1970, 1, 1),
             "taken": np.datetime64("1970-01-01"), "point": -1.0}  # fmt: skip
    found: dict[str, list[Any]] = {name: [] for name in asked}
    for batch in shardkit.dataset(prefix).decode(size=8, columns=asked).batch(8):
        for name in asked:
            found[name] += list(batch[name])
    at = {int(number): place for place, number in enumerate(found["number"])}
    assert found["age"][at[11]] == -1 and found["age"][at[10]] == 10
    assert not found["sure"][at[12]] and found["score"][at[5]] == 0 and found["city"][at[7]] == ""
    assert found["day"][at[6]] == np.datetime64("1970-01-01") == found["taken"][at[4]]
    assert found["point"][at[3]].tolist() == [-1.0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["scores"], r"no column 'scores'; did you mean score\? its columns are number, score, "),
        (["nothing like it"], r"no column 'nothing like it'; its columns are number"),
        (["width"], r"'width' is the index's own column, not that of a list; give 'meta.width'"),
        (["number", "number"], "'number' is named twice"),
        ("number", r"'number' is not a list of names of columns; give a list such as \[\"age\"\]"),
        ([3], "is not a list of names"),
        ([""], "is not a list of names"),
        ({"age": "old"}, "'old' can't stand for null in the column 'age', which is int64"),
        ({"age": 1.5}, r"1\.5 can't stand for null"),
        ({"age": True}, "True can't stand for null"),
        ({"age": 2**63}, "can't stand for null"),
        ({"sure": 0}, "0 can't stand for null in the column 'sure', which is bool"),
        ({"city": 5}, "5 can't stand for null in the column 'city', which is string"),
        ({"day": "yesterday"}, "'yesterday' can't stand for null in the column 'day', which is date"),
    ],
    ids=str,
)
def test_what_can_not_be_asked_for_is_refused(columns: Any, message: str, prefix: Path) -> None:
    with pytest.raises(UsageError, match=rf"decode\(columns\): .*{message}"):
        next(iter(shardkit.dataset(prefix).decode(size=8, columns=columns).batch(2)))
    with pytest.raises(UsageError, match=rf"batch\(columns\): .*{message}"):
        next(iter(shardkit.dataset(prefix).batch(2, columns=columns)))


def test_a_name_that_means_something_else_needs_the_prefix(table: dict[str, list[Any]], tmp_path: Path) -> None:
    few = {"path": table["path"][:4], "label": table["label"][:4], "keys": [1, 2, 3, 4], "json": list("abcd"),
           "global": [1, 2, 3, 4]}  # fmt: skip
    prefix = packed(few, tmp_path / "out" / "train")
    assert "keys" in RESERVED
    data = shardkit.dataset(prefix)
    for name in ("keys", "json"):
        with pytest.raises(UsageError, match=f"{name!r} has another meaning in a .*; give 'meta.{name}'"):
            next(iter(data.decode(size=8, columns=[name]).batch(2)))
    views: Any = {"global": (1, 8)}
    with pytest.raises(UsageError, match="'global' has another meaning"):
        next(iter(data.decode(views=views, columns=["global"]).batch(2)))
    batch = next(iter(data.decode(views=views, columns=["meta.global", "meta.keys", "meta.json"]).batch(4)))
    assert sorted(batch["meta.json"]) == list("abcd")
    assert sorted(batch["meta.global"]) == [1, 2, 3, 4] == sorted(batch["meta.keys"])
    assert batch["global"].shape == (4, 1, 8, 8, 3)


def test_columns_after_decode_are_asked_of_decode(prefix: Path) -> None:
    with pytest.raises(UsageError, match=r"batch\(columns\): .*give them to decode\(columns=\)"):
        _ = shardkit.dataset(prefix).decode(size=8).batch(2, columns=["number"]).steps


def test_datasets_without_columns_say_how_to_get_some(table: dict[str, list[Any]], tmp_path: Path) -> None:
    tree = Path(table["path"][0]).parents[1]
    shardkit.pack(tree, tmp_path / "out" / "train", workers=1)
    for source in (tree, tmp_path / "out" / "train"):
        with pytest.raises(UsageError, match="the dataset has no column 'age'; pack a list with further columns"):
            next(iter(shardkit.dataset(source).decode(columns=["age"])))
    (tmp_path / "out" / "train.json").unlink()
    with pytest.raises(DatasetError, match="these shards have no manifest"):
        next(iter(shardkit.dataset(tmp_path / "out" / "train-*.tar").decode(columns=["age"])))


@pytest.mark.parametrize(
    "text", ["int64", "float64", "bool", "string", "date", "timestamp UTC", "int64[2]", "float64[2]"]
)
def test_a_part_without_values_is_null(text: str) -> None:
    dtype, shape = shape_of(text)
    values = nothing(3, text)
    assert (values.array.dtype, values.array.shape) == (dtype, (3, *shape))
    assert values.missing is not None and values.missing.all()
    empty = values_of(pa.chunked_array([], column_type(text)), text)
    assert (empty.array.shape, empty.missing) == ((0, *shape), None)


def test_buckets_have_them_too(prefix: Path, table: dict[str, list[Any]]) -> None:
    data = shardkit.dataset(prefix, shuffle=8).buckets([8, (8, 16)]).decode(columns=COLUMNS).batch(4)
    assert sum(assert_right(batch, table, COLUMNS) for batch in data) == SAMPLES
