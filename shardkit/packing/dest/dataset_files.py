"""The files of a dataset in a store (which may be a local folder): by name, with the manifest.

A dataset exists once its manifest does: shards are written first, then index files, the manifest last. Until there is a
manifest, `.NAME.incomplete` marks a dataset that is being written. To replace a dataset, files with other names are
written, its manifest is copied to `.NAME.replaced.json` (which records the files that belonged to it), the new manifest
replaces it, and then the old files are removed.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from threading import Event

import msgspec
from msgspec.structs import replace

from shardkit.checksums import crc32c
from shardkit.errors import (
    BusyError,
    DamagedError,
    DestinationError,
    ManifestError,
    NotFoundError,
    StorageError,
    UsageError,
)
from shardkit.location import Location
from shardkit.sample import fs_text
from shardkit.shards import names
from shardkit.shards.index_file import IndexFile, open_index
from shardkit.shards.manifest import IndexEntry, Manifest, ShardEntry, all_names, decode_manifest, file_names, is_ours
from shardkit.shards.parquet.sources import index_source, is_index
from shardkit.storage.files import translated
from shardkit.storage.patient import Patient, open_patient
from shardkit.storage.store import ObjectInfo, StorageOptions, read
from shardkit.storage.transfer import SENDINGS, TransferCheck, difference

OVERWRITE = "choose another destination, or replace it with `overwrite=True`"
MOVE = "move it elsewhere, or choose another destination"

HEAD_BYTES = 256
"""The beginning of a JSON file that shows whether it is a manifest: others may be large."""

log = logging.getLogger(__name__)

_PATTERN = set("*?{}")


class DatasetFiles(msgspec.Struct, frozen=True):
    """The files of a dataset in a patient store: their names start with `stem`, at the root of `store`."""

    store: Patient
    stem: str

    def __str__(self) -> str:
        return str(self.location(self.stem))

    @property
    def manifest(self) -> str:
        """The manifest's name."""
        return names.manifest_name(self.stem)

    @property
    def _aside(self) -> str:
        return names.aside_name(self.stem)

    @property
    def _marker(self) -> str:
        return names.marker_name(self.stem)

    def location(self, name: str) -> Location:
        """The location of a file of the dataset."""
        return self.store.root.child(name)

    def place(self, name: str) -> str:
        """The location of a file, as text for messages."""
        return fs_text(str(self.location(name)))

    def read(self, name: str, *, size: int | None = None) -> bytes:
        """A whole object, checked against its CRC-32C if the store knows it. It may be replaced meanwhile.

        Raises NotFoundError, DamagedError, StorageError.
        """
        for _ in range(SENDINGS):
            known = self.info(name) if size is None else ObjectInfo(name, size)
            try:
                data = bytes(read(self.store, name, 0, known.bytes))
            except StorageError:
                if size is not None or self.info(name) == known:
                    raise
                continue
            if known.crc32c in (None, f"{crc32c(data):08x}"):
                return data
        raise DamagedError(str(self.location(name)), "its bytes are not those that were written", "write it again")

    def write(self, name: str, data: bytes) -> None:
        """Write a whole object and read it back: for the small objects that everything depends on."""
        crc = f"{crc32c(data):08x}"
        for _ in range(SENDINGS):
            self.store.put(name, io.BytesIO(data), crc32c=crc)
            with contextlib.suppress(DamagedError):
                if self.read(name) == data:
                    return
        fact = "reading it back gives other bytes than were written"
        raise StorageError(
            str(self.location(name)), fact, "make sure that no other run writes there, and run the command again"
        )

    def replace(self, name: str, data: bytes, version: str | None) -> None:
        """Write an object as `write` does, but only if it still has this version (None: if there is none). A local file
        is replaced without that condition, since its folder is locked. BusyError if another run wrote it meanwhile."""
        place = self.location(name)
        if place.is_local:
            self.write(name, data)
            return
        crc = f"{crc32c(data):08x}"
        if self.store.put_if(name, data, version=version, crc32c=crc) is None:
            fact = "another run wrote it meanwhile"
            raise BusyError(str(place), fact, "make sure that no other run writes there, and run the command again")
        if self.read(name) != data:
            self.write(name, data)

    def remove(self, these: Iterable[str]) -> None:
        """Remove the objects that exist."""
        for name in these:
            self.store.delete(name)

    def manifest_bytes(self) -> bytes | None:
        """The manifest as stored; None if there is none."""
        try:
            return self.read(self.manifest)
        except NotFoundError:
            return None

    def named_by_others(self, among: Collection[str]) -> dict[str, str]:
        """Those of these files that other datasets in the folder name too, each with one of them: a merged dataset
        names the files of those that it was merged from. A manifest that can't be read may name all of them."""
        found: dict[str, str] = {}
        for name in self._manifests() if among else ():
            if name in among:  # the manifest of an older version of this dataset, say
                continue
            head = b"".join(map(bytes, self.store.pieces(name, 0, min(HEAD_BYTES, self.info(name).bytes))))
            if not is_ours(head):
                continue
            try:
                known = set(file_names(decode_manifest(self.read(name), place=self.place(name))))
            except ManifestError as exc:
                log.warning("%s: its files are not known (%s), so none is removed here", self.place(name), exc.fact)
                known = set(among)
            except NotFoundError:
                continue
            found.update(dict.fromkeys(known.intersection(among), name.removesuffix(".json")))
        return found

    def _manifests(self) -> list[str]:
        """The JSON files of the folder that may be manifests of other datasets."""
        root = self.store.root
        if root.is_local:
            there: Iterable[str] = self._listed("")
        elif (inside := self.store.folders()) is not None:
            there = [info.name for info in inside[1]]
        else:
            there = [info.name for info in self.store.list() if "/" not in info.name]
        return sorted(name for name in there if names.is_manifest_name(name) and name != self.manifest)

    def remove_unless_named(self, these: Collection[str]) -> None:
        """Remove the objects that exist, except those that other datasets in the folder name."""
        self.remove(sorted(set(these) - self.named_by_others(these).keys()))

    def require_unnamed(self, these: Collection[str]) -> None:
        """DestinationError if another dataset in the folder names one of these files."""
        for name, other in sorted(self.named_by_others(these).items()):
            fact = f"this file belongs to the dataset {other}"
            raise DestinationError(self.place(name), fact, "choose another destination")

    def read_manifest(self) -> Manifest | None:
        """The manifest, or None. DestinationError for a file with its name that can't be read as a manifest."""
        data = self.manifest_bytes()
        try:
            return None if data is None else decode_manifest(data, place=self.place(self.manifest))
        except ManifestError as exc:
            cure = OVERWRITE if data is None or is_ours(data) else MOVE
            raise DestinationError(exc.place, f"a file already exists here: {exc.fact}", cure) from exc

    def sizes(self, also: Iterable[str] = ()) -> dict[str, int]:
        """Name -> bytes of the files that a dataset with this name may have, except the manifest, sorted by name.

        also: names of further files to look for, such as shards named by other writers.
        """
        others, listed = set(also), self._beside()
        ours = {*names.files_of_stem(listed, self.stem), *(others & listed.keys())}
        unlisted = {name for name in others - listed.keys() if names.file_generation(name, self.stem) is None}
        found = {name: self._size(name, listed.get(name)) for name in sorted(ours | unlisted)}
        return {name: size for name, size in found.items() if size is not None}

    def _beside(self) -> dict[str, ObjectInfo | None]:
        # not every name with `stem`, since a tree may be called that; includes files of datasets called `stem-g2`
        return self._listed(f"{self.stem}-", f"{self.stem}.", f".{self.stem}-g")

    def beside(self) -> set[str]:
        """The names in the folder that begin like those of the dataset's files."""
        return set(self._beside())

    def _listed(self, *prefixes: str) -> dict[str, ObjectInfo | None]:
        """Name -> information about each file whose name has one of these prefixes; None for a local folder."""
        if not self.store.root.is_local:
            return {item.name: item for prefix in prefixes for item in self.store.list(prefix)}
        with translated(self.store.root.path):
            try:
                there = os.listdir(self.store.root.path)  # the folder only, not everything below it
            except (FileNotFoundError, NotADirectoryError):
                return {}
        return dict.fromkeys(name for name in there if name.startswith(prefixes))

    def _size(self, name: str, known: ObjectInfo | None) -> int | None:
        """The bytes of a file; None for a folder, or if the file is gone."""
        try:
            return (known or self.info(name)).bytes
        except NotFoundError:
            where = self.location(name)  # a dangling link belongs to somebody, although it has no bytes
            return 0 if where.is_local and os.path.islink(where.path) else None

    def missing(self, wanted: Mapping[str, int]) -> str | None:
        """The first of the files `wanted` (name -> bytes) that is missing or has another size."""
        there = self.sizes(wanted)
        return next((name for name, size in wanted.items() if there.get(name) != size), None)

    def open_index(self, entry: IndexEntry, shards: Sequence[ShardEntry]) -> IndexFile:
        """An index file. Raises NotFoundError, StorageError; ManifestError if it is not the one in the manifest."""
        where, place = self.location(entry.name), self.place(entry.name)
        if where.is_local:
            return open_index(where.path, entry, shards, place=place)
        data = self.read(entry.name, size=entry.bytes)
        return IndexFile(index_source(data, entry, place), shards, place=place)

    def is_index(self, name: str) -> bool:
        """Whether a Parquet file is an index written by shardkit, and not somebody's table."""
        where = self.location(name)
        return is_index(where.path if where.is_local else io.BytesIO(self.read(name)))

    def info(self, name: str) -> ObjectInfo:
        """What the store knows about an object. Raises NotFoundError, StorageError."""
        return self.store.info(name)

    def version(self, name: str) -> str | None:
        """The version of an object; None if there is none."""
        try:
            return self.info(name).version or ""
        except NotFoundError:
            return None

    def holds(self, wanted: ObjectInfo, *, check: TransferCheck, stop: Event) -> bool:
        """Whether the object `wanted` exists with its size and with the CRC-32C that was stored with it.

        If no CRC-32C was stored, or if `check` is "read", the object is read. With "none" it never is: without a stored
        CRC-32C the answer is False.
        """
        try:
            known = self.info(wanted.name)
            if check == "none":
                return known.bytes == wanted.bytes and known.crc32c == wanted.crc32c
            known = replace(known, crc32c=None) if check == "read" else known
            return difference(self.store, wanted, known=known, stop=stop) is None
        except NotFoundError:
            return False

    def replaced(self) -> set[str]:
        """The names of the files of the dataset that is being replaced, if any."""
        try:
            return set(
                all_names(decode_manifest(self.read(self._aside), place=str(self.location(self._aside))), self.stem)
            )
        except (NotFoundError, ManifestError):  # no manifest was put aside, or it does not list our files
            return set()

    def begin(self) -> None:
        """Before the first file is written: if there is no manifest, write the marker of an unfinished dataset."""
        if self.manifest_bytes() is None:
            self.write(self._marker, b"This dataset is not finished: its manifest is still to come.\n")

    def clear(self, *, without_manifest: bool = False) -> None:
        """Remove what is left of a run that was interrupted after it had written the manifest; or the marker of a run
        that ends without a manifest."""
        if without_manifest:
            self.remove([self._marker])
            return
        signs = names.signs(self.stem)
        left = self._listed(*signs).keys() & set(signs)
        data = self.manifest_bytes() if left else None
        if data is None:
            return
        try:
            ours = set(all_names(decode_manifest(data, place=str(self.location(self.manifest))), self.stem))
        except ManifestError:
            return
        if self._aside in left:
            self.remove_unless_named(self.replaced() - ours)
        self.remove(sorted(left))

    def next_generation(self, manifest: Manifest | None) -> int:
        """The generation of what replaces the dataset of `manifest` (None: a manifest that can't be read)."""
        there = set(self._beside())
        ours = names.files_of_stem(there, self.stem)
        known = ours if manifest is None else all_names(manifest, self.stem)
        current = names.generation_of(known, self.stem)
        later = [name for name in ours if (names.file_generation(name, self.stem) or 0) > current]
        taken = {names.file_generation(name, self.stem) for name in self.named_by_others(later)}
        number = names.next_generation(current, self.stem, there)
        while number in taken:
            number = names.next_generation(number, self.stem, there)
        return number

    def require_all(self, files: Mapping[str, int], cure: str) -> None:
        """StorageError unless all of these files (name -> bytes) are there."""
        missing = self.missing(files)
        if missing is not None:
            fact = f"it was written with {files[missing]} bytes but is now missing or has another size"
            raise StorageError(self.place(missing), fact, cure)

    def finish(self, manifest: bytes, files: Mapping[str, int], *, sweep: bool) -> None:
        """Commit: write the manifest, then remove what belonged only to the dataset that it replaces.

        files: name -> bytes of everything that belongs to the dataset. sweep: also remove other files that are named
        like its files. Raises StorageError if a file is missing.
        """
        listed = self.sizes(files)
        self.require_all(files, "make sure that no other run writes there, and run the command again")
        version = self.version(self.manifest)  # before its content: what is replaced is what was read
        before, theirs = self.manifest_bytes(), self.replaced()
        if before is not None and before != manifest:
            self.write(self._aside, before)
            theirs |= self.replaced()
        self.replace(self.manifest, manifest, version)
        ours = all_names(decode_manifest(manifest, place=self.place(self.manifest)), self.stem)
        self.remove_unless_named((theirs | set(listed if sweep else ())) - {*files, *ours})
        self.remove([self._aside, self._marker])


def continues(before: Manifest | None, manifest: Manifest) -> bool:
    """Whether a manifest is that of the dataset `before` with something added: all shards and index files stay, and its
    corrections."""
    if before is None or not manifest.appended or not keeps_versions(before, manifest):
        return False
    shards, index = manifest.shards[: len(before.shards)], manifest.index[: len(before.index)]
    return before.shards == shards and before.index == index


def keeps_versions(before: Manifest, manifest: Manifest) -> bool:
    """Whether all versions of `before` are among those of the manifest, if it has any."""
    theirs, mine = before.corrections, manifest.corrections
    if theirs is None:
        return mine is None
    written = [(each.overlay, each.fields) for each in theirs.log]
    return mine is not None and [(each.overlay, each.fields) for each in mine.log[: len(written)]] == written


def sizes_in(manifest: Manifest) -> dict[str, int]:
    """Name -> bytes of each shard and each index file of a dataset."""
    shards = {entry.name: entry.bytes for entry in manifest.shards}
    return shards | {entry.name: entry.bytes for entry in manifest.index}


def dataset_files_at(dest: Location, own: str, *, options: StorageOptions | None = None) -> DatasetFiles:
    """The files for a user's DEST: a prefix, or a folder (a bucket, an existing folder, or any name that ends with a
    slash), in which `own` is the prefix.

    Raises DestinationError for a name with which shards' names can't begin, and whatever the store raises.
    """
    if dest.scheme in ("http", "https"):
        raise UsageError(str(dest), "a web server is read-only", "write to its folder, or to a bucket")
    folder, stem = dest.parent, dest.name
    if not dest.is_local and "/" not in dest.path.rstrip("/"):  # a bucket, or a host
        folder, stem = Location(dest.scheme, dest.path.rstrip("/")), ""
    if stem and dest.is_local and os.path.isdir(dest.path):
        folder, stem = dest, ""
    if stem:
        require_stem(stem, dest)
        beside = open_patient(folder, options)
        if not _is_folder(beside, stem):
            return DatasetFiles(beside, stem)
        folder = dest
    require_stem(own, dest)
    return DatasetFiles(open_patient(folder, options), own)


def _is_folder(beside: Patient, name: str) -> bool:
    """Whether a bucket has objects below this name."""
    if beside.root.is_local:
        return False
    return next(iter(beside.list(f"{name}/")), None) is not None


def require_stem(stem: str, dest: Location) -> None:
    """DestinationError for a name with which shards' names in a bucket can't begin."""
    if stem in (".", "..") or "\\" in stem or not stem.isprintable() or _PATTERN & set(stem):
        fact = f"{stem!r} can't be the beginning of the shards' names"
        raise DestinationError(str(dest), fact, "give a prefix such as s3://bucket/train")
