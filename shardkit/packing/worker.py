"""A worker process: `python -m shardkit.packing.worker`, tasks on standard input, receipts on standard output.

Each message is a length (4 bytes, little-endian) and MessagePack. A process of its own, started by name, needs no
`if __name__ == "__main__"` in the user's script, inherits no threads and no locks, and starts in about 60 ms.
It ends when its input ends, so that it never outlives the run that started it by more than a moment.
"""

from __future__ import annotations

import struct
import sys
from typing import BinaryIO

import msgspec

from shardkit import errors
from shardkit.packing.shard import Receipt, ShardTask, write_shard


class Advance(msgspec.Struct, tag=True, frozen=True):
    """Files and bytes that were read since the last message."""

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
    stream.write(struct.pack("<I", len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: BinaryIO) -> bytes | None:
    """The bytes of the next message; None at the end of the stream, or where it is cut."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    (size,) = struct.unpack("<I", head)
    data = stream.read(size)
    return data if len(data) == size else None


def rebuilt(failed: Failed) -> errors.ShardkitError:
    """The error that a worker met."""
    kind = getattr(errors, failed.error, errors.ShardkitError)
    error: errors.ShardkitError = kind(*failed.args)
    return error


def serve(tasks: BinaryIO, results: BinaryIO) -> None:
    """Write the shard of each task until the tasks end."""
    while (data := receive(tasks)) is not None:
        task = msgspec.msgpack.decode(data, type=ShardTask)
        try:
            receipt = write_shard(task, lambda files, size: send(results, Advance(files, size)))
        except errors.ShardkitError as exc:
            send(results, Failed(type(exc).__name__, (exc.place, exc.fact, exc.cure, exc.offset, exc.key)))
        else:
            send(results, Done(receipt))


if __name__ == "__main__":
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer)
    except (BrokenPipeError, KeyboardInterrupt):
        sys.stdout = None  # nobody reads on: leave without a word at exit
        sys.exit(1)
