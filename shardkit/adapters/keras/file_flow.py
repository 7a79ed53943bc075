"""Files of a DataFrame as a flow: `ImageDataGenerator.flow_from_dataframe`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.adapters.keras.arguments import one_of, two_sides
from shardkit.adapters.keras.dataframe import Columns, Rows, names_of, rows_of
from shardkit.adapters.keras.flow import PILLOW_FILTERS
from shardkit.adapters.keras.indexed import Files, FlowOptions, IndexedFlow, Numbers
from shardkit.errors import UsageError
from shardkit.images.augment.options import Augment


@dataclass(frozen=True, slots=True)
class Targets:
    """What follows the images in a batch, by class_mode."""

    class_mode: str | None
    rows: Rows
    indices: dict[str, int]
    dtype: str

    @property
    def classes(self) -> list[Any]:
        """The class numbers of each row: a number, or a list where a row has several labels."""
        labels = self.rows.labels or []
        return [
            self.indices[label] if isinstance(label, str) else [self.indices[name] for name in label]
            for label in labels
        ]

    def __call__(self, numbers: Numbers, images: NDArray[Any]) -> tuple[Any, ...]:
        """(images, targets, weights), without what there is not."""
        if self.class_mode is None:
            return (images,)
        target = images.copy() if self.class_mode == "input" else self._of(numbers)
        weights = self.rows.weights
        return (images, target) if weights is None else (images, target, weights[numbers])

    def _of(self, numbers: Numbers) -> Any:
        if self.rows.labels is None:
            assert self.rows.targets is not None
            columns = [column[numbers] for column in self.rows.targets]
            return columns if self.class_mode == "multi_output" else columns[0]
        chosen = [[self.indices[name] for name in names_of(self.rows.labels[n])] for n in numbers.tolist()]
        if self.class_mode != "categorical":
            return np.array([found[0] for found in chosen], self.dtype)
        made = np.zeros((len(chosen), len(self.indices)), self.dtype)
        for row, found in zip(made, chosen, strict=True):
            row[found] = 1
        return made


class FileFlow(IndexedFlow):
    """Batches of files in the order of their rows. filenames: as in the DataFrame; filepaths: below the directory."""

    def __init__(self, files: Files, rows: Rows, columns: Columns, augment: Augment, options: FlowOptions) -> None:
        indices = {name: number for number, name in enumerate(rows.classes or [])}
        targets = Targets(columns.class_mode, rows, indices, options.dtype)
        super().__init__(files, targets, augment, options)
        self.class_mode, self.target_size, self.color_mode = columns.class_mode, files.size, files.color_mode
        self.directory, self.interpolation, self.keep_aspect_ratio = columns.directory, files.interpolation, False
        self.filenames, self.filepaths = rows.filenames, list(files.paths)
        self.sample_weight = rows.weights
        if rows.labels is not None:
            self.class_indices, self.classes, self.num_classes = indices, targets.classes, len(indices)
        if rows.targets is not None:
            self._values: Any = rows.targets if columns.class_mode == "multi_output" else rows.targets[0]

    @property
    def labels(self) -> Any:
        """The class numbers of all rows, or their targets for class_mode "raw" and "multi_output"."""
        return self._values if hasattr(self, "_values") else self.classes


def flow_of_files(
    frame: Any, columns: Columns, augment: Augment, options: FlowOptions,
    *, target_size: tuple[int, int], color_mode: str, interpolation: str,
) -> FileFlow:  # fmt: skip
    """The flow of a DataFrame's rows; prints what Keras prints. UsageError as in `rows_of`."""
    one_of("color_mode", color_mode, ("rgb", "rgba", "grayscale"))
    one_of("interpolation", interpolation, (*PILLOW_FILTERS, "hamming"))
    rows = rows_of(frame, columns)
    rows = rows.taken(options.part(len(rows.filenames)))
    if not rows.filenames:
        raise UsageError("dataframe", "no rows are left", "check `classes`, `subset` and the DataFrame")
    paths = [os.path.join(columns.directory, name) for name in rows.filenames]
    made = FileFlow(Files(paths, two_sides(target_size), color_mode, interpolation), rows, columns, augment, options)
    kind = "validated" if columns.validate_filenames else "non-validated"
    classes = "" if rows.classes is None else f" belonging to {len(rows.classes)} classes"
    print(f"Found {made.samples} {kind} image filenames{classes}.")
    return made
