"""Further columns through the tools: what writes an index again keeps them with their samples."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import shardkit
from shardkit.errors import DestinationError, UsageError
from shardkit.shards.columns.types import PREFIX

SAMPLES, PER_SHARD = 12, 4


@pytest.fixture
def table(draw_tree: Any, tmp_path: Path) -> dict[str, list[Any]]:
    """Twelve photos with two columns."""
    draw_tree(tmp_path / "tree", {"blue": SAMPLES // 2, "red": SAMPLES // 2})
    paths = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "tree").rglob("*.*"))
    ages = [None if n == 3 else 10 * n for n in range(SAMPLES)]
    return {"path": paths, "label": [path.split("/")[1] for path in paths], "age": ages,
            "city": [f"Zürich {n}" for n in range(SAMPLES)]}  # fmt: skip


Packed = Callable[..., Path]


@pytest.fixture
def packed(table: dict[str, list[Any]], tmp_path: Path) -> Packed:
    """Packs the photos, or some of them, as NAME; the prefix."""

    def pack(name: str = "train", which: slice = slice(None), *, format: Any = "tar", **columns: list[Any]) -> Path:
        prefix = tmp_path / "out" / name
        source = {key: values[which] for key, values in (table | columns).items()}
        root = shardkit.TableColumns(root=str(tmp_path))
        shardkit.pack(pa.table(source), prefix, max_count=PER_SHARD, workers=1, format=format, columns=root,
                      classes=["blue", "red"])  # fmt: skip
        return prefix

    return pack


def columns_of(prefix: Path) -> dict[str, tuple[Any, Any]]:
    """Path -> (age, city) of all samples, from the index files."""
    found = json.loads(Path(f"{prefix}.json").read_bytes())
    parts = [pq.read_table(prefix.parent / entry["name"]) for entry in found["index"]]
    whole = pa.concat_tables(parts, promote_options="permissive").to_pydict()
    return dict(zip(whole["path"], zip(whole[f"{PREFIX}age"], whole[f"{PREFIX}city"], strict=True), strict=True))


def expected(table: dict[str, list[Any]]) -> dict[str, tuple[Any, Any]]:
    return dict(zip(table["path"], zip(table["age"], table["city"], strict=True), strict=True))


TYPES = {"age": "int64", "city": "string"}


@pytest.mark.parametrize("format", ["tar", "tfrecord"])
@pytest.mark.parametrize("options", [{}, {"max_count": 5}, {"shuffle": True, "seed": 2}, {"drop": ["json"]}], ids=str)
def test_convert_keeps_them(
    options: dict[str, Any], format: Any, table: dict[str, list[Any]], packed: Packed, tmp_path: Path
) -> None:
    manifest = shardkit.convert(packed(), tmp_path / "new" / "train", format=format, workers=1, **options)
    assert manifest.columns == TYPES
    assert columns_of(tmp_path / "new" / "train") == expected(table)
    again = shardkit.convert(packed("train"), tmp_path / "new" / "train", format=format, workers=1, **options)
    assert again == manifest


def test_a_conversion_of_a_dataset_with_other_columns_is_another_dataset(packed: Packed, tmp_path: Path) -> None:
    shardkit.convert(packed(), tmp_path / "new" / "train", workers=1)
    manifest = tmp_path / "out" / "train.json"
    found = json.loads(manifest.read_bytes())
    del found["options"]["columns"]
    manifest.write_text(json.dumps(found))
    with pytest.raises(DestinationError, match="another dataset is there"):
        shardkit.convert(tmp_path / "out" / "train", tmp_path / "new" / "train", workers=1)


@pytest.mark.parametrize("format", ["tar", "tfrecord"])
def test_repair_keeps_those_of_intact_samples(
    format: Any, table: dict[str, list[Any]], packed: Packed, tmp_path: Path
) -> None:
    prefix = packed(format=format)
    row = pq.read_table(f"{prefix}.parquet", columns=["shard", "path", "image_offset"]).to_pylist()[5]
    with open(prefix.parent / row["shard"], "r+b") as shard:
        shard.seek(row["image_offset"] + 40)
        shard.write(b"\0" * 80)
    done = shardkit.repair(prefix, tmp_path / "new" / "train", workers=1)
    assert done.manifest.columns == TYPES
    rest = expected(table)
    del rest[row["path"]]
    assert columns_of(tmp_path / "new" / "train") == rest


def test_repair_without_a_manifest_takes_them_from_the_index(
    table: dict[str, list[Any]], packed: Packed, tmp_path: Path
) -> None:
    prefix = packed()
    Path(f"{prefix}.json").write_text("{")
    done = shardkit.repair(f"{prefix}.json", tmp_path / "new" / "train", workers=1)
    assert done.manifest.columns == TYPES
    assert columns_of(tmp_path / "new" / "train") == expected(table)


def test_repair_without_an_index_has_none(packed: Packed, tmp_path: Path) -> None:
    prefix = packed()
    Path(f"{prefix}.parquet").unlink()
    done = shardkit.repair(prefix, tmp_path / "new" / "train", workers=1)
    assert set(columns_of(tmp_path / "new" / "train").values()) == {(None, None)}
    assert done.manifest.columns == TYPES


def test_an_upload_under_other_names_keeps_them(table: dict[str, list[Any]], packed: Packed, tmp_path: Path) -> None:
    shardkit.upload(packed(), str(tmp_path / "there") + "/")
    changed = table["age"][::-1]
    shardkit.pack(
        pa.table(table | {"age": changed}), tmp_path / "out" / "train", max_count=PER_SHARD, workers=1,
        columns=shardkit.TableColumns(root=str(tmp_path)), overwrite=True,
    )  # fmt: skip
    shardkit.upload(tmp_path / "out" / "train", str(tmp_path / "there") + "/", overwrite=True)
    assert columns_of(tmp_path / "there" / "train") == expected(table | {"age": changed})
    assert len(shardkit.dataset(tmp_path / "there" / "train").where(pc.field("age") >= 100)) == 2


def test_merge_joins_them(table: dict[str, list[Any]], packed: Packed, tmp_path: Path) -> None:
    halves = [n + 0.5 for n in range(SAMPLES)]
    one, two = packed("one", slice(0, 6)), packed("two", slice(6, None), age=halves)
    manifest = shardkit.merge([one, two], tmp_path / "out" / "both").manifest
    assert manifest.columns == {"age": "float64", "city": "string"}
    both = shardkit.dataset(tmp_path / "out" / "both")
    assert len(both.where(pc.field("age") >= 8)) == 4 + 4
    ages = [age for batch in both.decode(size=8, columns=["age"]).batch(5) for age in batch["age"].tolist()]
    assert sum(age >= 8 for age in ages) == 8


def test_merge_refuses_columns_of_other_types(packed: Packed, tmp_path: Path) -> None:
    one, two = packed("one", slice(0, 6)), packed("two", slice(6, None), age=["old"] * SAMPLES)
    with pytest.raises(UsageError, match="their columns do not fit: the column 'age' is int64 in one and string in"):
        shardkit.merge([one, two], tmp_path / "out" / "both")


def test_info_and_verify_know_them(packed: Packed) -> None:
    prefix = packed()
    assert shardkit.info(prefix).columns == TYPES
    assert shardkit.verify(prefix).sound


def test_the_report_says_what_is_in_them(packed: Packed, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page = Path(shardkit.report(packed(), tmp_path / "report.html").path).read_text("utf-8")
    assert "Columns of train" in page
    rows = re.findall(r"<tr><th scope=\"row\"[^>]*>(\w+)</th>(.*?)</tr>", page)
    told = {name: re.findall(r"<td[^>]*>(.*?)</td>", cells) for name, cells in rows if name in TYPES}
    assert told["age"][:4] == ["int64", "1", "0", "110"]
    assert told["age"][4].endswith("and 8 more")
    assert told["city"][:4] == ["string", "0", "", ""]


def test_a_report_without_columns_has_no_section_of_them(packed: Packed, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    shardkit.pack(tmp_path / "tree", tmp_path / "plain" / "train", workers=1)
    page = Path(shardkit.report(tmp_path / "plain" / "train", tmp_path / "report.html").path).read_text("utf-8")
    assert "Columns of" not in page


def test_exports_of_a_dataset_with_columns_are_those_without(packed: Packed, tmp_path: Path) -> None:
    prefix = packed()
    shardkit.export(prefix, ["timm", "huggingface", "croissant", "class-names"])
    names = {path.name for path in prefix.parent.iterdir()}
    assert {"_info.json", "README.md", "croissant.json", "classnames.txt"} <= names
