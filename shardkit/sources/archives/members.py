"""The members of an archive as columns, and the members that are refused.

Nothing is ever unpacked under a name from the archive, so a hostile name can't cause a write elsewhere. But it would
become a key, and the path that `shardkit unpack` writes to.
"""

from __future__ import annotations

import os
import re
from array import array
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit.errors import SourceError
from shardkit.formats.tar.fast_write import IN_TAR
from shardkit.native import load
from shardkit.sample import fs_text, text_of_path
from shardkit.sources.columns import PathColumn, PathColumnBuilder
from shardkit.sources.tree.walk import MAX_DEPTH
from shardkit.system import POSIX

Numbers = NDArray[np.int64]

BOMB_BYTES = 100_000_000
BOMB_RATIO = 1000
"""A member (or all of them together) that unpacks to more than BOMB_BYTES, and to more than BOMB_RATIO times its packed
size, is refused. Deflate reaches 1,032 at most, for identical bytes; for a JPEG the ratio is about 1."""

MAX_NAME_BYTES = 4096
"""The longest name of a member: no system has longer paths, and no index."""

_ODD = re.compile(rb"//|\./|/\.|\.\.|^[/.]|/\Z|[:\0]")
"""What makes a name worth a closer look."""

_TOGETHER = 4096

AT_ONCE = 1 << 13
"""The most plain members that the C extension reads in one call; after it the progress is reported."""

_SHOWN = 100
"""How many bytes of an overlong name a message shows."""

SKIP = 'or skip such members with `on_error="skip"`'


class Members(msgspec.Struct, frozen=True, eq=False):
    """The files of an archive, a row each, in archive order (names cleaned, int64 columns).

    sizes: bytes, unpacked. offsets: of the data (tar) or of the local header (zip). packed: bytes as stored. methods:
    zip's compression method, 0 for none. crcs: CRC-32, -1 if there is none. refused: (member, why) of those that were
    left out.
    """

    names: PathColumn
    sizes: Numbers
    offsets: Numbers
    packed: Numbers
    methods: Numbers
    crcs: Numbers
    folders: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


def extension() -> Any:
    """The C extension that reads plain members, or None if it was not built, or on Windows."""
    return load("archives")[0] if POSIX else None


class MembersBuilder:
    """Collect the members of an archive. skip_bad: refused members are listed; otherwise the first is an error."""

    def __init__(self, place: str, *, skip_bad: bool) -> None:
        self.place, self.skip_bad = place, skip_bad
        self._names = PathColumnBuilder()
        self._waiting: list[bytes] = []  # names that are added together: one by one, they cost a fifth more
        self._numbers = array("q")  # size, offset, packed size, method and CRC of each member
        self._folders: list[str] = []
        self._refused: list[tuple[str, str]] = []
        self._links: list[tuple[bytes, bytes]] = []

    def __len__(self) -> int:
        return len(self._names) + len(self._waiting)

    def add(self, name: bytes, *, size: int, offset: int, packed: int, method: int = 0, crc: int = -1) -> None:
        """Add a regular file by its name in the archive, or refuse it."""
        clean = self.clean(name)
        if clean is None:
            return
        if is_bomb(size, packed):
            fact = f"its {packed} bytes unpack to {size}, over {BOMB_RATIO} times as many"
            self.refuse(name, fact, f"check the archive, {SKIP}")
            return
        self._waiting.append(clean)
        if len(self._waiting) == _TOGETHER:
            self._add_waiting()
        self._numbers.extend((size, offset, packed, method, crc))

    def add_plain(self, native: Any, *where: Any) -> int:
        """Add plain members that the C extension reads. native: its function for this kind of archive, called with
        `where`. Returns where the first other member begins."""
        at, names, lengths, numbers = native(*where, AT_ONCE, MAX_NAME_BYTES, MAX_DEPTH, BOMB_BYTES, BOMB_RATIO)
        self._add_waiting()
        self._names.extend_joined(names, lengths)
        self._numbers.frombytes(numbers)
        return int(at)

    def _add_waiting(self) -> None:
        self._names.extend_bytes(self._waiting)
        self._waiting = []

    def folder(self, name: bytes) -> None:
        """Add a folder that has its own entry in the archive."""
        if name.strip(b"./") and (clean := self.clean(name.rstrip(b"/"))) is not None:
            self._folders.append(os.fsdecode(clean))

    def clean(self, name: bytes) -> bytes | None:
        """The name without `.` and empty parts; None if it is refused: absolute, too deep or long, or with `..`."""
        if name.count(b"/") > MAX_DEPTH or len(name) > MAX_NAME_BYTES:
            deep = name.count(b"/") > MAX_DEPTH
            fact = f"its path is over {MAX_DEPTH} folders deep" if deep else f"its path has {len(name):,} bytes"
            self.refuse(name[:_SHOWN] + b"...", fact, f"create the archive again with shorter paths, {SKIP}")
            return None
        plain = name[2:] if name[:2] == b"./" else name
        if plain and not _ODD.search(plain):
            return plain
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        absolute = name.startswith(b"/") or (name[1:3] in (b":/", b":\\") and name[:1].isalpha())
        if absolute or b".." in parts or b"\0" in name or not parts:
            fact = "its name is absolute" if absolute else "its name leads out of the archive, or is not a file name"
            self.refuse(name, fact, f"create the archive again with plain names, {SKIP}")
            return None
        return b"/".join(parts)

    def link(self, name: bytes, target: bytes) -> None:
        """Add a hard link: another name for a file in the archive."""
        self._links.append((name, target))

    def refuse(self, name: bytes, fact: str, cure: str) -> None:
        """Leave a member out if `skip_bad`, otherwise raise SourceError."""
        if not self.skip_bad:
            raise SourceError(f"{self.place}/{fs_text(name)}", fact, cure)
        self._refused.append((text_of_path(name), fact))

    def build(self, packed_bytes: int) -> Members:
        """Return the columns. packed_bytes: of the whole archive. SourceError if it unpacks to far too many bytes."""
        self._resolve_links()
        self._add_waiting()
        columns = np.frombuffer(self._numbers, np.int64).reshape(-1, 5)
        sizes, offsets, packed, methods, crcs = (np.ascontiguousarray(columns[:, number]) for number in range(5))
        if is_bomb(total := int(sizes.sum()), packed_bytes):
            fact = f"its {packed_bytes} bytes unpack to {total}, over {BOMB_RATIO} times as many"
            raise SourceError(self.place, fact, "check where it comes from; if you trust it, unpack it yourself")
        return Members(
            self._names.build(), sizes, offsets, packed, methods, crcs, tuple(self._folders), tuple(self._refused)
        )

    def _resolve_links(self) -> None:
        """Give each hard link the data of the file that it links to."""
        if not self._links:
            return
        links = [(name, target, self.clean(target) or b"") for name, target in self._links]
        wanted = {clean for _, _, clean in links}
        self._add_waiting()
        column = self._names.build()
        rows = {name: row for row, name in enumerate(column) if name in wanted}
        self._names = PathColumnBuilder()
        for name in column:
            self._names.append(name)
        for name, target, clean in links:
            row = rows.get(clean)
            if row is None:
                fact = f"it is a hard link to {fs_text(target)}, which is not a file in the archive"
                self.refuse(name, fact, f"create the archive again with files instead of links, {SKIP}")
                continue
            size, offset, packed, method, crc = self._numbers[5 * row : 5 * row + 5]
            self.add(name, size=size, offset=offset, packed=packed, method=method, crc=crc)


def is_bomb(size: int, packed: int) -> bool:
    """Whether `size` unpacked bytes are too many for `packed` bytes."""
    return size > BOMB_BYTES and size > BOMB_RATIO * packed


def stored(offsets: Numbers) -> bytes:
    """The numbers of members that are nothing but their bytes, as `StoredMembers` has them."""
    return zipped(offsets, 0, IN_TAR, 0)


def zipped(offsets: Numbers, packed: Numbers | int, methods: Numbers | int, crcs: Numbers | int) -> bytes:
    """The numbers of members of a zip, as `StoredMembers` has them."""
    found = np.empty((len(offsets), 4), np.int64)
    for column, values in enumerate((offsets, packed, methods, crcs)):
        found[:, column] = values
    return found.tobytes()
