"""Open a dataset for checking: whatever exists is read, and problems are recorded as findings, not raised."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit.checksums import crc32c, crc32c_of_file
from shardkit.errors import DatasetError, ManifestError, NotFoundError, StorageError, reason_of
from shardkit.formats.format import FORMATS
from shardkit.location import Location, locate
from shardkit.shards.columns.types import Types
from shardkit.shards.corrections.block import FieldsEntry, FileEntry
from shardkit.shards.corrections.fields import AppliedFields
from shardkit.shards.corrections.overlay import Overlay, no_corrections
from shardkit.shards.corrections.read import AddedFields, read_overlay
from shardkit.shards.find.find import resolve
from shardkit.shards.find.shards import SourceLike, find_shards, shards_of_stem
from shardkit.shards.findings import Finding, finding, found_error
from shardkit.shards.index import INTEGERS
from shardkit.shards.index_file import IndexFile as Rows
from shardkit.shards.manifest import IndexEntry, Manifest, ShardEntry
from shardkit.shards.names import base_of, generation_of, index_name, stem_of_shard
from shardkit.shards.objects import Objects
from shardkit.shards.parquet.sources import groups_of
from shardkit.storage.access import Remote
from shardkit.storage.files import translated

if TYPE_CHECKING:
    import pyarrow as pa

OPEN_BYTES = 96 << 20
"""The memory of the index files that are open."""

COLUMNS = ("key", "path", *INTEGERS)


class IndexRows(msgspec.Struct, frozen=True):
    """The index rows of one shard: keys, paths (str), and the number columns of INTEGERS, null as -1."""

    keys: list[str]
    paths: list[str]
    numbers: dict[str, NDArray[Any]]


class ShardPlace(msgspec.Struct):
    """A shard: its location and, if there is a manifest, its entry there and its index (file, row group)."""

    location: Location
    entry: ShardEntry | None = None
    index: tuple[IndexFile, int] | None = None
    corrections: Overlay | None = None
    """The corrections of its samples, if there are any."""

    def rows(self) -> IndexRows | None:
        """Its index rows as packed; None if there are none, or if they can't be read, which is a finding of the index
        file."""
        return None if self.index is None else self.index[0].rows(self.index[1])

    def further(self) -> pa.Table | None:
        """The further columns of its index rows by NAME; None if there are none, or if they can't be read."""
        return None if self.index is None else self.index[0].further(self.index[1])


class OpenFiles:
    """The index files that are open, up to OPEN_BYTES of memory, at least one. Thread-safe."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._rows: OrderedDict[IndexFile, Rows | None] = OrderedDict()

    def rows(self, index: IndexFile, open_it: Callable[[], Rows | None]) -> Rows | None:
        """The rows of an index file, opened again if necessary; None if that fails."""
        with self._lock:
            found = self._rows.pop(index) if index in self._rows else open_it()
            self._rows[index] = found
            while len(self._rows) > 1 and sum(rows.memory for rows in self._rows.values() if rows) > OPEN_BYTES:
                self._rows.popitem(last=False)
            return found


class IndexFile:
    """An index file of a dataset, checked when opened. Its rows can be read from any thread."""

    def __init__(
        self,
        place: Location,
        entry: IndexEntry | None,
        objects: Objects | None = None,
        files: OpenFiles | None = None,
        fields: AppliedFields | None = None,
    ) -> None:
        """Checks the file; `findings` then holds its problems. files: where it stays open. fields: added ones."""
        self.place, self.entry, self.findings = place, entry, list[Finding]()
        self._objects, self._files, self._fields = objects or Objects(), files or OpenFiles(), fields
        self._sum = -1
        self.shards: list[str] = []
        self._files.rows(self, self._open)

    def _open(self) -> Rows | None:
        """The rows. None if the file can't be read, with a finding."""
        try:
            source, size, crc = self._source()
        except NotFoundError:
            self.findings.append(finding("index-missing", str(self.place), "the index is missing"))
            return None
        except StorageError as exc:
            self.findings.append(finding("index-missing", str(self.place), f"the index can't be read ({exc.fact})"))
            return None
        entry, first = self.entry, self._sum < 0
        if self._sum not in (-1, crc):
            self.findings.append(finding("index-crc", str(self.place), "the index was changed while it was checked"))
            return None
        self._sum = crc
        if first and entry is not None and (size != entry.bytes or f"{crc:08x}" != entry.crc32c):
            fact = "the index is not the one that its manifest names: its size or CRC-32C differs"
            self.findings.append(finding("index-crc", str(self.place), fact))
        try:
            entries = groups_of(source, COLUMNS)
            self.shards = [each.name for each in entries]
            return Rows(source, entries, place=str(self.place), fields=self._fields)
        except DatasetError as exc:
            self.findings.append(finding("index-damaged", str(self.place), exc.fact))
        except Exception as exc:  # pyarrow raises nearly anything on damaged data
            self._unreadable(exc)
        return None

    def _source(self) -> tuple[Any, int, int]:
        """(the file for pyarrow, its bytes, its CRC-32C). A file on a disk is not read into memory."""
        import pyarrow as pa

        if not self.place.is_local:
            data = self._objects.read(self.place)
            return pa.BufferReader(data), len(data), crc32c(data)
        size = self._objects.info(self.place).bytes
        with translated(self.place.path), open(self.place.path, "rb", buffering=0) as file:
            crc = crc32c_of_file(file, size)
            if crc is None:
                raise StorageError(str(self.place), "the file became shorter while it was read", "check it again")
            return pa.OSFile(self.place.path), size, crc

    def _unreadable(self, exc: Exception) -> None:
        self.findings.append(finding("index-damaged", str(self.place), f"the index can't be read ({reason_of(exc)})"))

    @property
    def sound(self) -> bool:
        """Whether it is the one that the manifest names, and is readable."""
        return not self.findings

    def rows(self, group: int) -> IndexRows | None:
        """The rows of a shard. None if they can't be read."""
        if group >= len(self.shards):
            return None
        opened = self._files.rows(self, self._open)
        if opened is None:
            return None
        try:
            columns = opened.columns(group, COLUMNS)
        except DatasetError as exc:
            self.findings.append(finding("index-damaged", str(self.place), exc.fact))
            return None
        keys, paths = columns.pop("key").to_pylist(), columns.pop("path").to_pylist()
        return IndexRows(keys, paths, {name: np.asarray(columns[name]) for name in INTEGERS})

    def further(self, group: int) -> pa.Table | None:
        """The further columns of a shard by NAME. None if there are none, or they can't be read: then a finding."""
        opened = self._files.rows(self, self._open) if group < len(self.shards) else None
        try:
            return None if opened is None else opened.further(group)
        except DatasetError as exc:
            self.findings.append(finding("index-damaged", str(self.place), exc.fact))
            return None

    @property
    def further_types(self) -> Types:
        """Its further columns; none if it can't be read."""
        opened = self._files.rows(self, self._open)
        return {} if opened is None else opened.further_types


class Opened(msgspec.Struct):
    """An opened source. `place`: the manifest, or the first shard. `findings`: the problems found while opening."""

    place: Location
    shards: list[ShardPlace]
    manifest: Manifest | None = None
    index: list[IndexFile] = []
    findings: list[Finding] = []
    stem: str = ""
    """The name of the dataset of the manifest."""
    whole: bool = True
    """False if the source names only some of the manifest's shards."""
    objects: Objects = msgspec.field(default_factory=Objects)
    entries: list[tuple[Location, IndexEntry | FieldsEntry | FileEntry]] = []
    """Index files and added fields that were not read, since only the store's information about them is needed, and
    files of other versions."""

    @property
    def format(self) -> str | None:
        """The format of the shards, if the manifest names a known one."""
        known = self.manifest is not None and self.manifest.shard_format in FORMATS
        return self.manifest.shard_format if self.manifest is not None and known else None


def open_dataset(source: SourceLike, remote: Remote | None = None, *, read: bool = True) -> Opened:
    """The dataset of a source. A damaged manifest is a finding; its shards are then opened as without a manifest.

    remote: how to read stores; without it, a URL is an error. read: whether to read the index of a remote dataset.
    Raises NotFoundError, UsageError if nothing can be checked, StorageError.
    """
    objects = Objects(remote)
    try:
        found = resolve(source, remote)
    except ManifestError as exc:
        return _without_manifest(exc, objects)
    except UnicodeDecodeError as exc:  # of the manifest, whose text is UTF-8
        shards = find_shards(source)
        place = shards[0].sibling(stem_of_shard(shards[0].name) + ".json")
        return _without_manifest(ManifestError(str(place), f"the manifest is not UTF-8 ({exc})"), objects)
    found.require_dataset("pack it with 'shardkit pack'")
    if found.manifest is None or found.location is None:
        return Opened(found.shards[0], [ShardPlace(shard) for shard in found.shards], objects=objects)
    opened = _with_manifest(found.manifest, found.location, found.numbers, objects, read or found.location.is_local)
    opened.stem = found.stem
    return opened


def _without_manifest(error: ManifestError, objects: Objects) -> Opened:
    """The shards beside a damaged manifest, with the index of the same name, if there is one."""
    place = locate(error.place)
    beside = shards_of_stem(place, _stem(place), objects)
    opened = Opened(place, [ShardPlace(shard) for shard in beside], objects=objects)
    opened.findings.append(found_error("manifest", error))
    stem = _stem(place)
    index = place.sibling(index_name(base_of(stem, generation_of((shard.name for shard in beside), stem))))
    if index.name in objects.names(index.parent, index.name):
        _adopt(opened, IndexFile(index, None, objects))
    return opened


def _with_manifest(
    manifest: Manifest, place: Location, numbers: Sequence[int] | None, objects: Objects, read: bool
) -> Opened:
    beside = manifest.shards_beside(place)
    shards = [ShardPlace(beside.sibling(entry.name), entry) for entry in manifest.shards]
    opened = Opened(place, shards, manifest, whole=numbers is None, objects=objects)
    if manifest.shard_format not in FORMATS:
        fact = f"shards of the unknown format {manifest.shard_format!r}"
        opened.findings.append(finding("manifest", str(place), fact))
    _correct(opened)
    added = _added_fields(opened, read)
    first, files = 0, OpenFiles()
    for entry in manifest.index:
        if not read:
            opened.entries.append((place.sibling(entry.name), entry))
            continue
        index = IndexFile(place.sibling(entry.name), entry, objects, files, added.applied(first))
        opened.index.append(index)
        for group, shard in enumerate(shards[first : first + entry.shards]):
            shard.index = (index, group)
        first += entry.shards
    if numbers is not None:
        opened.shards = [shards[number] for number in numbers]
    return opened


def _correct(opened: Opened) -> None:
    """Tell each shard of its corrections. A file of the versions that can't be read is a finding."""
    manifest = opened.manifest
    corrections = None if manifest is None else manifest.corrections
    if manifest is None or corrections is None:
        return
    try:
        overlay = read_overlay(opened.objects, opened.place, manifest)
    except NotFoundError as exc:
        opened.findings.append(found_error("overlay-missing", exc))
    except (ManifestError, StorageError) as exc:
        opened.findings.append(found_error("overlay-damaged", exc))
    else:
        overlay = no_corrections() if overlay is None else overlay
        for number in np.unique(overlay.shards).tolist():
            opened.shards[number].corrections = overlay.pick(overlay.at(number))
    read = {*((corrections.overlay.name,) if corrections.overlay is not None else ()),
            *(entry.name for entry in corrections.fields)}  # fmt: skip
    opened.entries += [(opened.place.sibling(each.name), each) for each in corrections.files() if each.name not in read]


def _added_fields(opened: Opened, read: bool) -> AddedFields:
    """The added fields. A file of theirs that can't be read is a finding."""
    assert opened.manifest is not None
    added = AddedFields(opened.objects, opened.place, opened.manifest, again=True)
    if not read:
        opened.entries += [(opened.place.sibling(entry.name), entry) for entry in added.entries]
        return added
    for number in range(len(added.entries)):
        try:
            file = added.file(number)
            for group in range(file.groups):
                file.group(group, ["key", *file.names])
        except NotFoundError as exc:
            opened.findings.append(found_error("fields-missing", exc))
        except (ManifestError, StorageError) as exc:
            opened.findings.append(found_error("fields-damaged", exc))
    return added


def _adopt(opened: Opened, index: IndexFile) -> None:
    """Use an index without a manifest: its pages have their own checksums."""
    groups = {name: group for group, name in enumerate(index.shards)}
    opened.index.append(index)
    for shard in opened.shards:
        if shard.location.name in groups:
            shard.index = (index, groups[shard.location.name])


def _stem(manifest: Location) -> str:
    return manifest.name.removesuffix(".json")
