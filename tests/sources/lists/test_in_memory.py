"""Lists in memory: DataFrames, Arrow tables, columns, and (paths, labels), packed as a CSV file of them would be."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import shardkit
from shardkit.errors import BadFileError, SourceError, UsageError
from shardkit.sources.lists.in_memory import in_memory
from shardkit.sources.lists.rows import MOST_REFUSED


@pytest.fixture
def files(small_tree: Path) -> tuple[list[str], list[str]]:
    """(paths, class names) of the tree's 97 images."""
    paths = sorted(small_tree.rglob("*.jpg"))
    return [str(path) for path in paths], [path.parent.name for path in paths]


def stored(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}


def pandas_frame(paths: list[str], labels: list[str]) -> Any:
    return pytest.importorskip("pandas").DataFrame({"file": paths, "label": labels}, index=range(5, 5 + len(paths)))


FORMS: dict[str, Callable[[list[str], list[str]], Any]] = {
    "lists": lambda paths, labels: (paths, labels),
    "paths as Path": lambda paths, labels: ([Path(path) for path in paths], labels),
    "arrays": lambda paths, labels: (np.array(paths), np.array(labels)),
    "arrays of objects": lambda paths, labels: (np.array(paths, object), np.array(labels, object)),
    "columns": lambda paths, labels: {"path": paths, "label": np.array(labels)},
    "Arrow": lambda paths, labels: pa.table({"path": paths, "label": labels}),
    "pandas": pandas_frame,
    "pandas categories": lambda paths, labels: pandas_frame(paths, labels).astype({"label": "category"}),
    "polars": lambda paths, labels: pytest.importorskip("polars").DataFrame({"path": paths, "label": labels}),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_each_form_packs_to_the_bytes_of_the_same_list_in_a_file(
    files: tuple[list[str], list[str]], tmp_path: Path, form: Callable[[list[str], list[str]], Any]
) -> None:
    with open(tmp_path / "list.csv", "w", newline="") as sink:
        csv.writer(sink).writerows([("path", "label"), *zip(*files, strict=True)])
    shardkit.pack(tmp_path / "list.csv", tmp_path / "a/x", workers=1)
    shardkit.pack(form(*files), tmp_path / "b/x", workers=1)
    assert stored(tmp_path / "a") == stored(tmp_path / "b")
    assert shardkit.dataset(tmp_path / "b/x").classes == ["blue", "green", "red"]


@pytest.mark.parametrize(
    ("labels", "kind", "first"),
    [
        ([2, 0, 1], "listed", 2),
        (np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]), "listed", 2),
        (np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), "listed", 2),
        (np.array([[2], [0], [1]]), "listed", 2),
        (np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]]), "multi", [0, 2]),
        (np.array([[0.5, 2.0], [1.5, 3.0], [2.5, 4.0]]), "number", [0.5, 2.0]),
        ([0.5, 1.5, 2.5], "number", 0.5),
        ([[0, 2], [1], []], "multi", [0, 2]),
        (np.array([0.5, 1.5, 2.5], np.longdouble), "number", 0.5),
        ([np.int64(2), 0, np.array(1)], "listed", 2),
        (list(np.eye(3, dtype=int)[[2, 0, 1]]), "listed", 2),
        ([np.array([0, 2]), np.array([1]), np.array([1, 2])], "multi", [0, 2]),
    ],
    ids=[
        "numbers", "one-hot", "one-hot floats", "a column", "multi-hot", "rows of numbers", "decimals", "lists",
        "long doubles", "scalars", "one-hot arrays in a list", "arrays in a list",
    ],
)  # fmt: skip
def test_labels_of_every_kind(
    files: tuple[list[str], list[str]], tmp_path: Path, labels: Any, kind: str, first: Any
) -> None:
    manifest = shardkit.pack((files[0][:3], labels), tmp_path / "x", shuffle=False, workers=1).manifest
    assert manifest.labels == kind
    sample = next(iter(shardkit.dataset(tmp_path / "x")))
    found = sample["cls"] if kind == "listed" else json.loads(bytes(sample["cls.json"]))
    assert found == first


def test_other_columns_become_the_field_json(files: tuple[list[str], list[str]], tmp_path: Path) -> None:
    columns = {"path": files[0][:2], "label": files[1][:2], "age": [3, 4]}
    shardkit.pack(columns, tmp_path / "x", shuffle=False, workers=1)
    assert [bytes(sample["json"]) for sample in shardkit.dataset(tmp_path / "x")] == [b'{"age":3}', b'{"age":4}']


def test_paths_are_relative_to_the_working_directory_or_to_root(
    small_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (["red/000.jpg", "blue/001.jpg"], ["red", "blue"])
    shardkit.pack(source, tmp_path / "a/x", columns=shardkit.TableColumns(root=small_tree), workers=1)
    monkeypatch.chdir(small_tree)
    shardkit.pack(source, tmp_path / "b/x", workers=1)
    assert stored(tmp_path / "a") == stored(tmp_path / "b")
    assert sorted(sample["__key__"] for sample in shardkit.dataset(tmp_path / "b/x")) == ["blue/001", "red/000"]


def test_a_list_in_memory_is_split_and_packed_again_without_writing(
    files: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    packed = shardkit.pack(files, tmp_path / "x", split={"train": 0.8, "test": 0.2}, workers=1)
    assert list(packed) == ["train", "test"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")}
    shardkit.pack(files, tmp_path / "x", split={"train": 0.8, "test": 0.2}, workers=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")} == before


def test_all_files_that_are_missing_are_reported_together(tmp_path: Path, files: tuple[list[str], list[str]]) -> None:
    paths = [files[0][0], "gone/1.jpg", files[0][1], "gone/2.jpg", "gone/3.jpg"]
    with pytest.raises(BadFileError) as caught:
        shardkit.pack((paths, list("abcde")), tmp_path / "x", workers=1)
    assert "the paths: row 2" in str(caught.value)
    assert "gone/1.jpg (and 2 more bad rows: 4, 5)" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_list_of_nothing_but_missing_files_ends_early(tmp_path: Path) -> None:
    paths = [f"gone/{number}.jpg" for number in range(2 * MOST_REFUSED)]
    with pytest.raises(BadFileError, match=rf"and at least {MOST_REFUSED - 1} more bad rows: 2, 3, .* …\)"):
        shardkit.pack((paths, [0] * len(paths)), tmp_path / "x", workers=1)


@pytest.mark.parametrize(
    ("source", "fact"),
    [
        ((["a.jpg"], [1, 2]), "the columns differ in length: path has 1, label has 2"),
        (([], []), "it has no rows"),
        ((["a.jpg"], [1], [2]), r"a tuple of 3 is not \(paths, labels\)"),
        ((["a.jpg"], [object()]), "the column 'label' can't be read as columns"),
        ((["a.jpg"], np.array([object()])), "the column 'label' can't be read as columns"),
        ((["a.jpg"], np.zeros((1, 2, 2))), "the column 'label' has 3 dimensions"),
        ((["a.jpg"], [10**30]), "the column 'label' can't be read as columns"),
        ((["a.jpg"], np.ma.array([1], mask=[True])), "the column 'label' has masked values"),
        ((["a.jpg"], np.array(3)), "source: the column 'label' has 0 dimensions; give one label for each path$"),
        (("a.jpg", "cat"), r"a tuple of 2 is not \(paths, labels\)"),
        (
            (["a.jpg", "b.jpg"], [1, "a"]),
            "the column 'label' mixes values of the types int and str; convert them to one type",
        ),
        ((["a.jpg", "b.jpg"], [np.int64(1), "a"]), "mixes values of the types int and str"),
        ((["a.jpg", "b.jpg"], [[1], 2]), "mixes values of the types int and list"),
        ((["a.jpg", 3], [1, 2]), "the column 'path' mixes values of the types int and str"),
        ((["a.jpg", "b.jpg"], np.array([1 + 2j, 3])), "the column 'label' is an array of complex128"),
        ((["a.jpg"], np.array([(1, 2.0)], [("a", int), ("b", float)])), "the column 'label' has the fields a, b"),
        ((["a.jpg"], np.array([3], "timedelta64[s]")), "the column 'label' is an array of timedelta64"),
        (
            [("a.jpg", "x"), ("b.jpg", "y")],
            r"it is a list of 2 pairs \(path, label\); give \(paths, labels\): `paths, l",
        ),
        ((("a.jpg", 0), ("b.jpg", 1)), "it is a tuple of 2 pairs"),
        ([("a.jpg", 0), ("b.jpg", 1), ("c.jpg", 1)], "it is a list of 3 pairs"),
        ({"path": "a.jpg"}, "the column 'path' is a str, not a sequence"),
        ({}, "it has no rows"),
        (5, "int is not something that can be packed"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path: Path, source: Any, fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        shardkit.pack(source, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_two_paths_with_labels_that_are_files_are_no_pairs(files: tuple[list[str], list[str]], tmp_path: Path) -> None:
    for number, labels in enumerate((["a.jpg", "b.jpg"], ["x", "y"])):
        shardkit.pack([files[0][:2], labels], tmp_path / f"{number}/x", workers=1)
        assert shardkit.dataset(tmp_path / f"{number}/x").classes == labels


def test_frames_of_pandas_name_the_column_that_cannot_be_read(
    files: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    pandas = pytest.importorskip("pandas")
    for column, fact in (
        ([1, "a"], "the column 'label' mixes values of the types int and str"),
        ([1 + 2j, 3], "the column 'label' is an array of complex128"),
    ):
        with pytest.raises(UsageError, match=fact):
            shardkit.pack(pandas.DataFrame({"path": files[0][:2], "label": column}), tmp_path / "x")
    twice = pandas.DataFrame([[files[0][0], "a", "b"]], columns=["path", "label", "label"])
    with pytest.raises(UsageError, match="two columns have the name 'label'; rename one of them"):
        shardkit.pack(twice, tmp_path / "x")
    with pytest.raises(UsageError, match="a Series is a single column"):
        shardkit.pack(pandas.Series(files[0][:2]), tmp_path / "x")
    for missing in (pandas.Series(["a", None], dtype="string"), ["a", float("nan")], np.array(["a", np.nan], object)):
        with pytest.raises(BadFileError, match="row 2: its label is empty"):
            shardkit.pack((files[0][:2], missing), tmp_path / "x", workers=1)


@pytest.mark.parametrize("form", ["list", "array", "bytes", "Path", "DataFrame"])
def test_file_names_that_are_not_utf8_are_packed(form: str, tmp_path: Path, draw_image: Any) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    try:
        Path(name).write_bytes(draw_image(1))
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    paths: Any = {"list": [name], "array": np.array([name]), "bytes": [os.fsencode(name)], "Path": [Path(name)]}
    if form == "DataFrame":
        pandas = pytest.importorskip("pandas")
        source: Any = pandas.DataFrame({"path": pandas.Series([name], dtype=object), "label": ["a"]})
    else:
        source = (paths[form], ["a"])
    shardkit.pack(source, tmp_path / "out/x", workers=1)
    [path] = shardkit.dataset(tmp_path / "out/x").paths
    assert path.endswith(r"caf\xe9.jpg")  # as the index has it


def test_labels_that_are_bytes_are_names_if_they_are_utf8(files: tuple[list[str], list[str]], tmp_path: Path) -> None:
    for number, labels in enumerate(([b"cat", b"dog"], np.array([b"cat", b"dog"]))):
        shardkit.pack((files[0][:2], labels), tmp_path / f"{number}/x", workers=1)
        assert shardkit.dataset(tmp_path / f"{number}/x").classes == ["cat", "dog"]
    with pytest.raises(SourceError, match="the label column 'label' holds bytes that are not UTF-8"):
        shardkit.pack((files[0][:2], [b"caf\xe9", b"dog"]), tmp_path / "x", workers=1)


def test_a_table_without_the_columns_and_labels_that_are_missing_are_refused(
    tmp_path: Path, files: tuple[list[str], list[str]]
) -> None:
    with pytest.raises(SourceError, match="it has no column of labels; its columns are path, kind"):
        shardkit.pack({"path": files[0][:2], "kind": ["a", "b"]}, tmp_path / "x")
    with pytest.raises(BadFileError, match="row 2: its label is empty"):
        shardkit.pack((files[0][:2], ["a", None]), tmp_path / "x", workers=1)
    with pytest.raises(BadFileError, match="row 1: its label is empty"):
        shardkit.pack((files[0][:2], np.array([np.nan, 1.0])), tmp_path / "x", workers=1)


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="it has no rows"):
        shardkit.pack(pa.table({"path": pa.array([], pa.string()), "label": pa.array([], pa.string())}), tmp_path / "x")


def test_a_path_is_not_a_table() -> None:
    assert in_memory("data") == "data"
    assert in_memory(Path("data")) == Path("data")
