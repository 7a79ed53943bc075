"""The manifest: the small JSON file that lists a dataset's shards and what is in them.

    {"format": "shardkit", "version": 1, "shard_format": "tar", "samples": 3, "bytes": 10240,
     "classes": [{"name": "cat", "count": 2}, …],           label order: the first class is label 0
     "fields": ["cls", "jpg"],
     "shards": [{"name": "train-000000.tar", "samples": 3, "bytes": 10240, "crc32c": "0a1b2c3d"}, …],
     "index": [{"name": "train.parquet", "shards": 1, "bytes": 5120, "crc32c": "…"}, …],   each for the next `shards`
     "skipped": 0,                          files that were skipped as damaged; listed in train.skipped.json
     "options": {…}, "plan": "…"}

It is written last, and completes the dataset. It holds neither times nor machine names, so equal inputs give equal
bytes. Names are relative to the manifest's own folder; in version 2, those of the shards to the folder or URL
`options["elsewhere"]["folder"]`. In version 3, samples are corrected (corrections/block.py): `samples` and the counts
of `classes` are what is left of those in the shards. A reader refuses a later version, and ignores keys it does not
know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from shardkit.errors import ManifestError, UsageError
from shardkit.location import Location, locate
from shardkit.shards.columns.types import Types, known_types
from shardkit.shards.corrections.block import OPTION as CORRECTIONS
from shardkit.shards.corrections.block import Corrections, read_block, wrong_block
from shardkit.shards.names import skipped_beside
from shardkit.units import short_repr

VERSION = 1

ELSEWHERE_VERSION = 2
"""The version of a manifest whose shards are in another folder, which a reader of version 1 would not find."""

CORRECTED_VERSION = 3
"""The version of a manifest with corrections, without which a reader of an earlier version would read the shards."""

LIMIT = 1 << 62
"""More than the bytes of any dataset; the sum of two still fits into 64 bits."""

SAMPLE_BYTES = 16
"""The minimum bytes of a sample: the frame of a TFRecord."""


LabelKind = Literal["class", "listed", "multi", "number", "none"]
"""One class per sample, from its folder or "listed" elsewhere; several classes, numbers, or no labels."""


ELSEWHERE = "elsewhere"
"""The option that says where shards are that are not beside the manifest."""


JPEGS = "jpegs"
"""The option that says how many of the JPEGs are progressive, if any are."""


Added = Mapping[str, int]
"""What an addition brought: "shards", "samples", and the files that were "changed" and "gone" since."""


class ClassEntry(msgspec.Struct, frozen=True):
    """A class: its name and number of samples. Its label is its position in the list."""

    name: str
    count: int


class ShardEntry(msgspec.Struct, frozen=True):
    """A shard: its file name, samples, bytes, and the CRC-32C of the whole file as 8 hex digits; "" for one elsewhere
    of which only headers were read: then the index has no checksums of its images either."""

    name: str
    samples: int
    bytes: int
    crc32c: str


class IndexEntry(msgspec.Struct, frozen=True):
    """An index file: its name, the number of shards (one row group each) it covers, bytes, CRC-32C."""

    name: str
    shards: int
    bytes: int
    crc32c: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of a dataset. `bytes` is the sum over the shards; `plan` is equal for equal packings (hex, may be
    empty)."""

    format: str = "shardkit"
    version: int = VERSION
    shard_format: str = "tar"
    samples: int
    bytes: int
    classes: tuple[ClassEntry, ...] = ()
    fields: tuple[str, ...] = ()
    shards: tuple[ShardEntry, ...]
    index: tuple[IndexEntry, ...] = ()
    skipped: int = 0
    options: dict[str, Any] = {}
    plan: str = ""

    __repr__ = short_repr

    @property
    def class_names(self) -> list[str]:
        """The names of the classes in label order."""
        return [entry.name for entry in self.classes]

    @property
    def labels(self) -> LabelKind:
        """The kind of the labels."""
        kind: LabelKind = self.options.get("labels", "class")
        return kind

    @property
    def unpacked_bytes(self) -> Sequence[int]:
        """The unpacked bytes of each shard; 0 for one that is not compressed."""
        sizes: list[int] = self.options.get("unpacked_bytes") or [0] * len(self.shards)
        return sizes

    @property
    def appended(self) -> Sequence[Added]:
        """What each `pack(append=True)` added."""
        added: list[Added] = self.options.get("appended", [])
        return added

    @property
    def merged(self) -> Sequence[Mapping[str, Any]]:
        """The datasets that it was merged from, in the order of their shards: "name", "plan", "shards", "samples"."""
        parts: list[Mapping[str, Any]] = self.options.get("merged", [])
        return parts

    @property
    def seek_points(self) -> bool:
        """Whether the index has seek points of the images."""
        return self.options.get("seek_points") is True

    @property
    def columns(self) -> Types:
        """The further columns of the index in their order, with their types: see columns/types.py."""
        return known_types(self.options.get("columns", {}))

    @property
    def quality_columns(self) -> bool:
        """Whether the index has the quality columns."""
        return self.options.get("quality_columns") is True

    @property
    def jpegs(self) -> tuple[int, int] | None:
        """(JPEGs, progressive ones) of the images, as counted when they were packed. None if they were not counted, if
        none was progressive, or if samples were deleted since."""
        found = self.options.get(JPEGS)
        if not isinstance(found, dict) or self.samples != sum(entry.samples for entry in self.shards):
            return None
        jpegs, progressive = found.get("all"), found.get("progressive")
        return (jpegs, progressive) if isinstance(jpegs, int) and isinstance(progressive, int) else None

    @property
    def corrections(self) -> Corrections | None:
        """The corrections of its samples; None if they are as packed."""
        return read_block(self.options)

    @property
    def number(self) -> int:
        """The number of this version of the dataset: 1 as packed."""
        found = self.corrections
        return 1 if found is None else found.version

    @property
    def counts(self) -> list[int]:
        """The samples of each shard that are not deleted."""
        found = self.corrections
        gone = [0] * len(self.shards) if found is None else found.counts(len(self.shards))
        return [entry.samples - deleted for entry, deleted in zip(self.shards, gone, strict=True)]

    @property
    def elsewhere(self) -> str:
        """The folder or URL of the shards; "" if they are beside the manifest."""
        found: str = self.options.get(ELSEWHERE, {}).get("folder", "")
        return found

    @property
    def shard_versions(self) -> Sequence[str | None]:
        """The version (ETag) that the store had for each shard, if they are elsewhere; None where there was none."""
        versions: list[str | None] = self.options.get(ELSEWHERE, {}).get("versions") or [None] * len(self.shards)
        return versions

    @property
    def has_checksums(self) -> bool:
        """Whether the checksums of all images, and of their shards, are known."""
        return all(entry.crc32c for entry in self.shards)

    def shards_beside(self, manifest: Location) -> Location:
        """A location whose siblings are the shards: the manifest's own, unless they are elsewhere."""
        return locate(self.elsewhere).child(manifest.name) if self.elsewhere else manifest

    @property
    def one_image_each(self) -> bool:
        """Whether it was packed as one image with its label for each sample."""
        return self.plan != "" and "fields" not in self.options


def content_options(
    *,
    labels: LabelKind = "class",
    fields: Iterable[str] | None = None,
    unpacked_bytes: Sequence[int] = (),
    appended: Sequence[Added] = (),
    seek_points: bool = False,
    quality_columns: bool = False,
    merged: Sequence[Mapping[str, Any]] = (),
    elsewhere: tuple[str, Sequence[str | None]] | None = None,
) -> dict[str, Any]:
    """The entries of `options` that describe the content and are read by the manifest's properties; each only if it is
    not the default.

    fields: the chosen fields, if samples are not one image with its label. elsewhere: the folder of the shards and
    their versions. The others: as the properties.
    """
    found: dict[str, Any] = {} if labels == "class" else {"labels": labels}
    if fields is not None:
        found["fields"] = list(fields)
    if any(unpacked_bytes):
        found["unpacked_bytes"] = list(unpacked_bytes)
    if appended:
        found["appended"] = list(appended)
    if seek_points:
        found["seek_points"] = True
    if quality_columns:
        found["quality_columns"] = True
    if merged:
        found["merged"] = list(merged)
    if elsewhere is not None:
        folder, of_shards = elsewhere
        found[ELSEWHERE] = {"folder": folder, **({"versions": list(of_shards)} if any(of_shards) else {})}
    return found


def jpeg_options(jpegs: int, progressive: int) -> dict[str, Any]:
    """The entry of `options` for the progressive JPEGs among all JPEGs; none if there are none."""
    return {JPEGS: {"all": jpegs, "progressive": progressive}} if progressive else {}


def column_options(columns: Types) -> dict[str, Any]:
    """The entry of `options` for the further columns of the index; none if there are none."""
    return {"columns": dict(columns)} if columns else {}


def options_for_new_shards(manifest: Manifest | None, *, appended: bool = True) -> dict[str, Any]:
    """The options that stay when the same samples are written to other shards. appended: whether they are in the same
    parts. Seek points and quality columns are found again, if they are wanted, and columns are taken from the index."""
    if manifest is None:
        return {}
    gone = {"unpacked_bytes", "seek_points", "quality_columns", "columns", "merged", JPEGS, ELSEWHERE, CORRECTIONS}
    gone |= set() if appended else {"appended"}
    return {name: value for name, value in manifest.options.items() if name not in gone}


def with_fields(options: dict[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """The options with the samples' actual fields, if they name chosen fields."""
    return options | {"fields": list(fields)} if "fields" in options else options


def require_beside(manifest: Manifest, place: str) -> None:
    """UsageError for a manifest whose shards are elsewhere, where its files are needed together."""
    if manifest.elsewhere:
        where = locate(manifest.elsewhere)
        fact = f"this is an index of shards elsewhere ({where}), not a dataset with its own"
        raise UsageError(place, fact, OWN_CURE)


OWN_CURE = "write a dataset of its own with 'shardkit convert'"


def require_as_packed(manifest: Manifest, place: str, why: str, *, fields: bool = False) -> None:
    """UsageError for a manifest whose samples are corrected, where the shards are used as they are. fields: and where
    added fields would be lost."""
    found = manifest.corrections
    if found is not None and (found.overlay is not None or (fields and found.fields)):
        fact = f"this dataset was corrected (version {found.version}), and {why}"
        raise UsageError(place, fact, "write its samples to new shards with 'shardkit convert'")


class _Head(msgspec.Struct):
    format: str = ""
    version: int = 0


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as UTF-8 JSON, indented, with a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def is_ours(data: bytes) -> bool:
    """Whether `data` is a manifest (possibly damaged or of a later version) and not somebody else's file."""
    return re.search(rb'"format"\s*:\s*"shardkit"', data) is not None or not data.strip(b"\0 \r\n\t")


def file_names(manifest: Manifest) -> list[str]:
    """The names of all shards and index files in the manifest's folder, and of those of its corrections."""
    own = () if ELSEWHERE in manifest.options else manifest.shards
    found, corrections = [entry.name for entry in own], manifest.corrections
    found += [entry.name for entry in manifest.index]
    return found if corrections is None else found + [entry.name for entry in corrections.files()]


def all_names(manifest: Manifest, stem: str) -> list[str]:
    """The names of all files of the dataset `stem` except the manifest: shards, index, list of skipped files."""
    files = file_names(manifest)
    return [*files, *([skipped_beside(files, stem)] if manifest.skipped else [])]


def decode_manifest(data: bytes, *, place: str) -> Manifest:
    """The manifest in `data`; `place` names it in errors.

    Raises ManifestError: not JSON, not a manifest, of a later version, or with sums that do not agree.
    """
    try:
        head = msgspec.json.decode(data, type=_Head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ManifestError(place, f"this is not a manifest ({exc})", _CURE) from exc
    if head.format != "shardkit":
        raise ManifestError(place, 'this is not a manifest: "format" is not "shardkit"', _CURE)
    if head.version > CORRECTED_VERSION:
        fact = f"the manifest has version {head.version}, and this shardkit reads versions up to {CORRECTED_VERSION}"
        raise ManifestError(place, fact, "install a newer shardkit")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ManifestError(place, f"the manifest is damaged ({exc})", _CURE) from exc
    _check(manifest, place)
    return manifest


_CURE = "pack again, or make a new one with 'shardkit index'"


def _check(manifest: Manifest, place: str) -> None:
    def demand(fact: bool, text: str) -> None:
        if not fact:
            raise ManifestError(place, text, _CURE)

    shards, names = manifest.shards, {entry.name for entry in manifest.shards}
    demand(len(names) == len(shards), "the manifest names a shard twice")
    _check_elsewhere(manifest, place)
    columns = manifest.options.get("columns", {})
    texts = isinstance(columns, dict) and all(isinstance(text, str) for text in columns.values())
    demand(texts, '"columns" does not have a type for each name')
    _check_numbers(manifest, place)
    deleted = _check_corrections(manifest, place)
    samples, size = sum(s.samples for s in shards) - deleted, sum(s.bytes for s in shards)
    demand(manifest.samples == samples, f"samples is {manifest.samples}, and its shards have {samples}")
    demand(manifest.bytes == size, f"bytes is {manifest.bytes}, and its shards have {size}")
    if manifest.index:
        covered = sum(entry.shards for entry in manifest.index)
        demand(covered == len(shards), f"the index covers {covered} of {len(shards)} shards")
    for name in (*(entry.name for entry in shards), *(entry.name for entry in manifest.index)):
        demand(_is_plain(name), f"{name!r} is not a plain file name")
    summed = [entry.crc32c for entry in shards if entry.crc32c or not manifest.elsewhere]
    for crc in (*summed, *(entry.crc32c for entry in manifest.index)):
        demand(_is_crc(crc), f"crc32c is {crc!r}, and 8 hex digits are expected")


def _check_corrections(manifest: Manifest, place: str) -> int:
    """The number of deleted samples. ManifestError unless corrections are as written by version 3."""
    try:
        found = manifest.corrections
        if (found is None) != (manifest.version < CORRECTED_VERSION):
            raise ValueError("it does not say how its samples are corrected")
        if found is None:
            return 0
        wrong = wrong_block(found, [entry.samples for entry in manifest.shards])
        files = found.files()
        wrong = wrong or next((f"{f.name!r} is not a plain file name" for f in files if not _is_plain(f.name)), None)
        wrong = wrong or next((f"crc32c is {f.crc32c!r}" for f in files if not _is_crc(f.crc32c)), None)
        if wrong is not None:
            raise ValueError(wrong)
    except ValueError as exc:
        raise ManifestError(place, str(exc), _CURE) from exc
    return sum(count for _, count in found.deleted)


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and not {"/", "\\", "\0"} & set(name)


def _is_crc(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{8}", text) is not None


def _check_elsewhere(manifest: Manifest, place: str) -> None:
    """ManifestError unless the place of shards elsewhere, and their versions, are as written by version 2."""
    told, later = manifest.options.get(ELSEWHERE), manifest.version >= ELSEWHERE_VERSION
    if told is None and manifest.version != ELSEWHERE_VERSION:
        return
    folder, versions = (told.get("folder"), told.get("versions")) if isinstance(told, dict) else (None, None)
    if not later or not isinstance(folder, str) or not folder or "\0" in folder:
        raise ManifestError(place, "it does not say in which folder its shards are", _CURE)
    fits = isinstance(versions, list) and len(versions) == len(manifest.shards)
    if versions is not None and not (fits and all(isinstance(each, (str, type(None))) for each in versions)):
        raise ManifestError(place, '"versions" does not have one text for each shard', _CURE)


def _check_numbers(manifest: Manifest, place: str) -> None:
    """ManifestError for impossible numbers: negative ones, and those whose sums do not fit into 64 bits."""
    whats = {
        "samples": [shard.samples for shard in manifest.shards],
        "bytes": [shard.bytes for shard in manifest.shards],
        "index": [number for entry in manifest.index for number in (entry.shards, entry.bytes)],
        "classes": [entry.count for entry in manifest.classes],
        "unpacked_bytes": manifest.options.get("unpacked_bytes") or [],  # not checked yet: anything
    }
    unpacked = whats["unpacked_bytes"]
    if unpacked and not (isinstance(unpacked, list) and len(unpacked) == len(manifest.shards)):
        raise ManifestError(place, '"unpacked_bytes" does not have one number for each shard', _CURE)
    for what, numbers in whats.items():
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ManifestError(place, f'"{what}" holds a negative number, or a number that is not whole', _CURE)
        if sum(numbers) >= LIMIT:
            raise ManifestError(place, f'"{what}" holds {max(numbers)}, more than can be', _CURE)
    sizes = unpacked or [0] * len(manifest.shards)
    for shard, size in zip(manifest.shards, sizes, strict=True):
        if shard.samples * SAMPLE_BYTES > max(shard.bytes, size):
            fact = f"{shard.name} can't hold {shard.samples} samples in {max(shard.bytes, size)} bytes"
            raise ManifestError(place, fact, _CURE)
