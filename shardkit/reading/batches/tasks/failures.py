"""Samples that can't be decoded: the error is raised with its place, or they are counted and omitted."""

from __future__ import annotations

import logging
import threading

from shardkit.errors import DamagedError, DatasetError, DecodeError
from shardkit.images.decoder import DecodeOptions
from shardkit.reading.batches.tasks.span import Span
from shardkit.reading.stats.record import Recorder

log = logging.getLogger(__name__)


class Failures:
    """Treats failures as the options say. Called by several threads."""

    def __init__(self, options: DecodeOptions | None, record: Recorder) -> None:
        self.options = options
        self.skips = _Skips(options.skip_limit if options else 0, record)

    def handle(self, span: Span, number: int, exc: Exception) -> None:
        """Raise the error with its place, or count the sample if it may be skipped."""
        assert self.options is not None
        error: DatasetError
        if isinstance(exc, DecodeError):
            place, offset, key = span.block.place(span.begin + number)
            error = DecodeError(place, exc.fact, exc.cure, offset, key)
        elif isinstance(exc, DamagedError):
            error = exc
        else:
            raise exc
        if self.options.on_error == "raise":
            raise error from exc
        self.skips.add(error)


class _Skips:
    """Counts samples omitted as undecodable, and raises when there are too many."""

    def __init__(self, limit: int, record: Recorder) -> None:
        self.limit, self.count, self._lock = limit, 0, threading.Lock()
        self.record = record

    def add(self, error: DatasetError) -> None:
        with self._lock:
            self.count += 1
            self.record.skipped += 1
            log.warning("skipped (%d of at most %d): %s", self.count, self.limit, error)
            if self.count > self.limit:
                fact = f"{self.count} samples could not be decoded, but skip_limit is {self.limit}; the last: {error}"
                raise DatasetError("decode()", fact, "fix the dataset, or raise skip_limit")
