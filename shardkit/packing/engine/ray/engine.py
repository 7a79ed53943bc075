"""The engine "ray": each shard is one task of a Ray cluster.

Source, destination and work folder are on storage that all nodes see under the same paths; the bytes of samples do not
pass through Ray. A task may run twice, on any nodes, at the same time: it writes beside its target and renames, and
both runs write the same bytes. The run keeps the columns; a shard's paths become a task only when a CPU is free for it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import deque
from collections.abc import Iterable, Iterator

import msgspec
from msgspec.structs import replace

from shardkit.errors import ShardkitError, SourceError, WorkerError
from shardkit.packing.engine import worker
from shardkit.packing.engine.ray import task as ray_task
from shardkit.packing.engine.ray.cluster import Call, Cluster
from shardkit.packing.write.receipt import Receipt
from shardkit.packing.write.sink import Advance
from shardkit.packing.write.task import ShardTask
from shardkit.sample import fs_text
from shardkit.storage.files import whole_file

MARK = b"ray.mark"
"""The file in the work folder by which a node checks that it sees the same folder."""


class RayEngine:
    """The engine on a cluster; `workers` and `address` are those of `Cluster`."""

    def __init__(self, workers: int | None, address: str | None) -> None:
        self.cluster = Cluster(workers, address)

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.close()

    def __call__(self, tasks: Iterable[ShardTask], advance: Advance) -> Iterator[Receipt]:
        """Write the shard of each task. Raises the first error of a task, WorkerError for a node that can't run
        tasks."""
        marks: list[ray_task.Mark] = []

        def calls() -> Iterator[Call]:
            for task in tasks:
                if not marks:
                    marks.append(_marked(task.work))
                yield _call(task, marks[0])

        again = deque[Call]()
        results = self.cluster.results(calls(), again)
        try:
            for call, data in results:
                receipt = _receipt(data, call.name)
                if receipt is None:
                    unlooked = msgspec.structs.replace(marks[0], sources=False)
                    again.append(replace(call, args=_call(call.about, unlooked).args))
                    continue
                advance(*call.about.extent())
                yield receipt
        finally:
            results.close()
            for mark in marks:
                with contextlib.suppress(OSError):
                    os.unlink(mark.path)


def _call(task: ShardTask, mark: ray_task.Mark) -> Call:
    args = msgspec.msgpack.encode(task), msgspec.msgpack.encode(mark)
    return Call(task.name, f"{ray_task.__name__}:{ray_task.answer.__name__}", args, task)


def _marked(folder: bytes) -> ray_task.Mark:
    """Write a new mark to the work folder."""
    from shardkit.version import __version__

    mark = ray_task.Mark(os.path.join(folder, MARK), secrets.token_hex(16).encode(), __version__)
    with whole_file(mark.path) as file:
        file.write(mark.token)
    return mark


def _receipt(data: bytes, name: str) -> Receipt | None:
    """The receipt in a node's answer; None if the file that the node missed has vanished from the source altogether."""
    found = msgspec.msgpack.decode(data, type=ray_task.Answer)
    if isinstance(found, worker.Done):
        return found.receipt
    if isinstance(found, worker.Failed):
        raise worker.rebuilt(found)
    if isinstance(found, ray_task.Other):
        from shardkit.version import __version__

        fact = f"the node {found.node} has shardkit {found.version}, but this run has {__version__}"
        raise WorkerError(name, fact, "install the same version on all nodes")
    if found.source and not os.path.lexists(found.path):
        return None
    raise _unseen(found)


def _unseen(found: ray_task.Unseen) -> ShardkitError:
    path = fs_text(found.path if found.source else os.path.dirname(found.path))
    fact = f"the node {found.node} does not see {path}, which this machine does"
    if found.source:
        return SourceError(path, fact, "mount the source on all nodes, under the same path")
    cure = "mount the destination on all nodes, under the same path (for a bucket: the folder given as `work`)"
    return WorkerError(path, fact, cure)
