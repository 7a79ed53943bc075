"""where() with further columns: by their names, with or without the prefix, over views, mixes and additions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import shardkit
from shardkit.checksums import crc32c
from shardkit.errors import ManifestError, UsageError
from shardkit.shards.columns.types import LIST_NUMBERS
from shardkit.shards.index_file import IndexFile

SAMPLES = 24


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> dict[str, list[Any]]:
    """24 photos with columns, some of them named like those of the index."""
    folder = tmp_path_factory.mktemp("photos")
    draw_tree(folder / "tree", {"blue": 12, "red": 12})
    paths = sorted(map(str, (folder / "tree").rglob("*.*")))
    numbers = list(range(SAMPLES))
    return {
        "path": paths, "label": [Path(path).parent.name for path in paths], "age": numbers, "width": numbers,
        "city": ["Bern", "Zürich", None] * 8, "box": [[n, 2.5] for n in numbers], "a b.c": numbers,
        "meta.age": [-n for n in numbers],
    }  # fmt: skip


def packed(table: dict[str, list[Any]], prefix: Path, **options: Any) -> Path:
    shardkit.pack(pa.table(table), prefix, max_count=5, workers=1, columns=shardkit.TableColumns(root="/"), **options)
    return prefix


@pytest.fixture(scope="module")
def prefix(table: dict[str, list[Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos, packed."""
    return packed(table, tmp_path_factory.mktemp("out") / "train")


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        (pc.field("age") > 20, 3),
        (pc.field("meta.width") < 2, 2),
        (pc.field("width") < 2, 0),
        (pc.field("city") == "Zürich", 8),
        (pc.field("city").is_null(), 8),
        (pc.list_element(pc.field("box"), 0) >= 22, 2),
        (pc.field("a b.c") == 7, 1),
        (pc.field("meta.meta.age") < -20, 3),
        ((pc.field("age") > 5) & (pc.field("label") == 0), 6),
    ],
    ids=["short", "prefix", "index first", "text", "null", "list", "odd name", "prefix twice", "both"],
)
def test_a_column_is_named_with_or_without_the_prefix_unless_the_index_has_its_name(
    prefix: Path, expression: pc.Expression, count: int
) -> None:
    assert len(shardkit.dataset(prefix).where(expression)) == count


def test_a_name_with_the_prefix_is_the_columns_own(prefix: Path) -> None:
    """`meta.age` is the column age, although there is one that is called meta.age itself."""
    assert len(shardkit.dataset(prefix).where(pc.field("meta.age") > 20)) == 3


def test_samples_are_those_of_the_rows(prefix: Path) -> None:
    found = [json.loads(sample["json"])["age"] for sample in shardkit.dataset(prefix).where(pc.field("age") >= 20)]
    assert sorted(found) == [20, 21, 22, 23]


def test_a_view_of_a_view(prefix: Path) -> None:
    data = shardkit.dataset(prefix).select("red").where(pc.field("age") >= 10)[:6].where(pc.field("city") == "Bern")
    assert all(json.loads(sample["json"])["city"] == "Bern" for sample in data)
    assert len(data) == 2


def test_an_unknown_column_is_told_with_the_nearest(prefix: Path) -> None:
    data = shardkit.dataset(prefix)
    with pytest.raises(
        UsageError, match=r"the index has no column 'ages'; did you mean age\? use the index's columns: "
    ):
        len(data.where(pc.field("ages") > 1))
    with pytest.raises(UsageError, match=r"no column 'x'; use the index's columns: shard, .*, meta.width, city, box"):
        len(data.where(pc.field("x") > 1))


def test_a_comparison_with_another_type_names_the_types(prefix: Path) -> None:
    with pytest.raises(
        UsageError, match=r"compare the index's columns by their types: .*, city string, box float64\[2\]"
    ):
        len(shardkit.dataset(prefix).where(pc.field("city") > 1))


def test_parts_of_a_combination_may_lack_a_column_or_have_other_numbers(
    prefix: Path, table: dict[str, list[Any]], tmp_path: Path
) -> None:
    other = packed({"path": table["path"], "label": table["label"], "age": [n + 0.5 for n in table["age"]]},
                   tmp_path / "other" / "train")  # fmt: skip
    both = shardkit.concat([shardkit.dataset(prefix), shardkit.dataset(other)])
    assert len(both.where(pc.field("age") > 20)) == 3 + 4
    assert len(both.where(pc.field("city").is_null())) == 8 + SAMPLES


def test_a_combination_with_text_in_one_part_is_refused(
    prefix: Path, table: dict[str, list[Any]], tmp_path: Path
) -> None:
    other = packed({"path": table["path"], "label": table["label"], "age": ["old"] * SAMPLES}, tmp_path / "o" / "t")
    both = shardkit.concat([shardkit.dataset(prefix), shardkit.dataset(other)])
    with pytest.raises(UsageError, match="the column 'age' is int64 in one and string in another"):
        len(both.where(pc.field("age") > 20))


def test_pandas_reads_the_columns_from_the_index(prefix: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(f"{prefix}.parquet")
    assert frame["meta.age"].sum() == sum(range(SAMPLES))
    assert np.allclose(np.stack(frame["meta.box"])[:, 1], 2.5)


def vouched_for(prefix: Path, table: pa.Table, **options: Any) -> None:
    """`table` as the index of a dataset whose manifest says that it is right."""
    path, manifest = Path(f"{prefix}.parquet"), Path(f"{prefix}.json")
    found = json.loads(manifest.read_bytes())
    with pq.ParquetWriter(path, table.schema, write_page_checksum=True, **options) as writer:
        at = 0
        for shard in found["shards"]:
            writer.write_table(table.slice(at, shard["samples"]), row_group_size=shard["samples"])
            at += shard["samples"]
    data = path.read_bytes()
    found["index"][0] |= {"bytes": len(data), "crc32c": f"{crc32c(data):08x}"}
    manifest.write_text(json.dumps(found))


@pytest.mark.parametrize("name", ["city", "box"])
def test_values_that_may_repeat_endlessly_are_refused(name: str, table: dict[str, list[Any]], tmp_path: Path) -> None:
    prefix = packed(table, tmp_path / "out" / "train")
    index = pq.read_table(f"{prefix}.parquet")
    vouched_for(prefix, index, use_dictionary=[f"meta.{name}", f"meta.{name}.list.element"])
    with pytest.raises(ManifestError, match=rf"its column 'meta\.{name}' is encoded as .*DICTIONARY"):
        len(shardkit.dataset(prefix).where(pc.is_valid(pc.field(name))))


def test_a_column_of_another_type_than_the_manifest_says_is_damage(table: dict[str, list[Any]], tmp_path: Path) -> None:
    prefix = packed(table, tmp_path / "out" / "train")
    index = pq.read_table(f"{prefix}.parquet")
    at = index.schema.get_field_index("meta.age")
    vouched_for(prefix, index.set_column(at, "meta.age", pa.array(["x"] * SAMPLES)), use_dictionary=False)
    with pytest.raises(ManifestError, match="the index is damaged: its values are string, not int64"):
        len(shardkit.dataset(prefix).where(pc.field("age") > 1))
    at = index.schema.get_field_index("meta.box")
    long = pa.array([[0.0] * (LIST_NUMBERS + 1)] * SAMPLES, pa.list_(pa.float64(), LIST_NUMBERS + 1))
    vouched_for(prefix, index.set_column(at, "meta.box", long), use_dictionary=False)
    with pytest.raises(ManifestError, match="the index is damaged"):
        len(shardkit.dataset(prefix).where(pc.is_valid(pc.field("box"))))


def test_a_manifest_whose_columns_are_not_types_by_name_is_damaged(tmp_path: Path, table: dict[str, list[Any]]) -> None:
    prefix = packed(table, tmp_path / "out" / "train")
    manifest = Path(f"{prefix}.json")
    found = json.loads(manifest.read_bytes())
    for wrong in (["age"], {"age": 1}, "age"):
        found["options"]["columns"] = wrong
        manifest.write_text(json.dumps(found))
        with pytest.raises(ManifestError, match='"columns" does not have a type for each name'):
            len(shardkit.dataset(prefix))
    found["options"]["columns"] = {"age": "int64", "later": "a type of tomorrow"}
    manifest.write_text(json.dumps(found))
    assert len(shardkit.dataset(prefix).where(pc.field("age") > 20)) == 3


@pytest.fixture(scope="module")
def sorted_ages(tmp_path_factory: pytest.TempPathFactory, table: dict[str, list[Any]]) -> Path:
    """The photos in the order of their ages, five in a shard."""
    return packed(table, tmp_path_factory.mktemp("sorted") / "train", shuffle=False)


def read_groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The row groups of which columns are read from now on."""
    read, before = list[int](), IndexFile._read

    def noted(self: IndexFile, groups: Any, names: Any) -> Any:
        read.extend(groups)
        return before(self, groups, names)

    monkeypatch.setattr(IndexFile, "_read", noted)
    return read


@pytest.mark.parametrize(
    ("expression", "groups"),
    [(pc.field("age") > 20, [4]), ((pc.field("age") == 7) | (pc.field("age") < 2), [0, 1]), (pc.field("age") > 99, [])],
    ids=str,
)
def test_rows_of_shards_that_can_not_match_are_not_read(
    expression: pc.Expression, groups: list[int], sorted_ages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_groups(monkeypatch)
    found = shardkit.dataset(sorted_ages).where(expression)
    rows = list(found.rows())
    assert read == groups
    ages = pq.read_table(f"{sorted_ages}.parquet").filter(pc.field("meta.age").is_valid())["meta.age"].to_pylist()
    wanted = pa.table({"age": ages}).add_column(0, "row", pa.array(range(len(ages)))).filter(expression)
    assert rows == wanted["row"].to_pylist()


def test_rows_of_parts_and_corrected_rows_are_found_by_their_own_numbers(sorted_ages: Path, tmp_path: Path) -> None:
    copy = tmp_path / "train"
    shardkit.convert(sorted_ages, copy)
    keys = [sample["__key__"] for sample in shardkit.dataset(copy)]
    shardkit.delete(copy, keys[:6])
    shardkit.relabel(copy, {keys[-1]: "blue"})
    both = shardkit.concat([shardkit.dataset(sorted_ages), shardkit.dataset(copy)])
    assert len(both.where(pc.field("age") > 20)) == 6
    assert [sample["__key__"] for sample in both.where(pc.field("age") == 7)] == [keys[7], keys[7]]
    blue = shardkit.dataset(copy).where(pc.field("label") == shardkit.dataset(copy).classes.index("blue"))
    assert keys[-1] in [sample["__key__"] for sample in blue]


NEVER = pc.field("age") > 99
"""What no shard can hold, by the statistics of the index."""


@pytest.mark.parametrize(
    ("expression", "fact"),
    [
        (NEVER & (pc.field("city") == 3), "no kernel"),
        (NEVER & pc.field("width").isin(["x"]), "doesn't match type"),
        (pc.field("age") + 0, "must evaluate to bool"),
        (NEVER & (pc.field("city").cast("int64") > 1), "Failed to parse"),
        (NEVER & (pc.field("width") / 0 > 1), "divide by zero"),
    ],
    ids=["type of a column", "types of a list", "no condition", "value of a cast", "value of an operation"],
)
def test_an_expression_that_fails_is_an_error_where_all_shards_are_ruled_out(
    expression: pc.Expression, fact: str, sorted_ages: Path
) -> None:
    assert len(shardkit.dataset(sorted_ages).where(NEVER)) == 0
    with pytest.raises(UsageError, match=fact):
        len(shardkit.dataset(sorted_ages).where(expression))
