"""The last step of a packing: from what was planned and what was written to the manifest."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shardkit.checksums import crc32c
from shardkit.errors import DestinationError, SourceError, printable
from shardkit.formats.format import FormatName
from shardkit.packing.dest.destination import Destination
from shardkit.packing.dest.work_folder import keep_only
from shardkit.packing.options import PackOptions
from shardkit.packing.plan.content import PlannedDataset
from shardkit.packing.totals import Totals
from shardkit.packing.write.receipt import Skipped
from shardkit.sample import fs_text
from shardkit.shards.corrections.block import FileEntry, VersionEntry
from shardkit.shards.corrections.version import base_of_versions, next_version, version_name
from shardkit.shards.manifest import (
    JPEGS,
    ClassEntry,
    IndexEntry,
    Manifest,
    column_options,
    content_options,
    jpeg_options,
)
from shardkit.shards.names import skipped_name
from shardkit.shards.quality import UNDECODED, tell_undecoded
from shardkit.storage.files import whole_file
from shardkit.version import __version__

log = logging.getLogger(__name__)

SHOWN_SKIPPED = 5
"""The number of skipped files that are named in the log; there may be thousands."""


class Addition(msgspec.Struct, frozen=True):
    """What is added to an existing dataset with this `plan`: how the source differs from it."""

    plan: str
    changed: int
    gone: int


class Planned(msgspec.Struct, frozen=True):
    """What is planned to be written, without the samples themselves: enough to commit it, on any machine.

    version: of shardkit. digest: as in PlannedDataset. base: the beginning of the file names. shards: their names.
    counts: the planned samples of each class. label_kind, label_fields: as in Source. incomplete: samples that lack a
    file. root: the source, for messages. columns: the further columns of the index. addition: if it is added to an
    existing dataset.
    """

    version: str
    digest: str
    base: str
    shards: list[str]
    shard_format: FormatName
    options: dict[str, Any]
    classes: list[str]
    counts: list[int]
    label_kind: str
    label_fields: list[str]
    incomplete: list[Skipped]
    root: str
    seek_points: bool
    columns: dict[str, str] = {}
    quality_columns: bool = False
    addition: Addition | None = None

    @property
    def plan(self) -> str:
        """The `plan` of the manifest that a commit writes."""
        return self.digest if self.addition is None else joined_plan(self.addition.plan, self.digest)


def planned(content: PlannedDataset, base: str, options: PackOptions) -> Planned:
    """What is planned for a dataset. base: the beginning of the names of its files."""
    source, grouped, before = content.source, content.grouped, content.before
    incomplete = source.incomplete + (() if grouped is None else grouped.incomplete)
    addition = None
    if before is not None:
        addition = Addition(before.manifest.plan, before.changed.count, before.gone.count)
    return Planned(
        version=__version__, digest=content.digest, base=base, shards=list(content.plan.names),
        shard_format=options.format, options=options.recorded(), classes=list(source.classes),
        counts=source.counts.tolist(), label_kind=source.label_kind, label_fields=sorted(source.label_fields),
        incomplete=[Skipped(path, reason) for path, reason in incomplete], root=fs_text(source.root),
        seek_points=options.seek_points, columns=content.columns, quality_columns=options.quality_columns,
        addition=addition,
    )  # fmt: skip


def commit(
    destination: Destination, what: Planned, totals: Totals, index: Sequence[IndexEntry], before: Manifest | None
) -> Manifest:
    """Commit the shards that were written, with their index. before: the dataset that is added to.

    Raises SourceError if no sample was written, DestinationError if `before` is not the dataset that was planned with.
    """
    require_same(destination, what, before)
    entries = totals.entries
    skipped = [*what.incomplete, *totals.skipped]
    _tell_skipped(skipped, destination.base)
    samples = sum(entry.samples for entry in entries)
    if not samples and before is not None and before.class_names == what.classes:
        log.info("%s: nothing to add; nothing was written", destination)
        keep_only(destination, ())
        return before
    if not samples and before is None:
        fact = f"none of its {len(skipped)} files can be packed (the first: {skipped[0].path}: {skipped[0].reason})"
        raise SourceError(what.root, fact, "fix the files, or name others with `ext`")
    _tell_types(totals.types)
    _tell_done(totals.done)
    for label, expected in enumerate(what.counts):
        if expected and not totals.labels.get(label):
            log.warning("no image of class %s is left: all of them were skipped", printable(what.classes[label]))
    manifest = manifest_of(what, totals, index, len(skipped))
    manifest = manifest if before is None else _next(destination, before, _joined(before, manifest, what, totals))
    destination.commit(manifest, skipped)
    return manifest


def manifest_of(what: Planned, totals: Totals, index: Sequence[IndexEntry], skipped: int) -> Manifest:
    """The manifest of the shards that were written. skipped: the number of files that were skipped."""
    entries = totals.entries
    classes = (ClassEntry(name, totals.labels.get(label, 0)) for label, name in enumerate(what.classes))
    kind: Any = what.label_kind
    return Manifest(
        shard_format=what.shard_format,
        samples=sum(entry.samples for entry in entries),
        bytes=sum(entry.bytes for entry in entries),
        classes=tuple(classes),
        fields=tuple(sorted({*what.label_fields, *totals.fields})),
        shards=entries,
        index=tuple(index),
        skipped=skipped,
        options=what.options
        | content_options(labels=kind)
        | column_options(what.columns)
        | jpeg_options(totals.jpegs, totals.progressive),
        plan=what.digest,
    )


def require_same(destination: Destination, what: Planned, before: Manifest | None) -> None:
    """DestinationError if `before` is not the dataset that was planned with."""
    if (what.addition is None) == (before is None) and (what.addition is None or what.addition.plan == before.plan):  # type: ignore[union-attr]
        return
    fact = "the dataset here is not the one that this was planned to be added to"
    cure = "run `pack` with `append=True` again; parts of it are first discarded: shardkit merge DEST --discard"
    raise DestinationError(str(destination), fact, cure)


def joined_plan(before: str, added: str) -> str:
    """The plan of a dataset that was added to."""
    return hashlib.blake2b(f"{before} {added}".encode(), digest_size=16).hexdigest()


def _next(destination: Destination, before: Manifest, joined: Manifest) -> Manifest:
    """The joined manifest: of a corrected dataset, as the next version. The manifest before is kept then."""
    corrections = before.corrections
    if corrections is None:
        return joined
    data = destination.files.manifest_bytes() or b""
    name = version_name(base_of_versions(before, destination.stem), before.number)
    with whole_file(os.path.join(destination.work, name)) as file:  # from where the commit brings it
        file.write(data)
    kept = FileEntry(name, len(data), f"{crc32c(data):08x}")
    entry = VersionEntry(version=0, kind="append", samples=0, added=joined.samples - before.samples)
    same = {"overlay": corrections.overlay, "deleted": corrections.deleted, "fields": corrections.fields}
    return next_version(kept, before, entry, like=joined, **same)  # type: ignore[arg-type]


def _joined(before: Manifest, added: Manifest, what: Planned, totals: Totals) -> Manifest:
    """The manifest of the whole dataset. added: of the new shards alone, with all classes; totals: theirs."""
    assert what.addition is not None
    counts = dict(zip(before.class_names, (entry.count for entry in before.classes), strict=True))
    news = {"shards": len(added.shards), "samples": added.samples}
    news |= {"changed": what.addition.changed, "gone": what.addition.gone}
    jpegs = {}
    if before.jpegs is not None:  # else they were not counted, or none was progressive
        jpegs = jpeg_options(before.jpegs[0] + totals.jpegs, before.jpegs[1] + totals.progressive)
    kept = {name: value for name, value in before.options.items() if name != JPEGS}
    return Manifest(
        shard_format=before.shard_format,
        samples=before.samples + added.samples,
        bytes=before.bytes + added.bytes,
        classes=tuple(ClassEntry(each.name, each.count + counts.get(each.name, 0)) for each in added.classes),
        fields=tuple(sorted({*before.fields, *added.fields})),
        shards=before.shards + added.shards,
        index=before.index + added.index,
        skipped=added.skipped,
        options=kept
        | content_options(labels=added.labels, appended=[*before.appended, news])
        | column_options(what.columns)
        | jpegs,
        plan=what.plan,
    )


def _tell_skipped(skipped: Sequence[Skipped], base: str) -> None:
    """Log the first few, and the file that lists all."""
    for item in skipped[:SHOWN_SKIPPED]:
        log.warning("skipped: %s: %s", printable(item.path), item.reason)
    if len(skipped) > SHOWN_SKIPPED:
        log.warning(
            "skipped: %d more, %d in all: see %s", len(skipped) - SHOWN_SKIPPED, len(skipped), skipped_name(base)
        )


def _tell_types(types: Mapping[str, int]) -> None:
    """Log the files whose content differs from their extension: they are packed unchanged, and decode nevertheless."""
    for kind, count in sorted(types.items()):
        what, _, extension = kind.partition(" ")
        if what and what != extension.upper() and (what, extension) != ("JPEG", "jpg") and not _belong(what, extension):
            log.warning("files named .%s that are %s: %d; they are packed unchanged", extension, what, count)


def _tell_done(done: Mapping[str, int]) -> None:
    """Log what transcoding did."""
    totals = Counter(done)
    several = totals.pop("first of several", 0)
    incomplete = totals.pop("incomplete JPEG", 0)
    tell_undecoded(totals.pop(UNDECODED, 0))
    if totals:
        log.info("images %s", ", ".join(f"{how}: {count}" for how, count in sorted(totals.items())))
    if several:
        log.warning("files with several images (animations, pages) of which only the first was kept: %d", several)
    if incomplete:
        log.warning("JPEGs not rewritten because some of their scans are missing: %d", incomplete)


def _belong(what: str, extension: str) -> bool:
    from PIL import Image

    return what in (Image.registered_extensions().get("." + extension), {"mpo": "JPEG"}.get(extension))
