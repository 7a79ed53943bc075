"""RemoteStore beyond the contract: what its errors say, safety, options, forks, and other processes."""

from __future__ import annotations

import base64
import io
import logging
import os
import pickle
import re
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from storage.servers import AZURITE_ACCOUNT, free_port
from storage.store_contract import content, names
from storage.toxic import Toxic

from shardkit.errors import MissingExtraError, NotFoundError, StorageError, TransientError, UsageError
from shardkit.location import locate
from shardkit.storage import etag
from shardkit.storage.retry import Retry, call_with_retries
from shardkit.storage.store import Store, open_store
from shardkit.storage.stores import aws_profile, cloud, cloud_options, obstore_after_fork

obstore = pytest.importorskip("obstore")

SECRET = "s3cr3tV4lue"
KEYS = {"access_key_id": "AKIA0123", "secret_access_key": SECRET, "region": "us-east-1"}


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def server() -> Iterator[Any]:
    """A web server whose every answer a test makes: `server.answer`; `server.seen`: the headers of each request."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def act(self) -> None:
            httpd.seen.append(dict(self.headers.items()))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            httpd.answer(self)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = act  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    httpd: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    httpd.seen, httpd.endpoint = [], f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def replying(status: int, body: str = "", **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body.encode())))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body.encode())

    return answer


def xml(code: str, message: str) -> str:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"


def s3_at(endpoint: str, **options: Any) -> Store:
    return open_store(locate("s3://bucket/train"), {"endpoint": endpoint, **KEYS, **options})


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (
            403,
            xml("AccessDenied", "Access Denied"),
            StorageError,
            r"denied \(403 AccessDenied.*AWS_ACCESS_KEY_ID.*anon",
        ),
        (403, xml("SignatureDoesNotMatch", "The signature"), StorageError, r"403 SignatureDoesNotMatch: The signature"),
        (401, "", StorageError, "access is denied .401 Unauthorized"),
        (404, xml("NoSuchKey", "no key"), NotFoundError, "there is no such object"),
        (404, xml("NoSuchBucket", "no bucket"), StorageError, "there is no such bucket .*check its name and the endp"),
        (301, xml("PermanentRedirect", "elsewhere"), StorageError, "in another region.*storage option region"),
        (400, xml("AuthorizationHeaderMalformed", "the region"), StorageError, "in another region"),
        (400, xml("RequestTimeout", "idle"), TransientError, "not ready .400 RequestTimeout: idle"),
        (503, xml("SlowDown", "slow"), TransientError, "the store is not ready .503 SlowDown: slow"),
        (500, "", TransientError, "500 Internal Server Error"),
        (429, "", TransientError, "429 Too Many Requests"),
        (416, xml("InvalidRange", "no"), StorageError, "a range beyond the object's end"),
        (409, xml("Strange", "odd"), StorageError, "the store refused .409 Strange: odd"),
    ],
)
def test_each_refusal_of_a_server_has_its_error(server: Any, status: int, body: str, kind: Any, said: str) -> None:
    server.answer = replying(status, body)
    with pytest.raises(kind, match=said) as caught:
        content(s3_at(server.endpoint), "a.tar", 0, 5)
    assert caught.value.place == "s3://bucket/train/a.tar"
    assert isinstance(caught.value, TransientError) == (kind is TransientError)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_read_asks_once_and_leaves_trying_again_to_the_caller(server: Any) -> None:
    server.answer = replying(503)
    with pytest.raises(TransientError):
        content(s3_at(server.endpoint), "a.tar")
    assert len(server.seen) == 1


def test_a_write_is_tried_again_part_by_part(s3_server: Any) -> None:
    data = os.urandom(etag.PART_BYTES * 2 + 5)
    with Toxic(s3_server.endpoint, fail=0.3, seed=2) as toxic:
        open_store(locate(s3_server.url), s3_server.options | {"endpoint": toxic.endpoint}).put("a", io.BytesIO(data))
        assert toxic.counts["fail"] > 0
    assert content(open_store(locate(s3_server.url), s3_server.options), "a") == data


def test_a_host_that_is_not_there_may_come_back() -> None:
    with pytest.raises(TransientError, match=r"no connection to the store \(Connection refused"):
        open_store(locate(f"http://127.0.0.1:{free_port()}/x")).info("a")
    with pytest.raises(TransientError, match="host name could not be resolved"):
        open_store(locate("https://no-such-host.invalid/x")).info("a")


NO_AUTHORITY = "basicConstraints=critical,CA:FALSE"


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Callable[..., tuple[str, Path]]]:
    """Starts a TLS server for a self-signed certificate: (its URL, the certificate)."""
    servers: list[ThreadingHTTPServer] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            replying(200, "hello")(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    def started(*extensions: str, names: str = "DNS:localhost,IP:127.0.0.1") -> tuple[str, Path]:
        key, certificate = tmp_path / f"key{len(servers)}.pem", tmp_path / f"certificate{len(servers)}.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=shardkit"]
        for extension in (f"subjectAltName={names}", *extensions):
            command += ["-addext", extension]
        try:
            command += ["-keyout", str(key), "-out", str(certificate), "-days", "30"]
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("openssl is not installed")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        httpd.handle_error = lambda *_: None  # type: ignore[method-assign, assignment]  # clients that hang up
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(httpd)
        return f"https://localhost:{httpd.server_port}", certificate

    yield started
    for httpd in servers:
        httpd.shutdown()
        httpd.server_close()


def test_a_certificate_that_nobody_signed_is_refused(tls: Any) -> None:
    url, _ = tls(NO_AUTHORITY)
    with pytest.raises(StorageError, match=r"not trusted \(UnknownIssuer\).*root_certificate.*SSL_CERT_FILE") as caught:
        open_store(locate(url)).info("a")
    assert not isinstance(caught.value, TransientError)


@pytest.mark.parametrize("as_text", [True, False])
def test_a_self_signed_certificate_is_given_as_a_file_or_as_text(as_text: bool, tls: Any) -> None:
    url, certificate = tls(NO_AUTHORITY)
    given = certificate.read_text() if as_text else str(certificate)
    assert content(open_store(locate(url), {"root_certificate": given}), "a") == b"hello"
    assert (
        open_store(locate("s3://bucket/x"), {"endpoint": url, "root_certificate": given, **KEYS}).info("a").bytes == 5
    )


@pytest.mark.parametrize(
    ("variable", "scheme"), [("SSL_CERT_FILE", "https"), ("SSL_CERT_FILE", "s3"), ("AWS_CA_BUNDLE", "s3")]
)
def test_a_self_signed_certificate_is_given_in_the_environment(
    variable: str, scheme: str, tls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, certificate = tls(NO_AUTHORITY)
    monkeypatch.setenv(variable, str(certificate))
    store = open_store(locate(url)) if scheme == "https" else s3_at(url)
    assert store.info("a").bytes == 5


def test_a_certificate_that_cannot_be_a_servers_says_how_to_make_one_that_can(tls: Any) -> None:
    url, certificate = tls()
    with pytest.raises(StorageError, match=r"not accepted for a server.*CA:FALSE.*allow_invalid_certificates=true"):
        open_store(locate(url), {"root_certificate": str(certificate)}).info("a")
    assert open_store(locate(url), {"allow_invalid_certificates": "true"}).info("a").bytes == 5


def test_a_certificate_for_another_name_names_it(tls: Any) -> None:
    url, certificate = tls(NO_AUTHORITY, names="DNS:data.example")
    with pytest.raises(StorageError, match=r"certificate is for data\.example; use that name in the URL"):
        open_store(locate(url), {"root_certificate": str(certificate)}).info("a")


ENDPOINTS = {
    "127.0.0.1:9000": "127.0.0.1:9000 has no scheme; give https://127.0.0.1:9000, or http://127.0.0.1:9000",
    "localhost": "localhost has no scheme",
    "minio.local:9000": "minio.local:9000 has no scheme",
    "//minio.local": "no scheme; give https://minio.local",
    "ftp://minio.local": "ftp:// is not http:// or https://",
    "https://": "not a URL with a host",
    "https://a b": "not a URL with a host",
    "https://[::1": "is not a URL",
    "https://host:port": "is not a URL",
}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    ("url", "name", "options"),
    [
        ("s3://bucket/x", "endpoint", KEYS),
        ("s3://bucket/x", "endpoint_url", KEYS),
        ("gs://bucket/x", "endpoint_url", {"anon": "true"}),
        ("az://container/x", "endpoint", {"account_name": "a", "anon": "true"}),
        ("s3://bucket/x", "$AWS_ENDPOINT_URL", KEYS),
        ("az://container/x", "$AZURE_STORAGE_ENDPOINT", {"account_name": "a", "anon": "true"}),
    ],
)
def test_an_endpoint_that_is_no_url_is_refused_before_obstore_sees_it(
    url: str, name: str, options: dict[str, str], endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.startswith("$"):
        monkeypatch.setenv(name[1:], endpoint)
    with pytest.raises(UsageError, match=re.escape(ENDPOINTS[endpoint])) as caught:
        open_store(locate(url), options if name.startswith("$") else {**options, name: endpoint})
    assert name.removesuffix("_url") in caught.value.place or "base_url" in caught.value.place


def test_an_endpoint_of_the_aws_files_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text("[default]\nendpoint_url = minio.local:9000\n")
    with pytest.raises(UsageError, match="has no scheme"):
        open_store(locate("s3://bucket/x"), KEYS)


def test_a_panic_of_obstore_is_an_error_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def panic(*_: object, **__: object) -> None:
        raise PanicException("called `Option::unwrap()` on a `None` value")

    store = open_store(locate("s3://bucket/x"), KEYS)
    monkeypatch.setattr(obstore_after_fork.obstore(), "get", panic)
    with pytest.raises(StorageError, match=r"s3://bucket/x/a: the package obstore panicked .called"):
        store.info("a")


def test_a_server_that_does_not_tell_the_length_is_refused(server: Any) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(206)
        request.send_header("Content-Range", "bytes 0-4/100")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"a\r\n0123456789\r\n0\r\n\r\n")

    server.answer = answer
    with pytest.raises(StorageError, match="Content-Length Header missing"):
        content(open_store(locate(server.endpoint)), "a", 0, 5)


@pytest.mark.parametrize("range_", ["bytes 1-5/100", "bytes 0-3/100", "bytes 0-9/100", "nonsense"])
def test_another_range_than_was_asked_for_is_refused(server: Any, range_: str) -> None:
    modified = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.answer = replying(206, "01234", Content_Range=range_, Last_Modified=modified)
    with pytest.raises(StorageError):
        content(open_store(locate(server.endpoint)), "a", 0, 5)


def test_user_and_password_of_a_url_are_sent_and_never_shown(server: Any) -> None:
    server.answer = replying(403)
    store = open_store(locate(server.endpoint.replace("//", f"//me:{SECRET}%2F@") + "/train"))
    with pytest.raises(StorageError, match=r"http://\*\*\*@127") as caught:
        store.info("a")
    sent = server.seen[0]["authorization"] if "authorization" in server.seen[0] else server.seen[0]["Authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")).decode() == f"me:{SECRET}/"
    shown = "".join(traceback.format_exception(caught.value)) + repr(store) + repr(caught.value.args)
    assert SECRET not in shown


def test_a_token_is_sent(server: Any) -> None:
    server.answer = replying(404)
    with pytest.raises(NotFoundError):
        open_store(locate(server.endpoint), {"token": SECRET}).info("a")
    assert f"Bearer {SECRET}" in server.seen[0].values()


def test_a_signature_of_azure_is_in_no_traceback(server: Any) -> None:
    server.answer = replying(403)
    options = {"account_name": AZURITE_ACCOUNT, "endpoint": server.endpoint, "sas_token": f"sv=2022-11-02&sig={SECRET}"}
    with pytest.raises(StorageError, match="access is denied") as caught:
        open_store(locate("az://container/train"), options).info("a")
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error) + repr(error)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        (
            "s3://bucket",
            {"colour": "red"},
            "colour.*the options of s3:// are .*access_key_id.*; all stores also take.*allow_http",
        ),
        ("gs://bucket", {"colour": "red"}, "colour.*service_account"),
        ("az://c", {"account_name": "a", "colour": "red"}, "colour.*sas_key"),
        ("https://host/x", {"colour": "red"}, "colour.*username, password, token"),
        ("az://c", {}, "Account must be specified.*account_name"),
        ("s3://bucket", {"timeout": "soon"}, "soon"),
        ("s3://bucket", {"anon": "maybe"}, "maybe"),
        ("s3://bucket", {"root_certificate": "/nowhere.pem"}, "nowhere.pem: there is no such root certificate"),
        ("s3://bucket", {"profile": "nobody"}, "no AWS profile 'nobody'"),
        ("s3://", {}, "the URL has no bucket"),
        ("s3:///x", {}, "the URL has no bucket"),
        (f"s3://AKIA:{SECRET}@bucket/x", {}, r"s3://\*\*\*@bucket.*as storage options"),
        ("https://host/x?y", {}, "%3F"),
        ("https://host/x#y", {}, "%23"),
        ("s3://bucket", {"endpoint": "http://minio.example:9000"}, "plain http.*allow_http=true"),
        ("s3://bucket", {"endpoint_url": "http://127.evil.example"}, "plain http"),
        ("az://c", {"account_name": "a", "endpoint": "http://azure.example"}, "plain http"),
        ("gs://b", {"base_url": "http://google.example"}, "plain http"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(url: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        open_store(locate(url), options)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "http://minio.example:9000", "allow_http": True},
        {"endpoint_url": "http://minio.example:9000", "allow_http": "true"},
        {"endpoint": "http://localhost:9000"},
        {"endpoint": "http://[::1]:9000"},
        {"key": "a", "secret": "b", "token": "c", "anon": False, "region_name": "eu-west-1"},
        {"aws_access_key_id": "a", "AWS_SECRET_ACCESS_KEY": "b"},
        {"timeout": 5, "connect_timeout": "2.5", "read_timeout": "10s", "region": None},
    ],
)
def test_options_are_taken_by_the_names_that_users_know(options: dict[str, Any]) -> None:
    assert repr(open_store(locate("s3://bucket/x"), options)) == "RemoteStore(s3://bucket/x)"


def test_the_environment_may_not_lead_to_plain_http_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio.example:9000")
    with pytest.raises(UsageError, match="plain http"):
        open_store(locate("s3://bucket"), KEYS)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    open_store(locate("s3://bucket"), KEYS)


def test_a_plain_http_dataset_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    cloud_options._WARNED.clear()
    with caplog.at_level(logging.WARNING, "shardkit"):
        for _ in range(3):
            open_store(locate(f"http://me:{SECRET}@data.example/train"))
        open_store(locate("http://127.0.0.1:1/train"))
        open_store(locate("https://data.example/train"))
    assert len(caplog.messages) == 1
    assert "data.example" in caplog.text
    assert SECRET not in caplog.text


def test_where_no_credentials_are_found_the_error_says_where_they_were_looked_for(server: Any) -> None:
    server.answer = replying(404)
    options = {"metadata_endpoint": server.endpoint, "region": "us-east-1"}
    with pytest.raises(StorageError, match=r"no credentials were found \(404 .*AWS_ACCESS_KEY_ID.*anon=true") as caught:
        open_store(locate("s3://bucket"), options).info("a")
    assert not isinstance(caught.value, TransientError)
    server.answer = replying(503)
    with pytest.raises(TransientError, match="credentials service is not ready"):
        open_store(locate("s3://bucket"), options).info("a")


@pytest.mark.parametrize("value", [True, "true", "yes", "1"])
@pytest.mark.parametrize("root", ["s3://bucket", "gs://bucket", "az://account/container"])
@pytest.mark.parametrize("named", ["option", "environment"])
def test_plain_http_that_is_asked_for_is_allowed_to_the_client(
    root: str, value: object, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: dict[str, Any] = {"allow_http": value} if named == "option" else {}
    family = cloud_options.family_of(locate(root).scheme)
    if named == "environment":
        monkeypatch.setenv(cloud_options._ALLOW_HTTP[family], str(value))
    cloud_options._require_safe(locate(root), family, {"endpoint": "http://minio.example:9000"}, client)
    assert client == {"allow_http": True}


class Opened(Exception):  # noqa: N818
    """The stores of this process were asked for."""


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.info("a"),
        lambda store: store.pieces("a", 0, 1),
        lambda store: store.put("a", io.BytesIO(b"x")),
        lambda store: store.list(),
        lambda store: store.folders(),
        lambda store: store.delete("a"),
    ],
    ids=["info", "pieces", "put", "list", "folders", "delete"],
)
def test_whatever_is_asked_first_after_a_fork_opens_stores_of_this_process(
    act: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*arguments: Any, **options: Any) -> Any:
        raise Opened

    store = open_store(locate("s3://bucket/x"), KEYS)
    monkeypatch.setattr(cloud, "open_root", opened)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(Opened):
        act(store)


class TestProfiles:
    """Credentials from the files of the AWS command line."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> Path:
        folder = tmp_path / ".aws"
        folder.mkdir()
        (folder / "credentials").write_text(
            "[default]\naws_access_key_id = DEFAULTKEY\naws_secret_access_key = x\n"
            "[work]\naws_access_key_id=WORKKEY\naws_secret_access_key=y%z\naws_session_token=t\n"
        )
        return folder

    def sent(self, server: Any, **options: Any) -> str:
        """The Authorization header of a request."""
        server.answer = replying(404)
        with pytest.raises(NotFoundError):
            open_store(locate("s3://bucket"), {"endpoint": server.endpoint, **options}).info("a")
        return str(server.seen[-1].get("authorization"))

    def test_the_default_profile_is_used(self, server: Any, files: Path) -> None:
        assert "Credential=DEFAULTKEY/" in self.sent(server)
        assert "/us-east-1/" in self.sent(server)

    def test_a_profile_may_be_named(self, server: Any, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (files / "config").write_text("[profile work]\nregion = eu-north-1\n")
        assert "Credential=WORKKEY/" in self.sent(server, profile="work")
        assert server.seen[-1]["x-amz-security-token"] == "t"
        monkeypatch.setenv("AWS_PROFILE", "work")
        assert "/eu-north-1/" in self.sent(server)
        assert "/us-west-2/" in self.sent(server, region="us-west-2")

    def test_options_and_the_environment_come_first(
        self, server: Any, files: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "Credential=GIVEN/" in self.sent(server, key="GIVEN", secret="z")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVIRONMENT")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "z")
        assert "Credential=ENVIRONMENT/" in self.sent(server)
        assert "Credential=WORKKEY/" in self.sent(server, profile="work")

    @pytest.mark.parametrize(
        "given",
        [
            *[{name: "us-west-2"} for name in ("region", "aws_region", "default_region", "aws_default_region")],
            *[{name: "given"} for name in aws_profile._GIVEN],
            *[{name: "https://h"} for name in ("endpoint", "aws_endpoint", "aws_endpoint_url")],
        ],
        ids=lambda given: next(iter(given)),
    )
    def test_each_option_comes_before_what_the_profile_says_of_the_same(self, files: Path, given: Any) -> None:
        profile = {"region": "eu-north-1", "endpoint": "https://of.profile", "access_key_id": "DEFAULTKEY"}
        (files / "config").write_text("[default]\nregion = eu-north-1\nendpoint_url = https://of.profile\n")
        secret = {"secret_access_key": "x"}
        assert aws_profile.from_shared_files({}, "s3://bucket") == profile | secret
        [name] = given
        same = {"access_key_id"} if name in aws_profile._GIVEN else {"region" if "region" in name else "endpoint"}
        rest = {key: value for key, value in profile.items() if key not in same}
        if "access_key_id" in rest:
            rest |= secret
        assert aws_profile.from_shared_files(given, "s3://bucket") == rest | given

    @pytest.mark.parametrize(
        "name", ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", *aws_profile._ENVIRONMENT]
    )
    def test_the_environment_comes_before_what_the_profile_says_of_the_same(
        self, files: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (files / "config").write_text("[default]\nregion = eu-north-1\nendpoint_url = https://of.profile\n")
        monkeypatch.setenv(name, "given")
        left = {"region", "endpoint", "access_key_id", "secret_access_key"} - (
            {"region"}
            if "REGION" in name
            else {"endpoint"}
            if "ENDPOINT" in name
            else {"access_key_id", "secret_access_key"}
        )
        assert aws_profile.from_shared_files({}, "s3://bucket").keys() == left

    def test_without_a_signature_none_is_sent(self, server: Any, files: Path) -> None:
        assert self.sent(server, anon="true") == "None"

    def test_other_files_may_be_named(
        self, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Path
    ) -> None:
        other = tmp_path / "other"
        other.write_text("[default]\naws_access_key_id = OTHER\naws_secret_access_key = x\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(other))
        assert "Credential=OTHER/" in self.sent(server)

    def test_an_endpoint_of_the_profile_is_used(self, server: Any, files: Path) -> None:
        (files / "config").write_text(f"[default]\nendpoint_url = {server.endpoint}\n")
        server.answer = replying(404)
        with pytest.raises(NotFoundError):
            open_store(locate("s3://bucket")).info("a")
        assert len(server.seen) == 1

    def test_a_damaged_file_is_reported(self, files: Path) -> None:
        (files / "credentials").write_text("key = value\n")
        with pytest.raises(UsageError, match="not a file of AWS profiles"):
            open_store(locate("s3://bucket"))

    def test_a_profile_that_is_not_there_is_an_error_where_it_was_named(
        self, files: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(UsageError, match="there is no AWS profile 'absent'"):
            aws_profile.from_shared_files({"profile": "absent"}, "s3://bucket")
        (files / "credentials").unlink()
        assert aws_profile.from_shared_files({"region": "us-west-2"}, "s3://bucket") == {"region": "us-west-2"}
        monkeypatch.setenv("AWS_PROFILE", "absent")
        with pytest.raises(UsageError, match="there is no AWS profile 'absent'"):
            aws_profile.from_shared_files({}, "s3://bucket")

    def test_a_named_profile_comes_before_the_environment_and_that_before_the_default(
        self, files: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def key(**options: str) -> str:
            return str(aws_profile.from_shared_files(options, "s3://bucket")["access_key_id"])

        assert (key(), key(profile="work")) == ("DEFAULTKEY", "WORKKEY")
        monkeypatch.setenv("AWS_PROFILE", "work")
        assert (key(), key(profile="default")) == ("WORKKEY", "DEFAULTKEY")

    @pytest.mark.parametrize("name", aws_profile._DYNAMIC)
    def test_a_profile_that_signs_in_needs_boto3(self, files: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "boto3", None)
        (files / "config").write_text(f"[profile other]\nregion = us-west-2\n[profile sign-in]\n{name} = x\n")
        assert aws_profile.from_shared_files({"profile": "other"}, "s3://bucket") == {"region": "us-west-2"}
        with pytest.raises(MissingExtraError, match="pip install boto3"):
            aws_profile.from_shared_files({"profile": "sign-in"}, "s3://bucket")

    def test_a_profile_that_asks_a_program_is_left_to_boto3(self, server: Any, files: Path) -> None:
        pytest.importorskip("boto3")
        answer = '{"Version": 1, "AccessKeyId": "PROGRAM", "SecretAccessKey": "x"}'
        (files / "answer").write_text(answer)
        (files / "config").write_text(f"[profile asked]\ncredential_process = cat {files / 'answer'}\n")
        assert "Credential=PROGRAM/" in self.sent(server, profile="asked")


def test_a_list_asks_for_what_is_behind_the_prefix_only(s3_server: Any) -> None:
    store = open_store(locate(s3_server.url), s3_server.options)
    for name in ("a/1", "train-1", "train-2", "train.json", "validation-1"):
        store.put(name, io.BytesIO(b"x"))
    assert names(store, "train-") == ["train-1", "train-2"]
    assert names(store, "train-1") == ["train-1"]
    assert names(store, "t") == ["train-1", "train-2", "train.json"]
    store.put(".hidden", io.BytesIO(b"x"))
    for prefix in (".", ".h", ".hidden"):
        assert names(store, prefix) == [".hidden"]
    assert names(store, "..x") == []


@pytest.mark.parametrize(("place", "folder"), [("", None), ("train", "train"), ("a/b", "a/b")])
def test_a_list_is_asked_of_the_folder_alone(
    place: str, folder: str | None, s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key may be allowed to list nothing else."""
    asked: list[str | None] = []
    listed, listed_folder = obstore.list, obstore.list_with_delimiter
    monkeypatch.setattr(
        obstore, "list", lambda store, prefix, **options: asked.append(prefix) or listed(store, prefix, **options)
    )
    monkeypatch.setattr(
        obstore, "list_with_delimiter", lambda store, prefix: asked.append(prefix) or listed_folder(store, prefix)
    )
    store = open_store(locate("/".join(part for part in (s3_server.url, place) if part)), s3_server.options)
    list(store.list())
    list(store.list("tr"))
    store.folders()
    assert asked == [folder] * 3


def test_a_bucket_that_is_not_there_is_reported(s3_server: Any) -> None:
    store = open_store(locate("s3://no-such-bucket/train"), s3_server.options)
    for act in (lambda: content(store, "a"), lambda: names(store), lambda: store.put("a", io.BytesIO(b"x"))):
        with pytest.raises(StorageError, match="there is no such bucket"):
            act()


def test_a_web_server_is_read_only_and_not_listed(http_folder: Any) -> None:
    store = open_store(locate(http_folder.url))
    with pytest.raises(StorageError, match="read-only"):
        store.put("a", io.BytesIO(b"x"))
    with pytest.raises(StorageError, match="read-only"):
        store.delete("a")
    with pytest.raises(StorageError, match="can't be listed; name the manifest"):
        store.list()


def test_a_store_is_not_pickled(s3_server: Any) -> None:
    with pytest.raises(TypeError, match="as its location and options"):
        pickle.dumps(open_store(locate(s3_server.url), s3_server.options))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_a_store_works_on_in_a_forked_child(s3_server: Any) -> None:
    """obstore alone hangs there: torch's DataLoader forks its workers."""
    store = open_store(locate(s3_server.url), s3_server.options)
    store.put("a", io.BytesIO(b"0123456789"))
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            fresh = open_store(locate(s3_server.url), s3_server.options)
            os.write(theirs, content(store, "a", 2, 5) + content(fresh, "a", 5, 7))
            with pytest.raises(NotFoundError):
                store.info("nowhere")
            os.write(theirs, b"!")
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        assert pipe.read() == b"23456!"
    os.waitpid(child, 0)
    assert content(store, "a") == b"0123456789"
    assert obstore_after_fork.obstore().__name__ == "obstore"


def test_without_obstore_the_error_names_the_extra(run_python: Any, tmp_path: Path) -> None:
    code = (
        "import sys\nsys.modules['obstore'] = None\n"
        "from shardkit.location import locate\nfrom shardkit.storage.store import open_store\n"
        "try:\n    open_store(locate('s3://bucket'))\n"
        "except Exception as exc:\n    print(type(exc).__name__, exc)\n"
    )
    said = run_python("-c", code, cwd=tmp_path).stdout
    assert said.startswith("MissingExtraError obstore: ")
    assert 'pip install "shardkit[remote]"' in said


def test_an_interrupted_read_may_be_tried_again_as_a_whole(server: Any) -> None:
    answers = [replying(503), replying(200, "x" * 10, Last_Modified="Wed, 21 Oct 2015 07:28:00 GMT")]
    server.answer = lambda request: answers.pop(0)(request)
    store = open_store(locate(server.endpoint))
    assert call_with_retries(lambda: content(store, "a"), Retry(first_seconds=0.001)) == b"x" * 10


def test_a_server_that_hangs_up_may_be_asked_again(server: Any) -> None:
    def hang_up(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True

    server.answer = hang_up
    store = s3_at(server.endpoint)
    for act in (lambda: store.info("a"), lambda: content(store, "a"), lambda: list(store.list("a"))):
        with pytest.raises(TransientError):
            act()


def test_a_range_is_one_piece_until_a_connection_breaks(http_folder: Any) -> None:
    data = os.urandom(3_000_000)
    (http_folder.folder / "a").write_bytes(data)

    def pieces(store: Store, count: int = len(data)) -> list[bytes]:
        return [bytes(piece) for piece in store.pieces("a", 0, count)]

    with Toxic(http_folder.endpoint) as toxic:
        url = http_folder.url.replace(http_folder.endpoint, toxic.endpoint)
        store = open_store(locate(url), http_folder.options)
        assert pieces(store) == [data]
        toxic.shares["cut"] = 1.0
        with pytest.raises(TransientError):
            pieces(store)
        toxic.shares["cut"] = 0.0
        careful = pieces(store)
        assert len(careful) > 1 and b"".join(careful) == data
        for _ in range(cloud.SHAKY_READS - 1):
            pieces(store, 1)
        assert pieces(store) == [data]


def test_of_a_short_body_what_came_is_not_lost(http_folder: Any) -> None:
    data = os.urandom(1_000_000)
    (http_folder.folder / "a").write_bytes(data)
    with Toxic(http_folder.endpoint, short=1.0, seed=1) as toxic:
        store = open_store(locate(http_folder.url.replace(http_folder.endpoint, toxic.endpoint)), http_folder.options)
        coming = store.pieces("a", 0, len(data))
        came = bytes(memoryview(next(coming)))
        assert came and data.startswith(came)
        with pytest.raises(TransientError, match=f"sent {len(came)} of the 1000000 bytes requested"):
            next(coming)


def test_the_extra_is_named_for_a_scheme_that_fsspec_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtraError, match=r"hdfs:// needs the package fsspec .*shardkit\[fsspec\]"):
        open_store(locate("hdfs://host/x"))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_web_server_that_redirects_to_nowhere_is_told_as_that(server: Any, status: int) -> None:
    server.answer = replying(status)
    with pytest.raises(StorageError, match="the server redirects without saying where to") as caught:
        open_store(locate(f"{server.endpoint}/x")).info("a")
    assert "region" not in str(caught.value)


def test_a_web_server_that_redirects_in_a_circle_is_told_as_that(server: Any) -> None:
    server.answer = replying(302, Location=f"{server.endpoint}/x/a")
    with pytest.raises(StorageError, match="the server redirects in a circle") as caught:
        open_store(locate(f"{server.endpoint}/x")).info("a")
    assert "region" not in str(caught.value)
