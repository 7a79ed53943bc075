"""Where a dataset goes: a disk or a bucket, with one protocol for both.

A job writes in the work folder of its destination, which is on this machine in either case. `delivery` takes each
finished shard on its way, `commit` makes the dataset of them. What the destinations of a user's DEST are, what is in
the way there and what is to be kept are functions over this protocol (`open`, `in_the_way`, `work_folder`,
`earlier_run`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from shardkit.events import ProgressFn
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.packing.write.receipt import Receipt, Skipped
from shardkit.shards.manifest import Manifest, ShardEntry
from shardkit.storage.files import FolderLock


class Delivery(Protocol):
    """The way of finished shards from the work folder to the destination, while others are written. Thread-safe."""

    def holds(self, entry: ShardEntry) -> bool:
        """Whether a shard that is no longer in the work folder is at the destination, with its size and checksum."""
        ...

    def deliver(self, receipt: Receipt) -> None:
        """Send a finished shard on its way. Shards without a sample, which are in no manifest, stay."""
        ...

    def wait_for_room(self) -> None:
        """Wait until the work folder may take another shard. Raises what stopped the delivery."""
        ...

    def finish(self, progress: ProgressFn) -> None:
        """Wait until all shards have arrived. Raises the first error."""
        ...


class Destination(Protocol):
    """Where a dataset goes. As text it is the place of its manifest. Values are frozen; nothing is held open."""

    @property
    def files(self) -> DatasetFiles:
        """The dataset's files at the destination."""
        ...

    @property
    def generation(self) -> int:
        """The generation of what is written."""
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
        """The folder of this machine that a job writes in until its commit."""
        ...

    def in_generation(self, generation: int) -> Destination:
        """The same destination for files of another generation."""
        ...

    def locked(self) -> AbstractContextManager[FolderLock]:
        """The work folder, made and locked; it is removed at the end unless it holds what the next run resumes from.

        A commit that was interrupted is finished first. Raises BusyError where another run has the lock.
        """
        ...

    def clear(self) -> None:
        """Remove what a commit left that was interrupted at its end. DestinationError for a folder in the way."""
        ...

    def wrote(self, name: str, size: int) -> bool:
        """Whether an earlier run on this machine wrote this file, which no manifest names."""
        ...

    def withdraw(self, names: Collection[str]) -> None:
        """Remove those of these files of the work folder that were delivered, and that no manifest names."""
        ...

    def discard(self) -> None:
        """After an error, remove what can't be resumed."""
        ...

    def delivery(self) -> AbstractContextManager[Delivery]:
        """The way of this job's shards, for a `with` block."""
        ...

    def commit(self, manifest: Manifest, skipped: Sequence[Skipped]) -> None:
        """Make a dataset of the shards that were delivered and of the index files in the work folder."""
        ...

    def committed_at(self, manifest: Manifest) -> int | None:
        """When this machine wrote the manifest that is there (nanoseconds, as file times); None where it didn't."""
        ...
