"""`export`: what it describes, which files it replaces, what it refuses; of every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from storage.in_memory import files, objects, refused

import shardkit
from shardkit.cli.main import run
from shardkit.errors import DatasetError, DestinationError, ManifestError, NotFoundError, UsageError
from shardkit.tools.export.export import FILES
from shardkit.tools.export.files import FileKind
from shardkit.tools.settings import ExportKind

pytestmark = pytest.mark.usefixtures("no_objects")


@pytest.fixture
def packed(splits: Path, tmp_path: Path) -> Path:
    """A folder with the datasets train, validation and test."""
    shardkit.pack(splits, tmp_path / "shards", workers=1)
    return tmp_path / "shards"


def names_of(folder: Path) -> set[str]:
    return set(json.loads((folder / "_info.json").read_bytes())["splits"])


def test_the_result_names_the_datasets_and_the_files(packed: Path) -> None:
    first = shardkit.export(packed, ["timm", "class-names"])
    assert first.datasets == tuple(str(packed / f"{name}.json") for name in ("test", "train", "validation"))
    assert [(file.kind, file.file, file.written) for file in first.files] == [
        ("timm", str(packed / "_info.json"), True),
        ("class-names", str(packed / "classnames.txt"), True),
    ]
    assert [file.bytes for file in first.files] == [Path(file.file).stat().st_size for file in first.files]
    again = shardkit.export(packed, ["timm", "class-names", "timm"])
    assert [(file.file, file.written) for file in again.files] == [(file.file, False) for file in first.files]


def test_a_dataset_a_manifest_a_folder_and_a_list_may_be_named(packed: Path) -> None:
    for source, named in (
        (packed / "train", {"train"}),
        (str(packed / "train.json"), {"train"}),
        (f"{packed}/", {"train", "validation", "test"}),
        ([packed / "train", packed / "test"], {"train", "test"}),
        (str(packed / "train-*.tar"), {"train"}),
    ):
        shardkit.export(source, "timm")
        assert names_of(packed) == named


def test_the_shards_and_the_manifest_stay_as_they_are(packed: Path) -> None:
    before = files(packed)
    written = shardkit.export(packed, [kind for kind in FILES if kind != "tfds"])
    after = files(packed)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {Path(file.file).name for file in written.files}
    assert not shardkit.verify(packed / "train").findings


def test_class_names_are_lines_in_label_order_that_index_takes_back(packed: Path) -> None:
    shardkit.export(packed / "train", "class-names")
    assert (packed / "classnames.txt").read_text() == "blue\nred\n"
    (packed / "train.json").unlink()
    manifest = shardkit.index_shards(packed / "train-*.tar", classes=packed / "classnames.txt", overwrite=True)
    assert manifest.class_names == ["blue", "red"]


def test_a_class_name_of_several_lines_is_refused_where_lines_are_written(
    draw_image: Callable[..., bytes], tmp_path: Path
) -> None:
    for number, name in enumerate(("a\nb", " a", "", "a\x85b")):
        shardkit.write([{"__key__": "k", "jpg": draw_image(), "cls": 0}], tmp_path / f"x{number}", classes=[name])
        refused(UsageError, lambda number=number: shardkit.export(tmp_path / f"x{number}", "class-names"))


def test_a_dataset_in_a_bucket_gets_its_files_there(packed: Path) -> None:
    shardkit.upload(packed, "memory://b/cars")
    for source in ("memory://b/cars", "memory://b/cars/", "memory://b/cars/train"):
        result = shardkit.export(source, "class-names")
        assert [file.file for file in result.files] == ["memory://b/cars/classnames.txt"]
    assert objects("b/cars")["classnames.txt"] == b"blue\nred\n"


@pytest.mark.parametrize(("kind", "file"), [(kind, file) for kind in FILES for file in FILES[kind]])
def test_a_file_of_somebody_else_stays(kind: ExportKind, file: FileKind, tree: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / "s" / "train", format="tfrecord" if kind == "tfds" else "tar", workers=1)
    foreign = b'{"splits": {}}\n' if file.name.endswith(".json") else b"---\n[: x\n---\n"
    (tmp_path / "s" / file.name).write_bytes(foreign)
    before = files(tmp_path / "s")
    text = refused(DestinationError, lambda: shardkit.export(tmp_path / "s", kind))
    assert text.startswith(str(tmp_path / "s" / file.name))
    assert files(tmp_path / "s") == before


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_an_earlier_export_is_replaced(
    kind: ExportKind, tree: Path, tmp_path: Path, draw_tree: Callable[..., Path]
) -> None:
    form: Any = "tfrecord" if kind == "tfds" else "tar"
    shardkit.pack(tree, tmp_path / "s" / "train", format=form, workers=1)
    first = shardkit.export(tmp_path / "s", kind)
    draw_tree(tree, {"red": 9}, seed=50)
    shardkit.pack(tree, tmp_path / "s" / "train", format=form, workers=1, append=True)
    second = shardkit.export(tmp_path / "s", kind)
    assert [file.file for file in first.files] == [file.file for file in second.files]
    same = ("classnames.txt", "features.json", "image.class.label.labels.txt")
    assert [file.written for file in second.files] == [not file.file.endswith(same) for file in second.files]


def test_a_file_of_somebody_else_is_replaced_when_asked(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (packed / "_info.json").write_text("{}")
    assert run(["export", str(packed), "--timm"]) == DestinationError.exit_code
    assert "--overwrite" in capsys.readouterr().err
    assert run(["export", str(packed), "--timm", "--overwrite"]) == 0
    assert names_of(packed) == {"train", "validation", "test"}


def test_no_file_is_written_if_one_of_them_can_not_be(packed: Path) -> None:
    (packed / "classnames.txt").write_text("cat\n")
    before = files(packed)
    refused(DestinationError, lambda: shardkit.export(packed, ["timm", "class-names"]))
    assert files(packed) == before


def test_splits_with_different_class_maps_are_refused(
    draw_tree: Callable[..., Path], tmp_path: Path, tree: Path
) -> None:
    shardkit.pack(tree, tmp_path / "s" / "train", workers=1)
    shardkit.pack(draw_tree(tmp_path / "o", {"green": 1, "red": 2}), tmp_path / "s" / "validation", workers=1)
    shardkit.pack(draw_tree(tmp_path / "p", {"blue": 1, "red": 2, "white": 1}), tmp_path / "s" / "test", workers=1)
    for names, fact in (
        (("train", "validation"), "label 0 is 'green' here, and 'blue' in train"),
        (("train", "test"), "it has 3 classes, and train has 2"),
    ):
        text = refused(DatasetError, lambda names=names: shardkit.export([tmp_path / "s" / n for n in names], "timm"))
        assert fact in text


def test_what_is_not_a_finished_dataset_is_refused(packed: Path, splits: Path, tmp_path: Path) -> None:
    (packed / "test.json").write_text("{")
    assert "name the datasets to export one by one" in refused(ManifestError, lambda: shardkit.export(packed, "timm"))
    (packed / "test.json").unlink()
    assert "shardkit index" in refused(NotFoundError, lambda: shardkit.export(packed / "test", "timm"))
    assert "class directory" in refused(UsageError, lambda: shardkit.export(splits / "train", "timm"))
    refused(NotFoundError, lambda: shardkit.export(tmp_path / "nowhere", "timm"))
    refused(NotFoundError, lambda: shardkit.export("memory://b/nowhere", "timm"))
    assert "read-only" in refused(UsageError, lambda: shardkit.export("https://example.org/train", "timm"))


def test_arguments_that_make_no_sense_are_refused(packed: Path, tree: Path, tmp_path: Path) -> None:
    refused(UsageError, lambda: shardkit.export([], "timm"))
    refused(UsageError, lambda: shardkit.export(packed, []))
    assert "no format is named" in refused(UsageError, lambda: shardkit.export(packed, None))  # type: ignore[arg-type]
    text = refused(UsageError, lambda: shardkit.export(packed, "tim"))  # type: ignore[arg-type]
    assert "'tim' is not one of timm, " in text
    assert "named twice" in refused(UsageError, lambda: shardkit.export([packed, packed / "train"], "timm"))
    shardkit.pack(tree, tmp_path / "other" / "a", workers=1)
    text = refused(UsageError, lambda: shardkit.export([packed / "train", tmp_path / "other" / "a"], "timm"))
    assert "in several folders" in text


def test_the_command_prints_a_line_for_each_file_or_json(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(packed), "--timm", "--class-names"]) == 0
    size = (packed / "_info.json").stat().st_size
    assert capsys.readouterr().out == f"{packed}/_info.json: {size} B\n{packed}/classnames.txt: 9 B\n"
    assert run(["export", str(packed), "--class-names", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == [{"kind": "class-names", "file": f"{packed}/classnames.txt", "bytes": 9, "written": False}]
    assert run(["export", str(packed)]) == UsageError.exit_code
    assert "give at least one of --timm, " in capsys.readouterr().err
