"""A web server read with headers of the user's own: they go to no other host."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from shardkit.errors import NotFoundError, StorageError, TransientError
from shardkit.location import locate
from shardkit.storage import retry
from shardkit.storage.retry import Retry, call_with_retries
from shardkit.storage.store import open_store
from shardkit.storage.stores import web
from shardkit.storage.stores.cloud import RemoteStore
from shardkit.storage.stores.cloud_errors import answer_error
from shardkit.storage.stores.web import WebStore, after_seconds

CONTENT = bytes(range(256)) * 8
KEY = {"default_headers": {"X-Api-Key": "secret-key", "Authorization": "Bearer secret-token"}}


class Web:
    """A server of one object under every name; `leads_to`: the URL that it redirects to, by path."""

    def __init__(self) -> None:
        self.leads_to: dict[str, str] = {}
        self.status = 302
        self.fails: list[tuple[int, dict[str, str]]] = []
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def act(self) -> None:
                outer.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
                self.answer(*outer.answer(self.path, self.headers.get("Range")))

            do_GET = do_HEAD = act  # noqa: N815

            def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, path: str, wanted: str | None) -> tuple[int, dict[str, str], bytes]:
        if self.fails:
            status, headers = self.fails.pop(0)
            return status, headers, b""
        if path in self.leads_to:
            return self.status, {"Location": self.leads_to[path]}, b""
        if "missing" in path:
            return 404, {}, b""
        if wanted is None:
            return 200, {"ETag": '"v1"'}, CONTENT
        start, _, end = wanted.removeprefix("bytes=").partition("-")
        part = CONTENT[int(start) : int(end or len(CONTENT)) + 1]
        if not part:
            return 416, {"Content-Range": f"bytes */{len(CONTENT)}"}, b""
        told = f"bytes {start}-{int(start) + len(part) - 1}/{len(CONTENT)}"
        return 206, {"Content-Range": told}, part


@pytest.fixture
def webs() -> Iterator[tuple[Web, Web]]:
    """Two servers: other ports are other hosts."""
    both = (Web(), Web())
    yield both
    for each in both:
        each.server.shutdown()
        each.server.server_close()


def read(store: Any, name: str, *bounds: Any) -> bytes:
    return b"".join(bytes(piece) for piece in store.pieces(name, *bounds))


def test_only_headers_that_must_not_be_sent_on_take_this_client(webs: tuple[Web, Web]) -> None:
    place = locate(f"{webs[0].url}/x")
    assert isinstance(open_store(place, KEY), WebStore)
    for options in ({}, {"token": "t"}, {"default_headers": dict.fromkeys([*web.SENT_ON, *web.KEPT_BY_OBSTORE], "a")}):
        assert isinstance(open_store(place, options), RemoteStore)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_users_headers_do_not_follow_a_redirect_to_another_host(webs: tuple[Web, Web], status: int) -> None:
    first, second = webs
    first.status, first.leads_to = status, {"/x/a": f"{second.url}/elsewhere/a"}
    store = open_store(locate(f"{first.url}/x"), KEY)
    assert store.info("a").bytes == len(CONTENT)
    assert read(store, "a", 5, 9) == CONTENT[5:9]
    assert [command for command, _, _ in second.seen] == ["HEAD", "GET"]
    assert all("secret" in headers["x-api-key"] for _, _, headers in first.seen)
    for _, _, headers in second.seen:
        assert not {"x-api-key", "authorization"} & headers.keys()
    assert second.seen[1][2]["range"] == "bytes=5-8"


def test_they_follow_one_to_the_same_host(webs: tuple[Web, Web]) -> None:
    first, _ = webs
    first.leads_to = {"/x/a": f"{first.url}/x/b"}
    assert read(open_store(locate(f"{first.url}/x"), KEY), "a") == CONTENT
    assert [headers["x-api-key"] for _, _, headers in first.seen] == ["secret-key"] * 2


def test_a_circle_is_told_as_one(webs: tuple[Web, Web]) -> None:
    first, _ = webs
    first.leads_to = {"/x/a": f"{first.url}/x/a"}
    with pytest.raises(StorageError, match="redirects in a circle"):
        open_store(locate(f"{first.url}/x"), KEY).info("a")


@pytest.mark.parametrize(
    ("status", "fact"),
    [
        (300, "redirects without saying"),
        (399, "redirects without saying"),
        (400, "the store refused"),
        (299, "refused"),
    ],
)
def test_only_an_answer_of_3xx_is_a_redirect(webs: tuple[Web, Web], status: int, fact: str) -> None:
    assert fact in str(answer_error(status, "Words", "http://h/a"))
    if status >= 300:
        webs[0].fails = [(status, {})]
        with pytest.raises(StorageError, match=fact):
            open_store(locate(f"{webs[0].url}/x"), KEY).info("a")


@pytest.mark.parametrize("given", [None, "false", False, "0", "true", "True", True, "1"])
def test_certificates_are_checked_unless_the_option_says_otherwise(given: object) -> None:
    context = web._tls({} if given is None else {"allow_invalid_certificates": given})
    trusts_any = str(given).lower() in ("true", "1")
    assert context.verify_mode == (ssl.CERT_NONE if trusts_any else ssl.CERT_REQUIRED)
    assert context.check_hostname is not trusts_any


def test_it_reads_as_the_other_store_does(webs: tuple[Web, Web]) -> None:
    place = locate(f"{webs[0].url}/x")
    ours, other = open_store(place, KEY), open_store(place)
    assert ours.info("a").bytes == other.info("a").bytes
    assert ours.info("a").version == other.info("a").version
    for bounds in ((), (0, 1), (3,), (0, len(CONTENT)), (7, 7), (len(CONTENT),), (len(CONTENT), len(CONTENT))):
        assert read(ours, "a", *bounds) == read(other, "a", *bounds)
    for store in (ours, other):
        with pytest.raises(NotFoundError):
            store.info("missing")
        with pytest.raises(StorageError, match="requested"):
            read(store, "a", 5, len(CONTENT) + 1)
        with pytest.raises(StorageError, match="can't be listed"):
            store.list()
        with pytest.raises(StorageError, match="read-only"):
            store.delete("a")


def test_names_are_quoted_as_by_the_other_store(webs: tuple[Web, Web]) -> None:
    place = locate(f"{webs[0].url}/x")
    name = "a b/50%25 é~.tar"
    for options in (KEY, {}):
        read(open_store(place, options), name)
    assert webs[0].seen[0][1] == webs[0].seen[1][1]


def test_the_time_that_a_server_asks_for_is_waited(webs: tuple[Web, Web], monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", slept.append)
    first, _ = webs
    asked = retry.AFTER_SECONDS
    first.fails = [(503, {"Retry-After": "7"}), (429, {"Retry-After": str(int(10 * asked))}), (503, {})]
    store = open_store(locate(f"{first.url}/x"), KEY)
    patience = Retry(first_seconds=0.0, total_seconds=10 * asked)
    assert call_with_retries(lambda: store.info("a"), patience).bytes == len(CONTENT)
    assert slept == [7.0, asked, 0.0]


def test_a_wait_beyond_the_end_of_the_patience_is_an_error_at_once(webs: tuple[Web, Web]) -> None:
    first, _ = webs
    first.fails = [(503, {"Retry-After": "50"})]
    store = open_store(locate(f"{first.url}/x"), KEY)
    with pytest.raises(StorageError, match="gave up after 1 attempts") as caught:
        call_with_retries(lambda: store.info("a"), Retry(total_seconds=20))
    assert not isinstance(caught.value, TransientError)


def test_retry_after_is_seconds_or_a_date() -> None:
    assert after_seconds("12") == 12.0
    assert after_seconds(None) == after_seconds("soon") == 0.0
    assert after_seconds(formatdate(0, usegmt=True)) == 0.0
    assert 0 < after_seconds(formatdate(web.time.time() + 100, usegmt=True)) <= 100
