"""The fast path of packing: one file for each sample, on this machine or in an archive, in one tight loop, with JPEGs
and PNGs handled by the C extension.

It writes the same bytes as the loop in samples.py.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from shardkit.checksums import crc32c
from shardkit.errors import ShardkitError
from shardkit.formats.columns import Fields, Strings, fields_of, has_negative, int64s, texts_of_paths
from shardkit.formats.format import FORMATS
from shardkit.formats.tar.fast_write import Gathered, Gatherer, PlainFiles, StoredMembers, StoredTexts
from shardkit.formats.tfrecord.samples import TooLargeError
from shardkit.packing.write.file_samples import FileSamples, left_out
from shardkit.packing.write.images import LOOKS, transcoded
from shardkit.packing.write.receipt import COLUMNS, Rows, Skipped, Written
from shardkit.packing.write.sink import Advance, Meter, Sink
from shardkit.packing.write.task import ShardTask
from shardkit.sources.readers import AnyFiles, ArchiveMembers, DiskFiles, Reader, TreeFiles

NATIVE_FIELDS = {"jpg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "png": "PNG"}
"""The fields whose files are nearly always what the C extension writes, and what these are: PNGs only under `png`, and
JPEGs under any other name."""


def is_plain(task: ShardTask) -> bool:
    """Whether each sample of the task is one file, on this machine or in an archive."""
    samples = task.samples
    if not isinstance(samples, FileSamples) or not isinstance(samples.files, (TreeFiles, DiskFiles, ArchiveMembers)):
        return False
    return not (samples.names or samples.inline or has_negative(samples.labels))


def is_native(task: ShardTask) -> bool:
    """Whether the C extension writes nearly all of the task, without the GIL."""
    if not (is_plain(task) and _may_gather(task) and FORMATS[task.format].has_gatherer()):
        return False
    assert isinstance(task.samples, FileSamples)
    count = len(task.samples.paths)
    fields = fields_of(task.samples.paths).counts(0, count)
    return 2 * sum(files for field, files in fields.items() if field in NATIVE_FIELDS) > count


def write_plain(task: ShardTask, sink: Sink, advance: Advance) -> Written | None:
    """Write the samples of a task and the end mark if each is one file; otherwise do nothing and return None."""
    samples = task.samples
    if not is_plain(task) or not isinstance(samples, FileSamples):
        return None
    found = _Found(samples)
    with (
        samples.files.opened(samples.paths, found.sizes) as reader,
        _gathering(task, samples, found.field, reader) as gather,
    ):
        _write(task, found, reader, gather, sink, advance)
        since = None if gather is None or reader.ahead is None else reader.ahead.began
    return found.written(since)


class _Found:
    """The samples that were written, by column, and the files that were skipped. sizes, field: of all files. left: the
    numbers of those that were skipped. native: how many samples the C extension wrote, and of these the JPEGs and the
    progressive ones. done: counts what transcoding did, as in `Receipt`."""

    def __init__(self, samples: FileSamples) -> None:
        self.samples, self.sizes, self.field = samples, int64s(samples.sizes), fields_of(samples.paths)
        self.left: list[int] = []
        self.columns = {name: array("q") for name in COLUMNS[1:]}
        self.fields: dict[str, None] = {}
        self.types, self.done = Counter[str](), Counter[str]()
        self.skipped: list[Skipped] = []
        self.native = self.jpegs = self.progressive = 0

    def add(self, field: str, kind: str, values: tuple[int, ...]) -> None:
        """Add a sample. values: of COLUMNS without the label."""
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)
        self.fields[field] = None
        self.types[f"{kind} {field}"] += 1

    def leave_out(self, number: int, what: Skipped) -> None:
        """Note that a file is skipped."""
        self.left.append(number)
        self.skipped.append(what)

    def extend(self, first: int, some: Gathered) -> None:
        """Add what the C extension wrote, from file `first` on."""
        stop = first + some.count
        self.native += some.count
        self.jpegs, self.progressive = self.jpegs + some.jpegs, self.progressive + some.progressive
        sizes = self.samples.sizes[8 * first : 8 * stop]
        values = (some.offsets, some.lengths, some.starts, sizes, some.widths, some.heights, some.crcs)
        for column, more in zip(self.columns.values(), values, strict=True):
            column.frombytes(more)
        counts = self.field.counts(first, stop)
        self.fields.update(dict.fromkeys(counts))
        self.types.update({f"{NATIVE_FIELDS.get(field, 'JPEG')} {field}": count for field, count in counts.items()})

    def written(self, since: int | None) -> Written:
        """What was written. since: as in Written."""
        keys, paths, labels = self.samples.keys, self.samples.paths, self.samples.labels
        if self.left:
            kept = sorted({*range(len(keys))}.difference(self.left))
            keys, paths = keys.at(kept), paths.at(kept)
            labels = array("q", map(int64s(labels).__getitem__, kept)).tobytes()
        numbers = {"label": labels} | {name: column.tobytes() for name, column in self.columns.items()}
        rows = Rows(keys, texts_of_paths(paths), numbers)
        return Written(
            rows=rows,
            fields=[*self.fields],
            types=dict(self.types),
            skipped=self.skipped,
            done=dict(self.done),
            since=since,
            jpegs=(self.jpegs, self.progressive) if self.native == len(keys) else None,
        )


def _write(
    task: ShardTask, found: _Found, reader: Reader, gather: Gatherer | None, sink: Sink, advance: Advance
) -> None:
    """Write the samples to the sink. It is a single loop: for small files, a call for each step would cost a tenth
    more.
    """
    samples, fields, done = found.samples, found.field, found.done
    look, read, wish = LOOKS[task.check], reader.read, task.transcode
    form, texts, root = FORMATS[task.format], task.texts, samples.root
    paths, keys, sizes, labels = samples.paths, samples.keys, found.sizes, int64s(samples.labels)
    encode = form.encode
    pieces: list[bytes] = []
    position = pending = number = reported = seen = 0
    while number < len(paths):
        field = fields[number]
        fast = gather if field in NATIVE_FIELDS else None
        if pending >= sink.FLUSH_BYTES or (pending and fast is not None):
            sink.write(pieces, pending)
            pieces, pending = [], 0
        if seen >= Meter.TELL_BYTES or number - reported >= Meter.TELL_FILES:
            advance(number - reported, seen)
            reported, seen = number, 0
        if fast is not None and (some := sink.gather(fast, number)) is not None:
            found.extend(number, some)
            first, number = number, number + some.count
            position += some.size
            seen += sum(sizes[first:number])
            continue
        path, size, label, key = paths[number], sizes[number], labels[number], keys[number].decode()
        number += 1
        seen += size
        try:
            data = read(number - 1)
            if wish is not None:
                field, data = transcoded(field, data, wish, done)
            kind, width, height = look(data)
        except ShardkitError:
            raise
        except (OSError, ValueError) as exc:
            found.leave_out(number - 1, left_out(root, path, exc, skip_bad=task.skip_bad))
            continue
        text = texts[label] if texts else ""
        try:  # any other ValueError is a bug
            parts, offsets, length = encode(key, ((field, data), ("cls", b"%d" % label)), path, text)
        except TooLargeError as exc:
            found.leave_out(number - 1, left_out(root, path, exc, skip_bad=task.skip_bad))
            continue
        start = position + offsets[0]
        found.add(field, kind, (position, length, start, len(data), width, height, crc32c(data)))
        pieces += parts
        pending += length
        position += length
    sink.write([*pieces, form.end], pending + len(form.end))
    advance(len(paths) - reported, seen)


def _may_gather(task: ShardTask) -> bool:
    """Whether the C extension does what the task asks for: it checks headers only, transcodes nothing, and does not
    unpack."""
    assert isinstance(task.samples, FileSamples)
    files = task.samples.files
    methods = files.methods if isinstance(files, ArchiveMembers) else ()
    packed = 2 * sum(method > 0 for method in methods) > len(methods)
    return task.check == "header" and task.transcode is None and not packed


@contextmanager
def _gathering(task: ShardTask, samples: FileSamples, fields: Fields, reader: Reader) -> Iterator[Gatherer | None]:
    """The C extension's gatherer, if it can be used."""
    gather = None
    if _may_gather(task):
        form = FORMATS[task.format]
        held = reader.ahead or _members(samples.files, reader)
        root, paths = _places(samples)
        files = PlainFiles(paths, samples.keys, fields, samples.labels, samples.sizes)
        gather = form.gatherer(root, files, held, texts=StoredTexts(samples.paths, task.texts))
    try:
        yield gather
    finally:
        if gather is not None:
            gather.close()


def _members(files: AnyFiles, reader: Reader) -> StoredMembers | None:
    """Where the files are in an archive, if they are in one."""
    if not isinstance(files, ArchiveMembers) or reader.archive is None:
        return None
    return StoredMembers(reader.archive, files.numbers)


def _places(samples: FileSamples) -> tuple[bytes, Strings]:
    """(folder, the path of each file below it)."""
    if isinstance(samples.files, DiskFiles):
        return b"/", samples.files.paths
    return samples.root, samples.paths
