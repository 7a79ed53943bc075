"""Names from an archive as paths below a folder: nothing leaves it, whatever the archive says."""

from __future__ import annotations

import os

from shardkit.sample import path_of_text, text_of_path


def relative_path(text: str) -> bytes:
    """The path below a folder that an index's path (`sample.text_of_path`) means.

    ValueError with the reason for one that is absolute, leaves the folder, has an empty part or a NUL, or is no path
    of an index.
    """
    return checked_path(path_of_text(text))


def path_of_key(key: str, field: str) -> bytes:
    """The path of a sample's field by its member's name. ValueError as above."""
    return checked_path(f"{key}.{field}".encode("utf-8", "surrogateescape"))


def checked_path(path: bytes) -> bytes:
    """`path`, if it is a plain path below a folder. ValueError with the reason if not."""
    shown = text_of_path(path)
    if path.startswith(b"/"):
        raise ValueError(f"the path {shown!r} is absolute")
    if b"\0" in path:
        raise ValueError(f"the path {shown!r} has a NUL in it")
    parts = path.split(b"/")
    if b".." in parts:
        raise ValueError(f"the path {shown!r} leaves the folder (..)")
    if b"" in parts or b"." in parts:
        raise ValueError(f"the path {shown!r} has an empty part")
    if os.name == "nt" and (b":" in path or b"\\" in path):
        raise ValueError(f"the path {shown!r} means something else on Windows")
    return path
