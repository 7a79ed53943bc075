"""What becomes of single samples: read, decoded, and given to the functions of map() and filter()."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DamagedError, DecodeError, UsageError, printable
from shardkit.images.annotations.apply import move_boxes, move_masks
from shardkit.images.annotations.options import as_boxes, as_masks
from shardkit.images.decoder import DecodeOptions, ImageDecoder
from shardkit.images.views.decoder import ViewDecoder
from shardkit.reading.batches.batch import REPEAT
from shardkit.reading.batches.fields import FIELD_DECODERS, decode_fields
from shardkit.reading.batches.labels import FIELD
from shardkit.reading.batches.tasks.failures import Failures
from shardkit.reading.batches.tasks.labels import Labels
from shardkit.reading.batches.tasks.span import Span, seeks
from shardkit.reading.batches.tasks.work import Work
from shardkit.reading.ops import Map, Op
from shardkit.sample import IMAGE_FIELDS, AnySample

log = logging.getLogger(__name__)

GONE = object()
"""In place of a sample that is omitted."""

_SAID: set[str] = set()
"""Warnings already logged: each is logged once per process."""


class Samples:
    """Makes items of single samples. calls: the steps that are applied to them, with the functions to call."""

    def __init__(
        self,
        work: Work,
        options: DecodeOptions | None,
        decoder: ImageDecoder | ViewDecoder | None,
        calls: Sequence[tuple[Op, Callable[[Any, int], Any]]],
        labels: Labels,
        failures: Failures,
    ) -> None:
        self.work, self.options, self.decoder, self.calls = work, options, decoder, calls
        self.labels, self.failures = labels, failures

    def _net(self) -> float:
        """The time, without what this thread has waited for a store."""
        return perf_counter() - self.work.record.meter().waited

    def item(self, span: Span, number: int, marks: list[float] | None) -> Any:
        """The item made from a sample; GONE for none. marks: gets the times between which it was read, decoded, and
        given to functions."""
        at = span.begin + number
        if marks is not None:
            marks.append(self._net())
        try:
            sample: Any = span.block.sample(at, checked=self.decoder is not None)
        except DamagedError as exc:
            if self.options is None:
                raise
            self.failures.handle(span, number, exc)
            return GONE
        if span.repeats is not None and span.repeats[number]:
            sample[REPEAT] = True
        if marks is not None:
            marks.append(self._net())
        if self.decoder is not None:
            decoded = self._decode(span, number, sample)
            if decoded is None:
                return GONE
            sample = decoded
        if self.work.columns is not None and span.further is not None:
            sample |= self.work.columns.sample(span.further(), at, span.block.keys[at])
        if marks is None:
            return self._applied(sample, span.counter(number))
        marks.append(self._net())
        found = self._applied(sample, span.counter(number))
        marks.append(self._net())
        return found

    def _applied(self, sample: Any, counter: int) -> Any:
        """What maps and filters of single samples make of one; GONE if it is dropped."""
        for op, call in self.calls:
            result = call(sample, counter)
            if isinstance(op, Map):
                sample = result
            elif not result:
                return GONE
        return sample

    def _decode(self, span: Span, number: int, sample: AnySample) -> AnySample | None:
        assert self.decoder is not None
        at = span.begin + number
        name = span.block.fields[at]
        row = None if span.draws is None else span.draws[at]
        try:
            if not name and _nothing_to_decode(sample, self.work.decoders):
                raise _no_image(sample)
            image = self._array(span, at, sample[name], row) if name else None
            label = self.labels.target(sample.get(FIELD)) if self.labels.kind else None
            others = decode_fields(
                {
                    field: value
                    for field, value in sample.items()
                    if field != name and (field != FIELD or label is None)
                },
                decoders=self.work.decoders,
            )
            if name and self.options is not None and self.options.annotated:
                others = self._annotated(span, sample[name], row, others)
        except DecodeError as exc:
            self.failures.handle(span, number, exc)
            return None
        if name:
            self._require_one_image(name, others)
        decoded = {
            field: image if field == name else others[field] for field in sample if field == name or field in others
        }
        if label is not None:
            decoded["cls"] = label
        if "cls" in decoded and isinstance(decoded["cls"], int) and self.options and self.options.label != "int":
            decoded["cls"] = self.labels.encoded(np.array([decoded["cls"]]), span)[0]
        return decoded

    def _array(self, span: Span, at: int, data: Any, row: NDArray[np.float64] | None) -> Any:
        """The decoded image of a sample, or its views."""
        decoder = span.decoder
        if isinstance(decoder, ViewDecoder):
            return decoder.array(data, row)
        assert decoder is not None
        return decoder.array(data, row, span.block.seek_points(at, at + 1) if seeks(decoder) else None)

    def _annotated(
        self, span: Span, data: Any, row: NDArray[np.float64] | None, others: dict[str, Any]
    ) -> dict[str, Any]:
        """The other fields with boxes and masks moved as the image is."""
        options, decoder = self.options, span.decoder
        assert options is not None and isinstance(decoder, ImageDecoder)
        move = decoder.move(data, row)
        if options.boxes is not None:
            others = move_boxes(others, as_boxes(options.boxes), move)
        if options.masks is not None:
            others = others | move_masks(others, as_masks(options.masks), move, options.max_pixels)
        return others

    def _require_one_image(self, name: str, others: Mapping[str, Any]) -> None:
        """UsageError for a mask, or another image of the same sample, that is decoded but would not be transformed
        alike.
        """
        assert self.options is not None
        if not self.options.moves_pixels:
            return
        masks = () if self.options.masks is None else as_masks(self.options.masks)
        for other, value in others.items():
            if other not in masks and other.rpartition(".")[2] in IMAGE_FIELDS:
                fact = (
                    f"crop, flip and augment change {printable(name)!r} only, "
                    f"and {printable(other)!r} would no longer match it"
                )
                cure = (
                    f"decode {printable(other)!r} and transform both in map(), "
                    "after decode() without crop=, flip= and augment="
                )
                if not isinstance(value, (bytes, memoryview)):
                    raise UsageError("decode()", fact, f"omit it from decoders=, or {cure}")
                if fact not in _SAID:
                    _SAID.add(fact)
                    log.warning("decode(): %s; %s", fact, cure)


def _nothing_to_decode(sample: AnySample, decoders: Mapping[str, Any]) -> bool:
    """Whether a sample without an image has nothing for decode() to do.

    That is: no field has a user-defined decoder, or it has an image under a name that decode() does not treat as the
    sample's own, such as left.jpg.
    """
    endings = {name.rpartition(".")[2] for name in sample if not name.startswith("__")}
    own = {name for name, decoder in decoders.items() if FIELD_DECODERS.get(name) is not decoder}
    return not endings.isdisjoint(IMAGE_FIELDS) or endings.isdisjoint(own)


def _no_image(sample: AnySample) -> DecodeError:
    """The error for a sample without a field that decode() treats as an image."""
    fields = ", ".join(printable(name) for name in sample if not name.startswith("__")) or "none"
    cure = (
        "name the image's feature of TFRecord shards with dataset(image_field=), or decode images "
        'of other names in map(), without decode(); on_error="skip" omits such samples'
    )
    return DecodeError(
        "", f"this sample has no image: none of its fields has the name of one; its fields: {fields}", cure
    )
