"""Images that are not in class folders: what messages say, and packing them without labels."""

from __future__ import annotations

import logging
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import shardkit
from shardkit import LabelOptions
from shardkit.cli.main import run
from shardkit.errors import DestinationError, SourceError, UsageError
from shardkit.options.fields import options_of

Draw = Callable[..., bytes]
Pack = Callable[..., Any]

NO_LABELS = LabelOptions(no_labels=True)
WAYS = [f"`{option.name}" for option in options_of(LabelOptions) if option.name != "merge"]
"""The options that messages about images without class folders name."""


@pytest.fixture
def flat(tmp_path: Path, draw_image: Draw) -> Path:
    """A folder of 6 images without class folders, and a text file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for n, name in enumerate(("b.jpg", "a.10.jpg", "a.9.jpg", "Z.jpg", "a_9.jpg", "c.jpeg")):
        (folder / name).write_bytes(draw_image(n))
    (folder / "notes.txt").write_text("x")
    return folder


def zipped(folder: Path) -> Path:
    path = folder.parent / f"{folder.name}.zip"
    with zipfile.ZipFile(path, "w") as file:
        for each in sorted(folder.rglob("*")):
            file.write(each, each.relative_to(folder.parent))
    return path


def tarred(folder: Path) -> Path:
    path = folder.parent / f"{folder.name}.tar"
    with tarfile.open(path, "w") as file:
        file.add(folder, folder.name)
    return path


FORMS: dict[str, Callable[[Path], Path]] = {"folder": lambda folder: folder, "zip": zipped, "tar": tarred}


def rows(prefix: Path) -> list[tuple[str, str]]:
    found = pq.read_table(f"{prefix}.parquet", columns=["key", "path"]).to_pylist()
    return [(row["key"], row["path"]) for row in found]


def test_a_flat_folder_is_refused_with_all_ways_to_give_labels(flat: Path, out: Path, pack_one: Pack) -> None:
    with pytest.raises(SourceError, match=r"no class folder in it \(files not in a class folder: 7") as caught:
        pack_one(flat, out / "x")
    assert [way for way in [*WAYS, "CSV"] if way not in str(caught.value)] == []
    assert not out.exists()


def test_the_command_line_names_its_own_flags(flat: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pack", str(flat), str(out / "x")]) != 0
    told = capsys.readouterr().err
    assert "--label-from" in told and "--no-labels" in told and "`" not in told


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_an_archive_of_one_flat_folder_is_packed_as_one_class_with_a_warning(
    form: str, flat: Path, out: Path, pack_one: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "shardkit"):
        manifest = pack_one(FORMS[form](flat), out / "x")
    assert manifest.class_names == ["photos"]
    (told,) = [record.getMessage() for record in caplog.records if "of one class, photos" in record.getMessage()]
    assert [way for way in [*WAYS, "CSV"] if way not in told] == []


def test_one_class_that_was_named_is_no_surprise(
    draw_tree: Any, tmp_path: Path, out: Path, pack_one: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "shardkit"):
        pack_one(draw_tree(tmp_path / "tree", {"cat": 2}), out / "x", classes=["cat"])
    assert caplog.records == []


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_images_without_labels_are_packed_in_the_order_of_their_names(
    form: Callable[[Path], Path], flat: Path, out: Path
) -> None:
    packed = shardkit.pack(form(flat), out / "x", labels=NO_LABELS, shuffle=False, workers=1).manifest
    assert (packed.labels, packed.class_names, packed.fields) == ("none", [], ("jpg",))
    assert packed.options["no_labels"] is True
    assert rows(out / "x") == [
        ("Z", "Z.jpg"), ("a_10", "a.10.jpg"), ("a_9", "a.9.jpg"), ("a_9-2", "a_9.jpg"), ("b", "b.jpg"),
        ("c", "c.jpeg"),
    ]  # fmt: skip
    dataset = shardkit.dataset(out / "x")
    assert list(zip(dataset.keys, dataset.paths, strict=True)) == rows(out / "x")
    assert [key for batch in dataset.decode(size=8).batch(4) for key in batch.keys] == list(dataset.keys)
    images = [bytes(sample["jpg"]) for sample in dataset]
    assert images == [(flat / path).read_bytes() for _, path in rows(out / "x")]
    assert shardkit.verify(out / "x").sound


def test_all_forms_of_a_flat_folder_give_the_same_shards(flat: Path, out: Path) -> None:
    for name, form in FORMS.items():
        shardkit.pack(form(flat), out / name / "x", labels=NO_LABELS, workers=1)
    bytes_of = {name: (out / name / "x-000000.tar").read_bytes() for name in FORMS}
    assert bytes_of["zip"] == bytes_of["tar"] == bytes_of["folder"]


def test_without_labels_folders_are_only_parts_of_the_keys(tree: Path, out: Path, draw_image: Draw) -> None:
    (tree / "top.jpg").write_bytes(draw_image(99))
    manifest = shardkit.pack(tree, out / "x", labels=NO_LABELS, shuffle=False, workers=1).manifest
    assert manifest.samples == 13 and manifest.classes == ()
    assert [key for key, _ in rows(out / "x")][:2] == ["top", "blue/0000"]


def test_splits_may_hold_images_directly(flat: Path, tmp_path: Path, out: Path) -> None:
    for name in ("train", "test"):
        shutil.copytree(flat, tmp_path / "data" / name)
    packed = shardkit.pack(tmp_path / "data", out, labels=NO_LABELS, workers=1)
    assert {name: each.manifest.samples for name, each in packed.items()} == {"test": 6, "train": 6}


def test_splits_beside_images_or_other_folders_are_not_mixed_up(
    flat: Path, tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("train", "test", "extra"):
        shutil.copytree(flat, tmp_path / "data" / name)
    with pytest.raises(SourceError, match="test, train look like splits, but extra beside them do not"):
        shardkit.pack(tmp_path / "data", out / "x", labels=NO_LABELS)
    shutil.rmtree(tmp_path / "data/test")
    with caplog.at_level(logging.WARNING, "shardkit"):
        manifest = shardkit.pack(tmp_path / "data", out / "x", labels=NO_LABELS, workers=1).manifest
    assert manifest.samples == 12
    assert any("not taken as a split" in record.getMessage() for record in caplog.records)


def test_a_folder_without_images_is_refused(tmp_path: Path, out: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(SourceError, match=r"it contains no image \(it is empty\)"):
        shardkit.pack(tmp_path / "photos", out / "x", labels=NO_LABELS)
    (tmp_path / "photos/a.txt").write_text("x")
    with pytest.raises(SourceError, match=r"it contains no image \(files with other extensions: 1"):
        shardkit.pack(tmp_path / "photos", out / "x", labels=NO_LABELS)


@pytest.mark.parametrize("name", ["label_from", "no_labels"])
def test_lists_and_arrays_have_labels_of_their_own(name: str, flat: Path, out: Path, tmp_path: Path) -> None:
    labels = LabelOptions(**{name: "a" if name == "label_from" else True})  # type: ignore[arg-type]
    listed = {"path": [str(flat / "b.jpg")], "label": ["x"]}
    with pytest.raises(UsageError, match=f"given with `{name}`, which is for trees and archives"):
        shardkit.pack(listed, out / "x", labels=labels)
    (tmp_path / "data.npz").write_bytes(b"")
    with pytest.raises(UsageError, match=f"given with `{name}`"):
        shardkit.pack(tmp_path / "data.npz", out / "x", labels=labels)


def test_classes_of_images_without_labels_make_no_sense(flat: Path, out: Path) -> None:
    with pytest.raises(UsageError, match="classes: given together with `no_labels`"):
        shardkit.pack(flat, out / "x", labels=NO_LABELS, classes=["a"])


def test_images_are_added_with_the_same_options_only(flat: Path, out: Path, draw_image: Draw) -> None:
    shardkit.pack(flat, out / "x", labels=NO_LABELS, workers=1)
    (flat / "d.jpg").write_bytes(draw_image(50))
    added = shardkit.pack(flat, out / "x", labels=NO_LABELS, workers=1, append=True).manifest
    assert added.samples == 7
    with pytest.raises(DestinationError, match=r"packed with the option label_from None, not"):
        shardkit.pack(flat, out / "x", labels=LabelOptions(label_from="(.)"), workers=1, append=True)


def test_the_command_packs_without_labels(flat: Path, out: Path, tmp_path: Path) -> None:
    assert run(["pack", str(flat), str(out / "a"), "--no-labels", "-q"]) == 0
    config = tmp_path / "pack.yaml"
    config.write_text("no_labels: true\n")
    assert run(["pack", str(flat), str(out / "b"), "--config", str(config), "-q"]) == 0
    assert (out / "a-000000.tar").read_bytes() == (out / "b-000000.tar").read_bytes()
