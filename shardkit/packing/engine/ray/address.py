"""Check that a Ray cluster answers at an address: Ray itself tries for minutes, and reports little about it.

A cluster's head speaks gRPC, which is HTTP/2. A server of HTTP/2 sends a SETTINGS frame first (RFC 9113, 3.4).
"""

from __future__ import annotations

import os
import socket

from shardkit.errors import UsageError, WorkerError

TIMEOUT_SECONDS = 10.0

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client sends first, with an empty SETTINGS frame: length (3 bytes), type 4, flags, stream (4 bytes)."""
_CURE = "check `address`, start a cluster with 'ray start --head', or omit it to use this machine"


def require_reachable(address: str) -> None:
    """UsageError unless the address is `HOST:PORT` or "auto"; WorkerError if nothing there answers like a cluster."""
    if address == "auto":  # a cluster on this machine, which Ray finds at once
        return
    host, colon, port = address.rpartition(":")
    if not colon or not host or "/" in host or not port.isdigit() or not 0 < int(port) < 65536:
        fact = f"{address!r} is not the address of a Ray cluster"
        raise UsageError("address", fact, "give HOST:PORT of its head, such as 10.0.0.1:6379, or auto")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT_SECONDS) as connection:
            if not os.environ.get("RAY_USE_TLS"):
                _require_http2(connection, address)
    except OSError as exc:
        raise WorkerError(address, f"no Ray cluster answers there ({exc.strerror or exc})", _CURE) from exc


def _require_http2(connection: socket.socket, address: str) -> None:
    connection.sendall(_PREFACE)
    head = b""
    while len(head) < 4 and (more := connection.recv(64)):
        head += more
    if len(head) < 4 or head[3] != 4:
        raise WorkerError(address, "the server there is not the head of a Ray cluster", _CURE)
