"""The tasks and sizes of a source whose files are not below its root, or which has fields that are in no file."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.checksums import crc32c
from shardkit.errors import ShardkitError, SourceError
from shardkit.formats.format import FORMATS, Format
from shardkit.packing.options import PackOptions
from shardkit.packing.plan.plan import ShardPlan
from shardkit.packing.write.sourced import SourcedTask
from shardkit.sample import field_of, fs_text, text_of_path
from shardkit.sources.origin import InArchive, Origin
from shardkit.sources.source import Source

if TYPE_CHECKING:
    from shardkit.packing.plan.content import Content

SAMPLED_FILES = 64
"""Of how many files the bytes are compared with those of a dataset that is there."""


def is_sourced(source: Source) -> bool:
    """Whether its shards are written by `SourcedTask`."""
    return source.elsewhere is not None


def sourced_tasks(content: Content, work: str, options: PackOptions, salt: bytes) -> Iterator[SourcedTask]:
    """The task of each shard, made one at a time. salt: of what all tasks of this shardkit have."""
    files = content.source if content.grouped is None else content.grouped.files
    origin = files.origin.prepared(work)
    for number in range(len(content.plan)):
        yield _task(content, files, origin, content.plan.shard(number), work, options, salt)


def _task(
    content: Content, files: Source, origin: Origin, shard: ShardPlan, work: str, options: PackOptions, salt: bytes
) -> SourcedTask:
    source, grouped = content.source, content.grouped
    rows = shard.rows[:, None] if grouped is None else grouped.rows[shard.rows]
    flat = rows.reshape(-1)
    paths, sizes, keys = files.paths.take(flat), files.sizes[flat], source.keys(shard.rows)
    labels = source.labels[shard.rows]
    inline = {name: column.take(shard.rows) for name, column in source.inline.fields.items()} if source.inline else {}
    names = [] if grouped is None else list(grouped.fields)
    digest = hashlib.blake2b(b"\0".join([salt, source.root, *paths]), digest_size=16)
    digest.update("\0".join([*keys, *names]).encode())
    digest.update(sizes.astype("<i8").tobytes() + labels.astype("<i4").tobytes() + origin.marks(flat))
    for name, values in inline.items():
        digest.update(b"\0".join([name.encode(), *values]))
    width = rows.shape[1]
    return SourcedTask(
        name=shard.name, folder=os.fsencode(work), root=source.root, source=origin.files(flat), names=names,
        primary=0 if grouped is None else grouped.primary,
        paths=[paths[n : n + width] for n in range(0, len(paths), width)], sizes=sizes.tolist(),
        labels=labels.tolist(), keys=keys, inline=inline,
        multi=source.inline is not None and source.inline.labels == "multi", check=options.check,
        skip_bad=options.on_error == "skip", digest=digest.hexdigest(), format=options.format,
        texts=dict(enumerate(source.classes)) if FORMATS[options.format].holds_class_names else {},
        transcode=options.transcode,
    )  # fmt: skip


def inline_sample_bytes(source: Source, form: Format) -> NDArray[np.int64]:
    """The bytes of each sample of a source with fields that are in no file (int64, n)."""
    assert source.inline is not None
    columns = [(name, np.diff(column.offsets)) for name, column in source.inline.fields.items()]
    found = np.empty(len(source), np.int64)
    for row, (path, size, label) in enumerate(
        zip(source.paths, source.sizes.tolist(), source.labels.tolist(), strict=True)
    ):
        fields = [(field_of(text_of_path(path[path.rfind(b".") + 1 :])), size)]
        if label >= 0:
            fields.append(("cls", len(str(label))))
        fields += [(name, int(lengths[row])) for name, lengths in columns]
        found[row] = form.size(source.key(row), fields, path, source.classes[label] if label >= 0 else "", label)
    return found


def inline_digest(source: Source) -> Iterator[bytes]:
    """What tells the fields that are in no file, for the digest of a plan; nothing where there are none."""
    if source.inline is not None:
        yield source.inline.labels.encode()
        for name, column in source.inline.fields.items():
            yield name.encode()
            yield column.blob.tobytes()
            yield column.offsets.tobytes()


def label_fields(source: Source) -> set[str]:
    """The field of the label, which a dataset has in any case."""
    kind = "class" if source.inline is None else source.inline.labels
    return {"class": {"cls"}, "listed": {"cls"}, "none": set[str]()}.get(kind, {"cls.json"})


def label_options(source: Source) -> dict[str, Any]:
    """What a manifest's options say of the labels; nothing where each sample has one class."""
    kind = "class" if source.inline is None else source.inline.labels
    return {} if kind == "class" else {"labels": kind}


def changed_file(
    source: Source, first_rows: NDArray[np.int64], since: int | None, checksums: Iterable[Mapping[str, int]] | None
) -> str | None:
    """A file of a source whose files are elsewhere whose bytes are not those that a dataset has, or None.

    since: when the dataset was finished (ns); None: not known. checksums: path -> CRC-32C of each shard's images; None
    where files can't be compared by them. An archive, and with no checksums any file, that was changed since counts as
    changed. Otherwise those are compared, and some of the rows `first_rows` of the first shard.
    """
    origin = source.origin
    if isinstance(origin, InArchive) or checksums is None:
        newer = (
            path for path in origin.watched(np.arange(len(source))) if since is not None and changed_at(path) > since
        )
        return next((fs_text(path) for path in newer), None)
    sampled = first_rows[:: max(1, -(-len(first_rows) // SAMPLED_FILES))]
    watched = [] if since is None else origin.watched(np.arange(len(source)))
    newer_rows = [row for row, path in enumerate(watched) if since is not None and changed_at(path) > since]
    rows = np.unique(np.concatenate([sampled, np.array(newer_rows, np.int64)]))
    wanted = {text_of_path(path): int(row) for path, row in zip(source.paths.take(rows), rows, strict=True)}
    left = {text_of_path(source.paths[row]) for row in newer_rows}
    for known in checksums:
        shared = sorted(wanted.keys() & known.keys(), key=wanted.__getitem__)
        for text, crc in zip(shared, _checksums_of(source, [wanted[text] for text in shared]), strict=True):
            if crc != known[text]:
                return text
        left -= known.keys()
        wanted = {text: row for text, row in wanted.items() if text in left}
        if not wanted:
            return None
    return min(left, default=None)


def _checksums_of(source: Source, rows: Sequence[int]) -> Iterator[int]:
    numbers = np.array(rows, np.int64)
    sizes = source.sizes[numbers].tolist()
    with source.origin.files(numbers).opened(source.paths.take(numbers), sizes) as reader:
        for number in range(len(sizes)):
            try:
                yield crc32c(reader.read(number))
            except ShardkitError:
                raise
            except (OSError, ValueError) as exc:
                place = fs_text(os.path.join(source.root, source.paths[rows[number]]))
                fact = f"can't be read ({exc.strerror or exc})" if isinstance(exc, OSError) else str(exc)
                raise SourceError(place, fact, "run again when nothing changes the source") from exc


def changed_at(path: bytes) -> int:
    """When a file was changed last (ns): its content or its place. One with old times may be moved in; one that is
    dated in the future, by a camera or a clock that was wrong, was changed when its place was at the latest."""
    status = os.stat(path)
    if status.st_mtime_ns > time.time_ns():
        return status.st_ctime_ns
    return max(status.st_mtime_ns, status.st_ctime_ns)
