"""One dataset of several that lie in one folder: a manifest that names their shards and index files.

Nothing is copied or rewritten, and the datasets themselves stay. A file that several manifests name is removed with the
last of them (`DatasetFiles.named_by_others`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shardkit.errors import DatasetError, DestinationError, NotFoundError, UsageError, printable
from shardkit.location import Location
from shardkit.packing.dest.dataset_files import OVERWRITE, DatasetFiles, require_stem, sizes_in
from shardkit.packing.dest.in_the_way import check_free
from shardkit.packing.parts.merge import destination_of_files
from shardkit.shards.columns.types import joined_types
from shardkit.shards.corrections.block import OPTION as CORRECTIONS
from shardkit.shards.find.find import resolve
from shardkit.shards.index_file import index_entries
from shardkit.shards.manifest import (
    JPEGS,
    ClassEntry,
    Manifest,
    column_options,
    content_options,
    encode_manifest,
    file_names,
    jpeg_options,
    require_as_packed,
    require_beside,
)
from shardkit.shards.names import is_manifest_name, manifest_name, skipped_beside
from shardkit.storage.access import Remote
from shardkit.storage.patient import open_patient
from shardkit.storage.store import StorageOptions
from shardkit.tools.corrections.place import Base
from shardkit.tools.merge.corrected import as_packed, corrected_merge, is_corrected

log = logging.getLogger(__name__)

SHOWN_KEYS = 5


@dataclass(frozen=True, slots=True)
class Member:
    """A dataset to merge."""

    files: DatasetFiles
    manifest: Manifest

    @property
    def place(self) -> str:
        """Its manifest, as text."""
        return self.files.place(self.files.manifest)


def merge_datasets(
    sources: Sequence[str], dest: Location, *, overwrite: bool, options: StorageOptions | None
) -> Manifest:
    """Write the manifest of the merged dataset. Raises as `merge` does."""
    members = [_member(source, options) for source in sources]
    folder, stem = _place_of(members, dest)
    files = DatasetFiles(open_patient(folder, options), stem)
    destination = destination_of_files(files, None, options)
    with ExitStack() as stack:
        for member in members:  # none is replaced meanwhile: its files would be removed that the new manifest names
            stack.enter_context(destination_of_files(member.files, None, options).locked())
        stack.enter_context(destination.locked())
        members = [_member(source, options) for source in sources]
        manifest, further = merged_manifest(members), dict[str, bytes]()
        _require_whole(members)
        _require_distinct_keys(members)
        base = check_free(destination, overwrite=overwrite).base
        if any(is_corrected(member.manifest) for member in members):
            first = merged_manifest([replace(each, manifest=as_packed(each.manifest, each.files)) for each in members])
            bases = [_base(member, options) for member in members]
            manifest, further = corrected_merge(bases, first, manifest, base)
        before = files.manifest_bytes()
        data = encode_manifest(manifest)
        if before == data:
            log.info("%s: already merged; nothing was written", destination)
            return manifest
        if before is not None and not overwrite:
            raise DestinationError(str(destination), "another dataset is there", OVERWRITE)
        sizes = sizes_in(manifest)
        for name, written in further.items():
            files.write(name, written)
            sizes[name] = len(written)
        if manifest.skipped:
            name, listed = skipped_beside(file_names(manifest), stem), _skipped(members)
            files.write(name, listed)
            sizes[name] = len(listed)
        files.finish(data, sizes, sweep=overwrite)
    return manifest


def _member(source: str, options: StorageOptions | None) -> Member:
    found = resolve(source, Remote(options))
    found.require_dataset("pack it with 'shardkit pack'")
    if found.manifest is None or found.location is None:
        raise UsageError(source, "these shards have no manifest", "make one with 'shardkit index'")
    if found.numbers is not None:
        raise UsageError(source, "these are only some of the shards of a dataset", "give the dataset's prefix")
    require_beside(found.manifest, str(found.location))
    if found.manifest.labels == "multi":
        why = "corrected labels of several classes are counted in the shards only"
        require_as_packed(found.manifest, str(found.location), why)
    stem = found.location.name.removesuffix(".json")
    return Member(DatasetFiles(open_patient(found.location.parent, options), stem), found.manifest)


def _base(member: Member, options: StorageOptions | None) -> Base:
    place = member.files.location(member.files.manifest)
    return Base(place, member.manifest, b"", None, Remote(options))


def _place_of(members: Sequence[Member], dest: Location) -> tuple[Location, str]:
    """The folder of all, and the name of the merged dataset. UsageError if they are not in one folder."""
    roots = {_whole(member.files.store.root): member for member in members}
    for member in members:
        if _whole(member.files.store.root) != _whole(dest.parent) or not dest.name:
            fact = f"{member.place} is not in the folder of {dest}"
            cure = "a manifest names files of its own folder: copy all datasets into one with 'shardkit upload'"
            raise UsageError("dest", fact, cure)
    if dest.name.endswith(".json") or not is_manifest_name(manifest_name(dest.name)):
        raise UsageError("dest", f"{dest.name!r} can't be the name of a dataset", "give a prefix, such as shards/all")
    require_stem(dest.name, dest)
    stems = [member.files.stem for member in members]
    double = next((stem for stem in stems if stems.count(stem) > 1), None)
    if double is not None:
        raise UsageError("source", f"{double} is given twice", "name each dataset once")
    if dest.name in stems:
        raise UsageError("dest", f"{dest} is one of the datasets to merge", "choose another name")
    return next(iter(roots.values())).files.store.root, dest.name


def _whole(place: Location) -> str:
    """A folder as text, the same for different spellings of a path."""
    return os.path.realpath(place.path or ".") if place.is_local else str(place)


def merged_manifest(members: Sequence[Member]) -> Manifest:
    """The manifest of several datasets, in their order. UsageError if they do not belong together."""
    manifests = [member.manifest for member in members]
    _require_alike(members, "shard_format", [manifest.shard_format for manifest in manifests], "shards of the format")
    kinds = [manifest.labels for manifest in manifests]
    listed = ["class" if kind == "listed" else kind for kind in kinds]
    _require_alike(members, "labels", listed, "labels of the kind")
    shards = [entry for manifest in manifests for entry in manifest.shards]
    names = [entry.name for entry in shards]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        cure = "name a merged dataset without those that it was merged from"
        raise UsageError("source", f"{double} belongs to several of the datasets", cure)
    unpacked = [size for manifest in manifests for size in manifest.unpacked_bytes]
    fields = sorted({name for manifest in manifests for name in manifest.fields})
    chosen = any("fields" in manifest.options for manifest in manifests)
    content = content_options(
        labels="listed" if "listed" in kinds else kinds[0],
        fields=fields if chosen else None,
        unpacked_bytes=unpacked,
        seek_points=all(manifest.seek_points for manifest in manifests),
        quality_columns=all(manifest.quality_columns for manifest in manifests),
        merged=[
            {"name": member.files.stem, "plan": member.manifest.plan, "shards": len(member.manifest.shards),
             "samples": member.manifest.samples}
            for member in members
        ],
    )  # fmt: skip
    counted = [manifest.jpegs for manifest in manifests if manifest.jpegs is not None]
    if len(counted) == len(manifests):
        content |= jpeg_options(sum(jpegs for jpegs, _ in counted), sum(progressive for _, progressive in counted))
    plans = " ".join(f"{manifest.plan}" for manifest in manifests)
    return Manifest(
        shard_format=manifests[0].shard_format,
        samples=sum(manifest.samples for manifest in manifests),
        bytes=sum(manifest.bytes for manifest in manifests),
        classes=_classes(members),
        fields=tuple(fields),
        shards=tuple(shards),
        index=tuple(entry for manifest in manifests for entry in manifest.index),
        skipped=sum(manifest.skipped for manifest in manifests),
        options=_common(manifests) | content | column_options(_columns(manifests)),
        plan=hashlib.blake2b(plans.encode(), digest_size=16).hexdigest()
        if all(each.plan for each in manifests)
        else "",
    )


def _require_alike(members: Sequence[Member], name: str, values: Sequence[str], what: str) -> None:
    for member, value in zip(members, values, strict=True):
        if value != values[0]:
            fact = f"{member.place} has {what} {value!r}, and {members[0].place} {values[0]!r}"
            cure = "write one of them again with 'shardkit convert'" if name == "shard_format" else "merge others"
            raise UsageError("source", fact, cure)


def _classes(members: Sequence[Member]) -> tuple[ClassEntry, ...]:
    """The classes of all. UsageError if a label means different classes, or a class has different labels.

    Labels are stored in the shards, so maps agree if one is the beginning of the other.
    """
    longest = max(members, key=lambda member: len(member.manifest.classes))
    names = longest.manifest.class_names
    for member in members:
        for label, name in enumerate(member.manifest.class_names):
            if names[label] != name:
                fact = (
                    f"label {label} is {name!r} in {member.place}, and {names[label]!r} in {longest.place}: "
                    "labels are stored in the shards"
                )
                cure = f"pack one of them again with `classes_from={printable(longest.place)!r}`"
                raise UsageError("source", fact, cure)
    counts = np.zeros(len(names), np.int64)
    for member in members:
        counts[: len(member.manifest.classes)] += np.array([entry.count for entry in member.manifest.classes], np.int64)
    return tuple(map(ClassEntry, names, counts.tolist()))


def _columns(manifests: Sequence[Manifest]) -> dict[str, str]:
    """The further columns of all. UsageError for one whose types differ."""
    try:
        return joined_types([manifest.columns for manifest in manifests])
    except ValueError as exc:
        cure = "pack one of them again with values of the same type"
        raise UsageError("source", f"their columns do not fit: {exc}", cure) from exc


OF_CONTENT = (
    "labels", "fields", "unpacked_bytes", "seek_points", "quality_columns", "columns", "appended", "merged", JPEGS,
    CORRECTIONS,
)  # fmt: skip


def _common(manifests: Sequence[Manifest]) -> dict[str, Any]:
    """The options that all datasets were packed with."""
    first, *others = (manifest.options for manifest in manifests)
    missing = object()
    return {
        name: value
        for name, value in first.items()
        if name not in OF_CONTENT and all(other.get(name, missing) == value for other in others)
    }


def _require_whole(members: Sequence[Member]) -> None:
    """NotFoundError if a file is missing or has another size; UsageError for a dataset without an index."""
    for member in members:
        if not member.manifest.index and member.manifest.shards:
            raise UsageError("source", f"{member.place} has no index", "make one with 'shardkit index --overwrite'")
        missing = member.files.missing(sizes_in(member.manifest))
        if missing is not None:
            fact = f"the manifest {member.place} names it, but it is missing or has another size"
            raise NotFoundError(member.files.place(missing), fact, "check the dataset with 'shardkit verify'")


def _require_distinct_keys(members: Sequence[Member]) -> None:
    """DatasetError for keys that occur in several datasets. Takes 16 bytes of memory for each sample."""
    hashes = [np.concatenate([np.zeros(0, np.int64), *_hashes(member)]) for member in members]
    merged = np.sort(np.concatenate(hashes))
    suspects = set(merged[1:][merged[1:] == merged[:-1]].tolist())
    if not suspects:
        return
    owner: dict[str, Member] = {}
    double: dict[str, tuple[Member, Member]] = {}
    for member in members:
        for keys in _keys(member):
            for key in (key for key in keys if hash(key) in suspects):
                if (first := owner.setdefault(key, member)) is not member:
                    double.setdefault(key, (first, member))
    if double:
        key, (first, second) = next(iter(sorted(double.items(), key=lambda item: item[0])))
        shown = ", ".join(map(printable, sorted(double)[:SHOWN_KEYS])) + (" …" if len(double) > SHOWN_KEYS else "")
        fact = f"{len(double)} of its keys are also in other datasets ({shown}); {printable(key)} is in {first.place}"
        cure = "keys must be unique: pack one of them again from a folder above, so that its keys differ"
        raise DatasetError(second.place, fact, cure)


def _hashes(member: Member) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
    for keys in _keys(member):
        yield np.fromiter(map(hash, keys), np.int64, len(keys))


def _keys(member: Member) -> Iterator[list[str]]:
    """The keys of each shard."""
    for entry, shards in index_entries(member.manifest):
        for columns in member.files.open_index(entry, shards).groups(["key"]):
            yield columns["key"].to_pylist()


def _skipped(members: Sequence[Member]) -> bytes:
    """The lists of skipped files, as one."""
    found: list[Mapping[str, str]] = []
    for member in members:
        if member.manifest.skipped:
            name = skipped_beside(file_names(member.manifest), member.files.stem)
            try:
                found += json.loads(member.files.read(name))
            except (NotFoundError, ValueError):  # informational only: the samples do not depend on it
                log.warning("%s: the list of skipped files is missing or damaged", member.files.place(name))
    return json.dumps(found, ensure_ascii=False, indent=1).encode() + b"\n"
