"""Where the files of a source are when they are not below its root: in an archive, in a store, or anywhere on disk.

A `Held` goes with the rows of its source, and gives the origin of any of them to the tasks that read them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shardkit.location import Location
from shardkit.sources.archives.members import Members
from shardkit.sources.archives.spool import spooled
from shardkit.sources.columns import PathColumn
from shardkit.sources.origins import AnyOrigin, ArchiveOrigin, DiskOrigin, StoreOrigin, stamp_of
from shardkit.sources.source import Source

Rows = NDArray[np.int64]


class Holder(Protocol):
    """What the packing asks of a source's `held`. Rows are those of the source."""

    def at(self, rows: Rows) -> Holder:
        """The same for some rows."""
        ...

    def prepared(self, work: str) -> Holder:
        """The same, with what its origins need; `work` is the folder for that, which is removed at the end."""
        ...

    def origin(self, rows: Rows) -> AnyOrigin:
        """Where these files are, in this order."""
        ...

    def watched(self, rows: Rows) -> list[bytes]:
        """The files of this machine whose times tell whether one of these was changed."""
        ...

    def marks(self, rows: Rows) -> bytes:
        """What tells these files from others with the same names and sizes, beside times."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class InArchive:
    """Members of the archive at `path`. `kind` is "zip", "tar", or what must be read from front to back.

    rows: the member of each row of the source. spool: where the members were unpacked to, and the byte of each there.
    """

    path: str
    kind: str
    members: Members
    rows: Rows
    spool: tuple[str, Rows] | None = None

    def at(self, rows: Rows) -> InArchive:
        """The same for some rows."""
        return replace(self, rows=self.rows[rows])

    def prepared(self, work: str) -> InArchive:
        """Unpack what this source has of an archive without random access into one file of the work folder."""
        if self.kind in ("zip", "tar"):
            return self
        return replace(self, spool=spooled(self.path, self.kind, self.members, self.rows, work))

    def origin(self, rows: Rows) -> AnyOrigin:
        """The archive itself, or the spool."""
        file, numbers, none = self.path, self.rows[rows], list[int]()
        offsets = self.members.offsets
        if self.spool is not None:
            file, offsets = self.spool
        zipped = self.kind == "zip"
        return ArchiveOrigin(
            file=os.fsencode(os.path.abspath(file)), stamp=stamp_of(file), offsets=offsets[numbers].tolist(),
            packed=self.members.packed[numbers].tolist() if zipped else none,
            methods=self.members.methods[numbers].tolist() if zipped else none,
            crcs=self.members.crcs[numbers].tolist() if zipped else none,
        )  # fmt: skip

    def watched(self, rows: Rows) -> list[bytes]:
        """The archive."""
        return [os.fsencode(os.path.abspath(self.path))]

    def marks(self, rows: Rows) -> bytes:
        """The CRC-32 that a zip file has of each."""
        return self.members.crcs[self.rows[rows]].tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class OnDisk:
    """Files anywhere on this machine, by their absolute paths."""

    paths: PathColumn

    def at(self, rows: Rows) -> OnDisk:
        """The same for some rows."""
        return OnDisk(PathColumn.of(self.paths.take(rows)))

    def prepared(self, work: str) -> OnDisk:
        """Nothing is to be prepared."""
        return self

    def origin(self, rows: Rows) -> AnyOrigin:
        """The files."""
        return DiskOrigin(self.paths.take(rows))

    def watched(self, rows: Rows) -> list[bytes]:
        """The files."""
        return self.paths.take(rows)

    def marks(self, rows: Rows) -> bytes:
        """Their paths."""
        return b"\0".join(self.paths.take(rows))


@dataclass(frozen=True, slots=True, eq=False)
class InStore:
    """Objects below `folder`. versions: of each object, "" where the store has none."""

    folder: Location
    options: Mapping[str, Any]
    names: PathColumn
    versions: Sequence[str]
    rows: Rows

    def at(self, rows: Rows) -> InStore:
        """The same for some rows."""
        return replace(self, rows=self.rows[rows])

    def prepared(self, work: str) -> InStore:
        """Nothing is to be prepared."""
        return self

    def origin(self, rows: Rows) -> AnyOrigin:
        """The objects."""
        names = [name.decode("utf-8", "surrogateescape") for name in self.names.take(self.rows[rows])]
        return StoreOrigin(self.folder.scheme, self.folder.path, names, dict(self.options))

    def watched(self, rows: Rows) -> list[bytes]:
        """None is of this machine."""
        return []

    def marks(self, rows: Rows) -> bytes:
        """Their versions."""
        return "\0".join(self.versions[row] for row in self.rows[rows].tolist()).encode()


def holder_of(source: Source) -> Holder | None:
    """The holder of a source; None where its files are below its root."""
    held: Any = source.held
    return held  # type: ignore[no-any-return]
