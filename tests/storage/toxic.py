"""A toxic proxy: stands before a server of the tests on loopback, and lets requests fail as networks and servers do."""

from __future__ import annotations

import http.client
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}
CHUNK = 64 << 10


class Toxic:
    """`with Toxic(upstream, cut=0.3) as toxic:` gives a proxy at `toxic.endpoint` for the server at `upstream`.

    The share of requests (0 … 1) that fare so: cut: the body breaks off at a random byte. short: it is complete by its
    length, but shorter than was asked for. corrupt: a byte is wrong. hang: it stops for `hang_seconds` at a random
    byte. fail: a 503 instead. latency: seconds before an answer, one number or (least, most). ignore_ranges: always the
    whole object. ranges_only: faults befall requests for ranges only, so that a manifest arrives. seed: of what is
    random; which request meets which fault depends on the threads too. `counts`: how many of each kind there were, and
    "requests".
    """

    def __init__(
        self,
        upstream: str,
        *,
        cut: float = 0.0,
        short: float = 0.0,
        corrupt: float = 0.0,
        hang: float = 0.0,
        fail: float = 0.0,
        latency: float | tuple[float, float] = 0.0,
        ignore_ranges: bool = False,
        ranges_only: bool = False,
        hang_seconds: float = 60.0,
        seed: int = 0,
    ) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.shares = {"cut": cut, "short": short, "corrupt": corrupt, "hang": hang, "fail": fail}
        self.latency = latency if isinstance(latency, tuple) else (latency, latency)
        self.ignore_ranges = ignore_ranges
        self.ranges_only = ranges_only
        self.hang_seconds = hang_seconds
        self.counts: Counter[str] = Counter()
        self.closed = threading.Event()
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), type("ToxicHandler", (_Handler,), {"toxic": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="toxic", daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Toxic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.close_all()
        self._server.server_close()
        self._thread.join()

    def draw(self, *, ranged: bool) -> tuple[str, random.Random]:
        """What befalls the next request, and what is random in it."""
        with self._lock:
            self.counts["requests"] += 1
            point, own = self._random.random(), random.Random(self._random.random())
            fate = "fine"
            for name, share in self.shares.items():
                point -= share
                if point < 0:
                    fate = name if ranged or not self.ranges_only else "fine"
                    break
            self.counts[fate] += 1
        return fate, own


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_all(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    toxic: Toxic

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def pass_on(self) -> None:
        toxic = self.toxic
        ranged = "Range" in self.headers
        fate, own = toxic.draw(ranged=ranged)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if toxic.closed.wait(own.uniform(*toxic.latency)):
            return
        if fate == "fail":
            self._answer(503, [], b"<Error><Code>SlowDown</Code><Message>Please reduce your rate.</Message></Error>")
            return
        left_out = {"connection", "expect"} | ({"range"} if toxic.ignore_ranges else set())
        head = {key: value for key, value in self.headers.items() if key.lower() not in left_out}
        upstream = http.client.HTTPConnection(toxic.upstream, timeout=60)
        try:
            upstream.request(self.command, self.path, body or None, head)
            self._relay(upstream.getresponse(), fate, own)
        finally:
            upstream.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815

    def _relay(self, answer: http.client.HTTPResponse, fate: str, own: random.Random) -> None:
        headers = [(key, value) for key, value in answer.getheaders() if key.lower() not in HOP_BY_HOP]
        size = int(answer.getheader("Content-Length") or 0)
        if self.command == "HEAD" or not size:
            self._answer(answer.status, headers, answer.read(), size)
            return
        at = own.randrange(size)
        length = at if fate == "short" else size
        self._head(answer.status, headers, length)
        done = 0
        for chunk in _chunks(answer):
            part = chunk
            if fate == "corrupt" and done <= at < done + len(chunk):
                part = bytearray(chunk)
                part[at - done] ^= own.randrange(1, 256)
            if fate in ("cut", "short", "hang") and done + len(chunk) > at:
                self.wfile.write(part[: at - done])
                self.wfile.flush()
                if fate == "hang":
                    self.toxic.closed.wait(self.toxic.hang_seconds)
                if fate != "short":
                    self.close_connection = True
                return
            self.wfile.write(part)
            done += len(chunk)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, length: int | None = None) -> None:
        self._head(status, headers, len(body) if length is None else length)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, headers: list[tuple[str, str]], length: int) -> None:
        self.send_response_only(status)
        for key, value in headers:
            self.send_header(key, value)
        if status != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()


def _chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while chunk := answer.read(CHUNK):
        yield chunk
