"""The errors that shardkit raises.

    ShardkitError                 1   anything below
    ├── UsageError                2   an option or argument that makes no sense: change the call; a ValueError too
    │   ├── MissingExtraError     2   a package that an extra brings is not installed
    │   └── MissingFileError      2   a file or folder that an option names does not exist; a FileNotFoundError too
    ├── SourceError               3   the source can't be packed as it is: fix the source
    │   ├── MissingSourceError    3   it, or a file of it, does not exist; a FileNotFoundError too
    │   └── BadFileError          3   one file of it
    ├── DestinationError          4   the destination can't take the result: choose or clear another
    │   └── BusyError             4   another run is writing there
    ├── DatasetError              5   a dataset can't be read as asked
    │   ├── NotFoundError         5   no such dataset, shard or key; a FileNotFoundError too
    │   │   ├── SampleIndexError  5   no sample of this number; an IndexError too
    │   │   └── ReplacedError     5   the dataset that was opened has been replaced by another
    │   ├── ManifestError         5   manifest or index is damaged, of a later version, or does not fit its shards
    │   ├── DamagedError          5   a shard is cut or damaged
    │   ├── DecodeError           5   an image or field can't be decoded
    │   ├── StateError            5   a saved state that belongs to another dataset or order
    │   └── LengthError           5   a length that is not known before reading; a TypeError too
    ├── StorageError              6   the store failed: disk, network, rights
    │   └── TransientError        6   it may work on the next attempt: a broken connection, a time-out
    └── WorkerError               7   a worker process died

Some are also built-in Python errors, for code that does not know shardkit, so `except ValueError` and
`except OSError` catch them: where such a block calls shardkit functions, put `except ShardkitError: raise` first.

The number is the exit code of the command line. Every error has the same parameters, and `args` equal them,
so that an error survives pickling on its way from a worker process. No error contains a credential: see `redacted`.
"""

from __future__ import annotations

import errno
import re

__all__ = [
    "BadFileError",
    "BusyError",
    "DamagedError",
    "DatasetError",
    "DecodeError",
    "DestinationError",
    "LengthError",
    "ManifestError",
    "MissingExtraError",
    "MissingFileError",
    "MissingSourceError",
    "NotFoundError",
    "ReplacedError",
    "SampleIndexError",
    "ShardkitError",
    "SourceError",
    "StateError",
    "StorageError",
    "TransientError",
    "UsageError",
    "WorkerError",
]


class ShardkitError(Exception):
    """Base of all errors of shardkit.

    place: where it happened (a file, a URL, an option). fact: what is wrong and what was expected.
    cure: what the user can do. offset: the byte in `place`, where one is known. key: the sample, where one is known.
    Without a fact, `place` is the whole message: torch recreates the error of a worker from its text alone.
    """

    exit_code = 1

    def __init__(
        self, place: str, fact: str = "", cure: str = "", offset: int | None = None, key: str | None = None
    ) -> None:
        place, fact, cure = redacted(place), redacted(fact), redacted(cure)
        Exception.__init__(self, place, fact, cure, offset, key)  # OSError.__init__ would interpret them as its own
        self.place = place
        self.fact = fact
        self.cure = cure
        self.offset = offset
        self.key = key
        if issubclass(type(self), OSError):
            for name, value in {"errno": errno.ENOENT, "strerror": fact, "filename": place}.items():
                setattr(self, name, value)

    def __str__(self) -> str:
        where = [self.place] if self.place else []
        if self.offset is not None:
            where.append(f"at byte {self.offset}")
        if self.key is not None:
            where.append(f"sample {self.key}")
        text = ": ".join([*where, self.fact] if self.fact else where)
        return printable(f"{text}; {self.cure}" if self.cure else text)


class UsageError(ShardkitError, ValueError):
    """An option or argument that makes no sense."""

    exit_code = 2


class MissingExtraError(UsageError):
    """A package that an extra brings is not installed."""


class MissingFileError(UsageError, FileNotFoundError):
    """A file or folder that an option names does not exist."""


class SourceError(ShardkitError):
    """The source can't be packed as it is."""

    exit_code = 3


class MissingSourceError(SourceError, FileNotFoundError):
    """The source, or a file of it, does not exist."""


class BadFileError(SourceError):
    """One file of the source can't be packed."""


class DestinationError(ShardkitError):
    """The destination can't take the result."""

    exit_code = 4


class BusyError(DestinationError):
    """Another run is writing to the destination."""


class DatasetError(ShardkitError):
    """A dataset can't be read as asked."""

    exit_code = 5


class NotFoundError(DatasetError, FileNotFoundError):
    """No such dataset, shard or key."""


class SampleIndexError(NotFoundError, IndexError):
    """No sample of this number; an IndexError too, so that Python's sequence iteration protocol stops."""


class ReplacedError(NotFoundError):
    """A file of the dataset is gone because another dataset has replaced this one."""


class ManifestError(DatasetError):
    """Manifest or index is damaged, of a later version, or does not fit the shards."""


class DamagedError(DatasetError):
    """A shard is cut or damaged."""


class DecodeError(DatasetError):
    """An image or another field can't be decoded."""


class StateError(DatasetError):
    """A saved state belongs to another dataset, order or version."""


class LengthError(DatasetError, TypeError):
    """The length is not known; a TypeError too, so that `list(dataset)`, which asks for a length first, works without
    it."""


class StorageError(ShardkitError):
    """The store failed: disk, network, rights."""

    exit_code = 6


class TransientError(StorageError):
    """The store failed in a way that may be temporary: a broken connection, a time-out, a 503. Try again.

    after_seconds: how long the server asks to wait before that (Retry-After), 0 if it does not ask.
    """

    after_seconds: float = 0.0


class WorkerError(ShardkitError):
    """A worker process died."""

    exit_code = 7


def installs(extra: str) -> str:
    """The command that installs the packages of an extra: in any folder, also where shardkit itself was installed from
    a copy of its repository, since pip takes the one that is installed."""
    return f'pip install "shardkit[{extra}]"'


def reason_of(exc: BaseException) -> str:
    """The first line of an exception's text, or the name of its class if it has none: what messages quote of others'
    exceptions."""
    return next(iter(str(exc).strip().splitlines()), "") or type(exc).__name__


def printable(text: str) -> str:
    """`text` as one line that any terminal can show: control characters and lone surrogates are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def printable_json(text: str) -> str:
    """Equivalent JSON text that any terminal can show: control characters (C1 too) and those that change the text
    direction are escaped as \\uXXXX."""
    if text.isascii() and "\x7f" not in text:  # JSON itself escapes those below a space
        return text
    return "".join(c if c.isprintable() or c in "\n\r\t" else _json_escape(c) for c in text)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


_USER = re.compile(r"((?:https?|ftp)://)[^\s/?#@'\"]+@|(\w[\w+.-]*://)(?!\S*?:\d+/)[^\s@:'\"]*:[^\s@'\"]+@")
"""The user info before the host. A user without a password is an Azure container (abfss://container@account…), and
secret keys can contain slashes."""
_QUERY = re.compile(r"(https?://[^\s?#'\"<>]*\?)[^\s#'\"<>]+")
_PARAMETER = re.compile(
    r"([?&;\s\"'](?:x-(?:amz|goog)-(?:signature|credential|security-token)|sig|signature|awsaccesskeyid|googleaccessid|"
    r"accountkey|sharedaccess(?:key|signature)|access_token|token|password)=)[^&;\s'\"<>]+",
    re.IGNORECASE,
)
_HEADER = re.compile(r"\b((?:bearer|basic|aws4-hmac-sha256|sharedkey)\s+)(?=\S*\d)\S{8,}", re.IGNORECASE)


def redacted(text: str) -> str:
    """`text` without credentials: users and passwords in URLs, their queries (signatures, tokens), Authorization.

    Every error does this to its texts; other log messages are redacted where they are built.
    """
    if "://" in text:
        text = _USER.sub(lambda match: f"{match[1] or match[2]}***@", text)
        text = _QUERY.sub(r"\1***", text)
    if "=" in text:
        text = _PARAMETER.sub(r"\1***", text)
    return _HEADER.sub(r"\1***", text) if " " in text else text
