"""Where a dataset goes: what a user's DEST means, and what may be in the way there."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from shardkit.errors import DestinationError, ManifestError
from shardkit.manifest import Manifest, decode_manifest
from shardkit.packing.place import Place
from shardkit.sample import fs_text
from shardkit.storage.local import storage_error

_OVERWRITE = "choose another destination, or replace it with --overwrite"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a dataset goes: the file names start with `stem`, in `folder`.

    place: in a bucket; `folder` is then of this machine, and what is finished goes from there to the bucket.
    """

    folder: str
    stem: str
    place: Place | None = None

    @property
    def work(self) -> str:
        """The folder that a job writes in until its commit."""
        return os.path.join(self.folder, f".{self.stem}.packing")

    def path(self, ending: str) -> str:
        """The path of the file that is named after the dataset, with this ending."""
        return os.path.join(self.folder, self.stem + ending)

    @property
    def manifest(self) -> str:
        """The path of the manifest."""
        return self.path(".json")

    @property
    def decided(self) -> str:
        """The path of the manifest in the work folder. When it is there, the commit has begun."""
        return os.path.join(self.work, self.stem + ".json")

    def files(self) -> list[str]:
        """The names of the files there that a dataset of this name may have, the manifest aside, sorted."""
        return self._matching(r"-\d{6}\.(tar|tfrecord)|(\.\d{5})?\.parquet|\.skipped\.json")

    def shards(self) -> list[str]:
        """The names of the files there that are named as shards of this dataset are, sorted."""
        return self._matching(r"-\d{6}\.(tar|tfrecord)")

    def _matching(self, ending: str) -> list[str]:
        ours = re.compile(f"{re.escape(self.stem)}({ending})")
        try:
            return sorted(name for name in os.listdir(self.folder) if ours.fullmatch(name))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            raise storage_error(self.folder, exc) from exc

    def read_manifest(self) -> Manifest | None:
        """The manifest that is there, or None. DestinationError for a file of its name that is none, or a later one."""
        if self.place is not None:
            return self.place.read_manifest()
        try:
            with open(self.manifest, "rb") as file:
                data = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise storage_error(self.manifest, exc) from exc
        try:
            return decode_manifest(data, place=fs_text(self.manifest))
        except ManifestError as exc:
            raise DestinationError(exc.place, f"in the way: {exc.fact}", _OVERWRITE) from exc


def destination_of(dest: str, source: str) -> Destination:
    """The destination that a user's DEST means: a prefix, or a folder in which the source's own name is the prefix.

    Raises DestinationError where DEST is a file, inside the source, or has a name that a manifest can't hold.
    """
    path = os.path.abspath(dest)
    if os.path.isdir(path) or dest.endswith(("/", os.sep)):
        path = os.path.join(path, os.path.basename(os.path.abspath(source)))
    elif os.path.lexists(path):
        fact = "the destination is a file, and the shards' names start with it"
        raise DestinationError(fs_text(dest), fact, "give a prefix such as shards/train")
    return _checked(Destination(*os.path.split(path)), dest, source)


def split_destinations(dest: str, source: str, splits: Sequence[str]) -> dict[str, Destination]:
    """The destination of each split: in the folder DEST, named after the split. Raises as `destination_of`."""
    path = os.path.abspath(dest)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise DestinationError(fs_text(dest), "the destination is a file", "give a folder for the splits")
    return {split: _checked(Destination(path, split), dest, source) for split in splits}


def _checked(destination: Destination, dest: str, source: str) -> Destination:
    root = os.path.realpath(source)
    if os.path.commonpath([os.path.realpath(destination.manifest), root]) == root:
        fact = f"the destination is inside the source {fs_text(source)}"
        raise DestinationError(fs_text(dest), fact, "choose a place outside it")
    stem = destination.stem
    if not stem or "\\" in stem or any("\udc80" <= c <= "\udcff" for c in stem):
        fact = f"{fs_text(stem)!r} can't be the beginning of the shards' names: they must be UTF-8, without a backslash"
        raise DestinationError(fs_text(dest), fact, "choose another name")
    return destination


def check_free(destination: Destination, *, overwrite: bool) -> None:
    """Raises DestinationError where files of somebody else are in the way: a folder, or a shard without a manifest."""
    names = destination.files()
    has_manifest = os.path.lexists(destination.manifest)
    for name in [*names, *([os.path.basename(destination.manifest)] if has_manifest else [])]:
        place = os.path.join(destination.folder, name)
        if os.path.isdir(place):
            raise DestinationError(fs_text(place), "a folder is in the way", "choose another destination")
        if not overwrite and not has_manifest:
            fact = "a file is in the way, which belongs to no manifest and was not written by this run"
            raise DestinationError(fs_text(place), fact, _OVERWRITE)


def files_of(manifest: Manifest) -> list[tuple[str, int]]:
    """(name, bytes) of each shard and each index file."""
    shards = [(entry.name, entry.bytes) for entry in manifest.shards]
    return shards + [(entry.name, entry.bytes) for entry in manifest.index]
