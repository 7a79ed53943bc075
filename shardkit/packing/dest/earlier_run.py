"""The results of earlier runs: a finished dataset, and the shards of an interrupted job.

Both count only if they match the files as they are now. A plan covers names, sizes and labels; a file that was replaced
by another of the same size is noticed by its times, and then by its checksum.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

import msgspec

from shardkit.checksums import crc32c
from shardkit.errors import DatasetError, DestinationError, SourceError
from shardkit.images.rewrite.transcode import Transcoding, is_transcoded
from shardkit.packing.dest.dataset_files import sizes_in
from shardkit.packing.dest.destination import Destination
from shardkit.packing.options import PackOptions
from shardkit.packing.plan.changed import changed_at, changed_file
from shardkit.packing.plan.content import PlannedDataset
from shardkit.packing.write.receipt import Receipt, receipt_path, rows_path
from shardkit.packing.write.task import ShardTask
from shardkit.sample import fs_text, path_of_text, text_of_path
from shardkit.shards.index_file import index_entries
from shardkit.shards.manifest import Manifest, ShardEntry

log = logging.getLogger(__name__)

SAMPLED_FILES = 64

_OTHER_CLASSES, _OTHER_FILES = "with other classes", "of other files"

_STRENGTH = {"none": 0, "header": 1, "full": 2}


def kept_receipt(task: ShardTask, delivered: Callable[[ShardEntry], bool]) -> Receipt | None:
    """The receipt of a shard that an earlier run finished and that this task would write the same, or None.

    delivered: whether a shard that has left the work folder is at the destination.
    """
    try:
        with open(receipt_path(task.work, task.name), "rb") as file:
            receipt = msgspec.msgpack.decode(file.read(), type=Receipt)
        if receipt.digest != task.digest or not _as_strict(receipt, task):
            return None
        with open(rows_path(task.work, task.name), "rb") as file:
            rows_are_whole = crc32c(file.read()) == receipt.rows_crc32c
        changed = any(changed_at(path) > receipt.since for path in task.watched())
    except (OSError, msgspec.MsgspecError):  # missing or incomplete: the shard is written again
        return None
    if not rows_are_whole or changed:
        return None
    path = os.path.join(task.work, os.fsencode(task.name))
    here = os.path.isfile(path) and os.path.getsize(path) == receipt.entry.bytes
    return receipt if here or delivered(receipt.entry) else None


def _as_strict(receipt: Receipt, task: ShardTask) -> bool:
    """Whether the check made then gives the same result as the task's."""
    if receipt.skipped:  # a weaker check might have accepted these
        return task.skip_bad and receipt.check == task.check
    return _STRENGTH[receipt.check] >= _STRENGTH[task.check]


def find_finished(destination: Destination, content: PlannedDataset, options: PackOptions) -> Manifest | None:
    """The manifest at the destination if it is of this content, complete and up to date; None if there is none.

    DestinationError if it is of another dataset or incomplete. SourceError if a file vanished since the scan.
    """
    found = None if options.overwrite else destination.files.read_manifest()
    if found is None:
        return None
    place = str(destination)
    if found.shard_format != options.format:
        fact = f"another dataset is there, of the format {found.shard_format}, not {options.format}"
        raise DestinationError(place, fact, "choose another destination, or replace it with `overwrite=True`")
    if found.corrections is not None and found.plan != content.digest:
        fact = f"a dataset with corrections is there (version {found.number})"
        cure = "add what is new with `append=True`, or replace it, with its corrections, with `overwrite=True`"
        raise DestinationError(place, fact, cure)
    if found.plan != content.digest:
        difference = _difference(found, content, options)
        fact = f"another dataset is there, {difference}"
        cure = "choose another destination, or replace it with `overwrite=True`"
        if difference in (_OTHER_CLASSES, _OTHER_FILES):
            cure = "add what is new with `append=True`, replace it with `overwrite=True`, or choose another destination"
        raise DestinationError(place, fact, cure)
    for name, text in content.columns.items() if found.columns else ():  # an older shardkit wrote none
        if found.columns.get(name) != text:
            fact = f"another dataset is there, whose column {name} is {found.columns.get(name, 'missing')}, not {text}"
            raise DestinationError(place, fact, "replace it with `overwrite=True`, or choose another destination")
    missing = destination.files.missing(sizes_in(found))
    if missing is not None:
        fact = f"the manifest of this dataset names {missing}, which is missing or has another size"
        raise DestinationError(place, fact, "pack again with `overwrite=True`")
    try:
        changed = _changed_file(destination, content, found)
    except OSError as exc:
        what = fs_text(exc.filename or content.source.root)
        raise SourceError(
            what, f"can't be read ({exc.strerror})", "run again when nothing is changing the source"
        ) from exc
    if changed is not None:
        fact = f"this dataset is out of date: the source's {changed} is not what was packed"
        raise DestinationError(place, fact, "replace it with `overwrite=True`, or choose another destination")
    return found


def _difference(found: Manifest, content: PlannedDataset, options: PackOptions) -> str:
    mine = options.recorded()
    optional = {*Transcoding.__struct_fields__, "seek_points", "quality_columns"}
    asked = {name: None for name in (*found.options, *mine) if name in optional}
    for name, value in (asked | found.options).items():
        if (name in mine or name in asked) and mine.get(name) != value:
            return f"packed with the option {name} {value!r}, not {mine.get(name)!r}"
    if found.class_names != list(content.source.classes):
        return _OTHER_CLASSES
    return _OTHER_FILES


def _changed_file(destination: Destination, content: PlannedDataset, found: Manifest) -> str | None:
    """A file whose bytes differ from those in the dataset, or None.

    Compares the files that were modified after the manifest was written, and some of the first shard, in case all of
    them were replaced by others with the same names and sizes.
    """
    prefix = os.path.join(content.source.root, b"")
    since = destination.committed_at(found)
    others = content.grouped is not None or is_transcoded(found.options)
    if content.files.elsewhere is not None:
        known = None if others else _checksums(destination, found)
        return changed_file(content.files, content.plan.shard(0).rows, since, known)
    if since is None and others:
        log.warning("%s: not packed on this machine: files are compared by name and size only", destination)
        return None
    compare_all, since = since is None, -1 if since is None else since
    paths, rows = content.source.paths, content.plan.shard(0).rows
    if others:  # the index has no checksums of files other than images, nor of images before transcoding
        changed = (path for path in content.files.paths if changed_at(prefix + path) > since)
        return next(map(text_of_path, changed), None)
    newer = {text_of_path(path) for path in paths if changed_at(prefix + path) > since}
    suspects = newer | set(map(text_of_path, paths.take(rows[:: -(-len(rows) // SAMPLED_FILES)])))
    for checksums in _checksums(destination, found):
        for text in suspects & checksums.keys():
            with open(prefix + path_of_text(text), "rb") as file:
                if crc32c(file.read()) != checksums[text]:
                    return text
        newer -= checksums.keys()
        suspects = newer
        if not suspects:
            return None
    return None if compare_all else min(suspects, default=None)  # skipped as damaged then, and fixed since


def _checksums(destination: Destination, found: Manifest) -> Iterator[dict[str, int]]:
    """Path -> CRC-32C for the images of each shard, from the index."""
    for entry, shards in index_entries(found):
        try:
            for columns in destination.files.open_index(entry, shards).groups(["path", "crc32c"]):
                yield dict(zip(columns["path"].to_pylist(), columns["crc32c"].tolist(), strict=True))
        except DatasetError as exc:
            raise DestinationError(exc.place, exc.fact, "pack again with `overwrite=True`") from exc
