"""A dataset that is corrected: its manifest as it is now, its rows, and the lock of its folder."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from shardkit.errors import BusyError, NotFoundError, UsageError
from shardkit.location import Location
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.packing.parts.merge import destination_of_files
from shardkit.shards.corrections.overlay import Overlay, no_corrections
from shardkit.shards.corrections.read import read_overlay
from shardkit.shards.find.find import resolve
from shardkit.shards.find.found import Found
from shardkit.shards.find.shards import SourceLike
from shardkit.shards.manifest import Manifest, decode_manifest
from shardkit.shards.objects import Objects
from shardkit.storage.access import Remote
from shardkit.storage.patient import open_patient
from shardkit.storage.store import StorageOptions
from shardkit.threads import cached_property

WAIT_SECONDS = 20.0
"""How long a correction waits for another one to end."""


@dataclass(frozen=True)
class Base:
    """A version of a dataset to correct. data: its manifest as stored. tag: the version that its store has for it."""

    place: Location
    manifest: Manifest
    data: bytes
    tag: str | None
    remote: Remote

    @cached_property
    def overlay(self) -> Overlay:
        """Its corrections, with keys."""
        found = read_overlay(Objects(self.remote), self.place, self.manifest, keys=True)
        return no_corrections() if found is None else found


@dataclass(frozen=True, slots=True)
class CorrectedPlace:
    """Where a dataset is that is corrected."""

    files: DatasetFiles
    options: StorageOptions | None

    @property
    def location(self) -> Location:
        """Its manifest."""
        return self.files.location(self.files.manifest)

    def current(self) -> Base:
        """The current version. NotFoundError, ManifestError, StorageError."""
        tag = self.files.version(self.files.manifest)  # before its content: what is replaced is what was read
        data = self.files.read(self.files.manifest)
        return Base(self.location, decode_manifest(data, place=str(self.location)), data, tag, Remote(self.options))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs on this machine from writing here. In a store, each write has its condition instead.

        Raises BusyError if another run is still writing after WAIT_SECONDS; DestinationError for a read-only folder.
        """
        if not self.files.store.root.is_local:
            self.files.clear()
            yield
            return
        destination, begun = destination_of_files(self.files, None, self.options), time.monotonic()
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(destination.locked())
                    break
                except BusyError:
                    if time.monotonic() - begun > WAIT_SECONDS:
                        raise
                    time.sleep(0.02)
            self.files.clear()  # what an interrupted purge had yet to remove
            yield


def find_dataset(source: SourceLike, options: StorageOptions | None) -> Found:
    """The dataset that `source` names. UsageError or NotFoundError for anything but a whole one with a manifest."""
    found = resolve(source, Remote(options))
    found.require_dataset("pack it with 'shardkit pack'")
    if found.manifest is None or found.location is None:
        raise NotFoundError(str(found.shards[0]), "these shards have no manifest", "make one with 'shardkit index'")
    if found.numbers is not None:
        raise UsageError(str(found.location), "these are some shards of a dataset", "name the dataset")
    return found


def place_of(source: SourceLike, options: StorageOptions | None) -> CorrectedPlace:
    """The place of a dataset to correct. Errors as for `find_dataset`; UsageError for an older version."""
    found = find_dataset(source, options)
    assert found.location is not None and found.manifest is not None
    place = found.location
    files = DatasetFiles(open_patient(place.parent, options), place.name.removesuffix(".json"))
    if found.older or _is_kept(files):
        fact = "this is an older version, and only the current one can be corrected"
        raise UsageError(str(place), fact, "go back to it with 'shardkit revert'")
    return CorrectedPlace(files, options)


def _is_kept(files: DatasetFiles) -> bool:
    """Whether a manifest is that of an older version of another one."""
    found = re.fullmatch(r"(.+?)(?:-g[1-9][0-9]*)?\.v[1-9][0-9]*", files.stem)
    if found is None:
        return False
    data = DatasetFiles(files.store, found[1]).manifest_bytes()
    if data is None:
        return False
    corrections = decode_manifest(data, place=files.place(f"{found[1]}.json")).corrections
    return corrections is not None and any(each.name == files.manifest for each in corrections.files())
