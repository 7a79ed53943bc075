"""Where a dataset goes: what a user's DEST means, and what may be in the way there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shardkit.errors import DestinationError, ManifestError
from shardkit.packing.dest.dataset_files import MOVE, OVERWRITE, DatasetFiles
from shardkit.sample import fs_text
from shardkit.shards import names
from shardkit.shards.index_file import is_index
from shardkit.shards.manifest import Manifest, all_names, decode_manifest, is_ours
from shardkit.storage.files import storage_error


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a dataset goes: the file names start with `stem`, in `folder`.

    generation: of what is written. place: in a bucket; `folder` is then of this machine, and what is finished goes from
    there to the bucket.
    """

    folder: str
    stem: str
    place: DatasetFiles | None = None
    generation: int = 1

    @property
    def base(self) -> str:
        """What the names of the shards and index files begin with: the stem, and the generation from the second on."""
        return names.base_of(self.stem, self.generation)

    @property
    def work(self) -> str:
        """The folder that a job writes in until its commit."""
        return os.path.join(self.folder, names.work_name(self.stem))

    def path(self, ending: str) -> str:
        """The path of the file that is named after the dataset, with this ending."""
        return os.path.join(self.folder, self.stem + ending)

    @property
    def manifest(self) -> str:
        """The path of the manifest."""
        return os.path.join(self.folder, names.manifest_name(self.stem))

    @property
    def decided(self) -> str:
        """The path of the manifest in the work folder. When it is there, the commit has begun."""
        return os.path.join(self.work, names.manifest_name(self.stem))

    def files(self) -> list[str]:
        """The names of the files there that a dataset of this name may have, the manifest aside, sorted."""
        return names.files_of_stem(self.beside(), self.stem)

    def beside(self) -> list[str]:
        """The names of all that is in the folder."""
        try:
            return os.listdir(self.folder)
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
            cure = OVERWRITE if is_ours(data) else MOVE
            raise DestinationError(exc.place, f"in the way: {exc.fact}", cure) from exc


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


def check_free(destination: Destination, *, overwrite: bool) -> Destination:
    """The destination with the generation to write: the next one where a dataset is replaced, that of the dataset where
    it is not, and the first where none is there.

    Raises DestinationError where files of somebody else are in the way: a folder, a shard without a manifest, or, with
    `overwrite` too, a file of our names that is no manifest or index.
    """
    _demand_own_names(destination)
    there = destination.files()
    has_manifest = os.path.lexists(destination.manifest)
    for name in [*there, *([os.path.basename(destination.manifest)] if has_manifest else [])]:
        place = os.path.join(destination.folder, name)
        if os.path.isdir(place):
            raise DestinationError(fs_text(place), "a folder is in the way", "choose another destination")
    manifest = _own_manifest(destination)
    known = set() if manifest is None else set(all_names(manifest, destination.stem))
    for name in there:
        place = os.path.join(destination.folder, name)
        if (overwrite or not has_manifest) and name.endswith(".parquet") and name not in known and not is_index(place):
            raise DestinationError(fs_text(place), "a file is in the way, which is not an index of shardkit", MOVE)
        if not overwrite and not has_manifest:
            fact = "a file is in the way, which belongs to no manifest and was not written by this run"
            raise DestinationError(fs_text(place), fact, OVERWRITE)
    if not has_manifest:
        return replace(destination, generation=1)
    generation = names.generation_of(there if manifest is None else known, destination.stem)
    if overwrite:
        generation = names.next_generation(generation, destination.stem, destination.beside())
    return replace(destination, generation=generation)


def _own_manifest(destination: Destination) -> Manifest | None:
    """The manifest there; None where there is none that can be read. DestinationError for somebody else's file."""
    try:
        with open(destination.manifest, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise storage_error(destination.manifest, exc) from exc
    if not is_ours(data):
        fact = "a file is in the way, which is not a manifest of shardkit"
        raise DestinationError(fs_text(destination.manifest), fact, MOVE)
    try:
        return decode_manifest(data, place=fs_text(destination.manifest))
    except ManifestError:
        return None


def _demand_own_names(destination: Destination) -> None:
    """DestinationError where files of our names are those of a generation of another dataset."""
    other = names.without_generation(destination.stem)
    if other is None or os.path.lexists(destination.manifest):
        return
    whole = Destination(destination.folder, other[0])
    try:
        manifest = whole.read_manifest()
    except DestinationError:
        return
    if manifest is not None and names.generation_of(all_names(manifest, other[0]), other[0]) == other[1]:
        fact = f"the files of the dataset {other[0]} have names that begin so"
        raise DestinationError(fs_text(destination.path("")), fact, "choose another destination")


def files_of(manifest: Manifest) -> list[tuple[str, int]]:
    """(name, bytes) of each shard and each index file."""
    shards = [(entry.name, entry.bytes) for entry in manifest.shards]
    return shards + [(entry.name, entry.bytes) for entry in manifest.index]
