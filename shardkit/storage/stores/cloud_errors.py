"""Translate obstore's errors: which may be temporary, and what the user can do about the others.

obstore gives the kind of most failures only in the text, which ends with a dump of the Rust value ("Debug source").
"""

from __future__ import annotations

import re

from shardkit.errors import NotFoundError, ShardkitError, StorageError, TransientError, UsageError, redacted

_STATUS = re.compile(r"status code: (\d{3})([ A-Za-z-]*)")
_BODY = re.compile(r"<(Code|Message)>([^<\n]{1,300})")
_ASKED_FOR_CREDENTIALS = re.compile(
    r"169\.254\.1(69\.254|70\.2)|fd00:ec2::254|metadata\.google\.internal|token request"
    r"|/latest/(api/token|meta-data)|/computeMetadata/|/metadata/identity/|AssumeRoleWithWebIdentity"
)
"""Requests for credentials, to the machine's metadata service or to a provider: their 404 is not about the object."""

_PASSING = (408, 425, 429, 500, 502, 503, 504, 509)
_ELSEWHERE = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException")

BEYOND = "a range beyond the object's end"

CREDENTIALS = {
    "s3": "looked for in storage_options (access_key_id, secret_access_key, profile), AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, ~/.aws, web identity, and the machine's role; a public bucket takes anon=true",
    "gs": "looked for in storage_options (service_account, bearer_token), GOOGLE_SERVICE_ACCOUNT, "
    "GOOGLE_APPLICATION_CREDENTIALS, gcloud's default login, and the machine's role; a public bucket takes anon=true",
    "az": "looked for in storage_options (account_name, account_key, sas_token, use_azure_cli), "
    "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY and the like, and the machine's identity; a public "
    "container takes anon=true",
    "http": "a URL may hold user:password@, or give storage_options username and password, or token",
}
"""Scheme -> where credentials come from."""

_NETWORK = "check the network, and the host's name or the endpoint"


def storage_error(exc: Exception, place: str, scheme: str) -> ShardkitError:
    """The shardkit error for an exception of obstore at `place`. scheme: a key of CREDENTIALS."""
    text, _, dump = str(exc).partition("\n\nDebug source:")
    if isinstance(exc, UnicodeError | ValueError):
        return UsageError(place, _line(text), "give another name")
    status = _STATUS.search(text)
    if _ASKED_FOR_CREDENTIALS.search(text):
        return _of_credentials(status, text, place, scheme)
    if status is not None:
        return _of_status(int(status[1]), status[2].strip(), text, place, scheme)
    if isinstance(exc, FileNotFoundError):
        return NotFoundError(place, "there is no such object", "check the name")
    name = type(exc).__name__
    if name in ("PermissionDeniedError", "UnauthenticatedError"):
        return StorageError(place, f"access is denied ({_line(text)})", _cure(scheme))
    if "object with invalid path" in text:
        fact = f"an object's name is not a path, and the package obstore can't list its folder ({_line(text)})"
        return StorageError(place, fact, "rename or remove that object, or name a folder that does not contain it")
    if "Wanted range starting at" in text:
        return _beyond_end(place)
    if "RangeNotSupported" in dump or "NotPartial" in dump:
        fact = "the server ignores ranges: it sends the whole object when a part is requested"
        return StorageError(place, fact, "use a server that answers ranges with 206, or download the dataset first")
    if "UnexpectedRange" in dump:
        fact = f"the server sent a different range than requested ({_line(text.rpartition('error: ')[2])})"
        return StorageError(place, fact, "use another server, or download the dataset first")
    if "certificate" in dump.lower() or "CaUsedAsEndEntity" in dump:
        return _of_certificate(dump, place)
    if "BadScheme" in dump:
        fact = "the server redirects from https to http"
        return StorageError(place, fact, "give another URL, or the storage option allow_http=true")
    if "without LOCATION" in text or "redirect" in text:
        if scheme == "http":
            return redirect_error(f"{text} {dump}", place)
        return StorageError(place, "the store is in another region", "give the storage option region")
    return _broken(text, dump, place, name)


def answer_error(status: int, words: str, place: str) -> ShardkitError:
    """The error for an unsuccessful answer of a web server."""
    return _of_status(status, _line(words), "", place, "http")


def redirect_error(text: str, place: str) -> StorageError:
    """The error for a web server whose redirect has no target, or goes in a circle."""
    circle = re.search(r"too ?many ?redirects|infinite loop", text, re.IGNORECASE)
    fact = (
        "the server redirects in a circle, or too often" if circle else "the server redirects without saying where to"
    )
    return StorageError(place, fact, "open the URL in a browser, and give the URL where it ends up")


def _of_certificate(dump: str, place: str) -> StorageError:
    """The error for a certificate that rustls refuses."""
    if "CaUsedAsEndEntity" in dump:
        fact = "the server's certificate is that of an authority, which is not accepted for a server"
        cure = (
            "sign one for the server, or create a self-signed one that is not an authority (openssl req -x509 … "
            "-addext basicConstraints=critical,CA:FALSE), and give the storage option root_certificate; "
            "allow_invalid_certificates=true accepts any"
        )
        return StorageError(place, fact, cure)
    kind = re.search(r"InvalidCertificate\(\s*(\w+)", dump)
    if kind and kind[1].startswith("NotValidForName"):
        shown = re.search(r"presented: \[\s*\"(.{1,200}?)\",?\s*\]", dump, re.DOTALL)
        names = _line(re.sub(r"\w+\(\\\"|\\\"\)", "", shown[1])) if shown else "another name"
        return StorageError(place, f"the server's certificate is for {names}", "use that name in the URL")
    fact = f"the server's certificate is not trusted ({kind[1] if kind else _cause(dump) or 'TLS'})"
    if kind and kind[1].startswith(("Expired", "NotValidYet")):
        return StorageError(place, fact, "renew it, or set this machine's clock")
    cure = (
        "give its authority, or the certificate itself if self-signed, as storage option root_certificate or in "
        "SSL_CERT_FILE"
    )
    return StorageError(place, fact, f"{cure} (a PEM file)")


def _of_credentials(status: re.Match[str] | None, text: str, place: str, scheme: str) -> ShardkitError:
    """The error for a failed request for credentials. Without such a service nothing answers: do not retry for long."""
    if status is not None and int(status[1]) in _PASSING:
        return TransientError(place, f"the credentials service is not ready ({status[1]})", _cure(scheme))
    detail = f" ({status[1]}{status[2].rstrip()} from the credentials service)" if status else ""
    return StorageError(place, f"no credentials were found{detail}", _cure(scheme))


def _broken(text: str, dump: str, place: str, name: str) -> ShardkitError:
    """The error for a request without an answer, or with an incomplete one."""
    kind = re.search(r"kind: (Timeout|Connect|Interrupted|Request|Decode|Unknown)\b", dump)
    if "TimedOut" in dump or (kind and kind[1] == "Timeout"):
        return TransientError(place, "the store stopped answering (time-out)", _NETWORK)
    if "dns error" in dump:
        return TransientError(place, f"the host name could not be resolved ({_cause(dump)})", _NETWORK)
    if kind and kind[1] == "Connect":
        return TransientError(place, f"no connection to the store ({_cause(dump) or _line(text)})", _NETWORK)
    if kind or "HttpError" in dump or "hyper" in dump:
        return TransientError(place, f"the connection broke ({_cause(dump) or _line(text)})", _NETWORK)
    if name == "NotSupportedError":
        return StorageError(place, f"this store does not support that ({_line(text)})", "use another store")
    return StorageError(place, _line(text), "check the store and the storage options")


def _of_status(status: int, words: str, text: str, place: str, scheme: str) -> ShardkitError:
    """The error for an unsuccessful answer of the server."""
    body = dict(_BODY.findall(text))
    code = body.get("Code", "")
    detail = f"{status} {body.get('Code') or words}".strip()
    if body.get("Message"):
        detail = f"{detail}: {_line(body['Message'])}"
    if status in _PASSING or code in ("RequestTimeout", "SlowDown", "InternalError"):
        return TransientError(place, f"the store is not ready ({detail})", "try again later, or with fewer threads")
    if code in ("NoSuchBucket", "ContainerNotFound") or "bucket does not exist" in text:
        return StorageError(
            place, f"there is no such bucket ({detail})", "create it, or check its name and the endpoint"
        )
    if status in (404, 410):
        return NotFoundError(place, "there is no such object, or no such bucket", "check the name")
    if scheme == "http" and 300 <= status < 400:
        return redirect_error(text, place)
    if status in (301, 307) or code in _ELSEWHERE:
        return StorageError(place, f"the store is in another region ({detail})", "give the storage option region")
    if status in (401, 403) or code in ("AuthenticationFailed", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
        fact = f"access is denied ({detail}); some stores also answer this for a missing object"
        return StorageError(place, fact, _cure(scheme))
    if status == 416:
        return _beyond_end(place)
    return StorageError(place, f"the store refused ({detail})", "check the URL and the storage options")


def _beyond_end(place: str) -> StorageError:
    return StorageError(place, f"{BEYOND} was requested", "check its entry in the manifest")


def _cure(scheme: str) -> str:
    return f"credentials are {CREDENTIALS[scheme]}" if scheme != "http" else CREDENTIALS["http"]


def _cause(dump: str) -> str:
    """The innermost message in the dump of the Rust value."""
    found = re.findall(r"(?:message|error): \"([^\"]{1,200})\"", dump) or re.findall(r"Error\(\s*([A-Z]\w+)", dump)
    return _line(found[-1]) if found else ""


def _line(text: str) -> str:
    return redacted(" ".join(text.split())[:300])
