"""Run one task on a node of a Ray cluster: check that it sees the same folders, then write the shard.

Nothing here imports Ray. Tasks and answers are MessagePack, like those between a run and its local workers.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

import msgspec

from shardkit import errors
from shardkit.packing.engine import worker
from shardkit.packing.write.shard import write_shard
from shardkit.packing.write.task import ShardTask

_TRIES, _PAUSE_SECONDS = 10, 0.5
"""How long a node may take to see a file that was written elsewhere: network file systems cache what they saw."""
_LOOK_SECONDS = 1.0


class Mark(msgspec.Struct, frozen=True):
    """A file in the work folder and its content, and the shardkit version of the run that wrote it.

    sources: whether to check that the node sees the source.
    """

    path: bytes
    token: bytes
    version: str
    sources: bool = True


class Unseen(msgspec.Struct, tag=True, frozen=True):
    """A node does not see a path. source: whether it is one of the source's files, which may have vanished
    altogether."""

    node: str
    path: bytes
    source: bool


class Other(msgspec.Struct, tag=True, frozen=True):
    """A node has another version of shardkit."""

    node: str
    version: str


class _TakenOverError(Exception):
    """The mark is missing or another run's: this run has ended, and another may be writing here."""


Answer = worker.Done | worker.Failed | Unseen | Other


def answer(task_data: bytes, mark_data: bytes) -> bytes:
    """Write the shard of a task; return the outcome. Both arguments, and the Answer, are MessagePack."""
    return msgspec.msgpack.encode(_answer(task_data, msgspec.msgpack.decode(mark_data, type=Mark)))


def _answer(data: bytes, mark: Mark) -> Answer:
    from shardkit.version import __version__

    node = socket.gethostname()
    if __version__ != mark.version:
        return Other(node, __version__)
    if not _sees(mark):
        return Unseen(node, mark.path, source=False)
    task = msgspec.msgpack.decode(data, type=ShardTask)
    first = next(iter(task.watched()), None) if mark.sources else None
    if first is not None and not os.path.lexists(first):
        return Unseen(node, first, source=True)
    try:
        return worker.Done(write_shard(task, _while_marked(mark)))
    except errors.ShardkitError as exc:
        return worker.Failed(type(exc).__name__, (exc.place, exc.fact, exc.cure, exc.offset, exc.key))
    except _TakenOverError:
        fact = f"the run that this task on {node} belongs to has ended"
        return worker.Failed("WorkerError", (task.name, fact, "run the same command again", None, None))
    except OSError as exc:  # of this node's disk, which no part of shardkit expected
        return worker.failed_disk(task.name, exc)
    except Exception as exc:  # a bug, which must not end the run silently
        fact = f"the task on {node} failed with an unexpected {type(exc).__name__}: {exc}"
        return worker.Failed("WorkerError", (task.name, fact, "please report it", None, None))


def _sees(mark: Mark) -> bool:
    for _ in range(_TRIES):
        if _marked(mark):
            return True
        time.sleep(_PAUSE_SECONDS)
    return False


def _marked(mark: Mark) -> bool:
    try:
        with open(mark.path, "rb") as file:
            return file.read() == mark.token
    except OSError:  # not on this node's disk
        return False


def _while_marked(mark: Mark) -> Callable[[int, int], None]:
    """An `advance` that ends the task when the run that started it is over, before it replaces a file of the next
    run."""
    looked = time.monotonic()

    def advance(files: int, size: int) -> None:
        nonlocal looked
        if time.monotonic() - looked >= _LOOK_SECONDS:
            looked = time.monotonic()
            if not _marked(mark):
                raise _TakenOverError

    return advance
