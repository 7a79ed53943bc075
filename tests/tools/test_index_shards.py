"""Manifest and index from the shards alone."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit import (
    DamagedError,
    DatasetError,
    DestinationError,
    NotFoundError,
    UsageError,
    dataset,
    index_shards,
    pack,
    verify,
)
from shardkit.sample import MAX_LABEL, label_number
from shardkit.shards.manifest import ClassEntry, decode_manifest, file_names
from shardkit.shards.names import index_name, signs


def make_tar(path: Path, members: list[tuple[str, bytes]], format: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def names(manifest: Any) -> list[str]:
    return [entry.name for entry in manifest.classes]


def test_an_index_of_packed_shards_is_the_one_that_was_packed(tree: Path, tmp_path: Path) -> None:
    from shardkit.location import Location
    from shardkit.shards.open import IndexFile

    packed = pack(tree, tmp_path / "train", workers=1, max_count=5)
    index = IndexFile(Location("", str(tmp_path / "train.parquet")), None)
    before = [index.rows(group) for group in range(3)]
    manifest = index_shards(tmp_path / "train", overwrite=True)
    again = IndexFile(Location("", str(tmp_path / "train.parquet")), None)
    for group, rows in enumerate(before):
        found = again.rows(group)
        assert rows is not None
        assert found is not None
        assert (found.keys, found.paths) == (rows.keys, rows.paths)
        assert {n: c.tolist() for n, c in found.numbers.items()} == {n: c.tolist() for n, c in rows.numbers.items()}
    assert (manifest.shards, manifest.classes, manifest.fields) == (packed.shards, packed.classes, packed.fields)
    assert manifest == decode_manifest((tmp_path / "train.json").read_bytes(), place="")
    assert verify(tmp_path / "train", decode=True).sound


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_of_others_become_a_dataset(tmp_path: Path, draw_image: Any, format: int) -> None:
    images = [draw_image(n) for n in range(6)]
    long = "k" * 90 + "é" if format != tarfile.USTAR_FORMAT else "k"
    for shard in range(2):
        members = []
        for n in range(shard * 3, shard * 3 + 3):
            members += [(f"{long}{n}.jpg", images[n]), (f"{long}{n}.cls", b"%d" % (n % 3)), (f"{long}{n}.json", b"{}")]
        make_tar(tmp_path / f"web-{shard:04}.tar", members, format)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.tar")}
    manifest = index_shards(f"{tmp_path}/web-*.tar", workers=2)
    assert (manifest.samples, manifest.fields) == (6, ("cls", "jpg", "json"))
    assert manifest.classes == (ClassEntry("0", 2), ClassEntry("1", 2), ClassEntry("2", 2))
    assert verify(tmp_path / "web", decode=True).sound
    samples = dataset(tmp_path / "web")
    assert len(samples) == 6
    assert [(s["jpg"], s["cls"]) for s in samples] == [(image, n % 3) for n, image in enumerate(images)]
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.tar")} == before


def test_class_names_come_from_a_file_the_keys_or_the_numbers(tmp_path: Path, draw_image: Any) -> None:
    image = draw_image()
    pairs = [("cat/1", b"0"), ("dog/1", b"2"), ("cat/2", b"0")]
    members = [item for key, label in pairs for item in ((f"{key}.jpg", image), (f"{key}.cls", label))]
    make_tar(tmp_path / "a-0.tar", members)
    assert names(index_shards(tmp_path / "a")) == ["cat", "1", "dog"]
    (tmp_path / "names").write_text("x\ny\nz\n")
    assert names(index_shards(tmp_path / "a", classes=tmp_path / "names", overwrite=True)) == ["x", "y", "z"]
    with pytest.raises(UsageError, match="2 names are given"):
        index_shards(tmp_path / "a", classes=["x", "y"], overwrite=True)
    make_tar(
        tmp_path / "b-0.tar", [("cat/1.jpg", image), ("cat/1.cls", b"0"), ("cat/2.jpg", image), ("cat/2.cls", b"1")]
    )
    assert names(index_shards(tmp_path / "b")) == ["0", "1"]


def test_without_cls_the_first_directory_of_the_key_is_the_class(tmp_path: Path, draw_image: Any) -> None:
    image = draw_image()
    make_tar(tmp_path / "a-0.tar", [("dog/1.jpg", image), ("cat/1.jpg", image), ("dog/2.jpg", image)])
    manifest = index_shards(tmp_path / "a")
    assert manifest.classes == (ClassEntry("cat", 1), ClassEntry("dog", 2))
    assert verify(tmp_path / "a").sound
    with pytest.raises(UsageError, match="'cat', which is not named"):
        index_shards(tmp_path / "a", classes=["dog", "cow"], overwrite=True)
    make_tar(tmp_path / "b-0.tar", [("1.jpg", image), ("cat/1.jpg", image)])
    assert index_shards(tmp_path / "b").classes == ()


def test_gzip_shards_are_indexed_by_their_unpacked_bytes(tmp_path: Path, draw_image: Any) -> None:
    plain = make_tar(tmp_path / "p.tar", [("a.jpg", draw_image()), ("a.cls", b"0")])
    (tmp_path / "g-0.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    manifest = index_shards(f"{tmp_path}/g-*.tar.gz")
    assert manifest.options["unpacked_bytes"] == [plain.stat().st_size]
    assert manifest.shards[0].bytes == (tmp_path / "g-0.tar.gz").stat().st_size
    assert verify(tmp_path / "g").sound


def test_members_that_are_no_samples_are_passed_over(tmp_path: Path, draw_image: Any) -> None:
    members = [("README", b"text"), ("__meta__/x.json", b"{}"), ("a.jpg", draw_image())]
    make_tar(tmp_path / "a-0.tar", members)
    assert index_shards(tmp_path / "a").samples == 1


def test_damage_is_an_error_with_its_place_and_nothing_is_written(tmp_path: Path, draw_image: Any) -> None:
    image = draw_image()
    shard = tmp_path / "a-0.tar"
    make_tar(shard, [("a.jpg", image), ("b.jpg", image), ("a.cls", b"1")])
    with pytest.raises(DamagedError, match="not next to each other"):
        index_shards(shard)
    make_tar(shard, [("a.jpg", image), ("a.cls", b"cat")])
    with pytest.raises(DatasetError, match="sample a: its cls is not a class number"):
        index_shards(shard)
    make_tar(shard, [("a.jpg", image)])
    make_tar(tmp_path / "a-1.tar", [("a.jpg", image)])
    with pytest.raises(DatasetError, match=r"a-1\.tar: at byte 0: sample a: the key is already in a-0\.tar"):
        index_shards(f"{tmp_path}/a-*.tar")
    make_tar(tmp_path / "a-1.tar", [("b\udce9.jpg", image)])
    with pytest.raises(DatasetError, match="is not UTF-8"):
        index_shards(f"{tmp_path}/a-*.tar")
    assert {path.name for path in tmp_path.iterdir()} == {"a-0.tar", "a-1.tar"}


def test_a_manifest_that_is_there_is_kept_unless_it_is_to_be_replaced(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "train", workers=1)
    before = (tmp_path / "train.json").read_bytes()
    with pytest.raises(DestinationError, match="a manifest already exists"):
        index_shards(tmp_path / "train")
    assert (tmp_path / "train.json").read_bytes() == before


def test_the_name_is_what_the_shards_begin_with_or_as_asked_for(tmp_path: Path, draw_image: Any) -> None:
    for name in ("a-0.tar", "b-0.tar", "lone.tar"):
        make_tar(tmp_path / name, [(f"{name[0]}.jpg", draw_image())])
    index_shards(tmp_path / "lone.tar")
    assert (tmp_path / "lone.json").exists()
    with pytest.raises(UsageError, match=r"begin with 2 different words \(a, b …\)"):
        index_shards(f"{tmp_path}/[ab]-0.tar")
    manifest = index_shards(f"{tmp_path}/[ab]-0.tar", out=tmp_path / "all")
    assert [entry.name for entry in manifest.shards] == ["a-0.tar", "b-0.tar"]
    assert verify(tmp_path / "all.json").sound
    (tmp_path / "other").mkdir()
    other = make_tar(tmp_path / "other" / "a-1.tar", [("z.jpg", draw_image())])
    with pytest.raises(UsageError, match="the shards are in 2 folders"):
        index_shards([tmp_path / "a-0.tar", other])
    with pytest.raises(NotFoundError, match="there are no shards here"):
        index_shards(tmp_path / "nothing")


def test_an_index_that_is_made_again_replaces_the_old_one_at_once(
    tmp_path: Path, draw_tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_tree(tmp_path / "tree", {"a": 3, "b": 3})
    prefix = tmp_path / "out" / "train"
    shardkit.pack(tmp_path / "tree", prefix, max_count=2, workers=1)
    (tmp_path / "classes.txt").write_text("x\ny\n")
    seen = []
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        real(source, target)
        seen.append(shardkit.dataset(prefix).classes)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        manifest = shardkit.index_shards(prefix, classes=["x", "y"], overwrite=True)
    assert seen == [["a", "b"], ["x", "y"]]  # the index, the manifest
    assert {path.name for path in prefix.parent.iterdir()} == {*file_names(manifest), "train.json"}
    assert shardkit.verify(prefix).sound
    assert shardkit.index_shards(prefix, classes=["x", "y"], overwrite=True) == manifest


def test_the_rows_of_many_shards_go_to_several_files_as_pack_writes_them(
    tmp_path: Path, draw_tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardkit.packing.dest.work_folder.INDEX_SHARDS", 2)
    monkeypatch.setattr("shardkit.shards.indexing.make.INDEX_SHARDS", 2)
    packed = shardkit.pack(draw_tree(tmp_path / "tree", {"a": 5}), tmp_path / "train", max_count=1, workers=1)
    assert [(entry.name, entry.shards) for entry in packed.index] == [
        (index_name("train", number), shards) for number, shards in enumerate((2, 2, 1))
    ]
    for name in file_names(packed.manifest):
        if name.endswith(".parquet"):
            (tmp_path / name).unlink()
    (tmp_path / "train.json").unlink()
    assert index_shards(tmp_path / "train").index == packed.index
    assert verify(tmp_path / "train").sound


@pytest.mark.parametrize("sign", signs("train"))
def test_half_a_dataset_gets_no_index_and_no_advice_to_make_one(sign: str, tmp_path: Path, draw_tree: Any) -> None:
    draw_tree(tmp_path / "tree", {"a": 3, "b": 3})
    prefix = tmp_path / "out" / "train"
    shardkit.pack(tmp_path / "tree", prefix, max_count=2, workers=1)
    prefix.with_suffix(".json").unlink()
    (prefix.parent / sign).write_bytes(b"")
    tools = (shardkit.index_shards, shardkit.info, shardkit.verify, shardkit.report)
    for act in tools:
        with pytest.raises(NotFoundError, match="still to come") as raised:
            act(f"{prefix}-*.tar")
        assert "index" not in raised.value.cure


def test_members_that_begin_with_a_dot_and_a_slash_are_in_the_folders_behind_it(
    tmp_path: Path, draw_image: Any
) -> None:
    image = draw_image()
    make_tar(tmp_path / "a-0.tar", [("./dog/1.jpg", image), ("./cat/1.jpg", image)])
    assert names(index_shards(tmp_path / "a")) == ["cat", "dog"]


@pytest.mark.parametrize(
    "members",
    [["captions/1.txt", "images/1.txt"], ["./1.jpg", "./2.jpg"], ["x/1.jpg", "x/2.jpg"], ["train/1.jpg", "val/1.jpg"]],
)
def test_samples_without_cls_have_no_labels_where_folders_are_no_classes(
    members: list[str], tmp_path: Path, draw_image: Any, caplog: pytest.LogCaptureFixture
) -> None:
    make_tar(tmp_path / "a-0.tar", [(name, draw_image()) for name in members])
    before = [{**sample} for sample in shardkit.dataset(tmp_path / "a-0.tar")]
    assert index_shards(tmp_path / "a").classes == ()
    assert "there are no labels: no sample has a cls" in caplog.text
    assert [{**sample} for sample in shardkit.dataset(tmp_path / "a")] == before


def test_folders_taken_as_classes_are_told(tmp_path: Path, draw_image: Any, caplog: pytest.LogCaptureFixture) -> None:
    make_tar(tmp_path / "a-0.tar", [("cat/1.jpg", draw_image()), ("dog/1.jpg", draw_image())])
    index_shards(tmp_path / "a")
    assert "the folders cat, dog of its keys are taken as classes" in caplog.text


def test_names_for_samples_without_any_class_are_refused(tmp_path: Path, draw_image: Any) -> None:
    make_tar(tmp_path / "a-0.tar", [("1.jpg", draw_image())])
    with pytest.raises(UsageError, match="neither a cls nor an image in a folder"):
        index_shards(tmp_path / "a", classes=["x"])


@pytest.mark.parametrize("second", [("cow/1", b"0"), ("cat/2", b"1")])
def test_a_label_that_is_another_class_in_another_shard_is_refused(
    second: tuple[str, bytes], tmp_path: Path, draw_image: Any
) -> None:
    for stem, rows in (("a", [("cat/1", b"0"), ("dog/1", b"2")]), ("b", [second])):
        make_tar(
            tmp_path / f"{stem}-0.tar",
            [m for key, label in rows for m in ((f"{key}.jpg", draw_image()), (f"{key}.cls", label))],
        )
    shards = [tmp_path / "a-0.tar", tmp_path / "b-0.tar"]
    with pytest.raises(DatasetError, match=r"b-0.tar: .* in a-0.tar; these are two datasets"):
        index_shards(shards, out=tmp_path / "all")
    with pytest.raises(DatasetError, match=r"these are two datasets"):
        shardkit.convert(shards, tmp_path / "new" / "all")
    assert names(index_shards(shards, out=tmp_path / "all", classes=["x", "y", "z"])) == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("cls", "label"),
    [(b"3", 3), (b" 3\n", 3), (b"003", 3), (b"0" * 40 + b"3", 3), (b"%d" % MAX_LABEL, MAX_LABEL),
     (b"%d" % (MAX_LABEL + 1), None),
     (b"9" * 5000, None), (b"1.0", None), (b"-1", None), (b"+1", None), (b"", None), (b"\xff", None),
     ("\u0663".encode(), None)],
)  # fmt: skip
def test_every_reader_takes_the_same_cls_for_a_label(
    cls: bytes, label: int | None, tmp_path: Path, draw_image: Any
) -> None:
    assert label_number(cls) == label
    make_tar(tmp_path / "a-0.tar", [("1.jpg", draw_image()), ("1.cls", cls)])
    [sample] = shardkit.dataset(tmp_path / "a-0.tar")
    assert sample["cls"] == (cls if label is None else label)
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "a-0.tar.gz").write_bytes(gzip.compress((tmp_path / "a-0.tar").read_bytes()))
    if label is None:
        for source in (tmp_path / "a-0.tar", tmp_path / "z" / "a-0.tar.gz"):
            with pytest.raises(DatasetError, match="its cls is not a class number"):
                shardkit.convert(source, tmp_path / "new" / "a")
        with pytest.raises(DatasetError, match="its cls is not a class number"):
            index_shards(tmp_path / "a")
    elif label < MAX_LABEL:  # so many classes take long to name
        index_shards(tmp_path / "a")
        assert next(iter(shardkit.dataset(tmp_path / "a")))["cls"] == label


JOINED = [("cat", 0), ("dog", 1), ("dog", 1), ("cat", 0), ("dog", 1), ("cat", 0), ("cat", 0), ("dog", 1)]
"""A dataset as it is packed: its classes are mixed."""


@pytest.mark.parametrize(
    ("second", "fact"),
    [
        ({"cat": "bird", "dog": "cow"}, "label 0 is 'bird' here, and 'cat' before"),
        ({"cat": "dog", "dog": "cat"}, "label 0 is 'dog' here, and 'cat' before"),
        ({"cat": "bird", "dog": "dog"}, "label 0 is 'bird' here, and 'cat' before"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_tar_joined_from_two_datasets_is_refused_where_the_second_begins(
    second: dict[str, str], fact: str, packed: bool, tmp_path: Path, draw_image: Any
) -> None:
    rows = [*JOINED, *((second[name], label) for name, label in JOINED)]
    members = [
        member
        for n, (name, label) in enumerate(rows)
        for member in ((f"{name}/{n}.jpg", draw_image()), (f"{name}/{n}.cls", b"%d" % label))
    ]
    shard = make_tar(tmp_path / "a-0.tar", members)
    if packed:
        shard = tmp_path / "a-0.tar.gz"
        shard.write_bytes(gzip.compress((tmp_path / "a-0.tar").read_bytes()))
    first = next(n for n, (name, label) in enumerate(rows) if (name, label) not in JOINED)
    for run in (lambda: index_shards(shard), lambda: shardkit.convert(shard, tmp_path / "new" / "a", workers=1)):
        with pytest.raises(DatasetError, match=f"sample {rows[first][0]}/{first}: {fact}; these are two datasets"):
            run()
    assert names(index_shards(shard, classes=["x", "y"])) == ["x", "y"]


@pytest.mark.parametrize(
    "rows",
    [
        [(f"part{n % 3}", n // 3 % 2) for n in range(60)],  # folders that say nothing of the class
        [(f"{subject}", subject % 2) for subject in range(4) for _ in range(8)],  # subjects, one after the other
        [(f"{n % 6}", n % 6 % 2) for n in range(60)],  # fine classes as folders, coarse ones as labels
        [("cat", 0), ("dog", 1), ("bird", 0), ("cow", 1)] * 2,
    ],
)
def test_folders_that_are_no_classes_contradict_nothing(
    rows: list[tuple[str, int]], tmp_path: Path, draw_image: Any
) -> None:
    members = [
        member
        for n, (folder, label) in enumerate(rows)
        for member in ((f"{folder}/{n}.jpg", draw_image()), (f"{folder}/{n}.cls", b"%d" % label))
    ]
    make_tar(tmp_path / "a-0.tar", members)
    assert names(index_shards(tmp_path / "a")) == ["0", "1"]
