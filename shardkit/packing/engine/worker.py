"""A worker process: tasks on standard input, receipts on standard output. `LocalEngine` starts it.

Each message is a length (8 bytes, little-endian) and MessagePack. A separate process, started by module name, needs no
`if __name__ == "__main__"` in the user's script, inherits no threads and no locks, and starts in about 60 ms. It ends
when its input ends, even in the middle of a shard, so that it never outlives the run that started it.
"""

from __future__ import annotations

import gc
import os
import queue
import struct
import sys
import threading
from typing import BinaryIO

import msgspec

from shardkit import errors
from shardkit.packing.write.receipt import Receipt
from shardkit.packing.write.shard import write_shard
from shardkit.packing.write.task import ShardTask
from shardkit.sample import fs_text

_HEAD = struct.Struct("<Q")


class Advance(msgspec.Struct, tag=True, frozen=True):
    """Files and bytes read since the last message."""

    files: int
    bytes: int


class Done(msgspec.Struct, tag=True, frozen=True):
    """The task is finished."""

    receipt: Receipt


class Failed(msgspec.Struct, tag=True, frozen=True):
    """The task failed with this error."""

    error: str
    args: tuple[str, str, str, int | None, str | None]


Message = Advance | Done | Failed


def send(stream: BinaryIO, message: Message | ShardTask) -> None:
    """Write one message and flush it."""
    data = msgspec.msgpack.encode(message)
    stream.write(_HEAD.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: BinaryIO) -> bytes | None:
    """The bytes of the next message; None at the end of the stream, or if it is truncated."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    (size,) = _HEAD.unpack(head)
    data = stream.read(size)
    return data if len(data) == size else None


def rebuilt(failed: Failed) -> errors.ShardkitError:
    """The error that a worker reported."""
    kind = getattr(errors, failed.error)
    error: errors.ShardkitError = kind(*failed.args)
    return error


def answer(data: bytes, results: BinaryIO) -> None:
    """Write the shard of the task in `data`; report what is read meanwhile, and the outcome."""
    task = msgspec.msgpack.decode(data, type=ShardTask)
    try:
        receipt = write_shard(task, lambda files, size: send(results, Advance(files, size)))
    except errors.ShardkitError as exc:
        send(results, Failed(type(exc).__name__, (exc.place, exc.fact, exc.cure, exc.offset, exc.key)))
    except BrokenPipeError:
        raise
    except OSError as exc:  # of the disk, which no part of shardkit expected
        send(results, failed_disk(task.name, exc))
    except Exception as exc:  # a bug, which must not end the worker
        fact = f"the worker that wrote it failed with an unexpected {type(exc).__name__}: {exc}"
        send(results, Failed("WorkerError", (task.name, fact, "please report it", None, None)))
    else:
        send(results, Done(receipt))


def failed_disk(name: str, exc: OSError) -> Failed:
    """The answer for an unexpected OSError while the shard `name` was written."""
    place = fs_text(exc.filename) if isinstance(exc.filename, (str, bytes)) else name
    return Failed("StorageError", (place, exc.strerror or str(exc), "check the disk and its permissions", None, None))


def serve(tasks: BinaryIO, results: BinaryIO) -> None:
    """Answer each task; end the process when the tasks end, whatever it is doing.

    They end when the run that started this process does, possibly without warning. A lock inherited from it is then
    free for the next run.
    """
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while (data := receive(tasks)) is not None:
                inbox.put(data)
        finally:
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        answer(inbox.get(), results)


def main() -> None:
    """Serve the run that started this process."""
    gc.set_threshold(50_000)  # at the default of 700 it scans the same rows again and again: 7 % of the time
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # output printed by libraries must not mix with the messages
    try:
        serve(sys.stdin.buffer, results)
    finally:  # nobody reads any more; not by interpreter shutdown, which would wait for the listening thread
        os._exit(1)
