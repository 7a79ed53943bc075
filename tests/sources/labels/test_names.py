"""Classes from file names."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit import LabelOptions
from shardkit.cli.main import run
from shardkit.errors import SourceError, UsageError
from shardkit.sources.source import some

Draw = Callable[..., bytes]

NAMED = LabelOptions(label_from=r"(?P<label>\w+)\.\d+")


@pytest.fixture
def pets(tmp_path: Path, draw_image: Draw) -> Path:
    """A flat folder with cat.0.jpg … cat.3.jpg and dog.0.jpg … dog.2.jpg."""
    folder = tmp_path / "pets"
    folder.mkdir()
    for name, count in (("cat", 4), ("dog", 3)):
        for n in range(count):
            (folder / f"{name}.{n}.jpg").write_bytes(draw_image(len(name) + n))
    return folder


def labelled(prefix: Path) -> list[tuple[str, str]]:
    """(key, class) of each sample in order."""
    dataset = shardkit.dataset(prefix)
    return [(sample["__key__"], dataset.classes[sample["cls"]]) for sample in dataset]


@pytest.mark.parametrize(
    "pattern", [r"(?P<label>\w+)\.\d+", r"^([a-z]+)", r"^[a-z]+", r"(.)?(?P<label>cat|dog)"], ids=str
)
def test_the_named_group_the_first_one_or_the_match_is_the_class(pattern: str, pets: Path, out: Path) -> None:
    labels = LabelOptions(label_from=pattern)
    manifest = shardkit.pack(pets, out / "x", labels=labels, shuffle=False, workers=1).manifest
    assert [(entry.name, entry.count) for entry in manifest.classes] == [("cat", 4), ("dog", 3)]
    assert (manifest.labels, manifest.options["label_from"]) == ("listed", pattern)
    assert labelled(out / "x") == [
        (f"{name}_{n}", name) for name, count in (("cat", 4), ("dog", 3)) for n in range(count)
    ]
    assert shardkit.verify(out / "x").sound


def test_a_zip_of_the_folder_gives_the_same_shards(pets: Path, out: Path) -> None:
    with zipfile.ZipFile(pets.parent / "pets.zip", "w") as file:
        for path in pets.iterdir():
            file.write(path, f"pets/{path.name}")
    shardkit.pack(pets, out / "a/x", labels=NAMED, workers=1)
    shardkit.pack(pets.parent / "pets.zip", out / "b/x", labels=NAMED, workers=1)
    assert (out / "a/x-000000.tar").read_bytes() == (out / "b/x-000000.tar").read_bytes()


def test_only_the_top_folder_of_an_archive_is_not_part_of_the_paths(
    tmp_path: Path, out: Path, draw_image: Draw
) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        file.writestr("photos/cat/1.jpg", draw_image(1))
    labels = LabelOptions(label_from="^([^/]+)/")
    shardkit.pack(tmp_path / "photos.zip", out / "x", labels=labels, workers=1)
    assert labelled(out / "x") == [("cat/1", "cat")]


def test_the_class_folder_by_its_pattern_gives_the_shards_of_the_tree(tree: Path, out: Path) -> None:
    plain = shardkit.pack(tree, out / "a/x", workers=1).manifest
    found = shardkit.pack(tree, out / "b/x", workers=1, labels=LabelOptions(label_from="^([^/]+)/")).manifest
    assert (found.labels, found.classes, found.shards) == (plain.labels, plain.classes, plain.shards)


def test_splits_have_one_class_map(tmp_path: Path, out: Path, draw_image: Draw) -> None:
    for path in ("train/cat.0.jpg", "train/dog.0.jpg", "test/dog.1.jpg", "test/emu.1.jpg"):
        (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / path).write_bytes(draw_image(len(path)))
    packed = shardkit.pack(tmp_path / "data", out, labels=NAMED, workers=1)
    assert {tuple(each.manifest.class_names) for each in packed.values()} == {("cat", "dog", "emu")}
    assert dict(labelled(out / "test")) == {"dog_1": "dog", "emu_1": "emu"}


def test_files_that_do_not_match_are_reported_together(pets: Path, out: Path, draw_image: Draw) -> None:
    names = [f"bird-{n}.jpg" for n in range(7)]
    for name in names:
        (pets / name).write_bytes(draw_image(1))
    with pytest.raises(SourceError) as caught:
        shardkit.pack(pets, out / "x", labels=NAMED, workers=1)
    assert f"finds no class in 7 of 14 paths: {some(names)}" in str(caught.value)
    assert not out.exists()


def test_files_that_do_not_match_are_skipped_and_listed_if_asked(pets: Path, out: Path, draw_image: Draw) -> None:
    (pets / "a bird.jpg").write_bytes(draw_image(1))
    manifest = shardkit.pack(pets, out / "x", labels=NAMED, workers=1, on_error="skip").manifest
    assert (manifest.samples, manifest.skipped) == (7, 1)
    assert "a bird.jpg" in (out / "x.skipped.json").read_text()
    with pytest.raises(SourceError, match="finds no class in 8 of 8 paths"):
        shardkit.pack(pets, out / "y", labels=LabelOptions(label_from="none"), on_error="skip")


def test_an_empty_group_is_no_class(pets: Path, out: Path) -> None:
    with pytest.raises(SourceError, match="finds no class in 7 of 7 paths"):
        shardkit.pack(pets, out / "x", labels=LabelOptions(label_from=r"(x*)\."))


def test_given_classes_set_the_order_and_must_name_all(pets: Path, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "shardkit"):
        manifest = shardkit.pack(pets, out / "x", labels=NAMED, workers=1, classes=["emu", "dog", "cat"]).manifest
    assert [(entry.name, entry.count) for entry in manifest.classes] == [("emu", 0), ("dog", 3), ("cat", 4)]
    assert any("no image of class emu" in record.getMessage() for record in caplog.records)
    with pytest.raises(SourceError, match="`label_from` finds the classes dog, which `classes` does not name"):
        shardkit.pack(pets, out / "y", labels=NAMED, classes=["cat"])


def test_several_fields_and_splits_go_with_it(pets: Path, out: Path) -> None:
    for path in list(pets.glob("*.jpg")):
        path.with_suffix(".json").write_text("{}")
    packed = shardkit.pack(
        pets, out / "x", labels=NAMED, fields="jpg,json", split={"train": 0.5, "test": 0.5}, workers=1
    )
    assert sum(each.manifest.samples for each in packed.values()) == 7
    assert {each.manifest.fields for each in packed.values()} == {("cls", "jpg", "json")}
    assert dict(labelled(out / "x/train") + labelled(out / "x/test"))["dog_1"] == "dog"


def test_another_pattern_is_another_dataset(pets: Path, out: Path) -> None:
    shardkit.pack(pets, out / "x", labels=NAMED, workers=1)
    before = (out / "x-000000.tar").stat().st_mtime_ns
    shardkit.pack(pets, out / "x", labels=NAMED, workers=1)
    assert (out / "x-000000.tar").stat().st_mtime_ns == before
    with pytest.raises(shardkit.DestinationError):
        shardkit.pack(pets, out / "x", labels=LabelOptions(label_from=r"\d"), workers=1)


def test_a_plan_has_the_classes_too(pets: Path, out: Path) -> None:
    (plan,) = shardkit.plan_pack(pets, out / "x", labels=NAMED, workers=1).datasets
    assert [entry.name for entry in plan.classes] == ["cat", "dog"]


def test_the_command_takes_the_pattern(pets: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pack", str(pets), str(out / "x"), "--label-from", str(NAMED.label_from), "-q"]) == 0
    assert shardkit.dataset(out / "x").classes == ["cat", "dog"]
    assert run(["pack", str(pets), str(out / "y"), "--label-from", "none"]) != 0
    assert "--label-from finds no class in 7 of 7 paths" in capsys.readouterr().err


@pytest.mark.parametrize("pattern", ["", "(", "(?P<label>", 3])
def test_what_is_no_pattern_is_refused(pattern: Any) -> None:
    with pytest.raises(UsageError, match=r"label_from: .* is not a regular expression"):
        LabelOptions(label_from=pattern)


def test_labels_and_none_are_not_given_together() -> None:
    with pytest.raises(UsageError, match="no_labels: given together with `label_from`"):
        LabelOptions(label_from="a", no_labels=True)
    with pytest.raises(UsageError, match="no_labels: given together with `merge`"):
        LabelOptions(merge={"a": ["b"]}, no_labels=True)
