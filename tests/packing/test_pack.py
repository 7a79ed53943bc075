from __future__ import annotations

import gc
import logging
import os
import shutil
import subprocess
import tarfile
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import google_crc32c
import pyarrow.parquet as pq
import pytest
import webdataset

import shardkit
from shardkit import Manifest, Progress
from shardkit.errors import DestinationError, SourceError, UsageError
from shardkit.packing.pack import PackPlan
from shardkit.shards.manifest import decode_manifest

Pack = Callable[..., Manifest]


@pytest.fixture
def pets(tmp_path: Path, draw_tree: Callable[..., Path]) -> Path:
    """A tree of 40 images of different sizes: bird (9), cat (13), dog (18)."""
    draw_tree(tmp_path / "pets", {"bird": 9, "cat": 13}, size=(33, 21))
    return draw_tree(tmp_path / "pets", {"dog": 18}, size=(120, 90), seed=50)


def index_rows(out: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(out.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_every_file_is_a_member_with_its_bytes_and_its_label_beside_it(
    pets: Path, out: Path, pack_one: Pack, samples_of: Any
) -> None:
    manifest = pack_one(pets, out / "train", max_count=15)
    members = samples_of(out)
    names = list(members)
    assert sorted(name for name in names if name.endswith(".jpg")) == sorted(
        str(path.relative_to(pets)) for path in pets.rglob("*.jpg")
    )
    for image, label in zip(names[::2], names[1::2], strict=True):
        assert members[image] == (pets / image).read_bytes()
        assert label == image.removesuffix("jpg") + "cls"
        assert members[label] == str(manifest.class_names.index(image.partition("/")[0])).encode()


def test_the_manifest_tells_shards_classes_fields_and_options(pets: Path, out: Path, pack_one: Pack) -> None:
    manifest = pack_one(pets, out / "train", max_count=15, seed=3)
    assert manifest == decode_manifest((out / "train.json").read_bytes(), place="train.json")
    assert [(entry.name, entry.count) for entry in manifest.classes] == [("bird", 9), ("cat", 13), ("dog", 18)]
    assert (manifest.samples, manifest.fields, manifest.skipped) == (40, ("cls", "jpg"), 0)
    assert sorted(entry.samples for entry in manifest.shards) == [13, 13, 14]
    for entry in (*manifest.shards, *manifest.index):
        data = (out / entry.name).read_bytes()
        assert (entry.bytes, entry.crc32c) == (len(data), f"{google_crc32c.value(data):08x}")
    assert manifest.bytes == sum(path.stat().st_size for path in out.glob("*.tar"))
    assert manifest.options | {"ext": []} == {
        "max_bytes": 256_000_000, "max_count": 15, "shuffle": True, "seed": 3, "check": "header", "on_error": "stop",
        "ext": [],
    }  # fmt: skip


def test_an_index_row_points_at_the_bytes_of_its_file(pets: Path, out: Path, pack_one: Pack) -> None:
    from PIL import Image

    manifest = pack_one(pets, out / "train", max_count=15)
    rows = index_rows(out)
    assert len(rows) == 40
    for row in rows:
        shard, data = (out / row["shard"]).read_bytes(), (pets / row["path"]).read_bytes()
        assert shard[row["image_offset"] : row["image_offset"] + row["image_size"]] == data
        assert row["crc32c"] == google_crc32c.value(data)
        assert manifest.class_names[row["label"]] == row["path"].partition("/")[0]
        assert row["key"] == row["path"].removesuffix(".jpg")
        with Image.open(pets / row["path"]) as image:
            assert (row["width"], row["height"]) == image.size
        assert shard[row["offset"] :].startswith(row["path"].encode())
        assert row["size"] % 512 == 0
    for shard in manifest.shards:
        ends = [(row["offset"], row["offset"] + row["size"]) for row in rows if row["shard"] == shard.name]
        assert ends[0][0] == 0
        assert all(end == start for (_, end), (start, _) in pairwise(ends))
        assert ends[-1][1] + 1024 == shard.bytes


def test_an_index_has_a_row_group_for_each_shard(pets: Path, out: Path, pack_one: Pack) -> None:
    manifest = pack_one(pets, out / "train", max_count=7)
    with pq.ParquetFile(out / "train.parquet") as file:
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert sizes == [entry.samples for entry in manifest.shards]


def test_many_shards_have_several_index_files(
    pets: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardkit.packing.dest.work_folder.INDEX_SHARDS", 3)
    manifest = pack_one(pets, out / "train", max_count=5)
    assert len(manifest.shards) == 8
    assert [(entry.name, entry.shards) for entry in manifest.index] == [
        ("train.00000.parquet", 3), ("train.00001.parquet", 3), ("train.00002.parquet", 2),
    ]  # fmt: skip
    assert [row["shard"] for row in index_rows(out)] == [
        entry.name for entry in manifest.shards for _ in range(entry.samples)
    ]


def test_gnu_tar_lists_what_python_lists(pets: Path, out: Path, pack_one: Pack) -> None:
    pack_one(pets, out / "train")
    listed = subprocess.run(["tar", "tf", out / "train-000000.tar"], check=True, capture_output=True, text=True)
    with tarfile.open(out / "train-000000.tar") as tar:
        assert listed.stdout.splitlines() == tar.getnames()
    assert listed.stderr == ""


def test_webdataset_reads_the_samples_in_their_order(pets: Path, out: Path, pack_one: Pack) -> None:
    pack_one(pets, out / "train", max_count=15)
    shards = [str(path) for path in sorted(out.glob("*.tar"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files open
        samples = list(webdataset.WebDataset(shards, shardshuffle=False))
        gc.collect()
    assert [sample["__key__"] for sample in samples] == [row["key"] for row in index_rows(out)]
    for sample, row in zip(samples, index_rows(out), strict=True):
        assert sample["jpg"] == (pets / row["path"]).read_bytes()
        assert sample["cls"] == str(row["label"]).encode()


@pytest.mark.parametrize("workers", [2, 3])
def test_the_bytes_do_not_depend_on_the_number_of_workers(
    workers: int, pets: Path, out: Path, pack_one: Pack, content_of: Any
) -> None:
    pack_one(pets, out / "one" / "train", max_count=6, workers=1)
    pack_one(pets, out / "more" / "train", max_count=6, workers=workers)
    assert content_of(out / "more") == content_of(out / "one")
    assert len(content_of(out / "one")) == 7 + 2


def test_the_bytes_do_not_depend_on_the_place_or_the_time(
    pets: Path, out: Path, tmp_path: Path, pack_one: Pack, content_of: Any
) -> None:
    pack_one(pets, out / "train")
    (tmp_path / "elsewhere").mkdir()
    moved = pets.rename(tmp_path / "elsewhere" / "animals")
    for path in moved.rglob("*.jpg"):
        path.chmod(0o600)
        os.utime(path, (1, 1))
    pack_one(moved, tmp_path / "again" / "train")
    assert content_of(tmp_path / "again") == content_of(out)


def test_the_scan_order_is_kept_without_shuffle(pets: Path, out: Path, pack_one: Pack) -> None:
    pack_one(pets, out / "train", shuffle=False, max_count=15)
    assert [row["path"] for row in index_rows(out)] == sorted(
        str(path.relative_to(pets)) for path in pets.rglob("*.jpg")
    )


def test_the_shuffle_mixes_classes_over_the_shards_and_follows_the_seed(pets: Path, out: Path, pack_one: Pack) -> None:
    orders = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        pack_one(pets, out / name / "train", seed=seed, max_count=15)
        orders.append([row["path"] for row in index_rows(out / name)])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    mixed = {(row["shard"], row["label"]) for row in index_rows(out / "a")}
    assert len(mixed) == 3 * 3


@pytest.mark.parametrize(("limit", "most"), [("40kB", 40_000), ("64KiB", 65_536), (30_000, 30_000)])
def test_no_shard_is_larger_than_max_bytes_and_none_is_a_runt(
    limit: str | int, most: int, pets: Path, out: Path, pack_one: Pack
) -> None:
    sizes = [entry.bytes for entry in pack_one(pets, out / "train", max_bytes=limit).shards]
    assert max(sizes) <= most
    assert min(sizes) >= 0.7 * max(sizes)
    assert len(sizes) <= sum(sizes) // most + 2


def test_a_list_of_classes_decides_the_labels(pets: Path, out: Path, tmp_path: Path, pack_one: Pack) -> None:
    listed = tmp_path / "classes.txt"
    listed.write_bytes(b"\xef\xbb\xbfdog\r\nemu\r\nbird\r\n\r\ncat\r\n")
    manifest = pack_one(pets, out / "file", classes=listed)
    assert [(entry.name, entry.count) for entry in manifest.classes] == [
        ("dog", 18), ("emu", 0), ("bird", 9), ("cat", 13),
    ]  # fmt: skip
    assert {(row["label"], row["path"].partition("/")[0]) for row in index_rows(out)} == {
        (0, "dog"), (2, "bird"), (3, "cat"),
    }  # fmt: skip
    from_names = pack_one(pets, out / "names", classes=["dog", "emu", "bird", "cat"])
    for given in (out / "file.json", manifest):
        assert from_names.classes == pack_one(pets, out / "manifest", classes_from=given, overwrite=True).classes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["cat", "dog", "cat", "bird"]}, "classes: 'cat' is named twice"),
        ({"classes": []}, "it contains no class names"),
        ({"classes": "missing.txt"}, "missing.txt: there is no such list of classes"),
        ({"classes": "latin.txt"}, "latin.txt: at byte 1: the list of classes is not UTF-8"),
        ({"classes": "empty.txt"}, "empty.txt: it contains no class names"),
        ({"classes": ["cat"], "classes_from": "x"}, "given together with `classes_from`"),
        ({"classes_from": "missing.json"}, "missing.json: there is no such manifest"),
        ({"format": "zip"}, "format: 'zip' is not one of tar"),
        ({"check": "half"}, "check: 'half' is not one of header, full, none"),
        ({"on_error": "ignore"}, "on_error: 'ignore' is not one of stop, skip"),
        ({"workers": 0}, "workers: 0 is too small; give at least 1"),
        ({"max_count": 0}, "max_count: 0 is too small; give at least 1"),
        ({"max_bytes": "many"}, "max_bytes: 'many' is not a size"),
        ({"max_bytes": 1024}, "max_bytes: 1024 bytes can't hold a sample"),
        ({"ext": "."}, "ext: it contains no file extension"),
        ({"ext": "jpg,cls"}, "ext: 'cls' can't be the field of an image"),
        ({"ext": ["__key__"]}, "ext: '__key__' can't be the field of an image"),
        ({"ext": ["seg.png"]}, "'seg.png' is not the last part of a file name"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_before_anything_is_written(
    options: dict[str, Any], message: str, pets: Path, out: Path, monkeypatch: pytest.MonkeyPatch, pack_one: Pack
) -> None:
    monkeypatch.chdir(pets.parent)
    Path("latin.txt").write_bytes(b"k\xe9fer\n")
    Path("empty.txt").write_bytes(b"\n \n")
    with pytest.raises(UsageError, match=r".") as raised:
        pack_one(pets, out / "train", **options)
    assert message in str(raised.value)
    assert not out.exists()


def test_a_class_that_the_list_lacks_is_refused(pets: Path, out: Path, pack_one: Pack) -> None:
    with pytest.raises(SourceError, match="it has the class folders dog, which `classes` does not name"):
        pack_one(pets, out / "train", classes=["cat", "bird"])
    assert not out.exists()


def test_a_tree_of_splits_is_packed_with_one_class_map(splits: Path, out: Path) -> None:
    manifests = shardkit.pack(splits, out, workers=2)
    assert isinstance(manifests, shardkit.Packed)
    assert {name: manifest.samples for name, manifest in manifests.items()} == {"test": 2, "train": 10, "validation": 4}
    assert all(manifest.class_names == ["blue", "red"] for manifest in manifests.values())
    assert sorted(path.name for path in out.iterdir()) == sorted(
        split + ending for split in manifests for ending in ("-000000.tar", ".json", ".parquet")
    )
    again = shardkit.pack(splits, out)
    assert again == manifests


def test_splits_go_to_the_folder_also_where_it_has_folders_with_their_names(splits: Path, out: Path) -> None:
    (out / "train").mkdir(parents=True)
    shardkit.pack(splits, out, workers=1)
    assert (out / "train.json").exists()
    assert list((out / "train").iterdir()) == []


@pytest.mark.parametrize("source", ["splits", "pets"])
def test_a_folder_with_the_name_of_a_dataset_is_said(
    source: str, request: pytest.FixtureRequest, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (out / "train").mkdir(parents=True)
    (out / "train.json").write_text("{}")
    data = request.getfixturevalue(source)
    shardkit.pack(data, f"{out}/train/", workers=1)
    assert "beside it" not in caplog.text
    shardkit.pack(data, out / "train", workers=1)
    assert f"{out}/train/: written into this folder; the dataset {out}/train.json beside it stays" in caplog.text


def test_a_class_that_one_split_lacks_keeps_its_label_and_is_said(
    splits: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (splits / "test" / "blue" / "0000.jpg").unlink()
    (splits / "test" / "blue").rmdir()
    (splits / "validation" / "green").mkdir()
    with caplog.at_level(logging.WARNING, "shardkit"):
        manifests = shardkit.pack(splits, out, workers=1)
    assert isinstance(manifests, shardkit.Packed)
    assert {tuple(manifest.class_names) for manifest in manifests.values()} == {("blue", "green", "red")}
    assert [entry.count for entry in manifests["test"].classes] == [0, 0, 1]
    said = [record.getMessage() for record in caplog.records]
    assert f"{splits / 'test'}: no image of class blue, green" in said
    assert f"{splits / 'train'}: no image of class green" in said
    assert len(said) == 3


def test_the_extensions_also_decide_what_a_split_is(tmp_path: Path, out: Path, draw_image: Any) -> None:
    for folder in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / "tree" / folder).mkdir(parents=True)
        (tmp_path / "tree" / folder / "1.jpeg2").write_bytes(draw_image())
        (tmp_path / "tree" / folder).parent.joinpath("preview.jpg").write_bytes(draw_image())
    manifests = shardkit.pack(tmp_path / "tree", out, ext="jpeg2", workers=1)
    assert sorted(manifests) == ["test", "train"]  # type: ignore[arg-type]


def test_a_dry_run_gives_the_plan_and_writes_nothing(
    pets: Path, out: Path, tmp_path: Path, pack_one: Pack, content_of: Any
) -> None:
    (pets / "cat" / "notes.txt").write_text("left out")
    before = content_of(tmp_path)
    plan = shardkit.plan_pack(pets, out / "train", max_count=15)
    assert content_of(tmp_path) == before
    assert not out.exists()
    assert isinstance(plan, PackPlan)
    [dataset] = plan.datasets
    manifest = pack_one(pets, out / "train", max_count=15)
    assert dataset.shards == tuple((entry.name, entry.samples, entry.bytes) for entry in manifest.shards)
    assert (dataset.name, dataset.samples, dataset.classes) == ("train", 40, manifest.classes)
    assert dataset.manifest == str(out / "train.json")
    assert dataset.image_bytes == sum(path.stat().st_size for path in pets.rglob("*.jpg"))
    assert dataset.left_out == {"files with other extensions": (1, ("cat/notes.txt",))}


def test_a_folder_that_exists_takes_a_dataset_named_after_the_source(pets: Path, out: Path, pack_one: Pack) -> None:
    out.mkdir()
    pack_one(pets, out)
    assert (out / "pets-000000.tar").exists()
    pack_one(pets, f"{out}/new/")
    assert (out / "new" / "pets.json").exists()


def test_a_home_folder_and_a_file_url_are_understood(
    pets: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(out))
    pack_one(pets, "~/train")
    assert (out / "train.json").exists()
    shardkit.pack(f"file://{pets}", f"file://{out}/other", workers=1)
    assert (out / "other.json").exists()


def test_progress_counts_every_file_and_byte(pets: Path, out: Path, pack_one: Pack) -> None:
    told: list[Progress] = []
    pack_one(pets, out / "train", max_count=6, workers=2, progress=told.append)
    size = sum(path.stat().st_size for path in pets.rglob("*.jpg"))
    assert told[-1] == Progress("pack", 40, 40, size, size)
    assert Progress("scan", 40, 0, size) in told
    packed = [now.done for now in told if now.step == "pack"]
    assert packed == sorted(packed)


def test_progress_counts_on_from_split_to_split(pets: Path, out: Path, tmp_path: Path) -> None:
    for split in ("test", "train", "validation"):
        shutil.copytree(pets, tmp_path / "splits" / split)
    told: list[Progress] = []
    shardkit.pack(tmp_path / "splits", out, workers=1, progress=told.append)
    size = sum(path.stat().st_size for path in (tmp_path / "splits").rglob("*.jpg"))
    packed = [now for now in told if now.step == "pack"]
    assert {(now.total, now.bytes_total) for now in packed} == {(120, size)}
    assert (packed[-1].done, packed[-1].bytes_done) == (120, size)
    assert [now.done for now in packed] == sorted(now.done for now in packed)


def test_an_exception_of_the_progress_callable_ends_the_packing_as_it_is(pets: Path, out: Path, pack_one: Pack) -> None:
    def progress(now: Progress) -> None:
        if now.step == "pack":
            raise BrokenPipeError("the terminal is gone")

    for workers in (1, 2):
        with pytest.raises(BrokenPipeError, match="the terminal is gone"):
            pack_one(pets, out / "train", workers=workers, progress=progress)
    assert not list(out.glob("*.json"))


def test_overwrite_replaces_another_dataset_with_all_its_files(pets: Path, out: Path, pack_one: Pack) -> None:
    pack_one(pets, out / "train", max_count=5)
    (out / "train-20250101.tar").write_bytes(b"of the user")
    (out / "trained.json").write_bytes(b"of the user")
    with pytest.raises(DestinationError, match="another dataset is there, packed with the option max_count 5, not 15"):
        pack_one(pets, out / "train", max_count=15)
    assert len(list(out.glob("train-0*.tar"))) == 8
    pack_one(pets, out / "train", max_count=15, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "train-20250101.tar", "train-g2-000000.tar", "train-g2-000001.tar", "train-g2-000002.tar", "train-g2.parquet",
        "train.json", "trained.json",
    ]  # fmt: skip


def test_a_manifest_is_read_by_the_dataset_function(pets: Path, out: Path, pack_one: Pack) -> None:
    pack_one(pets, out / "train", max_count=15)
    data = shardkit.dataset(str(out / "train"))
    assert (len(data), data.classes) == (40, ["bird", "cat", "dog"])
    assert [sample["__key__"] for sample in data] == [row["key"] for row in index_rows(out)]
