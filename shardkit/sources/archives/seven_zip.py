"""The members of a 7z archive, by py7zr (LGPL-2.1, the extra "archives")."""

from __future__ import annotations

import contextlib
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from shardkit.errors import MissingExtraError, ShardkitError, SourceError, installs
from shardkit.sample import fs_text
from shardkit.sources.archives.members import SKIP, Members, MembersBuilder

if TYPE_CHECKING:
    import py7zr

_CURE = "download it again: it is truncated or damaged"
_UNIX_MODE = 0x8000
"""The attribute flag for a Unix mode in the upper 16 bits."""
_PASSWORD = "unpack the archive with its password and pack the tree"


@contextlib.contextmanager
def _open(path: str) -> Iterator[py7zr.SevenZipFile]:
    place = fs_text(path)
    try:
        import py7zr
        import py7zr.exceptions as known
    except ImportError as exc:
        fact = "reading .7z needs the package py7zr, which is not installed"
        raise MissingExtraError(place, fact, installs("archives")) from exc
    try:
        # Given as a file object, it is unpacked by one thread, in order.
        with open(path, "rb") as file, py7zr.SevenZipFile(file, "r") as archive:
            if archive.needs_password():
                raise SourceError(place, "it is encrypted", _PASSWORD)
            yield archive
    except ShardkitError:
        raise
    except known.PasswordRequired as exc:
        raise SourceError(place, "it is encrypted", _PASSWORD) from exc
    except known.UnsupportedCompressionMethodError as exc:
        raise SourceError(place, f"it is compressed in a way that py7zr can't read ({exc})", "unpack it") from exc
    except (known.ArchiveError, lzma.LZMAError, zlib.error, EOFError, ValueError, TypeError, LookupError) as exc:
        # py7zr raises many kinds of exceptions for damage.
        raise SourceError(place, f"the archive is cut or damaged ({type(exc).__name__}: {exc})", _CURE) from exc
    except OSError as exc:
        raise SourceError(place, f"can't be read ({exc.strerror or exc})", _CURE) from exc


def read_seven(path: str, *, skip_bad: bool) -> Members:
    """The members of a 7z archive. Raises SourceError, MissingExtraError."""
    builder = MembersBuilder(fs_text(path), skip_bad=skip_bad)
    with _open(path) as archive:
        for entry in archive.files:
            name = entry.filename.encode("utf-8", "surrogateescape")
            kind = _kind(entry.file_properties().get("attributes") or 0)
            if kind == stat.S_IFDIR:
                builder.folder(name)
            elif kind == stat.S_IFLNK:
                builder.refuse(name, "it is a symbolic link", f"pack the tree that was archived, {SKIP}")
            elif kind != stat.S_IFREG:
                builder.refuse(
                    name, "it is neither a file nor a folder", f"create the archive again without it, {SKIP}"
                )
            else:
                # Members of a solid archive have no packed size of their own: the bomb check is on the whole archive.
                builder.add(name, size=entry.uncompressed, offset=len(builder), packed=entry.uncompressed)
    return builder.build(os.path.getsize(path))


def _kind(attributes: int) -> int:
    """S_IFREG and the like. A Unix mode without file type bits, as some programs write it, is that of a file."""
    mode = stat.S_IFMT(attributes >> 16) if attributes & _UNIX_MODE else 0
    if attributes & stat.FILE_ATTRIBUTE_DIRECTORY and mode in (0, stat.S_IFREG):
        return stat.S_IFDIR
    if attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT and not mode:
        return stat.S_IFLNK
    return mode or stat.S_IFREG


def unpack_seven(path: str, wanted: Mapping[str, tuple[int, int]], write: Callable[[int, bytes], None]) -> None:
    """Pass the members `wanted` (name -> first byte, bytes) to `write(at, data)`, in pieces, in archive order."""
    from py7zr.io import Py7zIO, WriterFactory

    place = fs_text(path)

    class Writer(Py7zIO):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self.name, (self.start, self.bytes) = name, wanted[name]
            self.done = 0

        def write(self, s: Any) -> int:
            if self.done + len(s) > self.bytes:
                raise SourceError(f"{place}/{self.name}", f"it unpacks to more than its {self.bytes} bytes", _CURE)
            write(self.start + self.done, bytes(s))
            self.done += len(s)
            return len(s)

        def read(self, size: int | None = None) -> bytes:
            return b""

        def seek(self, offset: int, whence: int = 0) -> int:
            return 0

        def flush(self) -> None:
            pass

        def size(self) -> int:
            return self.done

    class Factory(WriterFactory):  # type: ignore[misc]
        def create(self, filename: str) -> Writer:
            return Writer(filename)

    with _open(path) as archive:
        archive.extract(targets=list(wanted), factory=Factory())
