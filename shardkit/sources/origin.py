"""Origins: where the files of a source are (below its root, anywhere on disk, in an archive, in a store).

An `Origin` has the same rows as its source, and describes the files of any rows to the tasks that read them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from shardkit.location import Location
from shardkit.sources.archives.members import Members, stored, zipped
from shardkit.sources.archives.spool import spool_members
from shardkit.sources.columns import PathColumn
from shardkit.sources.readers import AnyFiles, ArchiveMembers, DiskFiles, StoreObjects, TreeFiles, stamp_of

Rows = NDArray[np.int64]


class Origin(Protocol):
    """What packing needs to know about the place of a source's files. Rows are those of the source."""

    @property
    def readable(self) -> bool:
        """Whether its files can be read before `prepared` is called."""
        ...

    def at(self, rows: Rows) -> Origin:
        """The origin of some rows."""
        ...

    def prepared(self, work: str) -> Origin:
        """The origin, made ready for its readers; `work` is a folder for their files, which is removed at the end."""
        ...

    def files(self, rows: Rows) -> AnyFiles:
        """The files of `rows`, in this order, as data for the task that reads them."""
        ...

    def watched(self, rows: Rows) -> list[bytes]:
        """The local files whose modification times show whether a file of `rows` has changed."""
        ...

    def marks(self, rows: Rows) -> bytes:
        """Bytes that distinguish these files from others with the same paths and sizes, apart from times."""
        ...


class FilesBelowRoot(msgspec.Struct, frozen=True, eq=False):
    """The files of a tree."""

    root: bytes
    paths: PathColumn
    readable = True

    def at(self, rows: Rows) -> FilesBelowRoot:
        """The origin of some rows."""
        return FilesBelowRoot(self.root, PathColumn.of(self.paths.take(rows)))

    def prepared(self, work: str) -> FilesBelowRoot:
        """Nothing is to be prepared."""
        return self

    def files(self, rows: Rows) -> AnyFiles:
        """The files below the root; the task has their paths."""
        return TreeFiles(self.root)

    def watched(self, rows: Rows) -> list[bytes]:
        """The files themselves."""
        return list(TreeFiles(self.root).watched(self.paths.at(rows)))

    def marks(self, rows: Rows) -> bytes:
        """Empty: root and paths identify the files."""
        return b""


class FilesAnywhere(msgspec.Struct, frozen=True, eq=False):
    """Local files by their absolute paths."""

    paths: PathColumn
    readable = True

    def at(self, rows: Rows) -> FilesAnywhere:
        """The origin of some rows."""
        return FilesAnywhere(PathColumn.of(self.paths.take(rows)))

    def prepared(self, work: str) -> FilesAnywhere:
        """Nothing is to be prepared."""
        return self

    def files(self, rows: Rows) -> AnyFiles:
        """The files by their paths."""
        return DiskFiles(self.paths.at(rows))

    def watched(self, rows: Rows) -> list[bytes]:
        """The files themselves."""
        return self.paths.take(rows)

    def marks(self, rows: Rows) -> bytes:
        """The paths of the files."""
        paths = self.paths.at(rows)
        return paths.data + paths.offsets


class InArchive(msgspec.Struct, frozen=True, eq=False):
    """Members of the archive at `path`. `kind` is "zip", "tar", or a kind that must be read from front to back.

    rows: the member of each row of the source. spool: the file with the unpacked members, and each member's byte in it.
    """

    path: str
    kind: str
    members: Members
    rows: Rows
    spool: tuple[str, Rows] | None = None

    @property
    def readable(self) -> bool:
        """Whether the archive has random access."""
        return self.kind in ("zip", "tar")

    def at(self, rows: Rows) -> InArchive:
        """The origin of some rows."""
        return replace(self, rows=self.rows[rows])

    def prepared(self, work: str) -> InArchive:
        """Unpack this source's members of an archive without random access into one file in the work folder."""
        if self.readable:
            return self
        return replace(self, spool=spool_members(self.path, self.kind, self.members, self.rows, work))

    def files(self, rows: Rows) -> AnyFiles:
        """The members, in the archive itself or in the spool."""
        members, chosen = self.members, self.rows[rows]
        file, offsets = (self.path, members.offsets) if self.spool is None else self.spool
        if self.kind == "zip":
            numbers = zipped(offsets[chosen], members.packed[chosen], members.methods[chosen], members.crcs[chosen])
        else:
            numbers = stored(offsets[chosen])
        archive, file = (os.path.abspath(path) for path in (self.path, file))
        return ArchiveMembers(os.fsencode(archive), os.fsencode(file), stamp_of(file), numbers)

    def watched(self, rows: Rows) -> list[bytes]:
        """The archive file."""
        return [os.fsencode(os.path.abspath(self.path))]

    def marks(self, rows: Rows) -> bytes:
        """The CRC-32 of each member, from the zip directory."""
        return self.members.crcs[self.rows[rows]].tobytes()


class InStore(msgspec.Struct, frozen=True, eq=False):
    """Objects below `folder`. versions: one for each object, empty if the store has none."""

    folder: Location
    options: Mapping[str, Any]
    names: PathColumn
    versions: PathColumn
    rows: Rows
    readable = True

    def at(self, rows: Rows) -> InStore:
        """The origin of some rows."""
        return replace(self, rows=self.rows[rows])

    def prepared(self, work: str) -> InStore:
        """Nothing is to be prepared."""
        return self

    def files(self, rows: Rows) -> AnyFiles:
        """The objects by their names."""
        names = [name.decode("utf-8", "surrogateescape") for name in self.names.take(self.rows[rows])]
        return StoreObjects(self.folder.scheme, self.folder.path, names, dict(self.options))

    def watched(self, rows: Rows) -> list[bytes]:
        """Empty: no file is on this machine."""
        return []

    def marks(self, rows: Rows) -> bytes:
        """The versions of the objects."""
        versions = self.versions.at(self.rows[rows])
        return versions.data + versions.offsets
