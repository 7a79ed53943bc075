"""Detect the kind of an archive by its first bytes: its name may be wrong, or say nothing."""

from __future__ import annotations

import logging
import re

from shardkit.errors import DamagedError, SourceError
from shardkit.formats.tar.headers import BLOCK, parse_block
from shardkit.sample import fs_text

_log = logging.getLogger(__name__)

ARCHIVES = {
    ".zip": "zip", ".tar": "tar", ".tar.gz": "gz", ".tgz": "gz", ".tar.bz2": "bz2", ".tbz2": "bz2", ".tar.xz": "xz",
    ".txz": "xz", ".tar.zst": "zst", ".tzst": "zst", ".7z": "7z",
}  # fmt: skip
"""Ending of an archive's name -> how it is read."""

_MAGIC = {
    b"PK\3\4": "zip", b"PK\5\6": "zip", b"PK\7\10": "zip", b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zst", b"7z\xbc\xaf\x27\x1c": "7z",
}  # fmt: skip
_NAMES = {
    "zip": "a zip file", "tar": "a plain tar file", "gz": "a gzip file", "bz2": "a bzip2 file", "xz": "an xz file",
    "zst": "a zstd file", "7z": "a 7z file",
}  # fmt: skip
_PAGE = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_PART = re.compile(r"\.(?:zip|7z|tar|tgz|tar\.[a-z0-9]+)\.(?:part)?[0-9a-z]{2,3}$|\.z[0-9]{2}$", re.IGNORECASE)

PART = "it is one part of an archive in several files"
JOIN = "join the parts, as with 'zip -s 0 IN.zip --out OUT.zip', or for IN.zip.001 … with cat; then pack the result"


def ending_of(path: str) -> str:
    """The archive ending of a path; "" if it has none."""
    lower = path.lower()
    return max((ending for ending in ARCHIVES if lower.endswith(ending)), key=len, default="")


def kind_of(path: str) -> str | None:
    """How to read the archive at `path`: by its first bytes, or if these are not conclusive by its name.

    None if it is not an archive. Raises SourceError for a part of an archive, and for another kind of file with an
    archive's name.
    """
    place, ending = fs_text(path), ending_of(path)
    try:
        with open(path, "rb") as file:
            start = file.read(BLOCK)
    except OSError as exc:
        raise SourceError(place, f"can't be read ({exc.strerror or exc})", "check its permissions") from exc
    if _PART.search(path) and not ending:
        raise SourceError(place, PART, JOIN)
    named, found = ARCHIVES.get(ending), _kind(start)
    if named and found is None:
        if start.startswith(b"Rar!"):
            raise SourceError(place, "it is a RAR file", "unpack it and pack the tree")
        if _PAGE.match(start):
            fact = "it is an HTML page: the server's answer instead of the file"
            raise SourceError(place, fact, "open it in a browser, and download the archive again as the page says")
    if named and found and named != found:
        _log.warning("%s: its name ends with %s, but it is %s, and is read as such", place, ending, _NAMES[found])
    return found or named


def _kind(start: bytes) -> str | None:
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return kind
    if len(start) == BLOCK and start.strip(b"\0"):
        try:
            parse_block(start, place="", offset=0)
        except DamagedError:
            return None
        return "tar"
    return None
