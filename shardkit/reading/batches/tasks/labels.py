"""The labels of a batch, in the encoding that was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DecodeError
from shardkit.images.decoder import DecodeOptions
from shardkit.reading.batches.batch import stacked_labels
from shardkit.reading.batches.fields import encode_labels
from shardkit.reading.batches.labels import Kind, Target, require_mode, target_of
from shardkit.reading.batches.tasks.span import Span


class Labels:
    """Makes the labels of decoded samples. kind: of labels that are not class numbers."""

    def __init__(self, options: DecodeOptions | None, kind: Kind, classes: int) -> None:
        self.options, self.classes = options, classes
        self.kind: Kind = kind if options else ""
        require_mode(self.kind, options.label if options else "int")

    def target(self, data: Any) -> Target:
        """The label in the bytes of a field; DecodeError, without a place, if it is of another kind."""
        return target_of(data, self.kind, self.classes)

    def of_batch(self, labels: NDArray[np.int64], keys: list[str], span: Span) -> NDArray[Any] | None:
        """The encoded labels; None if no sample has one, as from `collate`, and DatasetError if only some have."""
        assert self.options is not None
        if self.options.label == "int" and labels.min() < 0:
            given = [None if label < 0 else label for label in labels.tolist()]
            return None if labels.max() < 0 else stacked_labels(given, keys)
        return self.encoded(labels, span)

    def encoded(self, labels: NDArray[np.int64], span: Span) -> NDArray[Any]:
        """Class numbers in the encoding that was asked for."""
        assert self.options is not None
        try:
            return encode_labels(labels, self.options.label, self.classes)
        except DecodeError as exc:
            place, _, key = span.block.place(span.begin)
            raise DecodeError(place, exc.fact, exc.cure, None, key) from exc
