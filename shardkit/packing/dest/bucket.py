"""A destination in a bucket: shards are written to a folder on this machine, and uploaded one by one when finished.

CACHE/shardkit/packing/DIGEST/.train.packing/    as the work folder of a local packing; a shard leaves it when it is in
                                                 the bucket, its receipt and its index rows stay until the commit
CACHE/shardkit/packing/DIGEST/train.packed       the CRC-32C of the manifest that was written last, and when

DIGEST identifies the folder in the bucket. The lock in the work folder excludes other runs on this machine, and a lease
in the bucket those on others (see shared.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import msgspec
from msgspec.structs import replace

from shardkit.checksums import crc32c
from shardkit.errors import DestinationError
from shardkit.location import Location
from shardkit.packing.dest.dataset_files import DatasetFiles, continues, sizes_in
from shardkit.packing.dest.destination import Delivery
from shardkit.packing.dest.shared import RECEIPT, SharedFolder
from shardkit.packing.dest.shipping import SENDERS, Shipping
from shardkit.packing.dest.work_folder import decide, decided_path, kept_rows, locked_folder, read_manifest_file, remove
from shardkit.packing.parts.names import WHOLE_LEASE
from shardkit.packing.parts.part import Part
from shardkit.packing.write.receipt import Receipt, Skipped, receipt_path
from shardkit.shards.manifest import Manifest, all_names, encode_manifest
from shardkit.shards.names import LOCK, base_of, work_name
from shardkit.storage.files import FolderLock, size_of, whole_file
from shardkit.storage.store import ObjectInfo, StorageOptions
from shardkit.storage.transfer import crc_of, file_pieces, send
from shardkit.system import cache_home
from shardkit.threads import TransferPool

FETCHERS = 16
"""The number of receipts or index rows that are fetched at a time."""


class BucketDestination(msgspec.Struct, frozen=True):
    """A dataset in a bucket. folder: the local folder in which the work folder is made."""

    files: DatasetFiles
    folder: str
    generation: int = 1

    def __str__(self) -> str:
        return self.files.place(self.files.manifest)

    @property
    def stem(self) -> str:
        """The name of the dataset."""
        return self.files.stem

    @property
    def base(self) -> str:
        """What the names of the shards and index files start with."""
        return base_of(self.stem, self.generation)

    @property
    def work(self) -> str:
        """The folder in which a job writes until its commit."""
        return os.path.join(self.folder, work_name(self.stem))

    def in_generation(self, generation: int) -> BucketDestination:
        """The same destination for files of another generation."""
        return replace(self, generation=generation)

    @property
    def shared(self) -> SharedFolder:
        """The folder in the bucket in which parts leave what the merge needs."""
        return SharedFolder(self.files)

    def locked(self, part: Part | None = None) -> AbstractContextManager[FolderLock]:
        """Lock the work folder, take the lease in the bucket, and finish an interrupted commit."""
        return locked_folder(self.work, self._resume, self.shared, part, wanted=True)

    def clear(self) -> None:
        """Remove what is left of a commit that was interrupted after it had written the manifest."""
        self.files.clear()

    def wrote(self, there: Mapping[str, int]) -> set[str]:
        """Those that the work folder has, or of which it has the receipt with this size, and those that parts wrote."""
        here = {name for name, size in there.items() if self._size_written(name) == size}
        return here if len(here) == len(there) else here | self.shared.wrote(there)

    def fetch(self, shards: Sequence[str]) -> None:
        """Fetch receipts, with the index rows, that the work folder does not have."""
        known = set(self.shared.names())
        wanted = [name for name in shards if name + RECEIPT in known and not self._has_receipt(name)]

        def one(name: str) -> None:
            for ending in (".rows", RECEIPT):  # the receipt last, as when it was written
                if (data := self.shared.read(name + ending)) is not None:
                    with whole_file(os.path.join(self.work, name + ending), sync=False) as file:
                        file.write(data)

        with TransferPool(FETCHERS) as pool:
            for _ in pool.map(one, wanted):
                pass

    def _has_receipt(self, name: str) -> bool:
        return os.path.exists(receipt_path(os.fsencode(self.work), name))

    def rows(self, shards: Sequence[str]) -> Iterator[bytes | None]:
        """The index rows of shards, from the work folder or the bucket."""
        with TransferPool(FETCHERS) as pool:
            yield from pool.map(self._rows, shards)

    def _rows(self, name: str) -> bytes | None:
        here = kept_rows(self.work, name)
        return self.shared.read(f"{name}.rows") if here is None else here

    def withdraw(self, names: Collection[str]) -> None:
        """Remove from the bucket what an earlier run uploaded, unless a manifest names it by now."""
        if names:
            manifest = self.files.read_manifest()  # another machine may have written it meanwhile
            named = set() if manifest is None else set(all_names(manifest, self.stem))
            self.files.remove(sorted((set(names) - named) & self.files.sizes().keys()))

    def discard(self) -> None:
        """Do nothing: the receipts say which files in the bucket belong to this run."""

    def delivery(self, *, part: bool = False) -> AbstractContextManager[Delivery]:
        """Upload shards, several at a time. part: with their receipts and index rows."""
        return Shipping(self.files, self.work, self.shared, with_receipts=part)

    def commit(self, manifest: Manifest, skipped: Sequence[Skipped]) -> None:
        """Upload the index files and the list of skipped files, then the manifest; all shards are already there."""
        self.shared.require_held()
        decide(self, manifest, skipped)
        self._finish(manifest)

    def committed_at(self, manifest: Manifest) -> int | None:
        """When this machine wrote this manifest; None if another one did."""
        try:
            with open(self._seal, "rb") as file:
                ours = file.read() == b"%08x\n" % crc32c(encode_manifest(manifest))
                return os.fstat(file.fileno()).st_mtime_ns if ours else None
        except FileNotFoundError:
            return None

    @property
    def _seal(self) -> str:
        return os.path.join(self.folder, f"{self.stem}.packed")

    def _size_written(self, name: str) -> int | None:
        """The bytes of a file that an earlier run wrote, according to its work folder."""
        receipt = receipt_path(os.fsencode(self.work), name)
        with contextlib.suppress(OSError, msgspec.MsgspecError), open(receipt, "rb") as file:
            return msgspec.msgpack.decode(file.read(), type=Receipt).entry.bytes
        with contextlib.suppress(OSError):
            return os.path.getsize(os.path.join(self.work, name))
        return None

    def _resume(self) -> None:
        """Finish the commit that an earlier run decided."""
        decided = decided_path(self)
        if not os.path.exists(decided):
            return
        manifest, there = read_manifest_file(decided), self.files.sizes()
        if any(there.get(entry.name) != entry.bytes for entry in manifest.shards):
            os.unlink(decided)  # its shards are gone from the bucket and must be uploaded again
        else:
            self._finish(manifest)

    def _finish(self, manifest: Manifest) -> None:
        if manifest.appended and not continues(self.files.read_manifest(), manifest):
            fact = "another run changed the dataset that this adds to"
            raise DestinationError(str(self), fact, "run `pack` with `append=True` again")
        sizes = sizes_in(manifest) | self._send_all_but_shards(manifest)
        data = encode_manifest(manifest)
        self.files.finish(data, sizes, sweep=True)  # all other files there may be removed: see `check_free`
        self.shared.remove(name for name in self.shared.names() if name != WHOLE_LEASE)
        with whole_file(self._seal) as file:
            file.write(b"%08x\n" % crc32c(data))
        remove(self.work, lambda name: name != LOCK)

    def _send_all_but_shards(self, manifest: Manifest) -> dict[str, int]:
        """Upload the index files and the list of skipped files, and return name -> bytes of each. Those of a dataset
        that is added to are there already."""
        shards = {entry.name for entry in manifest.shards}
        names = [name for name in all_names(manifest, self.stem) if name not in shards]
        names = [name for name in names if os.path.exists(os.path.join(self.work, name))]
        with TransferPool(SENDERS) as pool:

            def one(name: str) -> ObjectInfo:
                here = Location("", os.path.join(self.work, name))
                wanted = ObjectInfo(name, size_of(here.path) or 0, crc_of(file_pieces(here)))
                send(file_pieces(here), here, self.files.store, wanted, check="store", stop=pool.stop,
                     on_progress=lambda _: None)  # fmt: skip
                return wanted

            return {info.name: info.bytes for info in pool.map(one, names)}


def bucket_destination(
    files: DatasetFiles, work: str | os.PathLike[str] | None, options: StorageOptions | None
) -> BucketDestination:
    """The destination for files in a bucket. work: the folder in which shards wait (default: the user's cache).

    Each bucket, folder and endpoint has its own work folder.
    """
    endpoints = sorted((key, str(value)) for key, value in (options or {}).items() if "endpoint" in key.lower())
    digest = hashlib.blake2b(repr((str(files.store.root), endpoints)).encode(), digest_size=10).hexdigest()
    base = os.path.join(cache_home(), "shardkit", "packing") if work is None else os.path.abspath(os.fspath(work))
    return BucketDestination(files, os.path.join(base, digest))
