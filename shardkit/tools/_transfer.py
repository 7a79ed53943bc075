"""One dataset from one place to another: what upload and download share.

What is there with the same size and CRC-32C stays. Shards go first, side by side; then the index; the manifest last.
So a run that was cut short is gone on with by the next, and nobody reads half a dataset.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

import google_crc32c

from shardkit.errors import DamagedError, DestinationError, NotFoundError, StorageError
from shardkit.events import Progress, ProgressFn
from shardkit.location import Location
from shardkit.manifest import IndexEntry, Manifest, ShardEntry, decode_manifest
from shardkit.packing.place import OVERWRITE, Place
from shardkit.storage.crew import Crew
from shardkit.storage.store import ObjectInfo
from shardkit.storage.transfer import Check, Pieces, crc_of, file_pieces, object_pieces, send

log = logging.getLogger(__name__)

WORKERS = 4
"""Objects that are on their way at a time. A store sends several parts of each: about 16 requests, 300 MB of memory."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A dataset at its new place: its manifest (or the folder of shards that have none), and what is in it.

    sent: files that were sent now; kept: those that were there already. samples: 0 where no manifest tells.
    """

    dataset: str
    samples: int
    shards: int
    bytes: int
    sent: int
    sent_bytes: int
    kept: int
    kept_bytes: int


@dataclass(frozen=True, slots=True)
class Transferred:
    """What `upload` or `download` did: a Copied for each dataset."""

    datasets: tuple[Copied, ...]


@dataclass(frozen=True, slots=True)
class Parcel:
    """A dataset to be copied: its shards and its other files with size and CRC-32C, and its manifest as it is stored.

    Shards that have no manifest are a parcel without one.
    """

    source: Place
    shards: tuple[ObjectInfo, ...]
    others: tuple[ObjectInfo, ...] = ()
    manifest: bytes | None = None
    samples: int = 0

    @property
    def files(self) -> tuple[ObjectInfo, ...]:
        """All files but the manifest."""
        return (*self.shards, *self.others)

    @property
    def bytes(self) -> int:
        """Of all files but the manifest."""
        return sum(file.bytes for file in self.files)


def parcel_of(source: Place) -> Parcel:
    """The dataset at a place. Raises NotFoundError where there is none, ManifestError, StorageError."""
    data = source.read(source.manifest)
    manifest = decode_manifest(data, place=str(source.location(source.manifest)))
    shards = tuple(map(_wanted, manifest.shards))
    return Parcel(source, shards, (*map(_wanted, manifest.index), *_list_of_skipped(source, manifest)), data,
                  manifest.samples)  # fmt: skip


def _wanted(entry: ShardEntry | IndexEntry) -> ObjectInfo:
    return ObjectInfo(entry.name, entry.bytes, entry.crc32c)


def _list_of_skipped(source: Place, manifest: Manifest) -> list[ObjectInfo]:
    """The list of what was left out, if there is one: the manifest has no size and no checksum of it."""
    name = f"{source.stem}.skipped.json"
    try:
        data = source.read(name) if manifest.skipped else b""
    except NotFoundError:
        log.warning("%s: the list of what was left out is missing", source.location(name))
        return []

    return [ObjectInfo(name, len(data), f"{google_crc32c.value(data):08x}")] if data else []


class Meter:
    """Counts what went through, and tells it."""

    def __init__(self, step: str, parcels: Iterable[Parcel], progress: ProgressFn) -> None:
        self.step, self.progress = step, progress
        files = [file.bytes for parcel in parcels for file in parcel.files]
        self.files, self.bytes = len(files), sum(files)
        self._done = self._bytes = 0
        self._lock = Lock()

    def moved(self, count: int) -> None:
        """So many bytes went through, or have to go again."""
        self._tell(0, count)

    def done(self) -> None:
        """A file is done."""
        self._tell(1, 0)

    def kept(self, file: ObjectInfo) -> None:
        """A file was there already."""
        self._tell(1, file.bytes)

    def _tell(self, files: int, count: int) -> None:
        with self._lock:
            self._done += files
            self._bytes += count
            self.progress(Progress(self.step, self._done, self.files, self._bytes, self.bytes))


def copy_dataset(
    parcel: Parcel, target: Place, crew: Crew, *, check: Check, keep: Check, overwrite: bool, meter: Meter
) -> Copied:
    """Bring a dataset to `target`, where it has the same name. check: of what was sent; keep: of what is there already.

    Raises DestinationError where something else is in the way, DamagedError, NotFoundError, StorageError.
    """
    kept = _kept(parcel, target, crew, check=keep, overwrite=overwrite)
    for file in parcel.files:
        if file.name in kept:
            meter.kept(file)

    def one(file: ObjectInfo) -> None:
        pieces, place = pieces_of(parcel.source, file, crew), parcel.source.location(file.name)
        send(pieces, place, target.store, file, check=check, retry=target.retry, stop=crew.stop, told=meter.moved)
        meter.done()

    for part in (parcel.shards, parcel.others):
        for _ in crew.map(one, [file for file in part if file.name not in kept]):
            pass
    if parcel.manifest is not None and target.manifest_bytes() != parcel.manifest:
        target.finish(parcel.manifest, {file.name: file.bytes for file in parcel.files}, sweep=overwrite)
    sent = [file.bytes for file in parcel.files if file.name not in kept]
    there = target.store.root if parcel.manifest is None else target.location(target.manifest)
    return Copied(
        dataset=str(there), samples=parcel.samples, shards=len(parcel.shards),
        bytes=sum(file.bytes for file in parcel.shards), sent=len(sent), sent_bytes=sum(sent), kept=len(kept),
        kept_bytes=parcel.bytes - sum(sent),
    )  # fmt: skip


def pieces_of(source: Place, file: ObjectInfo, crew: Crew) -> Pieces:
    """The bytes of a file, wherever it is."""
    place = source.location(file.name)
    if place.is_local:
        return file_pieces(place)
    return object_pieces(source.store, file.name, file.bytes, source.retry, crew.stop)


def _kept(parcel: Parcel, target: Place, crew: Crew, *, check: Check, overwrite: bool) -> set[str]:
    """The names of the files that are there already; what may not stay there is ended.

    Raises DestinationError where something is in the way that this run may not replace.
    """
    found = target.manifest_bytes()
    same = found is not None and found == parcel.manifest
    if found is not None and not same and not overwrite:
        raise DestinationError(str(target.location(target.manifest)), "another dataset is there", OVERWRITE)
    listed = target.sizes(file.name for file in parcel.files)
    alike = [file for file in parcel.files if listed.get(file.name) == file.bytes]
    if same and len(alike) == len(parcel.files) and check != "read":
        return {file.name for file in alike}
    holds = crew.map(lambda file: target.holds(file, check=check, stop=crew.stop), alike)
    kept = {file.name for file, held in zip(alike, holds, strict=True) if held}
    if found is None and not overwrite:
        ours = {file.name for file in parcel.files}
        others = set(listed) - kept - target.replaced()
        for name in sorted(others & ours if parcel.manifest is None else others):
            fact = "a file is in the way, which belongs to no manifest and is not of this dataset"
            raise DestinationError(str(target.location(name)), fact, OVERWRITE)
    if found is not None and not (same and len(kept) == len(parcel.files)):
        target.end()
    return kept


def demand_sizes(parcel: Parcel) -> None:
    """NotFoundError or DamagedError for a file of this machine that is missing, or has not the size it should have."""
    for file in parcel.files:
        place = parcel.source.location(file.name)
        try:
            size = os.stat(place.path).st_size
        except FileNotFoundError as exc:
            cure = "bring it back, or check the dataset with 'shardkit verify'"
            raise NotFoundError(str(place), "the manifest names this file, and it is missing", cure) from exc
        except OSError as exc:
            raise StorageError(str(place), exc.strerror or str(exc), "check the disk and its rights") from exc
        if size != file.bytes:
            fact = f"it has {size} bytes, and its manifest says {file.bytes}"
            raise DamagedError(str(place), fact, "check the dataset with 'shardkit verify'")


def shards_without_manifest(source: Place, shards: Sequence[Location], crew: Crew) -> Parcel:
    """Shards of others as a parcel; each is read once for its checksum."""

    def one(shard: Location) -> ObjectInfo:
        crc = crc_of(file_pieces(shard))
        return ObjectInfo(shard.name, os.stat(shard.path).st_size, crc)

    return Parcel(source, tuple(crew.map(one, shards)))
