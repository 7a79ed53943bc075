"""Arrays of images as a source: the pixels come back, and splits, labels and order are those of the file."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import shardkit
from shardkit.errors import SourceError, UsageError
from shardkit.sources.arrays import encoded
from shardkit.sources.arrays.files import CLASSES, IMAGES, LABELS
from shardkit.sources.arrays.kinds import ARRAYS

RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 256, (10, 6, 5, 3), np.uint8)
NUMBERS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])


def saved(folder: Path, ending: str = ".npz", **arrays: Any) -> Path:
    path = folder / f"data{ending}"
    if ARRAYS[ending] == "npz":
        np.savez(path, **arrays)
    else:
        with pytest.importorskip("h5py").File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return path


def read(prefix: Any) -> list[tuple[Any, Any]]:
    """(pixels, label) of each sample in order."""
    found = []
    for sample in shardkit.dataset(prefix):
        label = sample["cls"] if "cls" in sample else json.loads(bytes(sample["cls.json"]))
        found.append((np.asarray(Image.open(io.BytesIO(sample["png"]))), label))
    return found


@pytest.mark.parametrize("ending", ARRAYS)
def test_images_and_labels_come_back_as_they_were(tmp_path: Path, ending: str) -> None:
    path = saved(tmp_path, ending, x=PIXELS, y=NUMBERS)
    manifest = shardkit.pack(path, tmp_path / "out/data", shuffle=False, max_count=4, workers=2).manifest
    assert (manifest.samples, len(manifest.shards)) == (10, 3)
    found = read(tmp_path / "out/data")
    assert [label for _, label in found] == NUMBERS.tolist()
    assert all(np.array_equal(image, pixels) for (image, _), pixels in zip(found, PIXELS, strict=True))


@pytest.mark.parametrize("ending", ARRAYS)
def test_the_splits_of_keras_datasets_are_packed_with_one_class_map(tmp_path: Path, ending: str) -> None:
    path = saved(tmp_path, ending, x_train=PIXELS[:6], y_train=NUMBERS[:6, None], x_test=PIXELS[6:], y_test=NUMBERS[6:])
    packed = shardkit.pack(path, tmp_path / "out", workers=1)
    assert {name: each.manifest.samples for name, each in packed.items()} == {"train": 6, "test": 4}
    assert {tuple(each.manifest.class_names) for each in packed.values()} == {("0", "1", "2")}


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("labels", LABELS)
def test_the_usual_names_are_known(tmp_path: Path, images: str, labels: str) -> None:
    source = encoded.Arrays(str(saved(tmp_path, **{images: PIXELS, labels: NUMBERS, "other": NUMBERS})), in_order=True)
    (found,) = source.scan(None).values()
    assert found.labels.tolist() == NUMBERS.tolist()


@pytest.mark.parametrize("names", CLASSES)
def test_class_names_in_the_file_are_used(tmp_path: Path, names: str) -> None:
    path = saved(tmp_path, x=PIXELS, y=NUMBERS, **{names: np.array(["cat", "a/b", "dog"])})
    shardkit.pack(path, tmp_path / "x", shuffle=False, workers=1)
    dataset = shardkit.dataset(tmp_path / "x")
    assert dataset.classes == ["cat", "a/b", "dog"]
    assert [sample["__key__"].partition("/")[0] for sample in dataset][:3] == ["cat", "1", "dog"]
    assert shardkit.verify(tmp_path / "x").sound


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (np.eye(3)[NUMBERS], "class"),
        (np.array([[1, 0, 1]] * 10), "multi"),
        (np.linspace(0.5, 5, 10), "number"),
        (np.array(["cat", "dog"] * 5), "class"),
        (None, "none"),
    ],
)
def test_labels_of_every_kind(tmp_path: Path, labels: Any, kind: str) -> None:
    given = {} if labels is None else {"y": labels}
    path = saved(tmp_path, x=PIXELS, **given)
    assert shardkit.pack(path, tmp_path / "x", workers=1).manifest.labels == kind


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 1), (3, 4, 5, 4)])
def test_gray_images_and_images_with_alpha_keep_their_pixels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = RNG.integers(0, 256, shape, np.uint8)
    shardkit.pack(saved(tmp_path, x=pixels), tmp_path / "x", shuffle=False, workers=1)
    images = [np.asarray(Image.open(io.BytesIO(sample["png"]))) for sample in shardkit.dataset(tmp_path / "x")]
    assert np.array_equal(np.stack(images), pixels[..., 0] if shape[3:] == (1,) else pixels)


def test_an_interrupted_or_finished_packing_is_found_again(tmp_path: Path) -> None:
    path = saved(tmp_path, x=PIXELS, y=NUMBERS)
    shardkit.pack(path, tmp_path / "out/x", max_count=4, workers=1)
    before = {each: (each.stat().st_mtime_ns, each.read_bytes()) for each in (tmp_path / "out").iterdir()}
    shardkit.pack(path, tmp_path / "out/x", max_count=4, workers=1)
    assert {each: (each.stat().st_mtime_ns, each.read_bytes()) for each in (tmp_path / "out").iterdir()} == before


def test_the_temporary_file_goes_with_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded.tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    path = saved(tmp_path, x=PIXELS, y=NUMBERS)
    found = encoded.Arrays(str(path), in_order=True).scan(None)
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    del found
    assert not list((tmp_path / "tmp").iterdir())


def test_arrays_larger_than_one_run_are_encoded_in_order(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (encoded.AT_ONCE + 3, 2, 2), np.uint8)
    (found,) = encoded.Arrays(str(saved(tmp_path, x=pixels)), in_order=True).scan(None).values()
    assert len(found) == len(pixels)
    assert found.sizes.tolist() == [len(encoded.png_of(image)) for image in pixels]


@pytest.mark.parametrize(
    ("arrays", "fact"),
    [
        ({"a": PIXELS, "b": NUMBERS}, "no name tells which array holds the images; its arrays are a, b"),
        ({"x": PIXELS.astype(np.float32), "y": NUMBERS}, "the array 'x' is float32, and images are uint8"),
        ({"x": PIXELS[0, 0], "y": NUMBERS}, r"the array 'x' has the shape \(5, 3\)"),
        ({"x": PIXELS[..., :2], "y": NUMBERS}, "has the shape"),
        ({"x": PIXELS[:0], "y": NUMBERS[:0]}, "the array 'x' has no images"),
        ({"x": PIXELS, "y": NUMBERS[:9]}, "'x' has 10 images, and 'y' has 9 labels"),
        ({"x": PIXELS, "y": np.where(NUMBERS == 2, np.nan, 0.5)}, "row 2 of 'y' has no label"),
        ({"x_train": PIXELS, "x_test": PIXELS, "y_train": NUMBERS}, "there are no labels for 'x_test'"),
        (
            {"x": PIXELS, "y": NUMBERS, "classes": np.array(["a", "b"])},
            "row 2: its label '2' is not one of the 2 classes",
        ),
    ],
)
def test_arrays_that_make_no_sense_are_refused(tmp_path: Path, arrays: dict[str, Any], fact: str) -> None:
    with pytest.raises(SourceError, match=fact):
        shardkit.pack(saved(tmp_path, **arrays), tmp_path / "x", workers=1)
    assert not list(tmp_path.glob("x*"))


def test_python_objects_are_not_loaded(tmp_path: Path) -> None:
    path = saved(tmp_path, x=PIXELS, y=np.array([{}] * 10, object))
    with pytest.raises(SourceError, match=r"it can't be read as arrays.*without Python objects"):
        shardkit.pack(path, tmp_path / "x", workers=1)


@pytest.mark.parametrize("ending", ARRAYS)
def test_files_that_are_cut_or_missing_are_named(tmp_path: Path, ending: str) -> None:
    path = saved(tmp_path, ending, x=PIXELS, y=NUMBERS)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SourceError, match=f"data{ending}: it can't be read as arrays"):
        shardkit.pack(path, tmp_path / "x")
    path.unlink()
    with pytest.raises(FileNotFoundError):
        shardkit.pack(path, tmp_path / "x")


def header(shape: str) -> bytes:
    """The header of a .npy file with this shape."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "member", [header("(10000000000, 1000, 1000)"), header("(10**30, 2, 2)"), header("(1" + "0" * 30 + ", 2)"),
               header("(5, 5, 4"), b"hello"]
)  # fmt: skip
def test_members_that_are_not_arrays_are_reported(tmp_path: Path, member: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as file:
        file.writestr("x.npy", member)
    with pytest.raises(SourceError, match=r"data\.npz: x: it can't be read as arrays"):
        shardkit.pack(tmp_path / "data.npz", tmp_path / "x", workers=1)


@pytest.mark.parametrize(("before", "value"), [(8, 1), (10, 77)], ids=["encrypted", "unknown compression"])
def test_members_that_zipfile_cannot_read_are_reported(tmp_path: Path, before: int, value: int) -> None:
    path = saved(tmp_path, x=PIXELS, y=NUMBERS)
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\1\2", before), (b"PK\3\4", before - 2)):
        for found in re.finditer(re.escape(magic), bytes(data)):
            data[found.start() + offset] = value
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"data\.npz: x: it can't be read as arrays"):
        shardkit.pack(path, tmp_path / "x", workers=1)


def test_a_single_array_with_the_name_of_several_is_reported(tmp_path: Path) -> None:
    with open(tmp_path / "data.npz", "wb") as file:
        np.save(file, PIXELS)
    with pytest.raises(SourceError, match="it holds a single array"):
        shardkit.pack(tmp_path / "data.npz", tmp_path / "x", workers=1)


@pytest.mark.parametrize("ending", ARRAYS)
def test_one_label_for_all_images_is_refused(tmp_path: Path, ending: str) -> None:
    with pytest.raises(SourceError, match="y: it can't be read as arrays"):
        shardkit.pack(saved(tmp_path, ending, x=PIXELS, y=np.array(3)), tmp_path / "x", workers=1)


def test_labels_in_the_other_byte_order_are_read(tmp_path: Path) -> None:
    shardkit.pack(saved(tmp_path, x=PIXELS, y=NUMBERS.astype(">i8")), tmp_path / "x", workers=1)
    assert sorted(label for _, label in read(tmp_path / "x")) == sorted(NUMBERS)


def test_columns_and_fields_are_for_other_sources(tmp_path: Path) -> None:
    path = saved(tmp_path, x=PIXELS, y=NUMBERS)
    with pytest.raises(UsageError, match="fields"):
        shardkit.pack(path, tmp_path / "x", fields="png,json")
    with pytest.raises(UsageError, match="columns are named"):
        shardkit.pack(path, tmp_path / "x", columns=shardkit.TableColumns(path_column="x"))
