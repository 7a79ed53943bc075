"""SHA-256 of shards, which the manifest does not have: each shard is read once, and checked against its CRC-32C."""

from __future__ import annotations

import hashlib

from shardkit.checksums import crc32c
from shardkit.errors import DamagedError
from shardkit.events import Progress, ProgressFn
from shardkit.shards.manifest import ShardEntry
from shardkit.storage.transfer import file_pieces, object_pieces
from shardkit.threads import TransferPool
from shardkit.tools.export.splits import Split


class Digests:
    """Computes digests in the threads of a pool, and remembers them by the place of the shard."""

    def __init__(self, pool: TransferPool, progress: ProgressFn) -> None:
        self._pool, self._progress = pool, progress
        self._known: dict[str, str] = {}

    def of(self, split: Split) -> list[str]:
        """The digest of each shard of a split, as hex digits. DamagedError, NotFoundError, StorageError."""
        shards = split.manifest.shards
        new = [shard for shard in shards if split.source_of(shard).url not in self._known]
        done = 0
        for number, (shard, digest) in enumerate(
            zip(new, self._pool.map(lambda shard: self._digest(split, shard), new), strict=True), 1
        ):
            self._known[split.source_of(shard).url] = digest
            done += shard.bytes
            self._progress(Progress("checksum", number, len(new), done, sum(each.bytes for each in new)))
        return [self._known[split.source_of(shard).url] for shard in shards]

    def _digest(self, split: Split, shard: ShardEntry) -> str:
        place, name = split.source_of(shard), split.origin.get(shard.name, shard.name)
        store = split.files.store
        pieces = file_pieces(place) if place.is_local else object_pieces(store, name, shard.bytes, self._pool.stop)
        digest, crc, size = hashlib.sha256(), 0, 0
        for piece in pieces():
            with memoryview(piece) as view:
                digest.update(view)
                crc, size = crc32c(view, crc), size + view.nbytes
        if size != shard.bytes or f"{crc:08x}" != shard.crc32c:
            fact = "the shard is not the one that its manifest names: its size or CRC-32C differs"
            raise DamagedError(str(place), fact, "check the dataset with 'shardkit verify'")
        return digest.hexdigest()
