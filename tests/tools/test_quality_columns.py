"""The quality columns from packing to `where`: found once, kept by whatever rewrites the index, null for damage."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

import shardkit
from shardkit.cli.main import run
from shardkit.images.quality.quality import Quality, quality
from shardkit.shards.index import schema
from shardkit.shards.manifest import Manifest, decode_manifest
from shardkit.shards.quality import QUALITY

SIDE, PER_CLASS, PER_SHARD = 96, 6, 5
BROKEN = "red/broken"
Row = Quality | tuple[None, None, None, None]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 images of 2 classes: JPEGs, a PNG, and a JPEG that has a header but can't be decoded."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for label in ("blue", "red"):
        (root / label).mkdir()
        for number in range(PER_CLASS):
            small = Image.fromarray(rng.integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8))
            small.resize((SIDE, SIDE)).save(root / label / f"{number}.jpg", quality=90)
    Image.new("RGB", (SIDE, SIDE), (255, 255, 255)).save(root / "red" / "plain.png")
    whole = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(whole, "PNG")
    data = bytearray(whole.getvalue())
    data[100:1000] = bytes(900)
    (root / f"{BROKEN}.png").write_bytes(bytes(data))
    return root


def pack(tree: Path, prefix: Path, **options: Any) -> Manifest:
    given = {"quality_columns": True, "max_count": PER_SHARD, "workers": 1} | options
    return shardkit.pack(tree, prefix, **given).manifest


def manifest_of(prefix: Path) -> Manifest:
    return decode_manifest(Path(f"{prefix}.json").read_bytes(), place=str(prefix))


def rows_in(prefix: Path) -> dict[str, Row]:
    """Key -> quality, of all index files."""
    found: dict[str, Row] = {}
    for entry in manifest_of(prefix).index:
        table = pq.read_table(prefix.parent / entry.name)
        columns = (table[name].to_pylist() for name in ("key", *QUALITY))
        found |= {key: row for key, *row in zip(*columns, strict=True)}  # type: ignore[misc]
    return {key: tuple(row) for key, row in found.items()}  # type: ignore[misc]


def expected(tree: Path) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for path in sorted(tree.glob("*/*")):
        key = path.relative_to(tree).with_suffix("").as_posix()
        found[key] = (None,) * 4 if key == BROKEN else tuple(quality(path.read_bytes()))  # type: ignore[assignment]
    return found


@pytest.mark.parametrize("form", ["tar", "tfrecord"])
def test_packing_writes_the_same_shards_and_the_quality_of_each_image(tree: Path, tmp_path: Path, form: Any) -> None:
    plain = pack(tree, tmp_path / "a" / "train", format=form, quality_columns=False)
    found = pack(tree, tmp_path / "b" / "train", format=form)
    assert found.shards == plain.shards
    assert (found.quality_columns, plain.quality_columns) == (True, False)
    assert rows_in(tmp_path / "b" / "train") == expected(tree)
    assert pq.read_schema(tmp_path / "a" / "train.parquet").names == schema().names
    assert pq.read_schema(tmp_path / "b" / "train.parquet") == schema(quality=True)


def test_images_that_can_not_be_decoded_are_counted(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pack(tree, tmp_path / "train")
    said = "images that can't be decoded, whose quality columns are null: 1"
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [said]
    caplog.clear()
    shardkit.index_shards(f"{tmp_path}/train-*.tar", overwrite=True, quality_columns=True)
    assert said in [record.getMessage() for record in caplog.records]


def test_where_selects_by_the_columns_and_leaves_out_null(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "train")
    data = shardkit.dataset(tmp_path / "train")
    rows = {key: row for key, row in expected(tree).items() if key != BROKEN}
    bright = {sample["__key__"] for sample in data.where(pc.field("brightness") > 0.9)}
    assert bright == {key for key, row in rows.items() if row[1] > 0.9} == {"red/plain"}  # type: ignore[operator]
    assert len(data.where(pc.field("entropy") >= 0)) == len(rows)
    assert len(data.where(pc.field("phash") == pa.scalar(0, pa.uint64()))) == 1
    assert len(data.where(pc.field("phash").is_null())) == 1


def test_indexing_finds_the_columns_of_shards_of_others(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "train", quality_columns=False)
    shards = f"{tmp_path}/train-*.tar"
    assert not shardkit.index_shards(shards, overwrite=True).quality_columns
    assert shardkit.index_shards(shards, overwrite=True, quality_columns=True).quality_columns
    assert rows_in(tmp_path / "train") == expected(tree)


def test_converting_repairing_and_copying_keep_the_columns(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "train")
    shardkit.convert(tmp_path / "train", tmp_path / "c" / "train", format="tfrecord", max_count=3)
    shardkit.repair(tmp_path / "train", tmp_path / "r" / "train")
    shardkit.upload(tmp_path / "train", tmp_path / "u" / "train")
    for folder in "cru":
        assert manifest_of(tmp_path / folder / "train").quality_columns
        assert rows_in(tmp_path / folder / "train") == expected(tree)
    pack(tree, tmp_path / "other" / "train", seed=1)
    shardkit.upload(tmp_path / "other" / "train", tmp_path / "u" / "train", overwrite=True)
    assert manifest_of(tmp_path / "u" / "train").index[0].name.startswith("train-g2")
    assert rows_in(tmp_path / "u" / "train") == expected(tree)


def test_what_is_added_has_the_columns_too(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "train")
    more = tmp_path / "more" / "red"
    more.mkdir(parents=True)
    (more / "again.jpg").write_bytes((tree / "red" / "0.jpg").read_bytes())
    pack(tmp_path / "more", tmp_path / "train", append=True)
    found = rows_in(tmp_path / "train")
    assert found["red/again"] == found["red/0"]
    assert len(found) == len(expected(tree)) + 1


def test_parts_make_the_same_index_as_one_packing(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "whole" / "train")
    for part in ("1/2", "2/2"):
        pack(tree, tmp_path / "parts" / "train", part=part)
    shardkit.merge(tmp_path / "parts" / "train")
    whole, parts = (tmp_path / name / "train.parquet" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


def test_a_merged_dataset_has_the_columns_if_all_of_its_datasets_have(tree: Path, tmp_path: Path) -> None:
    for name, wanted in (("a", True), ("b", False), ("c", True)):
        for path in tree.glob("*/*"):
            target = tmp_path / "trees" / name / path.parent.name / f"{name}-{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        pack(tmp_path / "trees" / name, tmp_path / name, quality_columns=wanted)
    shardkit.merge([tmp_path / "a", tmp_path / "c"], tmp_path / "both")
    shardkit.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "mixed")
    assert (manifest_of(tmp_path / "both").quality_columns, manifest_of(tmp_path / "mixed").quality_columns) == (1, 0)
    known = 2 * (len(expected(tree)) - 1)
    assert len(shardkit.dataset(tmp_path / "both").where(pc.field("phash").is_valid())) == known
    mixed = shardkit.dataset(tmp_path / "mixed")
    assert len(mixed.where(pc.field("width") > 0)) == 2 * len(expected(tree))
    with pytest.raises(shardkit.UsageError, match="phash"):
        len(mixed.where(pc.field("phash").is_valid()))


def test_samples_without_an_image_have_no_quality(tmp_path: Path) -> None:
    folder = tmp_path / "tree" / "a"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text("{}")
    Image.new("RGB", (40, 40)).save(folder / "2.jpg")
    (folder / "2.json").write_text("{}")
    data = tmp_path / "data" / "train"
    shardkit.pack(tmp_path / "tree", data, fields="json", quality_columns=True, workers=1)
    assert set(rows_in(data).values()) == {(None,) * 4}


def test_info_says_whether_there_are_quality_columns(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, wanted in (("with", True), ("without", False)):
        pack(tree, tmp_path / name, quality_columns=wanted)
        assert run(["info", str(tmp_path / name)]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  quality columns")]
        assert line.split()[-1] == ("yes" if wanted else "no")


def test_a_finished_dataset_without_the_columns_is_another_one(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "train", quality_columns=False)
    with pytest.raises(shardkit.DestinationError, match="quality_columns"):
        pack(tree, tmp_path / "train")
    assert pack(tree, tmp_path / "train", overwrite=True).quality_columns


def test_columns_of_other_types_are_not_taken_for_the_quality(tree: Path, tmp_path: Path) -> None:
    from shardkit.shards.index_file import IndexFile

    manifest = pack(tree, tmp_path / "train")
    path = tmp_path / "train.parquet"
    assert IndexFile(pa.OSFile(str(path)), manifest.shards, place="x").has_quality
    with pq.ParquetFile(path) as file:
        groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
    other = tmp_path / "other.parquet"
    at = groups[0].schema.get_field_index("phash")
    changed = [table.set_column(at, "phash", table["phash"].cast(pa.string())) for table in groups]
    with pq.ParquetWriter(other, changed[0].schema) as writer:
        for table in changed:
            writer.write_table(table)
    index = IndexFile(pa.OSFile(str(other)), manifest.shards, place="x")
    assert not index.has_quality
    assert index.quality(0) is None
