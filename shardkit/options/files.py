"""Files and folders that options name, and the errors about those that are missing or can't be read."""

from __future__ import annotations

import os

from shardkit.errors import MissingFileError, UsageError
from shardkit.sample import fs_text

MAX_BYTES = 256 << 20
"""No list of classes, configuration, certificate or manifest is larger: /dev/zero would fill the memory."""


def content_of(path: str | os.PathLike[str], option: str, what: str) -> bytes:
    """The bytes of a file. option: the one that names it. what: what it holds, as "list of classes".

    Raises MissingFileError where it does not exist, UsageError where it can't be read or is too large.
    """
    try:
        with open(os.path.expanduser(path), "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as exc:
        raise _missing(path, option, what) from exc
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        fact = f"the {what} can't be read ({reason})"
        raise UsageError(fs_text(path), fact, f"give a file that can be read as `{option}`") from exc
    if len(data) > MAX_BYTES:
        fact = f"the {what} is larger than {MAX_BYTES >> 20} MiB"
        raise UsageError(fs_text(path), fact, f"check the path given as `{option}`")
    return data


def require_file(path: str | os.PathLike[str], option: str, what: str) -> None:
    """MissingFileError where a file that another library reads does not exist."""
    if not os.path.exists(path):
        raise _missing(path, option, what)


def require_folder(path: str | os.PathLike[str], option: str) -> None:
    """MissingFileError where a folder does not exist, UsageError where it is none."""
    if not os.path.exists(path):
        raise _missing(path, option, "folder")
    if not os.path.isdir(path):
        raise UsageError(fs_text(path), "this is not a folder", f"check the path given as `{option}`")


def require_folder_of(file: str | os.PathLike[str], option: str) -> None:
    """`require_folder` of the one that a file will be written into."""
    folder = os.path.dirname(os.fspath(file)) or "."
    if not os.path.exists(folder):
        fact = f"there is no folder {fs_text(folder)} to write it into"
        raise MissingFileError(fs_text(file), fact, f"make the folder, or check the path given as `{option}`")
    require_folder(folder, option)


def _missing(path: str | os.PathLike[str], option: str, what: str) -> MissingFileError:
    return MissingFileError(fs_text(path), f"there is no such {what}", f"check the path given as `{option}`")
