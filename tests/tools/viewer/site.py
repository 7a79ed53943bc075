"""A web server for tests of the page: it records each request, and can do what servers do wrong."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class Site(ThreadingHTTPServer):
    """Serves `folder`. log: (name, first byte, end) of each answer with a body. most: requests at a time.

    ranges, cors, wait_seconds: what it does. broken: names that it does not find."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.ranges, self.cors, self.wait_seconds = folder, True, False, 0.0
        self.log: list[tuple[str, int, int]] = []
        self.broken: list[str] = []
        self.lock, self.active, self.most = threading.Lock(), 0, 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def bytes(self) -> int:
        return sum(end - first for _, first, end in self.log)

    def handle_error(self, request: object, client_address: object) -> None:
        """Browsers drop connections."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.active += 1
            self.server.most = max(self.server.most, self.server.active)
        try:
            time.sleep(self.server.wait_seconds)
            self._answer()
        finally:
            with self.server.lock:
                self.server.active -= 1

    do_HEAD = do_GET  # noqa: N815

    def _answer(self) -> None:
        name = unquote(self.path.partition("?")[0]).lstrip("/")
        path = self.server.folder / name
        if not path.is_file() or name in self.server.broken:
            self._head(404, {}, 0)
            return
        data, head = path.read_bytes(), {}
        first, end = 0, len(data)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if self.server.ranges else None
        if wanted:
            first, end = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
            head["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
        self._head(206 if wanted else 200, head, end - first)
        if self.command == "HEAD":
            return
        self.server.log.append((name, first, end))
        self.wfile.write(data[first:end])

    def _head(self, status: int, head: dict[str, str], length: int) -> None:
        self.send_response(status)
        kind = "text/html" if self.path.partition("?")[0].endswith(".html") else "application/octet-stream"
        head = {"Content-Type": kind, "Cache-Control": "no-store", "Content-Length": str(length)} | head
        if self.server.cors:
            head |= {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Content-Range"}
        for name, value in head.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Site]:
    """A site that runs for the block."""
    with Site(folder) as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield site
        finally:
            site.shutdown()
            thread.join(10)
