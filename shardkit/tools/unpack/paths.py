"""Names from an archive as paths inside a folder: no name, however hostile, leaves it."""

from __future__ import annotations

import os

from shardkit.sample import path_of_text, text_of_path


def relative_path(text: str) -> bytes:
    """The path inside a folder that an index's path (`sample.text_of_path`) stands for.

    ValueError with the reason if it is absolute, leaves the folder, has an empty part or a NUL, or is not an index
    path.
    """
    return checked_path(path_of_text(text))


def path_of_key(key: str, field: str) -> bytes:
    """The path of a sample's field, from its member's name. ValueError as above."""
    return checked_path(f"{key}.{field}".encode("utf-8", "surrogateescape"))


def checked_path(path: bytes) -> bytes:
    """Return `path` if it is a plain path inside a folder. ValueError with the reason otherwise."""
    shown = text_of_path(path)
    if path.startswith(b"/"):
        raise ValueError(f"the path {shown!r} is absolute")
    if b"\0" in path:
        raise ValueError(f"the path {shown!r} contains a NUL")
    parts = path.split(b"/")
    if b".." in parts:
        raise ValueError(f"the path {shown!r} leaves the folder (..)")
    if b"" in parts or b"." in parts:
        raise ValueError(f"the path {shown!r} has an empty part")
    if os.name == "nt" and (b":" in path or b"\\" in path):
        raise ValueError(f"the path {shown!r} means something else on Windows")
    return path
