"""Files of arrays: which of their arrays are images and which are labels, for each split.

The names are those of Keras' datasets (`x_train`, `y_train`, `x_test` …) and of tutorials (`images`, `labels`).
"""

from __future__ import annotations

import contextlib
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from shardkit.errors import MissingExtraError, MissingSourceError, SourceError, installs, printable, reason_of
from shardkit.sample import fs_text
from shardkit.sources.arrays.kinds import ARRAYS, ending_of_arrays

IMAGES = ("images", "image", "x", "data", "features")
LABELS = ("labels", "label", "y", "targets", "target")
CLASSES = ("class_names", "classes", "label_names")
_SPLITS = {"train": "train", "training": "train", "test": "test", "val": "validation", "valid": "validation",
           "validation": "validation"}  # fmt: skip

_DAMAGED = (
    OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error,
    tokenize.TokenError, SyntaxError, OverflowError, MemoryError,  # headers of arrays that make no sense
    RuntimeError,  # encrypted members, and methods of compression that zipfile doesn't know
)  # fmt: skip

_SHAPES = "(samples, height, width) or (samples, height, width, channels) with 1, 3 or 4 channels"


class ArraysOfSplit(msgspec.Struct, frozen=True):
    """Images and labels of a split ("" where there are none), by name. labels: None for images without labels."""

    images: str
    labels: str | None


@contextlib.contextmanager
def open_arrays(path: str) -> Iterator[Mapping[str, Any]]:
    """The arrays of a file, by name: things with `shape`, `dtype` and slices. Raises SourceError, MissingExtraError."""
    place = fs_text(path)
    with contextlib.ExitStack() as stack:
        with translated(place):
            if ARRAYS[ending_of_arrays(path)] == "hdf5":
                found = _datasets(stack.enter_context(_h5py(place).File(path, "r")))
            else:
                file = stack.enter_context(open(path, "rb"))  # NumPy leaves one that it opened open for bad files
                loaded = np.load(file, allow_pickle=False)
                if isinstance(loaded, np.ndarray):
                    raise ValueError("it holds a single array, as a .npy file does")
                found = _Npz(stack.enter_context(loaded), place)
        yield found


def _datasets(file: Any) -> Mapping[str, Any]:
    """The datasets of an HDF5 file; those in groups as `train_x`."""
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if hasattr(item, "shape"):
            found[name.replace("/", "_")] = item

    file.visititems(visit)
    return found


class _Npz(Mapping[str, Any]):
    """The arrays of an .npz file, each read once, when it is asked for."""

    def __init__(self, file: Any, place: str) -> None:
        self._file, self._place = file, place
        self._read: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._read:
            with translated(f"{self._place}: {printable(name)}"):
                array = self._file[name]
                if not isinstance(array, np.ndarray):  # NumPy returns the bytes of other members
                    raise ValueError("it is not an array")
                self._read[name] = array
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.files)

    def __len__(self) -> int:
        return len(self._file.files)


def splits_of_arrays(names: list[str], place: str) -> dict[str, ArraysOfSplit]:
    """Which arrays are the images and labels of which split. SourceError where no name says so."""
    images, labels = _by_split(names, IMAGES), _by_split(names, LABELS)
    if not images or (len(images) > 1 and "" in images):
        fact = (
            f"no name tells which array holds the images; its arrays are {', '.join(map(printable, names)) or 'none'}"
        )
        cure = "name them x and y, images and labels, or x_train, y_train, x_test, y_test"
        raise SourceError(place, fact, cure)
    if labels and (missing := sorted(set(images) - set(labels))):
        raise SourceError(place, f"there are no labels for {images[missing[0]]!r}", "add them, or omit all labels")
    return {split: ArraysOfSplit(name, labels.get(split)) for split, name in images.items()}


def class_names_in(arrays: Mapping[str, Any], place: str) -> list[str] | None:
    """The class names that the file has, in label order; None where it has none."""
    name = next((name for name in arrays if name.lower() in CLASSES), None)
    if name is None:
        return None
    values = np.asarray(arrays[name])
    if values.ndim != 1 or values.dtype.kind not in "USO":
        return None
    try:
        return [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]
    except UnicodeDecodeError as exc:
        raise SourceError(place, f"the names in {name!r} are not UTF-8", "save them as text") from exc


def require_images(images: Any, name: str, place: str) -> int:
    """The number of images in an array. SourceError unless it holds uint8 images."""
    shape, kind = tuple(images.shape), np.dtype(images.dtype)
    what = f"the array {printable(name)!r}"
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3, 4)) or not all(shape[1:]):
        raise SourceError(place, f"{what} has the shape {shape}, which are no images", f"images are {_SHAPES}")
    if kind != np.uint8:
        fact = f"{what} is {kind}, and images are uint8 (0 … 255)"
        raise SourceError(place, fact, "convert it; arrays of other types go through shardkit.write() as the field npy")
    if not shape[0]:
        raise SourceError(place, f"{what} has no images", "name a file with samples")
    return int(shape[0])


def _by_split(names: list[str], known: tuple[str, ...]) -> dict[str, str]:
    """Split -> the array with one of the known names: `x`, `x_train`, `train_x`."""
    found: dict[str, str] = {}
    by_lower = {name.lower(): name for name in reversed(names)}
    for wanted in known:
        places = {wanted: ""}
        for part, split in _SPLITS.items():
            places |= {f"{wanted}_{part}": split, f"{part}_{wanted}": split}
        for place, split in places.items():
            if place in by_lower:
                found.setdefault(split, by_lower[place])
    return found


@contextlib.contextmanager
def translated(place: str) -> Iterator[None]:
    """Turn what NumPy, zipfile and h5py raise for a damaged file into a SourceError."""
    try:
        yield
    except FileNotFoundError as exc:
        raise MissingSourceError(place, "there is no such file", "check the path of the source") from exc
    except _DAMAGED as exc:
        fact = f"it can't be read as arrays ({printable(reason_of(exc))})"
        raise SourceError(place, fact, "save it again as arrays of numbers, without Python objects") from exc


def _h5py(place: str) -> Any:
    try:
        import h5py
    except ImportError as exc:
        raise MissingExtraError(place, "h5py is not installed", installs("hdf5")) from exc
    return h5py
