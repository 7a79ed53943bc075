"""Randomly chosen samples per class, and thumbnails of them, for tools that show a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DecodeError, MissingExtraError, UsageError, installs
from shardkit.images.thumbnails import open_picture
from shardkit.options.files import require_folder_of
from shardkit.reading.dataset import Dataset
from shardkit.rng import permutation, stream_key
from shardkit.sample import IMAGE_FIELDS, AnySample, fs_text

if TYPE_CHECKING:
    import os

    from PIL import Image

NO_LABEL = "no label"
PLOT_SUFFIXES = (".png", ".svg")


def require_matplotlib(what: str) -> None:
    """Raise MissingExtraError without matplotlib, which draws `what`. To be called before the work for it."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as exc:
        raise MissingExtraError(what, "matplotlib is not installed", installs("report")) from exc


@dataclass(frozen=True, slots=True)
class ClassSamples:
    """Samples of one class: its label (-1: none) and name, its total number of samples, and the chosen rows."""

    label: int
    name: str
    count: int
    rows: tuple[int, ...]


def choose_samples(
    data: Dataset, *, count: int, seed: int, classes: Sequence[str | int] | None = None, limit: int | None = None
) -> list[ClassSamples]:
    """Choose `count` random rows of each class that has samples, in label order; samples without a label come last.

    classes: only these, by name or label, in the given order. limit: at most this many classes, spread evenly over all.
    The same seed gives the same rows. Raises UsageError for a class that does not exist.
    """
    labels, names = data.content.catalog.labels(), data.classes
    wanted = _labels_of(names, classes) if classes else [*range(len(names)), -1]
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], [[label, label + 1] for label in wanted])
    found = [(label, order[low:high]) for label, (low, high) in zip(wanted, bounds.tolist(), strict=True) if high > low]
    if limit is not None and len(found) > limit:
        found = [found[number * len(found) // limit] for number in range(limit)]
    return [
        ClassSamples(label, names[label] if label >= 0 else NO_LABEL, len(rows), _drawn(rows, count, seed, label))
        for label, rows in found
    ]


def _drawn(rows: NDArray[np.int64], count: int, seed: int, label: int) -> tuple[int, ...]:
    return tuple(rows[permutation(len(rows), stream_key("samples", seed, label))[:count]].tolist())


def _labels_of(names: Sequence[str], classes: Sequence[str | int]) -> list[int]:
    found = []
    for wanted in dict.fromkeys(classes):
        if isinstance(wanted, int) and 0 <= wanted < len(names):
            found.append(wanted)
        elif wanted in names:
            found.append(names.index(str(wanted)))
        elif isinstance(wanted, str) and wanted.isdecimal() and int(wanted) < len(names):
            found.append(int(wanted))
        else:
            shown = ", ".join(map(repr, names[:5])) + (" …" if len(names) > 5 else "")
            raise UsageError("classes", f"there is no class {wanted!r}", f"the classes are {shown}")
    return found


def picture(data: Dataset, row: int) -> Image.Image:
    """The image of a row as stored (RGB), or as the dataset's decode() returns it.

    Raises ValueError with a short reason if it can't be decoded or is missing; reading errors are passed on.
    """
    from PIL import Image

    try:
        sample: AnySample = data[row]
    except DecodeError as exc:
        raise ValueError(exc.fact) from exc
    value: Any = next((value for name, value in sample.items() if name in IMAGE_FIELDS), None)
    if value is None:
        raise ValueError("no image in this sample")
    if isinstance(value, np.ndarray):
        return Image.fromarray(value.squeeze())
    return open_picture(bytes(value))


def out_path(out: str | os.PathLike[str], endings: Sequence[str], *, option: str = "out") -> str:
    """The file to write. Its ending is checked, so that a slip does not overwrite a shard; its folder must exist.

    option: the name of the option, for errors.
    Raises UsageError, MissingFileError.
    """
    path = Path(out)
    if path.suffix.lower() not in endings:
        raise UsageError(fs_text(path), "the result can't have this name", f"give one that ends with {endings[0]}")
    require_folder_of(path, option)
    return str(path)
