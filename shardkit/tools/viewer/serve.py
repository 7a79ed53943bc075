"""A small web server for a page and its datasets on this machine: only their files, by HTTP ranges."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import quote, unquote

from shardkit.errors import StorageError, UsageError
from shardkit.location import locate
from shardkit.shards.manifest import file_names
from shardkit.shards.objects import Objects
from shardkit.tools.viewer.page import ViewPage

HOST = "127.0.0.1"
TYPES = {".html": "text/html; charset=utf-8", ".htm": "text/html; charset=utf-8", ".json": "application/json"}
_PIECE = 1 << 20


class PageServer(ThreadingHTTPServer):
    """Serves a page and the files of its datasets at `address`, to this machine only. Use it in a `with` block."""

    daemon_threads = True

    def __init__(self, page: ViewPage, port: int = 0) -> None:
        """port: 0 for any free one. UsageError for a dataset that is not on a disk, StorageError for a port in use."""
        self.files = _files(page)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as exc:
            raise StorageError(f"{HOST}:{port}", exc.strerror or str(exc), "choose another port") from exc
        first = next(iter(self.files))
        self.address = f"http://{HOST}:{self.server_address[1]}{quote(first, errors='surrogateescape')}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser drops connections that it does not need any more; other errors are reported."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _files(page: ViewPage) -> dict[str, str]:
    """The path of each address, the page first; only these are served."""
    paths = [os.path.abspath(page.path)]
    for each in page.datasets:
        place = locate(each.manifest)
        if not place.is_local:
            fact = f"it is not on a disk of this machine, and can't be served from here: {each.manifest}"
            raise UsageError("serve", fact, "put the page beside the shards; a bucket needs no server")
        manifest = Objects().manifest(place)
        files = [place, *(place.sibling(name) for name in file_names(manifest))]
        if manifest.elsewhere:
            far = manifest.shards_beside(place)
            files += [far.sibling(shard.name) for shard in manifest.shards if far.is_local]
        paths += [os.path.abspath(each.path) for each in files]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    return {"/" + os.path.relpath(path, root).replace(os.sep, "/"): path for path in paths}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PageServer
    hosts: ClassVar[tuple[str, ...]] = (HOST, "localhost")

    def do_GET(self) -> None:
        """A file of the page, or a part of it."""
        path = self.server.files.get(unquote(self.path.partition("?")[0], errors="surrogateescape"))
        if path is None or self.headers.get("Host", "").partition(":")[0] not in self.hosts:  # DNS rebinding
            self._answer(404, {})
            return
        try:
            with open(path, "rb") as file:
                self._send(file.fileno(), os.path.splitext(path)[1])
        except FileNotFoundError:
            self._answer(404, {})
        except (BrokenPipeError, ConnectionResetError):  # the page does not need it any more
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815

    def _send(self, file: int, ending: str) -> None:
        size, stamp = os.fstat(file).st_size, os.fstat(file).st_mtime_ns
        head = {"Content-Type": TYPES.get(ending, "application/octet-stream"), "Accept-Ranges": "bytes"}
        head |= {"ETag": f'"{stamp:x}-{size:x}"', "Cache-Control": "no-cache"}
        start, end = 0, size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            start, end = int(wanted[1]), min(int(wanted[2]) + 1, size) if wanted[2] else size
            if start >= end:
                self._answer(416, {"Content-Range": f"bytes */{size}"})
                return
            head["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self._answer(206 if wanted else 200, head, end - start)
        if self.command == "HEAD":
            return
        os.lseek(file, start, os.SEEK_SET)
        while start < end:
            piece = os.read(file, min(_PIECE, end - start))
            if not piece:  # it became shorter
                self.close_connection = True
                return
            self.wfile.write(piece)
            start += len(piece)

    def _answer(self, status: int, head: Mapping[str, str], length: int = 0) -> None:
        self.send_response(status)
        for name, value in {**head, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Log no requests."""
