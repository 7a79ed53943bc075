"""A web server with the user's own headers, which are sent only to the host that they were given for.

obstore follows redirects with all default headers except `Authorization` and `Cookie`, and this can't be changed: a
key in `X-Api-Key` would go to whatever host a server names. This client, built on the standard library, sends the
user's headers only to the same scheme, host and port. It opens a connection for each request, and is used only if
such headers are given.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from shardkit.errors import ShardkitError, StorageError, TransientError, UsageError, redacted
from shardkit.location import Location
from shardkit.storage.store import ObjectInfo, StorageOptions, Store, require_name
from shardkit.storage.stores.cloud import PIECE_BYTES, RemoteStore, beyond_end, version_of_time
from shardkit.storage.stores.cloud_errors import answer_error, redirect_error
from shardkit.storage.stores.cloud_options import web_options

SENT_ON = ("accept", "accept-encoding", "range", "user-agent")
"""Headers that are also sent to another host: they reveal nothing about the user."""
KEPT_BY_OBSTORE = ("authorization", "cookie", "proxy-authorization")
"""Headers that obstore does not send to another host either."""
TIMEOUT_SECONDS = 30.0
_NETWORK = "check the network and the server"


def open_web(root: Location, options: StorageOptions) -> Store:
    """Open a web folder: through obstore, or if the user's headers must not reach other hosts, as a WebStore."""
    _, client = web_options(root, options)
    names = {str(name).lower() for name in client.get("default_headers") or {}}
    own = names.difference(SENT_ON, KEPT_BY_OBSTORE)
    return WebStore(root, options) if own else RemoteStore(root, options)


class WebStore:
    """The objects below `root` on a web server. It is read-only, and can't be listed. version is the ETag, or else
    the time of the last change, if the server has one of them."""

    def __init__(self, root: Location, options: StorageOptions) -> None:
        self.root = root
        self._url, client = web_options(root, options)
        self._headers = {"Accept-Encoding": "identity", **(client.get("default_headers") or {})}
        if "user_agent" in client:
            self._headers["User-Agent"] = str(client["user_agent"])
        self._timeout = _seconds(client.get("timeout") or client.get("read_timeout"))
        handlers: list[Any] = [_Redirects(), urllib.request.HTTPSHandler(context=_tls(client))]
        if "proxy_url" in client:
            handlers.append(urllib.request.ProxyHandler(dict.fromkeys(("http", "https"), str(client["proxy_url"]))))
        self._opener = urllib.request.build_opener(*handlers)

    def __repr__(self) -> str:
        return f"WebStore({self.root})"

    def __reduce__(self) -> str:
        raise TypeError("a store goes to another process as its location and options")

    def info(self, name: str) -> ObjectInfo:
        """The size and version of an object: one HEAD request."""
        with self._answer(name, "HEAD") as found:
            size = found.headers.get("Content-Length")
            if size is None:
                fact = "the server does not report the size of the object"
                raise StorageError(self._place(name), fact, "use a server that answers HEAD with Content-Length")
            version = found.headers.get("ETag") or version_of_time(_time(found.headers.get("Last-Modified")))
            return ObjectInfo(name, int(size), None, version)

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes start … end - 1, by one GET request."""
        place = self._place(name)
        if not 0 <= start <= (start if end is None else end):
            raise UsageError(place, f"{start} to {end} is not a range", "give 0 <= start <= end")
        whole = start == 0 and end is None
        if start == end or (end is None and not whole):
            size = self.info(name).bytes
            if start > size:
                raise beyond_end(place, start, end, size)
            if start in (size, end):
                return
            end = size
        wanted = {} if whole else {"Range": f"bytes={start}-{(end or 0) - 1}"}
        with self._answer(name, "GET", wanted) as found:
            count = _count(found, place, start, end)
            done = 0
            while piece := self._read(found, place):
                done += len(piece)
                yield piece
        if count is not None and done < count:
            fact = f"the server sent {done} of the {count} bytes requested"
            raise TransientError(place, fact, _NETWORK)

    def put(self, name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
        """Raise StorageError: a web server is read-only."""
        raise StorageError(str(self.root), "a web server is read-only", "write to its folder, or to a bucket")

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Raise StorageError: a web server can't be listed."""
        raise StorageError(str(self.root), "a web server can't be listed", "name the manifest or the shards")

    def delete(self, name: str) -> None:
        """Raise StorageError: a web server is read-only."""
        raise StorageError(str(self.root), "a web server is read-only", "write to its folder, or to a bucket")

    def _place(self, name: str) -> str:
        return str(self.root.child(name))

    @contextlib.contextmanager
    def _answer(
        self, name: str, method: str, more: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        base, _, query = self._url.partition("?")
        url = f"{base}/{quote(require_name(name), safe='/~')}" + (f"?{query}" if query else "")
        request = urllib.request.Request(url, headers={**self._headers, **(more or {})}, method=method)
        place = self._place(name)
        try:
            found = self._opener.open(request, timeout=self._timeout)
        except (OSError, http.client.HTTPException) as exc:
            failure = _error_of(exc, place)
        else:
            with found:
                yield found
            return
        raise failure  # outside the block: the original text may contain the query

    def _read(self, found: http.client.HTTPResponse, place: str) -> bytes:
        try:
            return found.read(PIECE_BYTES)
        except (OSError, http.client.HTTPException) as exc:
            raise _error_of(exc, place) from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects with the same method, and send the user's headers only to their own host."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request:
        """The redirected request. URLError for a redirect from https to http."""
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if (old.scheme, new.scheme) == ("https", "http"):
            raise urllib.error.URLError("the server redirects from https to http")
        kept = dict(req.header_items())
        if (old.scheme, old.netloc) != (new.scheme, new.netloc):
            kept = {name: value for name, value in kept.items() if name.lower() in SENT_ON}
        kept.pop("Host", None)
        return urllib.request.Request(newurl, headers=kept, method=req.get_method(), unverifiable=True)


def _error_of(exc: Exception, place: str) -> ShardkitError:
    """The shardkit error for an exception of urllib."""
    if isinstance(exc, urllib.error.HTTPError):
        if 300 <= exc.code < 400:
            return redirect_error(str(exc), place)
        failure = answer_error(exc.code, str(exc.reason), place)
        if isinstance(failure, TransientError):
            failure.after_seconds = after_seconds(exc.headers.get("Retry-After"))
        return failure
    reason = getattr(exc, "reason", exc)
    reason_text = redacted(" ".join(str(reason).split())[:300]) or type(exc).__name__
    if isinstance(reason, ssl.SSLCertVerificationError):
        cure = "give its authority as storage option root_certificate or in SSL_CERT_FILE (a PEM file)"
        return StorageError(place, f"the server's certificate is not trusted ({reason_text})", cure)
    if isinstance(reason, str):  # raised by _Redirects
        return StorageError(place, reason_text, "give another URL")
    return TransientError(place, f"the connection broke ({reason_text})", _NETWORK)


def after_seconds(value: str | None) -> float:
    """The seconds of a Retry-After header, given as a number or a date (RFC 9110, 10.2.3); 0 for anything else."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:  # not a date either: as if the header were absent
        return 0.0


def _time(value: str | None) -> datetime | None:
    """The time in a header; None if there is none."""
    try:
        return None if value is None else parsedate_to_datetime(value)
    except ValueError:
        return None


def _count(found: http.client.HTTPResponse, place: str, start: int, end: int | None) -> int | None:
    """The number of bytes in an answer; None if it does not say. StorageError for a range that was not requested."""
    length = found.headers.get("Content-Length")
    if end is None:
        return None if length is None else int(length)
    if found.status != 206:
        fact = "the server ignores ranges: it sends the whole object when a part is requested"
        raise StorageError(place, fact, "use a server that answers ranges with 206, or download the dataset first")
    content_range = found.headers.get("Content-Range", "")
    if content_range.partition("/")[0] != f"bytes {start}-{end - 1}":
        size = content_range.rpartition("/")[2]
        if size.isdecimal() and end > int(size):
            raise beyond_end(place, start, end, int(size))
        fact = f"the server sent a different range than requested ({redacted(content_range[:100])})"
        raise StorageError(place, fact, "use another server, or download the dataset first")
    return end - start


def _tls(client: Mapping[str, Any]) -> ssl.SSLContext:
    pem = client.get("root_certificate")
    context = ssl.create_default_context()
    if pem:
        context.load_verify_locations(cadata=pem.decode() if isinstance(pem, bytes) else str(pem))
    if str(client.get("allow_invalid_certificates", "")).lower() in ("true", "1"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _seconds(value: Any) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return TIMEOUT_SECONDS
