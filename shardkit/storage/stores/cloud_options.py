"""Build a store of obstore from a URL and storage options.

Options have obstore's own names (`endpoint`, `region`, `account_name`, `timeout` …), or those that users of boto, s3fs,
gcsfs and adlfs know (`endpoint_url`, `key`, `anon` …). Missing options come from the environment, as obstore reads it,
and for S3 also from the files of the AWS command line (see aws_profile.py).
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

from shardkit.errors import UsageError, printable
from shardkit.location import Location
from shardkit.options.files import content_of, require_file
from shardkit.storage.store import harmless
from shardkit.storage.stores.aws_profile import from_shared_files
from shardkit.storage.stores.obstore_after_fork import obstore

log = logging.getLogger(__name__)

FAMILY = {"s3": "s3", "s3a": "s3", "gs": "gs", "az": "az", "abfs": "az", "abfss": "az", "http": "http", "https": "http"}
"""Scheme -> family of stores."""

_CLIENT = {
    "allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type", "default_headers",
    "http1_only", "http2_only", "http2_keep_alive_interval", "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle", "pool_idle_timeout", "pool_max_idle_per_host", "proxy_url",
    "proxy_ca_certificate", "proxy_excludes", "randomize_addresses", "read_timeout", "root_certificate", "timeout",
    "user_agent",
}  # fmt: skip
_SECONDS = {"connect_timeout", "read_timeout", "timeout", "pool_idle_timeout", "http2_keep_alive_timeout"}

_ALIASES = {
    "s3": {"endpoint_url": "endpoint", "key": "access_key_id", "secret": "secret_access_key", "token": "session_token",
           "anon": "skip_signature", "region_name": "region", "requester_pays": "request_payer"},
    "gs": {"anon": "skip_signature", "token": "bearer_token", "endpoint_url": "base_url"},
    "az": {"account": "account_name", "key": "account_key", "sas_token": "sas_key", "anon": "skip_signature",
           "endpoint_url": "endpoint"},
    "http": {},
}  # fmt: skip

_KNOWN = {
    "s3": "endpoint (endpoint_url), region, access_key_id, secret_access_key, session_token (token), profile, "
    "skip_signature (anon), request_payer, server_side_encryption, virtual_hosted_style_request",
    "gs": "service_account, service_account_key, application_credentials, bearer_token (token), skip_signature (anon)",
    "az": "account_name, account_key, sas_key (sas_token), token, tenant_id, client_id, client_secret, endpoint, "
    "skip_signature (anon), use_azure_cli, use_emulator",
    "http": "username, password, token, default_headers",
}
_KNOWN_CLIENT = "allow_http, connect_timeout, read_timeout, timeout, proxy_url, root_certificate"

_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"),
    "http": (),
}
_ALLOW_HTTP = {"s3": "AWS_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}

_WARNED: set[str] = set()
"""Hosts that this process has already warned about."""

_ENDPOINT_NAMES = ("endpoint", "aws_endpoint", "aws_endpoint_url", "aws_endpoint_url_s3", "base_url", "azure_endpoint")

_BUNDLES = {"s3": ("AWS_CA_BUNDLE",), "gs": (), "az": (), "http": ()}
"""Environment variables that name a PEM file of authorities, besides SSL_CERT_FILE, which obstore reads itself."""

_FILES = {
    "service_account", "google_service_account", "service_account_path", "google_service_account_path",
    "application_credentials", "google_application_credentials", "federated_token_file", "azure_federated_token_file",
    "web_identity_token_file", "aws_web_identity_token_file",
}  # fmt: skip
"""Options that name a file, which obstore reads."""

CLIENT = {"connect_timeout": "10s", "read_timeout": "30s"}
"""Time limits: to connect, and without any progress. A user's option of that name takes precedence."""

READING = CLIENT | {"timeout": "1d"}
"""A large range may be read slowly, at the rate its bytes are used: the limit on the whole request must allow that."""
WRITING = CLIENT | {"timeout": "10m"}
"""Limit for each request. If the server does not take an upload part, the client sees no lack of progress."""

READING_RETRY: dict[str, Any] = {"max_retries": 0}
"""By itself, obstore would silently resume a broken body, 10 times for each request, and only if the server sends an
ETag. `Patient.pieces` does so for all stores, under one limit."""
WRITING_RETRY: dict[str, Any] = {
    "max_retries": 8,
    "retry_timeout": timedelta(minutes=5),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=10), "base": 2},
}
"""obstore itself retries a failed part: from outside, only the whole object could be sent again."""


def family_of(scheme: str) -> str:
    """The family of a scheme, for its options and errors: s3, gs, az or http."""
    return FAMILY[scheme]


def open_root(root: Location, options: Mapping[str, Any], *, writing: bool) -> tuple[Any, str]:
    """(obstore's store for the bucket or host of `root`, the prefix of all names below it).

    Raises UsageError for unknown or invalid options, MissingExtraError.
    """
    family = family_of(root.scheme)
    config, client = _sorted_out(root, family, options)
    bucket, _, prefix = root.path.partition("/")
    if family == "http":
        prefix = ""  # the path of a URL is already percent-encoded, and stays in the URL
    elif not bucket:
        raise UsageError(str(root), "the URL has no bucket", f"give {root.scheme}://BUCKET/…")
    elif "@" in bucket and (family != "az" or ":" in bucket):
        raise UsageError(str(root), "credentials do not belong in this URL", "give them as storage options")
    if family == "s3":
        config = from_shared_files(config, str(root))
    _require_safe(root, family, config, client)
    more = {
        "client_options": (WRITING if writing else READING) | client,
        "retry_config": WRITING_RETRY if writing else READING_RETRY,
    }
    return _construct(root, family, bucket, config, more), prefix.strip("/")


def _construct(root: Location, family: str, bucket: str, config: dict[str, Any], more: dict[str, Any]) -> Any:
    module = obstore()
    try:
        if family == "http":
            return module.store.HTTPStore(_without_user(root), **more)
        if family == "s3":
            return module.store.S3Store(bucket, **config, **more)
        if family == "gs":
            return module.store.GCSStore(bucket, **config, **more)
        if "@" in bucket:  # container@account.dfs.core.windows.net
            return module.store.AzureStore.from_url(f"abfss://{bucket}", **config, **more)
        return module.store.AzureStore(bucket, **config, **more)
    except (module.exceptions.BaseError, ValueError, TypeError) as exc:
        fact = str(exc).partition("\n\nDebug source:")[0]
        known = f"the options of {root.scheme}:// are {_KNOWN[family]}; all stores also take {_KNOWN_CLIENT}"
        raise UsageError(f"storage options of {root}", fact, known) from harmless(exc)


def web_options(root: Location, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(URL of a web folder without user and password, options of the HTTP client including headers)."""
    return _without_user(root), _sorted_out(root, "http", options)[1]


def _without_user(root: Location) -> str:
    """The URL without user and password: they are sent as a header, so that they are in no text of obstore."""
    host, slash, path = root.path.partition("/")
    url = f"{root.scheme}://{host.rpartition('@')[2]}{slash}{path}".rstrip("/")
    return f"{url}?{root.query}" if root.query else url


def _sorted_out(root: Location, family: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(options of the provider, of the HTTP client), by obstore's names."""
    config: dict[str, Any] = {}
    client: dict[str, Any] = {}
    for name, value in options.items():
        known = _ALIASES[family].get(name.lower(), name.lower())
        if value is None:
            continue
        if known in _CLIENT:
            client[known] = _seconds(value) if known in _SECONDS else value
        else:
            config[known] = value if isinstance(value, bool) or callable(value) else str(value)
    if family == "http":
        user, at, _ = root.path.partition("/")[0].rpartition("@")
        if at:
            name, _, password = user.partition(":")
            config = {"username": unquote(name), "password": unquote(password)} | config
        client |= _headers(config, client)
    bundle = next((name for name in _BUNDLES[family] if os.environ.get(name)), None)
    named = "root_certificate"
    if bundle is not None and named not in client:
        client["root_certificate"], named = os.environ[bundle], f"${bundle}"
    given = client.get("root_certificate")
    if isinstance(given, str | os.PathLike) and "-----BEGIN" not in str(given):
        client["root_certificate"] = content_of(given, named, "root certificate")
    for name in _FILES & config.keys():
        require_file(config[name], name, "file of credentials")
    return config, client


def _require_endpoint(name: str, url: str) -> None:
    """UsageError for an endpoint that is not an http or https URL with a host: obstore panics on most of them."""
    place = f"${name}" if name.isupper() else f"storage option {name}"
    cure = "give https://HOST, or http://HOST with allow_http=true"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        raise UsageError(place, f"{printable(url)} is not a URL ({exc})", cure) from exc
    if "://" not in url:
        bare = url.removeprefix("//")
        cure = f"give https://{bare}, or http://{bare} with allow_http=true"
        raise UsageError(place, f"{printable(url)} has no scheme", cure)
    if parts.scheme not in ("http", "https"):
        raise UsageError(place, f"{printable(url)}: {printable(parts.scheme)}:// is not http:// or https://", cure)
    if not host or re.search(r"[^\x21-\x7e]", url):
        raise UsageError(place, f"{printable(url)} is not a URL with a host", cure)


def _headers(config: dict[str, Any], client: Mapping[str, Any]) -> dict[str, Any]:
    """The client options for user, password and token of a plain web server, which are removed from `config`."""
    user, password, token = (config.pop(name, None) for name in ("username", "password", "token"))
    if config:
        fact = f"{', '.join(sorted(config))}: not an option of a web server"
        cure = f"the options are {_KNOWN['http']}; all stores also take {_KNOWN_CLIENT}"
        raise UsageError("storage options", fact, cure)
    if token is None and user is None:
        return {}
    value = f"Bearer {token}"
    if user is not None:
        from base64 import b64encode

        value = "Basic " + b64encode(f"{user}:{password or ''}".encode()).decode()
    return {"default_headers": {**client.get("default_headers", {}), "Authorization": value}}


def _seconds(value: Any) -> Any:
    """A plain number as a timedelta in seconds; other values unchanged."""
    if isinstance(value, int | float) or (isinstance(value, str) and value.replace(".", "", 1).isdigit()):
        return timedelta(seconds=float(value))
    return value


def _require_safe(root: Location, family: str, config: Mapping[str, Any], client: dict[str, Any]) -> None:
    """UsageError for plain http to another machine, unless the user asks for it. On this machine it is allowed.

    A dataset URL that begins with http:// counts as asking for it, with a warning: the data can be read and changed in
    transit.
    """
    if family == "http":
        url = root.url
        if "#" in url:
            raise UsageError(str(root), "a URL can't have a '#' in its path", "write it as %23")
        if "?" in root.path:
            raise UsageError(str(root), "a URL can't have a '?' in its path", "write it as %3F")
    else:
        names = [(name, str(config[name])) for name in _ENDPOINT_NAMES if config.get(name)]
        found = [(name, os.environ[name]) for name in _ENDPOINTS[family] if os.environ.get(name)]
        name, url = (names or found or [("", "")])[0]
        if url:
            _require_endpoint(name, url)
        if _is_true(config.get("use_emulator")) or _is_true(os.environ.get("AZURE_STORAGE_USE_EMULATOR")):
            client.setdefault("allow_http", True)
    if urlsplit(url).scheme != "http":
        return
    if is_loopback(urlsplit(url).hostname or ""):
        client.setdefault("allow_http", True)
    elif family == "http":
        host = urlsplit(url).netloc.rpartition("@")[2]
        if "allow_http" not in client and host not in _WARNED:
            _WARNED.add(host)
            log.warning("http://%s: plain http: the data can be changed in transit; https is safer", host)
        client.setdefault("allow_http", True)
    elif not _is_true(client.get("allow_http", os.environ.get(_ALLOW_HTTP[family]))):
        fact = f"its endpoint {url} is plain http, where data and credentials can be read in transit"
        raise UsageError(str(root), fact, "give an https:// endpoint, or the storage option allow_http=true")
    else:
        client["allow_http"] = True


def is_loopback(host: str) -> bool:
    """Whether a host name or address is a loopback address of this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may belong to any machine
        return False


def _is_true(value: Any) -> bool:
    return value is True or str(value).lower() in ("1", "true", "yes", "on", "y", "t")
