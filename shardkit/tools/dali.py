"""Index files for other readers, beside the shards: `NAME.idx`.

tar       "v1.2 N", then for each of N samples "FIELD OFFSET SIZE MEMBER" for each field: NVIDIA DALI's
          `fn.readers.webdataset` (tools/wds2idx.py there)
TFRecord  "OFFSET SIZE" for each record, with all that belongs to it: DALI's `fn.readers.tfrecord` (tfrecord2idx),
          and the package `tfrecord`
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from shardkit.errors import DatasetError, UsageError
from shardkit.formats.format import FORMATS, FormatName, format_of_head, format_of_name, is_packed_as
from shardkit.location import Location
from shardkit.options.fields import checked_by
from shardkit.shards.find.find import resolve
from shardkit.shards.find.shards import SourceLike
from shardkit.shards.manifest import require_as_packed
from shardkit.storage.files import translated, whole_file
from shardkit.storage.mapped import check_each, map_whole
from shardkit.threads import in_threads, thread_count
from shardkit.tools.settings import IndexSettings


@checked_by(IndexSettings)
def write_dali_index(source: SourceLike, *, workers: int | None = None) -> list[Location]:
    """Write an index file for each shard that `source` names, and return their locations.

    Each is named like its shard up to the first dot, plus `.idx`, and replaces an older one. Each shard is read once.
    Raises UsageError for gzip shards, which DALI can't read, DamagedError, DatasetError, NotFoundError, StorageError.
    """
    found = resolve(source)
    found.require_dataset("make one with 'shardkit pack'")
    if found.manifest is not None:
        require_as_packed(found.manifest, str(found.location), "DALI reads the shards as packed")
    return list(in_threads(_write_one, found.places, thread_count(workers)))


def _write_one(shard: Location) -> Location:
    place = shard.sibling(
        shard.name[: shard.name.find(".", 1)] + ".idx" if "." in shard.name[1:] else shard.name + ".idx"
    )
    with translated(os.fsencode(shard.path)):
        data = map_whole(shard.path)
    head = data[:512]
    form = format_of_name(shard.name) or format_of_head(head)
    if is_packed_as(form, head):
        fact = "the shard is compressed, which DALI can't read"
        raise UsageError(str(shard), fact, "make plain ones with 'shardkit convert'")
    text = "".join(_LINES[form](shard, data))
    with whole_file(place.path) as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    return place


def _tfrecord_lines(shard: Location, data: Any) -> Iterator[str]:
    for sample in check_each(FORMATS["tfrecord"].read(data, place=str(shard)), data):
        yield f"{sample.offset} {sample.size}\n"


def _tar_lines(shard: Location, data: Any) -> Iterator[str]:
    lines = []
    for sample in check_each(FORMATS["tar"].read(data, place=str(shard)), data):
        if any(character.isspace() for character in sample.key):
            fact = "the key contains a space, which DALI's index does not allow"
            raise DatasetError(str(shard), fact, "pack the files under other names", sample.offset, sample.key)
        parts = [f"{name} {first} {size} {sample.key}.{name}" for name, (first, size) in sample.fields.items()]
        lines.append(" ".join(parts) + "\n")
    yield f"v1.2 {len(lines)}\n"
    yield from lines


_LINES: Mapping[FormatName, Callable[[Location, Any], Iterator[str]]] = {"tar": _tar_lines, "tfrecord": _tfrecord_lines}
"""The formats that DALI reads."""
