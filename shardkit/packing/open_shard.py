"""The shard that a ShardWriter is writing."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import msgspec

from shardkit.formats.format import FormatName
from shardkit.packing.write.framed import FramedSamples
from shardkit.packing.write.images import ImageCheck
from shardkit.packing.write.receipt import Receipt, keep_receipt, with_columns
from shardkit.packing.write.sink import BackgroundSink
from shardkit.packing.write.writer import SampleWriter
from shardkit.storage.files import whole_file


class OpenShard:
    """A shard in the folder `work`, which is being written by the thread of `pool`.

    samples, bytes: what it holds. framed: the fast path for its samples, once it has some.
    """

    def __init__(self, work: str, name: str, form: FormatName, check: ImageCheck, pool: ThreadPoolExecutor) -> None:
        self.name, self.check, self.samples, self.bytes = name, check, 0, 0
        self.folder = os.fsencode(work)
        self._stack = ExitStack()
        target = os.path.join(self.folder, os.fsencode(name))
        file = self._stack.enter_context(whole_file(target))
        self.since = os.fstat(file.fileno()).st_mtime_ns
        self.sink = BackgroundSink(file.fileno(), target, pool)
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

    def drain(self, framed: FramedSamples) -> tuple[int, int]:
        """Write the samples that were framed. Returns (samples, bytes)."""
        count, size = framed.drain(self.writer)
        self.samples += count
        self.bytes = self.writer.position
        return count, size

    def close(self, columns: bytes = b"") -> Receipt:
        """Complete the shard. columns: further columns of its samples, as `encoded_columns` gives them."""
        with self._stack:  # closes the file if they fail
            self.writer.end()
            self.sink.end()
        written = self.writer.written([])
        if columns:
            written = msgspec.structs.replace(written, rows=with_columns(written.rows, columns, written.rows.keys))
        return keep_receipt(self.folder, self.name, self.sink, written, digest="", check=self.check, since=self.since)

    def _stop(self, *error: object) -> None:
        """Let the thread end before its file is closed."""
        self.sink.abort()

    def abort(self) -> None:
        """Discard the shard."""
        self._stack.__exit__(RuntimeError, RuntimeError("aborted"), None)
