"""What else `pack` takes: archives, lists, images with metadata, buckets. Each packs to the bytes of the tree."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import shardkit
from shardkit import Images, TableColumns
from shardkit.errors import BadFileError, DestinationError, SourceError, StorageError, UsageError
from shardkit.formats.tar import fast_write
from shardkit.packing.pack import PackPlan
from shardkit.shards.manifest import Manifest
from shardkit.sources import bucket, left_out
from shardkit.sources.archives import spool
from shardkit.sources.readers import ArchiveMembers
from shardkit.sources.tree.walk import MAX_DEPTH
from shardkit.storage.store import ObjectInfo

Pack = Callable[..., Manifest]
Content = Callable[[Path], dict[str, bytes]]

KINDS = ("zip", "stored.zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "7z")


def archived(tree: Path, kind: str, *, top: str = "", reverse: bool = True) -> Path:
    """An archive of a tree beside it, members in reverse order if not said otherwise; `top`: the folder around it."""
    path = tree.parent / f"{tree.name}.{kind}"
    files = sorted((file for file in tree.rglob("*")), reverse=reverse)
    named = [(file, f"{top}/{file.relative_to(tree)}" if top else str(file.relative_to(tree))) for file in files]
    if kind.endswith("zip"):
        method = zipfile.ZIP_STORED if kind.startswith("stored") else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", method) as archive:
            for file, name in named:
                archive.write(file, name)
    elif kind == "7z":
        py7zr = pytest.importorskip("py7zr")
        with py7zr.SevenZipFile(path, "w") as archive:
            for file, name in named:
                archive.write(file, name)
    elif kind == "tar.zst":
        zstandard = pytest.importorskip("zstandard")
        path.write_bytes(zstandard.compress(tarred(named)))
    else:
        packer = {"tar": bytes, "tar.gz": _gzip, "tar.bz2": _bz2, "tar.xz": _xz}[kind]
        path.write_bytes(packer(tarred(named)))
    return path


def tarred(named: list[tuple[Path, str]]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for file, name in named:
            archive.add(file, name, recursive=False)
    return sink.getvalue()


def _gzip(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data)


def _bz2(data: bytes) -> bytes:
    import bz2

    return bz2.compress(data)


def _xz(data: bytes) -> bytes:
    import lzma

    return lzma.compress(data)


@pytest.fixture
def odd_tree(tree: Path, draw_image: Callable[..., bytes]) -> Path:
    """A tree with names that make keys difficult, files to be left out, and an empty class."""
    (tree / "red" / "0000.png").write_bytes(draw_image(70, format="PNG"))
    (tree / "red" / "grün é.JPEG").write_bytes(draw_image(71))
    (tree / "red" / "sub-x").mkdir()
    (tree / "red" / "sub-x" / "a.b.jpg").write_bytes(draw_image(72))
    (tree / "red" / "sub").mkdir()
    (tree / "red" / "sub" / "a.jpg").write_bytes(draw_image(73))
    (tree / "red" / ".hidden.jpg").write_bytes(b"x")
    (tree / "red" / "Thumbs.db").write_bytes(b"x")
    (tree / "red" / "notes.txt").write_bytes(b"x")
    (tree / "empty").mkdir()
    (tree / "readme.md").write_bytes(b"x")
    return tree


# ---- archives


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_packs_to_the_bytes_of_its_tree(
    kind: str, odd_tree: Path, out: Path, pack_one: Pack, content_of: Content, caplog: pytest.LogCaptureFixture
) -> None:
    pack_one(odd_tree, out / "a" / "train", max_count=6)
    said = sorted(record.getMessage() for record in caplog.records if "left out" in record.getMessage())
    caplog.clear()
    pack_one(archived(odd_tree, kind), out / "b" / "train", max_count=6)
    assert content_of(out / "b") == content_of(out / "a")
    assert sorted(record.getMessage() for record in caplog.records if "left out" in record.getMessage()) == said


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_worker_processes_give_the_same_bytes_as_one(
    kind: str, tree: Path, out: Path, pack_one: Pack, content_of: Content
) -> None:
    path = archived(tree, kind)
    pack_one(path, out / "a" / "train", max_count=4)
    pack_one(path, out / "b" / "train", max_count=4, workers=2)
    assert content_of(out / "a") == content_of(out / "b")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_one_top_folder_around_the_classes_is_looked_through(
    kind: str, tree: Path, out: Path, pack_one: Pack, content_of: Content
) -> None:
    pack_one(tree, out / "a" / "train")
    pack_one(archived(tree, kind, top="data/pets"), out / "b" / "train")
    assert content_of(out / "a") == content_of(out / "b")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "7z"])
@pytest.mark.parametrize("top", ["train", "data/train", "data/training_set"])
def test_a_lone_split_in_an_archive_is_a_split_as_in_the_tree(
    kind: str, top: str, tree: Path, out: Path, content_of: Content
) -> None:
    path = archived(tree, kind, top=top)
    whole = out / "tree" / top
    whole.parent.mkdir(parents=True)
    tree.rename(whole)
    first = shardkit.pack(whole.parent, out / "a", workers=1)
    assert isinstance(first, shardkit.Packed)
    assert list(first) == [whole.name]
    assert shardkit.pack(path, out / "b", workers=1) == first
    assert content_of(out / "a") == content_of(out / "b")


def test_an_archive_named_as_the_split_in_it_is_that_split_alone(tree: Path, out: Path, pack_one: Pack) -> None:
    path = archived(tree, "zip", top="train").rename(tree.parent / "train.zip")
    assert pack_one(path, out / "train").class_names == ["blue", "red"]


@pytest.mark.parametrize(("name", "warned"), [("pets.zip", False), ("pets-v2.zip", False), ("other.zip", True)])
def test_a_top_folder_that_may_be_a_class_is_warned_of(
    name: str, warned: bool, tree: Path, out: Path, pack_one: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    path = archived(tree, "zip", top="pets").rename(tree.parent / name)
    with caplog.at_level(logging.INFO):
        pack_one(path, out / "train")
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert ["pets is taken as the tree" in text for text in said] == [True] * warned
    assert (f"{path}: the tree is in its folder pets" in caplog.messages) is not warned


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["photos.zip", "photos.tar.gz", "photos.tar", "photos.7z", "photos"])
def test_an_archive_is_known_by_what_is_in_it(
    kind: str, name: str, tree: Path, out: Path, pack_one: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    path = archived(tree, kind)
    right = path.name.endswith(name.partition(".")[2])
    (tree.parent / "elsewhere").mkdir()
    assert pack_one(path.rename(tree.parent / "elsewhere" / name), out / "train").samples == 12
    said = [record.getMessage() for record in caplog.records if "is read as such" in record.getMessage()]
    assert bool(said) == (not right and name != "photos")


def test_an_archive_of_one_class_keeps_its_class(tree: Path, out: Path, pack_one: Pack) -> None:
    with zipfile.ZipFile(tree / "one.zip", "w") as archive:
        archive.write(tree / "red" / "0000.jpg", "cats/0000.jpg")
    assert pack_one(tree / "one.zip", out / "one").class_names == ["cats"]


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "7z"])
def test_an_archive_of_splits_packs_as_the_tree_of_splits(
    kind: str, splits: Path, out: Path, content_of: Content
) -> None:
    path = archived(splits, kind, top="photos")
    first = shardkit.pack(splits, out / "a", workers=1)
    again = shardkit.pack(path, out / "b", workers=1)
    assert first == again
    assert content_of(out / "a") == content_of(out / "b")


def test_what_is_outside_the_splits_of_an_archive_is_told_as_that_of_a_tree(
    splits: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (splits / "readme.txt").write_text("of nobody")
    told = []
    for number, source in enumerate((splits, archived(splits, "zip"))):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            shardkit.pack(source, out / str(number), workers=1)
        told.append([text.partition(": ")[2] for text in caplog.messages if "outside the splits" in text])
    assert told[0] == told[1]
    assert len(told[0]) == 1
    assert "readme.txt" in told[0][0]


def test_an_archive_takes_its_name_to_a_folder(tree: Path, out: Path, pack_one: Pack) -> None:
    out.mkdir()
    pack_one(archived(tree, "tar.gz"), out)
    assert (out / "tree.json").exists()


def test_nothing_is_left_of_the_spool(tree: Path, out: Path, pack_one: Pack) -> None:
    pack_one(archived(tree, "tar.gz"), out / "train")
    assert sorted(path.name for path in out.iterdir()) == ["train-000000.tar", "train.json", "train.parquet"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_files_of_one_name_are_one_sample_in_an_archive_too(
    kind: str, tree: Path, out: Path, pack_one: Pack, content_of: Content
) -> None:
    for image in list(tree.rglob("*.jpg")):
        image.with_suffix(".json").write_text(json.dumps(str(image)))
        image.with_suffix(".txt").write_text(image.name)
    pack_one(tree, out / "a" / "train", fields="jpg,json,txt")
    pack_one(archived(tree, kind), out / "b" / "train", fields="jpg,json,txt")
    assert content_of(out / "a") == content_of(out / "b")


def test_an_archive_is_split_and_written_as_tfrecord_as_its_tree_is(tree: Path, out: Path, content_of: Content) -> None:
    given: dict[str, Any] = {"split": "a=0.5,b=0.5", "format": "tfrecord", "workers": 1}
    shardkit.pack(tree, out / "a", **given)
    shardkit.pack(archived(tree, "tar.gz"), out / "b", **given)
    assert content_of(out / "a") == content_of(out / "b")


def test_a_second_run_writes_nothing_until_the_archive_changes(tree: Path, out: Path, pack_one: Pack) -> None:
    path = archived(tree, "zip")
    first = pack_one(path, out / "train")
    written = os.stat(out / "train.json").st_mtime_ns
    assert pack_one(path, out / "train") == first
    assert os.stat(out / "train.json").st_mtime_ns == written
    time.sleep(0.02)
    path.touch()
    with pytest.raises(DestinationError, match=r"out of date: the source's .*tree\.zip is not what was packed"):
        pack_one(path, out / "train")


def test_a_dry_run_of_an_archive_writes_nothing(tree: Path, out: Path) -> None:
    plan = shardkit.plan_pack(archived(tree, "tar.gz"), out / "train")
    assert isinstance(plan, PackPlan)
    assert (plan.datasets[0].samples, out.exists()) == (12, False)


def test_a_disk_without_room_for_the_spool_is_said_before_it_is_filled(
    tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: pytest.importorskip("shutil")._ntuple_diskusage(1, 1, 0))
    with pytest.raises(StorageError, match=r"packing .*tree\.tar\.gz needs .* here, and 0 B are free"):
        pack_one(archived(tree, "tar.gz"), out / "train")


def test_a_spool_may_take_just_what_is_free(
    tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(file.stat().st_size for file in tree.rglob("*.jpg"))
    path = archived(tree, "tar.gz")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=size - 1))
    with pytest.raises(StorageError, match=r"packing .*tree\.tar\.gz needs .* here"):
        pack_one(path, out / "train")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=size))
    assert pack_one(path, out / "train").samples == 12


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "7z"])
def test_members_that_are_not_packed_are_not_taken_for_those_of_the_same_size(
    kind: str, tree: Path, out: Path, pack_one: Pack, content_of: Content
) -> None:
    for file in list(tree.rglob("*.jpg")):
        for name in (f"{file.stem}.a", f"{file.stem}.z"):  # before and after it
            file.with_name(name).write_bytes(bytes(file.stat().st_size))
    pack_one(tree, out / "a" / "train", shuffle=False)
    for reverse in (False, True):
        pack_one(archived(tree, kind, reverse=reverse), out / f"b{reverse}" / "train", shuffle=False)
        assert content_of(out / f"b{reverse}") == content_of(out / "a")


@pytest.mark.parametrize("change", ["order", "size", "fewer"])
def test_an_archive_that_changes_before_it_is_unpacked_is_an_error(
    change: str, tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archived(tree, "tar.gz")
    first, *_ = sorted(tree.rglob("*.jpg"))
    if change == "size":
        first.write_bytes(first.read_bytes() + b"x")
    elif change == "fewer":
        first.unlink()

    def changing(*_: object) -> None:
        archived(tree, "tar.gz", reverse=change != "order")

    monkeypatch.setattr(spool, "_require_room", changing)
    with pytest.raises(SourceError, match=r"tree\.tar\.gz: it has changed since the scan; run again"):
        pack_one(path, out / "train")


@pytest.mark.parametrize("native", [True, False])
def test_an_archive_that_changes_while_it_is_packed_is_an_error(
    native: bool, tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archived(tree, "zip")
    real = ArchiveMembers.opened

    def opened(self: Any, *rest: Any) -> Any:
        os.utime(path, ns=(0, 0))
        return real(self, *rest)

    monkeypatch.setattr(ArchiveMembers, "opened", opened)
    if not native:
        monkeypatch.setattr(fast_write, "extension", lambda: None)
    with pytest.raises(SourceError, match=r"tree\.zip: it has changed since the scan"):
        pack_one(path, out / "train")


def test_a_damaged_member_is_named_or_left_out(
    tree: Path, out: Path, pack_one: Pack, samples_of: Callable[[Path], dict[str, bytes]]
) -> None:
    path = archived(tree, "stored.zip")
    data = bytearray(path.read_bytes())
    at = data.find((tree / "red" / "0003.jpg").read_bytes())
    data[at + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"stored\.zip/red/0003\.jpg: its CRC-32 is not the one"):
        pack_one(path, out / "train")
    manifest = pack_one(path, out / "train", on_error="skip")
    assert (manifest.samples, manifest.skipped) == (11, 1)
    assert json.loads((out / "train.skipped.json").read_text())[0]["path"] == "red/0003.jpg"
    assert "red/0003.jpg" not in samples_of(out)


@pytest.mark.parametrize("kind", ["a tree", "an archive"])
def test_the_bad_file_of_a_sample_is_named_wherever_it_is(
    kind: str, tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shardkit.packing.write.file_samples import FileSamples

    for path in tree.rglob("*.jpg"):
        path.with_suffix(".txt").write_text(f"about {path.stem} of {path.parent.name}")
    bad, source = tree / "red" / "0003.txt", archived(tree, "stored.zip") if kind == "an archive" else tree
    real = FileSamples.opened

    def opened(self: Any) -> Any:
        bad.write_bytes(b"")
        return real(self)

    if kind == "an archive":
        source.write_bytes(source.read_bytes().replace(bad.read_bytes(), b"?" * len(bad.read_bytes())))
    else:
        monkeypatch.setattr(FileSamples, "opened", opened)
    manifest = pack_one(source, out / "train", on_error="skip", fields="jpg,txt")
    assert (manifest.samples, manifest.skipped) == (11, 1)
    assert json.loads((out / "train.skipped.json").read_text())[0]["path"] == "red/0003.txt"


def test_shards_are_no_source_and_the_message_names_convert(tree: Path, out: Path, pack_one: Pack) -> None:
    pack_one(tree, out / "train")
    for source in (out / "train", out / "train.json", out / "train-000000.tar"):
        with pytest.raises(SourceError, match="already packed; to write it again, run 'shardkit convert"):
            pack_one(source, out / "again")


@pytest.mark.parametrize(
    ("pattern", "meant"), [("*", "tree"), ("tree*", "tree"), ("tree/*/*.jpg", "tree"), ("no/*", "no")]
)
def test_a_pattern_is_no_source_and_the_message_names_the_folder(
    pattern: str, meant: str, tree: Path, out: Path, pack_one: Pack
) -> None:
    only = tree.parent / "only"
    only.mkdir()
    tree.rename(only / "tree")
    with pytest.raises(SourceError, match=re.escape(f"name it without the pattern: {only}/{meant}") + "$"):
        pack_one(f"{only}/{pattern}", out / "train")


def test_a_pattern_of_shards_is_a_dataset_that_is_already_packed(tree: Path, out: Path, pack_one: Pack) -> None:
    pack_one(tree, out / "train")
    for pattern in ("*", "train*", "train-*.tar", "train-{000000..000003}.tar"):
        with pytest.raises(SourceError, match="already packed"):
            pack_one(out / pattern, out / "again")


# ---- lists


def rows_of(tree: Path, **more: Callable[[int], Any]) -> list[dict[str, Any]]:
    files = sorted(tree.rglob("*.jpg"), reverse=True)
    return [
        {"file": str(file.relative_to(tree)), "class": file.parent.name} | {k: f(n) for k, f in more.items()}
        for n, file in enumerate(files)
    ]


def write_list(path: Path, rows: list[dict[str, Any]]) -> Path:
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".jsonl":
        path.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    elif path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(delimiter=delimiter))
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_list_packs_to_the_bytes_of_its_tree(
    suffix: str, tree: Path, out: Path, pack_one: Pack, content_of: Content
) -> None:
    pack_one(tree, out / "a" / "train", max_count=5)
    pack_one(write_list(tree / f"list.{suffix}", rows_of(tree)), out / "b" / "train", max_count=5)
    assert content_of(out / "a") == content_of(out / "b")


def test_other_columns_become_one_json_field_with_their_types(
    tree: Path, out: Path, pack_one: Pack, samples_of: Callable[[Path], dict[str, bytes]]
) -> None:
    rows = rows_of(tree, age=lambda n: n, when=lambda n: "2020-01-02", score=lambda n: 0.5 + n)
    pack_one(write_list(tree / "list.csv", rows), out / "train", workers=2)
    found = samples_of(out)
    assert json.loads(found["red/0006.json"]) == {"age": 0, "when": "2020-01-02", "score": 0.5}
    assert found["red/0006.jpg"] == (tree / "red" / "0006.jpg").read_bytes()
    assert next(iter(shardkit.dataset(out / "train")))["cls"] in (0, 1)
    assert shardkit.verify(out / "train").sound


def test_a_list_can_be_split_with_its_fields(tree: Path, out: Path) -> None:
    rows = rows_of(tree, n=lambda n: n)
    found = shardkit.pack(write_list(tree / "list.csv", rows), out / "x", split="a=0.5,b=0.5", workers=1)
    assert isinstance(found, shardkit.Packed)
    wanted = {row["file"].removesuffix(".jpg"): row["n"] for row in rows}
    seen = {}
    for name in found:
        for sample in shardkit.dataset(out / "x" / name):
            seen[sample["__key__"]] = json.loads(sample["json"])["n"]
    assert seen == wanted


def test_the_order_of_a_list_is_kept_without_a_shuffle(tree: Path, out: Path, pack_one: Pack) -> None:
    pack_one(write_list(tree / "list.csv", rows_of(tree)), out / "train", shuffle=False)
    assert pq.read_table(out / "train.parquet")["path"].to_pylist() == [row["file"] for row in rows_of(tree)]


def test_files_outside_the_root_have_sane_and_unique_keys(tree: Path, out: Path, pack_one: Pack) -> None:
    lists = tree.parent / "lists"
    lists.mkdir()
    rows = [{"path": str(tree / "red" / "0000.jpg"), "label": 0}, {"path": "../tree/red/0001.jpg", "label": 1}]
    manifest = pack_one(write_list(lists / "list.csv", rows), out / "train", shuffle=False)
    table = pq.read_table(out / "train.parquet")
    base = str(tree.parent).lstrip("/")
    assert table["path"].to_pylist() == [f"{base}/tree/red/0000.jpg", f"{base}/tree/red/0001.jpg"]
    assert len(set(table["key"].to_pylist())) == 2
    assert manifest.class_names == ["0", "1"]


@pytest.mark.parametrize(
    ("label", "stored", "counts"),
    [
        (lambda n: ["b", "a"] if n % 2 else ["a"], {"multi": [0], "odd": [0, 1]}, [("a", 12), ("b", 6)]),
        (lambda n: [2, 0] if n % 2 else [2], {"multi": [2], "odd": [0, 2]}, [("0", 6), ("1", 0), ("2", 12)]),
    ],
    ids=["names", "numbers"],
)
def test_several_labels_are_stored_as_class_numbers_and_counted(
    label: Callable[[int], Any], stored: dict[str, list[int]], counts: list[tuple[str, int]], tree: Path, out: Path,
    pack_one: Pack,
) -> None:  # fmt: skip
    rows = rows_of(tree, label=label)
    manifest = pack_one(
        write_list(tree / "list.jsonl", rows),
        out / "train",
        columns=TableColumns(label_column="label"),
        shuffle=False,
    )
    assert manifest.options["labels"] == "multi"
    assert [(entry.name, entry.count) for entry in manifest.classes] == counts
    assert pq.read_table(out / "train.parquet")["label"].null_count == 12
    first, second = list(shardkit.dataset(out / "train").take(2))
    assert [json.loads(first["cls.json"]), json.loads(second["cls.json"])] == [stored["multi"], stored["odd"]]
    assert "cls" not in first
    assert set(manifest.fields) == {"jpg", "cls.json", "json"}


def test_several_labels_in_a_text_are_separated(tree: Path, out: Path, pack_one: Pack) -> None:
    rows = [row | {"class": "cat; dog" if n else ""} for n, row in enumerate(rows_of(tree))]
    manifest = pack_one(write_list(tree / "list.csv", rows), out / "train", columns=TableColumns(label_separator=";"))
    assert [(entry.name, entry.count) for entry in manifest.classes] == [("cat", 11), ("dog", 11)]


@pytest.mark.parametrize(("label", "wanted"), [(lambda n: n + 0.5, 0.5), (lambda n: [0.5, n + 0.25], [0.5, 0.25])])
def test_numbers_to_be_predicted_are_stored_as_they_are(
    label: Callable[[int], Any], wanted: object, tree: Path, out: Path, pack_one: Pack
) -> None:
    rows = rows_of(tree, target=label)
    path = write_list(tree / "list.parquet", rows)
    manifest = pack_one(
        path, out / "train", columns=TableColumns(label_column="target"), shuffle=False, format="tfrecord"
    )
    assert (manifest.options["labels"], manifest.classes) == ("number", ())
    assert json.loads(next(iter(shardkit.dataset(out / "train")))["cls.json"]) == wanted
    assert (
        pack_one(path, out / "train", columns=TableColumns(label_column="target"), shuffle=False, format="tfrecord")
        == manifest
    )


def test_a_list_without_labels_is_packed_where_that_is_said(tree: Path, out: Path, pack_one: Pack) -> None:
    path = write_list(tree / "list.csv", [{"file": row["file"], "text": "a car"} for row in rows_of(tree)])
    with pytest.raises(SourceError, match=r"no column of labels; its columns are file, text; name one with `label_col"):
        pack_one(path, out / "train")
    manifest = pack_one(path, out / "train", columns=TableColumns(label_column=""))
    assert (manifest.fields, manifest.classes) == (("jpg", "json"), ())


def test_columns_named_for_a_tree_are_an_error(tree: Path, out: Path, pack_one: Pack) -> None:
    with pytest.raises(UsageError, match="columns are named, but this source is not a list"):
        pack_one(tree, out / "train", columns=TableColumns(path_column="file"))


# ---- images with metadata


def test_an_imagefolder_takes_its_fields_from_its_metadata(
    tree: Path, out: Path, pack_one: Pack, samples_of: Callable[[Path], dict[str, bytes]],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    rows = [{"file_name": row["file"], "text": f"n {n}"} for n, row in enumerate(rows_of(tree))][:-1]
    write_list(tree / "metadata.csv", rows)
    with caplog.at_level("INFO"):
        manifest = pack_one(tree, out / "train")
    assert manifest.class_names == ["blue", "red"]
    assert json.loads(samples_of(out)["red/0006.json"]) == {"text": "n 0"}
    assert "taken as the metadata of the images beside it" in caplog.text
    assert "left out: images that it does not name: 1" in caplog.text


def test_an_imagefolder_of_splits_has_one_class_map(splits: Path, out: Path) -> None:
    for split in ("train", "validation", "test"):
        rows = [{"file_name": row["file"], "label": row["class"]} for row in rows_of(splits / split)]
        write_list(splits / split / "metadata.jsonl", rows)
    found = shardkit.pack(splits, out, workers=1)
    assert isinstance(found, shardkit.Packed)
    assert {name: manifest.samples for name, manifest in found.items()} == {"test": 2, "train": 10, "validation": 4}
    assert all(manifest.class_names == ["blue", "red"] for manifest in found.values())


def test_flat_images_with_texts_are_packed_without_labels(tree: Path, out: Path, pack_one: Pack) -> None:
    flat = tree / "red"
    write_list(flat / "metadata.jsonl", [{"file_name": path.name, "text": "x"} for path in flat.glob("*.jpg")])
    manifest = pack_one(flat, out / "train")
    assert (manifest.samples, manifest.classes, manifest.fields) == (7, (), ("jpg", "json"))


# ---- buckets


def test_a_tree_in_a_store_packs_to_the_bytes_of_the_tree(
    odd_tree: Path, out: Path, pack_one: Pack, content_of: Content
) -> None:
    from shardkit.location import Location
    from shardkit.storage.store import open_store

    store = open_store(Location("memory", "pack-sources/tree"))
    for path in odd_tree.rglob("*"):
        if path.is_file():
            store.put(str(path.relative_to(odd_tree)), io.BytesIO(path.read_bytes()))
    (odd_tree / "empty").rmdir()
    pack_one(odd_tree, out / "a" / "train", max_count=6)
    pack_one("memory://pack-sources/tree/", out / "b" / "train", max_count=6)
    assert content_of(out / "a") == content_of(out / "b")
    with pytest.raises(SourceError, match="memory://pack-sources/none: it has no objects"):
        pack_one("memory://pack-sources/none", out / "c" / "train")


def test_an_object_that_stands_for_an_empty_folder_is_a_folder() -> None:
    found = bucket._Found(lambda _: None)
    found.add([ObjectInfo("dog/", 0), ObjectInfo("cat/1.jpg", 5), ObjectInfo("a//", 0)])
    assert (found.folders, found.left_out) == (["dog"], [(left_out.NO_PATHS, "a//")])
    assert list(found.names.build()) == [b"cat/1.jpg"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("blue//x.jpg", left_out.NO_PATHS),
        ("/x.jpg", left_out.NO_PATHS),
        ("blue/./x.jpg", left_out.NO_PATHS),
        ("blue/../x.jpg", left_out.NO_PATHS),
        ("a/" * (MAX_DEPTH + 1) + "x.jpg", left_out.TOO_DEEP),
    ],
)
def test_an_object_whose_name_is_no_path_is_left_out_and_reported(
    name: str, reason: str, tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shardkit.location import Location
    from shardkit.storage.store import open_store
    from shardkit.storage.stores import memory

    store = open_store(Location("memory", f"{out.parent.name}/tree"))
    for path in tree.rglob("*.jpg"):
        store.put(str(path.relative_to(tree)), io.BytesIO(path.read_bytes()))
    monkeypatch.setitem(memory._OBJECTS, f"{out.parent.name}/tree/{name}", b"x")
    plan = shardkit.plan_pack(f"memory://{out.parent.name}/tree", out / "train")
    assert isinstance(plan, PackPlan)
    assert {each: count for each, (count, _) in plan.datasets[0].left_out.items()} == {reason: 1}
    assert pack_one(f"memory://{out.parent.name}/tree", out / "train").samples == len(list(tree.rglob("*.jpg")))


def test_a_store_whose_object_changed_is_out_of_date(tree: Path, out: Path, pack_one: Pack) -> None:
    from shardkit.location import Location
    from shardkit.storage.store import open_store

    store = open_store(Location("memory", "pack-changed/tree"))
    for path in tree.rglob("*.jpg"):
        store.put(str(path.relative_to(tree)), io.BytesIO(path.read_bytes()))
    first = pack_one("memory://pack-changed/tree", out / "train")
    assert pack_one("memory://pack-changed/tree", out / "train") == first
    data = (tree / "red" / "0000.jpg").read_bytes()
    store.put("red/0000.jpg", io.BytesIO(data[:-1] + b"\0"))
    with pytest.raises(DestinationError, match=r"out of date: the source's red/0000\.jpg is not what was packed"):
        pack_one("memory://pack-changed/tree", out / "train")
    store.delete("red/0001.jpg")


def test_an_object_that_vanished_is_named(
    tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shardkit.location import Location
    from shardkit.packing.write.file_samples import FileSamples
    from shardkit.storage.store import open_store

    store = open_store(Location("memory", "pack-vanished/tree"))
    for path in tree.rglob("*.jpg"):
        store.put(str(path.relative_to(tree)), io.BytesIO(path.read_bytes()))
    real = FileSamples.opened

    def opened(self: Any, *rest: Any) -> Any:
        store.delete("red/0004.jpg")
        return real(self, *rest)

    monkeypatch.setattr(FileSamples, "opened", opened)
    with pytest.raises(SourceError, match=r"memory://pack-vanished/tree/red/0004\.jpg: the object has vanished"):
        pack_one("memory://pack-vanished/tree", out / "train")
    assert pack_one("memory://pack-vanished/tree", out / "train", on_error="skip").samples == 11


def test_a_zip_that_the_zip_program_wrote_is_read(tree: Path, out: Path, pack_one: Pack, content_of: Content) -> None:
    if subprocess.run(["which", "zip"], capture_output=True, check=False).returncode:
        pytest.skip("there is no zip program")
    subprocess.run(["zip", "-qr", "../t.zip", "."], cwd=tree, check=True)
    pack_one(tree, out / "a" / "train")
    pack_one(tree.parent / "t.zip", out / "b" / "train")
    assert content_of(out / "a") == content_of(out / "b")


def test_worker_processes_read_a_bucket(
    tree: Path, out: Path, pack_one: Pack, content_of: Content, s3_server: Any
) -> None:
    from shardkit.location import locate
    from shardkit.storage.store import open_store

    store = open_store(locate(f"{s3_server.url}/tree"), s3_server.options)
    for path in tree.rglob("*.jpg"):
        store.put(str(path.relative_to(tree)), io.BytesIO(path.read_bytes()))
    pack_one(tree, out / "a" / "train", max_count=4)
    given: dict[str, Any] = {"max_count": 4, "storage_options": s3_server.options}
    first = pack_one(f"{s3_server.url}/tree", out / "b" / "train", workers=2, **given)
    assert content_of(out / "b") == content_of(out / "a")
    assert pack_one(f"{s3_server.url}/tree", out / "b" / "train", **given) == first


def test_a_name_that_obstore_can_not_list_is_told_with_the_cure(
    tree: Path, out: Path, pack_one: Pack, s3_server: Any
) -> None:
    import urllib.request

    bucket = f"{s3_server.endpoint}/{s3_server.url.removeprefix('s3://')}"
    for name in ("tree/blue//x.jpg", "tree/red/y.jpg"):
        with urllib.request.urlopen(urllib.request.Request(f"{bucket}/{name}", b"x", method="PUT"), timeout=30):
            pass
    with pytest.raises(StorageError, match=r"blue//.*rename or remove that object"):
        pack_one(f"{s3_server.url}/tree", out / "train", storage_options=s3_server.options)
    assert not out.exists() or not list(out.glob("*.json"))


def test_a_bucket_is_listed_folder_by_folder(
    splits: Path, out: Path, content_of: Content, s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shardkit.location import locate
    from shardkit.storage.store import open_store
    from shardkit.storage.stores.cloud import RemoteStore

    store = open_store(locate(f"{s3_server.url}/tree"), s3_server.options)
    for path in splits.rglob("*.jpg"):
        store.put(str(path.relative_to(splits)), io.BytesIO(path.read_bytes()))
    store.put("readme.md", io.BytesIO(b"x"))
    asked: list[str] = []
    real = RemoteStore._list
    monkeypatch.setattr(RemoteStore, "_list", lambda self, prefix: asked.append(prefix) or real(self, prefix))
    shardkit.pack(splits, out / "a", workers=1)
    monkeypatch.setattr("shardkit.sources.bucket.LISTINGS", 5)
    shardkit.pack(f"{s3_server.url}/tree", out / "b", workers=1, storage_options=s3_server.options)
    assert content_of(out / "a") == content_of(out / "b")
    assert sorted(asked) == [
        f"{split}/{name}/" for split in ("test", "train", "validation") for name in ("blue", "red")
    ]


def test_a_list_and_an_archive_can_be_added_to(tree: Path, out: Path, pack_one: Pack) -> None:
    rows = [row | {"class": "car"} for row in rows_of(tree, n=lambda n: n)]
    path = write_list(tree / "list.csv", rows[:5])
    pack_one(path, out / "list", append=True)
    write_list(path, rows)
    assert pack_one(path, out / "list", append=True).samples == 12
    assert {json.loads(sample["json"])["n"] for sample in shardkit.dataset(out / "list")} == set(range(12))
    assert shardkit.verify(out / "list").sound
    archive = archived(tree, "tar.gz")
    pack_one(archive, out / "archive", append=True)
    (tree / "red" / "new.jpg").write_bytes((tree / "red" / "0000.jpg").read_bytes())
    assert pack_one(archived(tree, "tar.gz"), out / "archive", append=True).samples == 13
    several = write_list(tree / "several.jsonl", [{"file": row["file"], "label": ["a"]} for row in rows])
    with pytest.raises(DestinationError, match="labels are of the kind 'class', and those of the source 'multi'"):
        pack_one(several, out / "archive", append=True)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_transcoded_as_its_tree_is(
    kind: str, tree: Path, out: Path, pack_one: Pack, content_of: Content
) -> None:
    pack_one(tree, out / "a" / "train", images=Images(resize=20), max_bytes=20_000)
    pack_one(archived(tree, kind), out / "b" / "train", images=Images(resize=20), max_bytes=20_000)
    assert content_of(out / "a") == content_of(out / "b")


@pytest.mark.parametrize("format", ["tar", "tfrecord"])
@pytest.mark.parametrize("label", [["x", "y"], 0.5, None, "of no folder"])
def test_what_a_list_packs_is_sound_and_converts(
    format: Any, label: Any, tree: Path, out: Path, pack_one: Pack
) -> None:
    rows = [{"file": row["file"]} | ({} if label is None else {"label": label}) for row in rows_of(tree)]
    path = write_list(tree / "list.jsonl", rows)
    manifest = pack_one(
        path, out / "a", format=format, columns=TableColumns(label_column="" if label is None else None)
    )
    assert shardkit.verify(out / "a").findings == ()
    other = "tfrecord" if format == "tar" else "tar"
    again = shardkit.convert(out / "a", out / "b", format=other, workers=1)
    assert (again.classes, again.fields) == (manifest.classes, manifest.fields)
    assert shardkit.verify(out / "b").findings == ()


def test_files_dated_in_the_future_keep_what_an_interrupted_run_finished(
    tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shardkit.packing.write import shard

    bad = tree / "red" / "zz.jpg"
    bad.write_bytes(b"")
    ahead = time.time() + 10 * 86_400
    for path in tree.rglob("*.jpg"):
        os.utime(path, (ahead, ahead))
    with pytest.raises(BadFileError):
        pack_one(tree, out / "train", max_count=3, shuffle=False)
    bad.write_bytes((tree / "red" / "0000.jpg").read_bytes())
    written: list[str] = []
    real = shard.write_shard
    monkeypatch.setattr(
        "shardkit.packing.engine.engine.write_shard", lambda task, *rest: written.append(task.name) or real(task, *rest)
    )
    manifest = pack_one(tree, out / "train", max_count=3, shuffle=False)
    assert 0 < len(written) < len(manifest.shards)
    os.utime(bad, (ahead, ahead))
    assert pack_one(tree, out / "train", max_count=3, shuffle=False) == manifest


@pytest.mark.parametrize("text", ['[{"path": "a.jpg"}]', '{"images": []}', "{"])
def test_a_json_file_is_no_list_and_no_dataset(text: str, tmp_path: Path, pack_one: Pack) -> None:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(SourceError, match=r"list\.json: this is a JSON file, not a list of files; .*JSON lines"):
        pack_one(tmp_path / "list.json", tmp_path / "out" / "x")
