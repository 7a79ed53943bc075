"""The messages between the processes of a machine, over a socket that keeps their boundaries (SOCK_SEQPACKET).

| bytes | content |
|---|---|
| 0 … 3 | `SKN1` |
| 4 | the kind: what `Kind` says |
| 5 … 7 | 0 |
| 8 … 11 | the number of a question, which its answer repeats (little-endian, as the next) |
| 12 … 19 | the bytes of the memory |
| 20 … 35 | the key: what the memory holds |

Memory is sent with its message as a descriptor (SCM_RIGHTS). There is nothing to parse, and nothing is unpickled.
"""

from __future__ import annotations

import enum
import os
import socket
import struct
from typing import NamedTuple

from shardkit.storage.node.memory import Memory

PROTOCOL = 1
"""Part of the name of the socket: processes of other versions do not meet."""

_FORM = struct.Struct("<4sB3xIQ16s")
_MARK = b"SKN1"


class Kind(enum.IntEnum):
    """What a message says."""

    ASK = 1
    """To the server: what is there for the key? It answers with HERE or YOURS, perhaps after a while."""
    HERE = 2
    """The memory."""
    YOURS = 3
    """Nobody has it: make it, and send PUT or DROP."""
    PUT = 4
    """To the server: the memory for a key."""
    DROP = 5
    """To the server: it won't be made, or what is there is wrong."""
    FREED = 6
    """To who made it: it need not be kept any longer for another server."""


class Message(NamedTuple):
    """One message. memory: with HERE and PUT."""

    kind: Kind
    number: int
    key: bytes
    memory: Memory | None = None


class BadMessageError(Exception):
    """A peer sent something else than a message."""


def send(sock: socket.socket, message: Message) -> None:
    """Send a message; its memory stays open here. Raises OSError."""
    memory = message.memory
    data = _FORM.pack(_MARK, message.kind, message.number, 0 if memory is None else memory.bytes, message.key)
    if memory is None:
        sock.send(data)
    else:
        socket.send_fds(sock, [data], [memory.descriptor])


def receive(sock: socket.socket) -> Message | None:
    """The next message; None at the end. Raises OSError, and BadMessageError for anything that is not a message."""
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, descriptors, _, _ = socket.recv_fds(sock, _FORM.size + 1, 1, flags)
    try:
        message = _parsed(data, descriptors)
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return message


def _parsed(data: bytes, descriptors: list[int]) -> Message | None:
    if not data and not descriptors:
        return None
    if len(data) != _FORM.size:
        raise BadMessageError(f"{len(data)} bytes")
    mark, kind, number, size, key = _FORM.unpack(data)
    if mark != _MARK or kind not in Kind.__members__.values():
        raise BadMessageError(f"a message of the kind {kind}")
    if (kind in (Kind.HERE, Kind.PUT)) != bool(descriptors):
        raise BadMessageError(f"{len(descriptors)} descriptors in a message of the kind {kind}")
    memory = Memory.received(descriptors[0], size) if descriptors else None
    if descriptors and memory is None:
        raise BadMessageError("memory that can still change")
    return Message(Kind(kind), number, key, memory)
