"""Upload finished shards to a bucket while others are written.

A shard is removed from this machine's disk once it is in the bucket and checked. If shards are written faster than they
are uploaded, writing waits, so that the disk holds a few shards and not the dataset.
"""

from __future__ import annotations

import contextlib
import logging
import os
from concurrent.futures import Future
from threading import Condition, Lock

from shardkit.events import Progress, ProgressFn
from shardkit.location import Location
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.packing.dest.shared import RECEIPT, SharedFolder
from shardkit.packing.write.receipt import Receipt, receipt_path, rows_path
from shardkit.shards.manifest import ShardEntry
from shardkit.storage.files import translated
from shardkit.storage.store import ObjectInfo
from shardkit.storage.transfer import file_pieces, send
from shardkit.threads import Stopped, TransferPool

log = logging.getLogger(__name__)

SENDERS = 4
"""The number of concurrent uploads."""

WAITING = 4
"""The number of shards that may wait besides those being uploaded; with as many again, no sender is ever idle."""


class Shipping:
    """The delivery to a bucket: uploads shards from a work folder. Thread-safe."""

    def __init__(self, files: DatasetFiles, work: str, shared: SharedFolder, *, with_receipts: bool = False) -> None:
        """with_receipts: also leave receipts and index rows in `shared`, each before its shard."""
        self.files, self.work, self.shared, self.with_receipts = files, work, shared, with_receipts
        self._left = set(shared.names()) if with_receipts else set[str]()
        self._there = files.sizes()
        self._crew = TransferPool(SENDERS)
        self._futures: list[Future[None]] = []
        self._waiting = self._sent = self._sent_bytes = self._bytes = 0
        self._changed = Condition()
        self._beginning, self._begun = Lock(), False

    def __enter__(self) -> Shipping:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._crew.__exit__(kind, *rest)

    def holds(self, entry: ShardEntry) -> bool:
        """Whether the shard is in the bucket, with its size and checksum."""
        if self._there.get(entry.name) != entry.bytes:
            return False
        return self.files.holds(_wanted(entry), check="store", stop=self._crew.stop)

    def wait_for_room(self) -> None:
        """Wait until few shards are queued. Raises the error that stopped the uploads."""
        self.shared.require_held()
        with self._changed:
            while self._waiting >= SENDERS + WAITING and not self._crew.stop.is_set():
                self._changed.wait(0.1)
        if self._crew.stop.is_set():
            self._crew.require_sound()
            raise Stopped

    def deliver(self, receipt: Receipt) -> None:
        """Upload a finished shard, unless it is already uploaded or has no samples."""
        self._crew.require_sound()
        left = not self.with_receipts or receipt.entry.name + RECEIPT in self._left
        if left and (not receipt.entry.samples or not os.path.exists(self._path(receipt.entry))):
            return
        with self._changed:
            self._waiting += 1
            self._bytes += receipt.entry.bytes
            self._futures.append(self._crew.submit(self._ship, receipt.entry))

    def finish(self, progress: ProgressFn) -> None:
        """Wait until all are in the bucket. Raises the first error."""
        late = [future for future in self._futures if not future.done()]
        for future in self._futures:
            self._crew.result(future)
            if future in late:
                progress(Progress("upload", self._sent, len(self._futures), self._sent_bytes, self._bytes))

    def _path(self, entry: ShardEntry) -> str:
        return os.path.join(self.work, entry.name)

    def _ship(self, entry: ShardEntry) -> None:
        here = Location("", self._path(entry))
        self._begin()
        if self.with_receipts:
            self._leave_receipt(entry.name)
        if entry.samples and os.path.exists(here.path) and not self.holds(entry):
            send(file_pieces(here), here, self.files.store, _wanted(entry), check="store", stop=self._crew.stop,
                 on_progress=lambda _: None)  # fmt: skip
        if entry.samples:
            with translated(here.path), contextlib.suppress(FileNotFoundError):
                os.unlink(here.path)
        log.debug("%s: sent", self.files.location(entry.name))
        with self._changed:
            self._waiting -= 1
            self._sent += 1
            self._sent_bytes += entry.bytes
            self._changed.notify_all()

    def _leave_receipt(self, name: str) -> None:
        for path in (rows_path(os.fsencode(self.work), name), receipt_path(os.fsencode(self.work), name)):
            with translated(path), open(path, "rb") as file:
                self.shared.write(os.path.basename(os.fsdecode(path)), file.read())

    def _begin(self) -> None:
        """Prepare the bucket before the first upload."""
        with self._beginning:
            if not self._begun:
                self.files.begin()
                self._begun = True


def _wanted(entry: ShardEntry) -> ObjectInfo:
    return ObjectInfo(entry.name, entry.bytes, entry.crc32c)
