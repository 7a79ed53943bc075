"""The protocol of destinations, disk or bucket.

A job writes to the work folder of its destination, which is on this machine in either case. `delivery` sends each
finished shard to the destination, and `commit` makes a dataset of them. Functions over this protocol find the
destinations for a user's DEST (`open`), the files in the way (`in_the_way`) and what can be kept (`work_folder`,
`earlier_run`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from shardkit.events import ProgressFn
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.packing.dest.shared import SharedFolder
from shardkit.packing.parts.part import Part
from shardkit.packing.write.receipt import Receipt, Skipped
from shardkit.shards.manifest import Manifest, ShardEntry
from shardkit.storage.files import FolderLock


class Delivery(Protocol):
    """Delivers finished shards from the work folder to the destination while others are written. Thread-safe."""

    def holds(self, entry: ShardEntry) -> bool:
        """Whether a shard that has left the work folder is at the destination with its size and checksum."""
        ...

    def deliver(self, receipt: Receipt) -> None:
        """Deliver a finished shard. Shards without samples, which no manifest names, stay."""
        ...

    def wait_for_room(self) -> None:
        """Wait until the work folder has room for another shard. Raises the error that stopped the delivery."""
        ...

    def finish(self, progress: ProgressFn) -> None:
        """Wait until all shards have arrived. Raises the first error."""
        ...


class Destination(Protocol):
    """The destination of a dataset. As text it is the location of the manifest. Values are frozen; nothing is held
    open."""

    @property
    def files(self) -> DatasetFiles:
        """The dataset's files at the destination."""
        ...

    @property
    def generation(self) -> int:
        """The generation of the files that are written."""
        ...

    @property
    def stem(self) -> str:
        """The name of the dataset, with which the names of its files start."""
        ...

    @property
    def base(self) -> str:
        """What the names of the shards and index files start with: the stem, and the generation from the second on."""
        ...

    @property
    def work(self) -> str:
        """The local folder in which a job writes until its commit."""
        ...

    def in_generation(self, generation: int) -> Destination:
        """The same destination for files of another generation."""
        ...

    @property
    def shared(self) -> SharedFolder:
        """The folder at the destination in which parts leave what the merge needs."""
        ...

    def locked(self, part: Part | None = None) -> AbstractContextManager[FolderLock]:
        """Make and lock the work folder; at the end it is removed, unless the next run can resume from it.

        An interrupted commit is finished first. part: other parts may run at the same time. Raises BusyError if another
        run holds the lock.
        """
        ...

    def clear(self) -> None:
        """Remove what is left of a commit that was interrupted at its end. DestinationError if a folder is in the
        way."""
        ...

    def wrote(self, there: Mapping[str, int]) -> set[str]:
        """Those of these files (name -> bytes), which no manifest names, that an earlier run on this machine wrote, or
        a part on any."""
        ...

    def fetch(self, shards: Sequence[str]) -> None:
        """Bring the receipts of these shards to the work folder if parts left them at the destination."""
        ...

    def rows(self, shards: Sequence[str]) -> Iterator[bytes | None]:
        """The index rows of each of these shards, as written by `keep_receipt`; None if there are none."""
        ...

    def withdraw(self, names: Collection[str]) -> None:
        """Remove from the destination those of these files that were delivered and that no manifest names."""
        ...

    def discard(self) -> None:
        """After an error, remove what can't be resumed."""
        ...

    def delivery(self, *, part: bool = False) -> AbstractContextManager[Delivery]:
        """The delivery of this job's shards, for a `with` block. part: with what the merge needs of them."""
        ...

    def commit(self, manifest: Manifest, skipped: Sequence[Skipped]) -> None:
        """Make a dataset of the shards that were delivered and of the index files in the work folder."""
        ...

    def committed_at(self, manifest: Manifest) -> int | None:
        """When this machine wrote the manifest that is there (nanoseconds, like file times); None if it didn't."""
        ...
