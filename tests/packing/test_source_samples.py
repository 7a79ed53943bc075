"""`shardkit.write` of lists in memory and of arrays: the same shards as `pack` without a shuffle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import shardkit
from shardkit.errors import BadFileError, SourceError, UsageError
from shardkit.packing import source_samples
from shardkit.sources.arrays.kinds import ARRAYS


@pytest.fixture
def listed(tree: Path) -> tuple[list[str], list[str]]:
    """(paths, class names) of the tree's images, not in the order of the tree."""
    paths = sorted(tree.rglob("*.jpg"), key=lambda path: (path.name, path.parent.name), reverse=True)
    return [str(path) for path in paths], [path.parent.name for path in paths]


def shards(prefix: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(prefix.parent.glob(f"{prefix.name}-*.tar"))]


def rows(prefix: Path) -> list[dict[str, Any]]:
    """The key, path and label of each sample, from the index."""
    found: list[dict[str, Any]] = pq.read_table(f"{prefix}.parquet", columns=["key", "path", "label"]).to_pylist()
    return found


FORMS: dict[str, Callable[[list[str], list[str]], Any]] = {
    "a tuple": lambda paths, labels: (paths, labels),
    "a list": lambda paths, labels: [paths, labels],
    "arrays": lambda paths, labels: (np.array(paths), np.array(labels)),
    "columns": lambda paths, labels: {"file": paths, "label": labels},
    "columns with others": lambda paths, labels: {"file": paths, "label": labels, "age": list(range(len(paths)))},
    "several classes": lambda paths, labels: (paths, [[label] for label in labels]),
    "numbers to predict": lambda paths, labels: (paths, [n + 0.5 for n in range(len(paths))]),
    "Arrow": lambda paths, labels: pa.table({"path": paths, "label": labels}),
    "pandas": lambda paths, labels: pytest.importorskip("pandas").DataFrame({"path": paths, "label": labels}),
    "polars": lambda paths, labels: pytest.importorskip("polars").DataFrame({"path": paths, "label": labels}),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_list_in_memory_is_written_in_its_order_as_pack_does_without_a_shuffle(
    listed: tuple[list[str], list[str]], out: Path, form: Callable[[list[str], list[str]], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(source_samples, "AT_ONCE", 3)
    written = shardkit.write(form(*listed), out / "a/x")
    packed = shardkit.pack(form(*listed), out / "b/x", shuffle=False, workers=1).manifest
    assert shards(out / "a/x") == shards(out / "b/x") != []
    assert rows(out / "a/x") == rows(out / "b/x")
    assert (written.classes, written.labels, written.fields) == (packed.classes, packed.labels, packed.fields)
    assert shardkit.verify(out / "a/x").sound


@pytest.mark.parametrize("ending", ARRAYS)
@pytest.mark.parametrize("names", [("x", "y"), ("x_train", "y_train")])
def test_a_file_of_arrays_is_written_as_pack_does(tmp_path: Path, ending: str, names: tuple[str, str]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (7, 4, 5, 3), np.uint8)
    path = tmp_path / f"data{ending}"
    arrays = {names[0]: pixels, names[1]: np.array([2, 0, 1, 1, 0, 2, 2])}
    if ARRAYS[ending] == "npz":
        np.savez(path, **arrays)  # type: ignore[arg-type]
    else:
        with pytest.importorskip("h5py").File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    shardkit.write(path, tmp_path / "a/x")
    dest = tmp_path / "b" if "_" in names[0] else tmp_path / "b/x"
    shardkit.pack(path, dest, shuffle=False, workers=1)
    assert shards(tmp_path / "a/x") == shards(tmp_path / "b" / ("train" if "_" in names[0] else "x")) != []


def test_samples_without_labels_have_none(listed: tuple[list[str], list[str]], out: Path) -> None:
    columns = shardkit.TableColumns(label_column="")
    manifest = shardkit.write({"path": listed[0]}, out / "x", columns=columns)
    assert (manifest.labels, manifest.fields) == ("none", ("jpg",))


def test_columns_root_and_classes_are_those_of_pack(tree: Path, listed: tuple[list[str], list[str]], out: Path) -> None:
    paths = [str(Path(path).relative_to(tree)) for path in listed[0]]
    columns = shardkit.TableColumns(label_column="breed", root=tree)
    names = sorted(set(listed[1]), reverse=True)
    shardkit.write({"path": paths, "breed": listed[1]}, out / "x", columns=columns, classes=names, max_count=2)
    dataset = shardkit.dataset(out / "x")
    assert dataset.classes == names
    assert [row["path"] for row in rows(out / "x")] == paths
    assert [names[row["label"]] for row in rows(out / "x")] == listed[1]


def test_a_tuple_of_two_samples_is_not_paths_and_labels(out: Path) -> None:
    samples = [{"txt": "a"}, {"txt": "b"}]
    assert shardkit.write(samples, out / "a").samples == 2
    assert shardkit.write(tuple(samples), out / "b").samples == 2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda paths: (["gone.jpg", *paths, "gone too.jpg"], ["a"] * (len(paths) + 2)),
            BadFileError,
            "1 more bad row",
        ),
        (lambda paths: (paths, ["a"]), UsageError, "the columns differ in length"),
        (lambda paths: (paths, [float("nan")] * len(paths)), BadFileError, "its label is empty, or not a number"),
        (lambda paths: {"path": paths, "kind": paths}, SourceError, "it has no column of labels; its columns are path"),
        (lambda paths: {"kind": paths, "label": paths}, SourceError, "it has no column of paths"),
        (lambda paths: Path(paths[0]).parent, UsageError, "is not a file of arrays"),
        (lambda paths: "list.csv", UsageError, "pack trees, archives, and lists in files with shardkit.pack"),
    ],
    ids=["missing files", "lengths", "NaN", "no labels", "no paths", "a folder", "a list in a file"],
)
def test_a_bad_list_is_refused_and_nothing_is_left(
    listed: tuple[list[str], list[str]], out: Path, make: Callable[[list[str]], Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        shardkit.write(make(listed[0]), out / "x")
    assert not out.exists()


def test_a_file_that_is_no_image_ends_it_without_a_dataset(listed: tuple[list[str], list[str]], out: Path) -> None:
    Path(listed[0][1]).write_bytes(b"no image")
    with pytest.raises(BadFileError, match="sample 1: sample "):
        shardkit.write(listed, out / "x")
    assert not out.exists()


def test_a_file_that_changes_after_the_scan_is_named(
    listed: tuple[list[str], list[str]], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = source_samples.scan_in_order

    def scanned(*given: Any) -> Any:
        source = scan(*given)
        Path(listed[0][2]).unlink()
        return source

    monkeypatch.setattr(shardkit.packing.shard_writer, "scan_in_order", scanned)
    with pytest.raises(BadFileError, match="the file has vanished since the scan"):
        shardkit.write(listed, out / "x")
    assert not out.exists()


def test_arrays_of_several_splits_are_for_pack(tmp_path: Path) -> None:
    pixels, numbers = np.zeros((2, 4, 4), np.uint8), np.array([0, 1])
    np.savez(tmp_path / "data.npz", x_train=pixels, y_train=numbers, x_test=pixels, y_test=numbers)
    with pytest.raises(UsageError, match=r"the splits train, test, but write\(\) makes one dataset"):
        shardkit.write(tmp_path / "data.npz", tmp_path / "out/x")
    assert not (tmp_path / "out").exists()


def test_columns_are_for_lists(out: Path) -> None:
    with pytest.raises(UsageError, match="columns: given, but the samples are not a list"):
        shardkit.write([{"txt": "x"}], out / "x", columns=shardkit.TableColumns(path_column="a"))


@pytest.mark.parametrize("form", ["tar", "tfrecord"])
def test_further_columns_are_in_the_index_as_pack_puts_them_there(
    form: Any, listed: tuple[list[str], list[str]], out: Path
) -> None:
    paths, labels = listed
    numbers = range(len(paths))
    table = {"path": paths, "label": labels, "age": [None, *numbers[1:]], "city": [f"city {n % 3}" for n in numbers],
             "box": [[n, 0.5] for n in numbers], "odd": [{"a": n} for n in numbers]}  # fmt: skip
    shardkit.pack(table, out / "packed", shuffle=False, max_count=2, format=form, workers=1)
    manifest = shardkit.write(table, out / "written", max_count=2, format=form)
    assert manifest.columns == {"age": "int64", "city": "string", "box": "float64[2]"}
    assert len(manifest.shards) > 1
    written, packed = (pq.read_table(out / f"{name}.parquet").drop_columns(["shard"]) for name in ("written", "packed"))
    assert written.equals(packed)
    assert len(shardkit.dataset(out / "written").where(pc.field("age") > 1)) == len(paths) - 2
