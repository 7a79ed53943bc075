"""The fast path of packing: one file for each sample, on this machine or in an archive, in one tight loop, with JPEGs
and PNGs handled by the C extension.

It writes the same bytes as the loop in samples.py.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from shardkit.checksums import crc32c
from shardkit.errors import ShardkitError
from shardkit.formats.format import FORMATS
from shardkit.formats.tar.fast_write import IN_TAR, Gathered, Gatherer, StoredMembers, StoredTexts
from shardkit.formats.tfrecord.samples import TooLargeError
from shardkit.packing.write.file_samples import FileSamples, left_out
from shardkit.packing.write.images import LOOKS, transcoded
from shardkit.packing.write.receipt import COLUMNS, Rows, Skipped, Written
from shardkit.packing.write.sink import Advance, Meter, Sink
from shardkit.packing.write.task import ShardTask
from shardkit.sample import field_of, text_of_path, texts_of_paths
from shardkit.sources.readers import AnyFiles, ArchiveMembers, DiskFiles, Reader, TreeFiles

NATIVE_FIELDS = {"jpg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "png": "PNG"}
"""The fields whose files are nearly always what the C extension writes, and what these are: PNGs only under `png`, and
JPEGs under any other name."""

LOOKED_AT = 256
"""The paths of a shard by which its way is chosen."""


def is_plain(task: ShardTask) -> bool:
    """Whether each sample of the task is one file, on this machine or in an archive."""
    samples = task.samples
    if not isinstance(samples, FileSamples) or not isinstance(samples.files, (TreeFiles, DiskFiles, ArchiveMembers)):
        return False
    return not (samples.names or samples.inline or (samples.labels and min(samples.labels) < 0))


def is_native(task: ShardTask) -> bool:
    """Whether the C extension writes nearly all of the task, without the GIL."""
    if not (is_plain(task) and _may_gather(task) and FORMATS[task.format].has_gatherer()):
        return False
    assert isinstance(task.samples, FileSamples)
    some = task.samples.paths[:: len(task.samples.paths) // LOOKED_AT + 1]
    return 2 * sum(field in NATIVE_FIELDS for field in _fields(some)) > len(some)


def write_plain(task: ShardTask, sink: Sink, advance: Advance) -> Written | None:
    """Write the samples of a task and the end mark if each is one file; otherwise do nothing and return None."""
    samples = task.samples
    if not is_plain(task) or not isinstance(samples, FileSamples):
        return None
    fields = _fields(samples.paths)
    found = _Found(samples, fields)
    with (
        samples.files.opened(samples.paths, samples.sizes) as reader,
        _gathering(task, samples, fields, reader) as gather,
    ):
        _write(task, found, reader, gather, sink, advance)
        since = None if gather is None or reader.ahead is None else reader.ahead.began
    return found.written(since)


class _Found:
    """The samples that were written, by column, and the files that were skipped. numbers: of their files in the task.
    done: counts what transcoding did, as in `Receipt`."""

    def __init__(self, samples: FileSamples, fields: Sequence[str]) -> None:
        self.samples, self.fields_of_files = samples, fields
        self.numbers = array("q")
        self.columns = {name: array("q") for name in COLUMNS[1:]}
        self.fields: dict[str, None] = {}
        self.types, self.done = Counter[str](), Counter[str]()
        self.skipped: list[Skipped] = []

    def add(self, number: int, field: str, kind: str, values: tuple[int, ...]) -> None:
        """Add a sample. values: of COLUMNS without the label."""
        self.numbers.append(number)
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)
        self.fields[field] = None
        self.types[f"{kind} {field}"] += 1

    def extend(self, first: int, some: Gathered) -> None:
        """Add what the C extension wrote, from file `first` on."""
        stop = first + some.count
        self.numbers.extend(range(first, stop))
        sizes = array("q", self.samples.sizes[first:stop])
        values = (some.offsets, some.lengths, some.starts, sizes, some.widths, some.heights, some.crcs)
        for column, more in zip(self.columns.values(), values, strict=True):
            column.extend(more)
        fields = self.fields_of_files[first:stop]
        one = fields.count(fields[0]) == len(fields)
        counts = {fields[0]: len(fields)} if one else Counter(fields)
        self.fields.update(dict.fromkeys(counts))
        self.types.update({f"{NATIVE_FIELDS.get(field, 'JPEG')} {field}": count for field, count in counts.items()})

    def written(self, since: int | None) -> Written:
        """What was written. since: as in Written."""
        samples = self.samples
        keys, paths, labels = samples.keys, samples.paths, samples.labels
        if len(self.numbers) < len(keys):
            keys, paths, labels = ([each[n] for n in self.numbers] for each in (keys, paths, labels))  # type: ignore[assignment]
        numbers = {"label": array("q", labels), **self.columns}
        rows = Rows(keys, texts_of_paths(paths), {name: column.tobytes() for name, column in numbers.items()})
        return Written(
            rows=rows,
            labels=labels,
            fields=[*self.fields],
            types=dict(self.types),
            skipped=self.skipped,
            done=dict(self.done),
            since=since,
        )


def _write(
    task: ShardTask, found: _Found, reader: Reader, gather: Gatherer | None, sink: Sink, advance: Advance
) -> None:
    """Write the samples to the sink. It is a single loop: for small files, a call for each step would cost a tenth
    more.
    """
    samples, fields, skipped, done = found.samples, found.fields_of_files, found.skipped, found.done
    look, read, wish = LOOKS[task.check], reader.read, task.transcode
    form, texts, root = FORMATS[task.format], task.texts, samples.root
    paths, sizes = samples.paths, samples.sizes
    encode = form.encode
    label_fields = {label: ("cls", b"%d" % label) for label in set(samples.labels)}
    pieces: list[bytes] = []
    position = pending = number = reported = seen = 0
    while number < len(paths):
        fast = gather if fields[number] in NATIVE_FIELDS else None
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
        path, size, label, key = paths[number], sizes[number], samples.labels[number], samples.keys[number]
        field = fields[number]
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
            skipped.append(left_out(root, path, exc, skip_bad=task.skip_bad))
            continue
        text = texts[label] if texts else ""
        try:  # any other ValueError is a bug
            parts, offsets, length = encode(key, ((field, data), label_fields[label]), path, text)
        except TooLargeError as exc:
            skipped.append(left_out(root, path, exc, skip_bad=task.skip_bad))
            continue
        start = position + offsets[0]
        found.add(number - 1, field, kind, (position, length, start, len(data), width, height, crc32c(data)))
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
    packed = isinstance(files, ArchiveMembers) and 2 * sum(map(bool, files.methods)) > len(files.offsets)
    return task.check == "header" and task.transcode is None and not packed


@contextmanager
def _gathering(
    task: ShardTask, samples: FileSamples, fields: Sequence[str], reader: Reader
) -> Iterator[Gatherer | None]:
    """The C extension's gatherer, if it can be used."""
    gather = None
    if _may_gather(task):
        form = FORMATS[task.format]
        held = reader.ahead or _members(samples.files, reader)
        gather = form.gatherer(
            *_places(samples), samples.keys, fields, samples.labels, samples.sizes, held,
            texts=StoredTexts(samples.paths, task.texts),
        )  # fmt: skip
    try:
        yield gather
    finally:
        if gather is not None:
            gather.close()


def _members(files: AnyFiles, reader: Reader) -> StoredMembers | None:
    """Where the files are in an archive, if they are in one."""
    if not isinstance(files, ArchiveMembers) or reader.archive is None:
        return None
    numbers = array("q", bytes(32 * len(files.offsets)))
    numbers[::4] = array("q", files.offsets)
    if files.methods:
        numbers[1::4], numbers[3::4] = array("q", files.packed), array("q", files.crcs)
    numbers[2::4] = array("q", files.methods or [IN_TAR] * len(files.offsets))
    return StoredMembers(reader.archive, numbers.tobytes())


def _places(samples: FileSamples) -> tuple[bytes, list[bytes]]:
    """(folder, the path of each file below it)."""
    if isinstance(samples.files, DiskFiles):
        return b"/", [path.lstrip(b"/") for path in samples.files.paths]
    return samples.root, samples.paths


def _fields(paths: Sequence[bytes]) -> list[str]:
    """The field of each file, by its extension."""
    if paths and (b"\0".join(paths) + b"\0").count(b".jpg\0") == len(paths):  # nearly always: a tenth of the cost
        return ["jpg"] * len(paths)
    known = _Fields()
    return [known[path[path.rfind(b".") + 1 :]] for path in paths]


class _Fields(dict[bytes, str]):
    """File extension -> field."""

    def __missing__(self, extension: bytes) -> str:
        self[extension] = field = field_of(text_of_path(extension))
        return field
