"""What SECURITY.md and docs/compatibility.md promise: cited tests exist, limits are real, old datasets are read."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import shardkit
from shardkit.formats.tar.headers import MAX_EXTENSION_BYTES
from shardkit.formats.tfrecord.samples import MAX_EXAMPLE_BYTES
from shardkit.images.jpeg import MAX_SCANS
from shardkit.images.pillow import MAX_PIXELS
from shardkit.shards.index import schema
from shardkit.shards.manifest import VERSION

ROOT = Path(__file__).parents[1]
SECURITY = (ROOT / "SECURITY.md").read_text("utf-8")
COMPATIBILITY = (ROOT / "docs" / "compatibility.md").read_text("utf-8")

RELEASES = sorted(path for path in (ROOT / "tests" / "fixtures" / "datasets").iterdir())
OLD = [path for release in RELEASES for path in sorted(release.iterdir())]
KEYS = {"blue/0", "blue/1", "blue/2", "red/0", "red/1", "red/2"}
"""The samples of the first release's datasets: 8 x 8 JPEGs, with {"number": 0 … 2} as the field json."""


def test_each_claim_of_the_threat_model_cites_a_test_that_exists() -> None:
    cited = re.findall(r"`([\w/]+\.py)::(\w+)`", SECURITY)
    assert len(cited) >= 15
    for file, name in cited:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text("utf-8"), (file, name)


def test_the_limits_that_are_told_are_those_of_the_code() -> None:
    assert f"more than {MAX_PIXELS:,} pixels" in SECURITY
    assert f"more than {MAX_SCANS} scans" in SECURITY
    assert f"at most {MAX_EXTENSION_BYTES >> 20} MiB" in SECURITY
    assert f"at most {(MAX_EXAMPLE_BYTES + 1) >> 30} GiB" in SECURITY
    assert f"has a `version`, now {VERSION}" in COMPATIBILITY


@pytest.mark.parametrize("field", ["pickle", "pyd", "pth"])
def test_a_pickle_in_a_shard_is_bytes(tmp_path: Path, field: str) -> None:
    hostile = b"cposix\nsystem\n(S'touch hacked'\ntR."
    with tarfile.open(tmp_path / "a-000000.tar", "w") as tar:
        for name, data in ((f"1.{field}", hostile), ("1.cls", b"0")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    data = shardkit.dataset(str(tmp_path / "a-000000.tar"))
    assert [bytes(sample[field]) for sample in data] == [hostile]
    assert [bytes(value) for batch in data.batch(1) for value in batch[field]] == [hostile]


def test_the_current_version_has_its_datasets() -> None:
    assert shardkit.__version__ in {release.name for release in RELEASES}
    for release in RELEASES:
        assert {"tar", "tfrecord"} <= {path.name for path in release.iterdir()}


@pytest.mark.parametrize("old", OLD, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_datasets_of_a_released_version_are_read(old: Path) -> None:
    data = shardkit.dataset(old / "train")
    samples = {sample["__key__"]: sample for sample in data}
    assert set(samples) == KEYS
    for key, sample in samples.items():
        assert sample["cls"] == data.classes.index(key.split("/")[0])
        assert json.loads(sample["json"]) == {"number": int(key[-1])}
    images, labels = next(iter(data.decode().batch(6)))
    assert (images.shape, sorted(labels)) == ((6, 8, 8, 3), [0, 0, 0, 1, 1, 1])
    assert shardkit.verify(old / "train", decode=True).sound
    assert shardkit.info(old / "train").samples == len(KEYS)


@pytest.mark.parametrize("old", OLD, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_datasets_of_a_released_version_are_converted_and_unpacked(old: Path, tmp_path: Path) -> None:
    other = {"tar": "tfrecord", "tfrecord": "tar"}[old.name]
    shardkit.convert(old / "train", tmp_path / "new" / "train", format=other)
    assert {sample["__key__"] for sample in shardkit.dataset(tmp_path / "new" / "train")} == KEYS
    shardkit.unpack(old / "train", tmp_path / "tree")
    assert len([*(tmp_path / "tree").rglob("*.jpg")]) == len(KEYS)


@pytest.mark.parametrize("old", OLD, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_samples_are_appended_to_the_datasets_of_a_released_version(old: Path, tmp_path: Path) -> None:
    shutil.copytree(old, tmp_path / "out")
    shardkit.unpack(old / "train", tmp_path / "tree")
    for suffix in ("jpg", "json"):
        shutil.copy(tmp_path / "tree" / "red" / f"0.{suffix}", tmp_path / "tree" / "red" / f"9.{suffix}")
    options = {"format": old.name, "max_count": 4, "fields": ["jpg", "json"], "seed": 1}
    shardkit.pack(tmp_path / "tree", tmp_path / "out" / "train", append=True, **options)
    assert {sample["__key__"] for sample in shardkit.dataset(tmp_path / "out" / "train")} == KEYS | {"red/9"}


@pytest.mark.parametrize("old", OLD, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_index_of_a_released_version_has_the_columns_of_today(old: Path) -> None:
    there = pq.read_schema(old / "train.parquet")
    for column in schema():
        if column.name in there.names:
            assert there.field(column.name).type == column.type


def test_the_citation_has_the_version_of_the_library() -> None:
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {shardkit.__version__}\n" in text
