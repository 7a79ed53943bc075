"""What is there already: a dataset that is finished, and the shards of a job that was interrupted.

Both are believed only where they are of the files as they are now. A plan has names, sizes and labels; a file that was
replaced by another of the same size shows in its times, and then in its checksum.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import google_crc32c
import msgspec

from shardkit.errors import DestinationError, SourceError
from shardkit.index import read_columns
from shardkit.manifest import Manifest
from shardkit.packing.destination import Destination, files_of
from shardkit.packing.options import PackOptions
from shardkit.packing.shard import Receipt, Task, receipt_path, rows_path
from shardkit.packing.tasks import Content
from shardkit.sample import fs_text, path_of_text, text_of_path

SAMPLED_FILES = 64

_STRENGTH = {"none": 0, "header": 1, "full": 2}


def kept_receipt(task: Task) -> Receipt | None:
    """The receipt of a shard that an earlier run finished and that this task would write the same, or None."""
    try:
        with open(receipt_path(task.folder, task.name), "rb") as file:
            receipt = msgspec.msgpack.decode(file.read(), type=Receipt)
        size = os.stat(os.path.join(task.folder, os.fsencode(task.name))).st_size
        if receipt.digest != task.digest or receipt.entry.bytes != size or not _as_strict(receipt, task):
            return None
        with open(rows_path(task.folder, task.name), "rb") as file:
            rows_are_whole = google_crc32c.value(file.read()) == receipt.rows_crc32c
        changed = any(_changed_at(path) > receipt.since for path in task.files())
    except (OSError, msgspec.MsgspecError):
        return None
    return receipt if rows_are_whole and not changed else None


def _as_strict(receipt: Receipt, task: Task) -> bool:
    """Whether the check that was made then would let in what the task's lets in."""
    if receipt.skipped:  # which a weaker check might have let in
        return task.skip_bad and receipt.check == task.check
    return _STRENGTH[receipt.check] >= _STRENGTH[task.check]


def _changed_at(path: bytes) -> int:
    """When the file was changed last (nanoseconds): its content or its place. One with old times may be moved in."""
    status = os.stat(path)
    return max(status.st_mtime_ns, status.st_ctime_ns)


def finished(destination: Destination, content: Content, options: PackOptions) -> Manifest | None:
    """The manifest at the destination where it is of this very content, whole and up to date; None where there is none.

    DestinationError where it is another's, or not whole. SourceError where a file vanished since the scan.
    """
    found = None if options.overwrite else destination.read_manifest()
    if found is None:
        return None
    place = fs_text(destination.manifest)
    if found.shard_format != options.format:
        fact = f"another dataset is there, of the format {found.shard_format}, not {options.format}"
        raise DestinationError(place, fact, "choose another destination, or replace it with --overwrite")
    if found.plan != content.digest:
        fact = f"another dataset is there, {_difference(found, content, options)}"
        raise DestinationError(place, fact, "choose another destination, or replace it with --overwrite")
    for name, size in files_of(found):
        path = os.path.join(destination.folder, name)
        if not os.path.isfile(path) or os.path.getsize(path) != size:
            fact = f"the manifest of this dataset names {name}, which is missing or has another size"
            raise DestinationError(place, fact, "pack again with --overwrite")
    try:
        changed = _changed_file(destination, content, found)
    except OSError as exc:
        what = fs_text(exc.filename or content.source.root)
        raise SourceError(what, f"can't be read ({exc.strerror})", "run again when nothing changes the source") from exc
    if changed is not None:
        fact = f"this dataset is out of date: the source's {changed} is not what was packed"
        raise DestinationError(place, fact, "replace it with --overwrite, or choose another destination")
    return found


def _difference(found: Manifest, content: Content, options: PackOptions) -> str:
    mine = options.recorded()
    for name, value in found.options.items():
        if name in mine and mine[name] != value:
            return f"packed with the option {name} {value!r}, not {mine[name]!r}"
    if found.class_names != list(content.source.classes):
        return "with other classes"
    return "of other files"


def _changed_file(destination: Destination, content: Content, found: Manifest) -> str | None:
    """A file whose bytes are not those that the dataset has, or None.

    Compared are the files that were changed after the manifest was written, and some of the first shard, in case that
    all of them are others with the same names and sizes.
    """
    prefix = os.path.join(content.source.root, b"")
    since = os.stat(destination.manifest).st_mtime_ns
    paths, rows = content.source.paths, content.plan.shard(0).rows
    if content.grouped is not None:  # the index has no checksum of files that are no images
        changed = (path for path in content.grouped.files.paths if _changed_at(prefix + path) > since)
        return next(map(text_of_path, changed), None)
    newer = {text_of_path(path) for path in paths if _changed_at(prefix + path) > since}
    suspects = newer | set(map(text_of_path, paths.take(rows[:: -(-len(rows) // SAMPLED_FILES)])))
    for checksums in _checksums(destination, found):
        for text in suspects & checksums.keys():
            with open(prefix + path_of_text(text), "rb") as file:
                if google_crc32c.value(file.read()) != checksums[text]:
                    return text
        newer -= checksums.keys()
        suspects = newer
        if not suspects:
            return None
    return min(suspects, default=None)  # it was left out as damaged then


def _checksums(destination: Destination, found: Manifest) -> Iterator[dict[str, int]]:
    """Path -> CRC-32C of the images of each shard, as the index has them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for entry in found.index:
        path = os.path.join(destination.folder, entry.name)
        try:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    columns = read_columns(file, group, ["path", "crc32c"])
                    yield dict(zip(columns["path"].to_pylist(), columns["crc32c"].tolist(), strict=True))
        except (pa.ArrowException, OSError) as exc:
            raise DestinationError(
                fs_text(path), f"the index is damaged ({exc})", "pack again with --overwrite"
            ) from exc
