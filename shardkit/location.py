"""Locations: a local path, or a URL. `str | os.PathLike` is converted to a Location once, where the user passes it."""

from __future__ import annotations

import os
import re

import msgspec

from shardkit.errors import MissingFileError, UsageError, redacted

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_QUERY = re.compile(r"\?(?=[^?]*=)(.*)", re.DOTALL)
"""The query of a URL. A `?` without a `=` after it belongs to a glob."""


class Location(msgspec.Struct, frozen=True):
    """A place for bytes. `scheme` is "" for a local path; `path` is the path, or what follows `scheme://`.

    Locations compare and hash by their text, not by what they point to. `str()` is for people and contains no
    credentials; `url` is for machines. query: what follows the `?` of a web server's URL, such as a signature; `parent`
    and `child` keep it.
    """

    scheme: str
    path: str
    query: str = ""

    def __str__(self) -> str:
        return redacted(self.url) if self.scheme else self.path

    def __repr__(self) -> str:
        return f"Location({str(self)!r})"

    @property
    def url(self) -> str:
        """The full text, credentials included: `locate(url)` returns an equal Location. Not for messages."""
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{self.path}{query}" if self.scheme else self.path

    @property
    def is_local(self) -> bool:
        """Whether this is a local path."""
        return not self.scheme

    @property
    def name(self) -> str:
        """The last part of the path: "" if it ends with a slash."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> Location:
        """The folder that contains this location."""
        if self.is_local:
            return Location("", os.path.dirname(self.path) or ".")
        return Location(self.scheme, self.path.rpartition("/")[0], self.query)

    def absolute(self) -> Location:
        """The same place in a process with another working directory. A slash at its end stays."""
        if not self.is_local:
            return self
        path = os.path.abspath(self.path)
        return Location("", os.path.join(path, "") if self.path.endswith("/") else path)

    def child(self, name: str) -> Location:
        """The location of `name` in this folder."""
        if self.is_local:
            return Location("", os.path.normpath(os.path.join(self.path, name)))
        return Location(self.scheme, f"{self.path.rstrip('/')}/{name}", self.query)

    def sibling(self, name: str) -> Location:
        """The location of `name` in the same folder."""
        return self.parent.child(name)


def locate(value: str | os.PathLike[str]) -> Location:
    """The Location for a user's string or path; `~` and `file://` are understood. UsageError for an empty one,
    and for a relative one if the working directory has been removed."""
    text = os.fspath(value)
    if not isinstance(text, str):
        text = os.fsdecode(text)
    if not text:
        raise UsageError("location", "it is empty", "give a path or a URL")
    if "\0" in text:
        raise UsageError(text, "a path can't hold a NUL character", "give another path")
    match = _SCHEME.match(text)
    if match is None:
        path = os.path.expanduser(text)
        if (error := without_directory(path)) is not None:
            raise error
        return Location("", path)
    scheme, path = match[1].lower(), text[match.end() :]
    if scheme == "file":
        return Location("", path)
    if scheme.rpartition("+")[2] in ("http", "https") and (query := _QUERY.search(path)):
        return Location(scheme, path[: query.start()], query[1])
    return Location(scheme, path)


def without_directory(path: str | bytes) -> UsageError | None:
    """The error for a relative path if the working directory has been removed; None for any other path."""
    if os.path.isabs(path):
        return None
    try:
        os.getcwd()
    except FileNotFoundError as exc:
        fact = "the working directory has been removed, and this path is relative to it"
        error = MissingFileError(os.fsdecode(path), fact, "change to another directory, or give an absolute path")
        error.__cause__ = exc
        return error
    return None


def unbracketed(pattern: str) -> str:
    """The glob with every `[` made literal."""
    return pattern.replace("[", "[[]")


def expand_braces(pattern: str) -> list[str]:
    """The strings of a brace range or list, as shells and WebDataset write them, in order; nesting is allowed.

    >>> expand_braces("train-{000..002}.tar")
    ['train-000.tar', 'train-001.tar', 'train-002.tar']
    """
    opened = pattern.find("{")
    while opened >= 0:
        closed = _closing(pattern, opened)
        if closed is not None:
            choices = _choices(pattern[opened + 1 : closed])
            if choices is not None:
                tails = expand_braces(pattern[closed + 1 :])
                return [pattern[:opened] + choice + tail for choice in choices for tail in tails]
        opened = pattern.find("{", opened + 1)
    return [pattern]


def has_range(pattern: str) -> bool:
    """Whether a pattern has a numeric brace range, which may include numbers that a dataset omits."""
    return _RANGE.search(pattern) is not None


_RANGE = re.compile(r"\{\d+\.\.\d+\}")


def _closing(pattern: str, opened: int) -> int | None:
    depth = 0
    for place in range(opened, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[place], 0)
        if depth == 0:
            return place
    return None


def _choices(inner: str) -> list[str] | None:
    span = re.fullmatch(r"(\d+)\.\.(\d+)", inner)
    if span:
        first, last = int(span[1]), int(span[2])
        if abs(last - first) >= 10_000_000:
            raise UsageError("{" + inner + "}", "a brace range of more than ten million names", "use a glob")
        width = max(len(span[1]), len(span[2])) if span[1].startswith("0") or span[2].startswith("0") else 0
        step = 1 if last >= first else -1
        return [f"{number:0{width}d}" for number in range(first, last + step, step)]
    parts, depth, start = [], 0, 0
    for place, character in enumerate(inner):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(inner[start:place])
            start = place + 1
    if not parts:
        return None
    return [text for part in [*parts, inner[start:]] for text in expand_braces(part)]
