"""Write one shard: read its samples, check them, write them to a file beside the target, and return the receipt.

This is the unit of work that is distributed over processes and machines: `ShardTask` in, `Receipt` out, both plain
data. Nothing here needs NumPy, so that a worker process starts in a few hundredths of a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec

from shardkit.formats.columns import as_strings
from shardkit.packing.write.receipt import Receipt, keep_receipt, with_columns
from shardkit.packing.write.samples import write_samples
from shardkit.packing.write.sink import Advance, Sink
from shardkit.packing.write.task import ShardTask
from shardkit.storage.files import translated, whole_file


def write_shard(
    task: ShardTask,
    advance: Advance,
    turn: AbstractContextManager[Any] | None = None,
    sink_for: Callable[[int, bytes], Sink] = Sink,
) -> Receipt:
    """Write the shard of `task` and its receipt; `advance(samples, bytes)` is called from time to time with what was
    read. turn: is held while the shard is written, but not while the disk flushes it. sink_for: makes the sink.

    The shard appears under its name only when it is complete and on the disk; its receipt follows. Raises BadFileError
    for a file that can't be packed (unless the task skips those), StorageError, DestinationError.
    """
    target = os.path.join(task.work, os.fsencode(task.name))
    with whole_file(target) as file:
        with translated(target):
            since = os.fstat(file.fileno()).st_mtime_ns
        sink = sink_for(file.fileno(), target)
        with turn or nullcontext():
            written = write_samples(task, sink, advance)
    since = since if written.since is None else min(since, written.since)
    written = written.looked_at(target, seek=task.seek_points, quality=task.quality_columns)
    if task.columns:
        rows = with_columns(written.rows, task.columns, as_strings(task.samples.keys))
        written = msgspec.structs.replace(written, rows=rows)
    return keep_receipt(task.work, task.name, sink, written, digest=task.digest, check=task.check, since=since)
