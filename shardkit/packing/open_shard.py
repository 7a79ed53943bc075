"""The shard that a ShardWriter is writing."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import msgspec

from shardkit.formats.format import FormatName
from shardkit.packing.write.framed import FramedSamples, Keys
from shardkit.packing.write.images import ImageCheck
from shardkit.packing.write.labels import Targets
from shardkit.packing.write.receipt import Receipt, Written, keep_receipt, with_columns
from shardkit.packing.write.sink import ThreadSink, shard_sink
from shardkit.packing.write.writer import SampleWriter
from shardkit.storage.files import whole_file


class OpenShard:
    """A shard in the folder `work`, which is written in the background. pool: of one thread, for its sink.

    samples, bytes: what it holds. framed: the fast path for its samples, once it has begun.
    """

    def __init__(self, work: str, name: str, form: FormatName, check: ImageCheck, pool: ThreadPoolExecutor) -> None:
        self.name, self.format, self.check, self.samples, self.bytes = name, form, check, 0, 0
        self.folder = os.fsencode(work)
        self._stack = ExitStack()
        target = os.path.join(self.folder, os.fsencode(name))
        file = self._stack.enter_context(whole_file(target))
        self.since = os.fstat(file.fileno()).st_mtime_ns
        self.sink = shard_sink(file.fileno(), target, pool)
        self._stack.push(self._stop)
        self.writer = SampleWriter(self.sink, form, check)
        self.framed: FramedSamples | None = None

    def add(
        self, key: str, fields: list[tuple[str, bytes]], path: bytes, label: int, text: str, classes: list[int]
    ) -> None:
        """Write a sample. ValueError for what the format can't hold, and for invalid images."""
        self.writer.add(key, fields, path, label, text)
        self.writer.count(classes)
        self.samples += 1
        self.bytes = self.writer.position

    def frame(self, targets: Targets, keys: Keys | None, *, limit: int, number: int, left: int) -> Any:
        """Frame the samples that follow; returns what `FramedSamples.go_on` does, or None without the C extension."""
        if not isinstance(self.sink, ThreadSink):
            return None
        if self.framed is None:
            self.framed = FramedSamples(self.sink, self.format, self.check, targets, keys)
        return self.framed.go_on(self.writer, limit=limit, number=number, left=left)

    def drain(self) -> tuple[int, int]:
        """Record the samples that were framed. Returns (samples, bytes)."""
        count, size = (0, 0) if self.framed is None else self.framed.drain(self.writer)
        self.samples += count
        self.bytes = self.writer.position
        return count, size

    def complete(self, columns: bytes = b"") -> Written:
        """Add nothing more: what was written. columns: further columns of its samples, as `encoded_columns` gives
        them."""
        self.writer.end()
        self.framed = None
        written = self.writer.written([])
        if not columns:
            return written
        return msgspec.structs.replace(written, rows=with_columns(written.rows, columns, written.rows.keys))

    def close(self, written: Written) -> Receipt:
        """Flush the complete shard to the disk, and record what was written."""
        with self._stack:  # closes the file if it fails
            self.sink.end()
        return keep_receipt(self.folder, self.name, self.sink, written, digest="", check=self.check, since=self.since)

    def _stop(self, *error: object) -> None:
        """Let the thread end before its file is closed."""
        self.sink.abort()

    def abort(self) -> None:
        """Discard the shard."""
        self._stack.__exit__(RuntimeError, RuntimeError("aborted"), None)
