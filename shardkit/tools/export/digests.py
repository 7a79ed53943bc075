"""SHA-256 of files, which the manifest does not have: each is read once, and checked against its CRC-32C."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from shardkit.checksums import crc32c
from shardkit.errors import DamagedError
from shardkit.events import Progress, ProgressFn
from shardkit.storage.transfer import file_pieces, object_pieces
from shardkit.threads import TransferPool
from shardkit.tools.export.splits import Entry, Split


class Digests:
    """Computes digests in the threads of a pool, and remembers them by place and CRC-32C."""

    def __init__(self, pool: TransferPool, progress: ProgressFn) -> None:
        self._pool, self._progress = pool, progress
        self._known: dict[tuple[str, str], str] = {}

    def of(self, split: Split, entries: Sequence[Entry]) -> list[str]:
        """The digest of each of some files of a split, as hex digits. DamagedError, NotFoundError, StorageError."""
        new = [entry for entry in entries if self._place(split, entry) not in self._known]
        total, done = sum(entry.bytes for entry in new), 0
        digests = self._pool.map(lambda entry: self._digest(split, entry), new)
        for number, (entry, digest) in enumerate(zip(new, digests, strict=True), 1):
            self._known[self._place(split, entry)] = digest
            done += entry.bytes
            self._progress(Progress("checksum", number, len(new), done, total))
        return [self._known[self._place(split, entry)] for entry in entries]

    def _place(self, split: Split, entry: Entry) -> tuple[str, str]:
        return split.source_of(entry).url, entry.crc32c

    def _digest(self, split: Split, entry: Entry) -> str:
        if entry.name in split.made:
            return hashlib.sha256(split.made[entry.name]).hexdigest()
        place, store = split.source_of(entry), split.files.store
        stop = self._pool.stop
        pieces = file_pieces(place) if place.is_local else object_pieces(store, place.name, entry.bytes, stop)
        digest, crc, size = hashlib.sha256(), 0, 0
        for piece in pieces():
            with memoryview(piece) as view:
                digest.update(view)
                crc, size = crc32c(view, crc), size + view.nbytes
        if size != entry.bytes or f"{crc:08x}" != entry.crc32c:
            fact = "the file is not the one that the manifest names: its size or CRC-32C differs"
            raise DamagedError(str(place), fact, "check the dataset with 'shardkit verify'")
        return digest.hexdigest()
