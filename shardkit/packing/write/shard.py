"""One shard: read its files, check them, write them to a file beside the target, and tell what is in it.

This is the work that processes and machines share: `ShardTask` in, `Receipt` out, both plain data. Nothing here needs
NumPy, so that a worker process starts in a few hundredths of a second. Samples of several files, and those of another
dataset, come as tasks of their own (fields.py, stored.py), and all end in `write_shard`.
"""

from __future__ import annotations

import array
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

import msgspec

from shardkit.checksums import crc32c
from shardkit.errors import BadFileError, ShardkitError
from shardkit.formats.format import FORMATS
from shardkit.formats.tar.fast_write import IMAGE_AT, Gathered, Gatherer
from shardkit.formats.tfrecord.samples import TooLargeError
from shardkit.images import header
from shardkit.images.rewrite.transcode import Transcoding, transcode
from shardkit.sample import field_of, fs_text, text_of_path
from shardkit.shards.manifest import ShardEntry
from shardkit.sources.readers import read_file
from shardkit.storage.files import translated, whole_file

Check = Literal["header", "full", "none"]
FLUSH_BYTES = 1 << 18
"""Bytes that wait before they are written: large enough for few calls, small enough to stay in the core's cache."""
GATHER_BYTES = 1 << 15
"""Up to which mean size of a shard's files they go the way of the C extension."""
TELL_BYTES, TELL_FILES = 4 << 20, 2000
"""How much is read between two calls of `advance`."""


class Task(Protocol):
    """What a worker needs to write one shard. `digest` names the content that is planned."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def folder(self) -> bytes: ...  # noqa: D102
    @property
    def check(self) -> Check: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def skip_bad(self) -> bool: ...  # noqa: D102

    def files(self) -> Iterator[bytes]:
        """The files that the shard is made of."""
        ...

    def extent(self) -> tuple[int, int]:
        """(files, bytes) that are to be read."""
        ...

    def fill(self, sink: Sink, advance: Advance) -> Filled:
        """Write the samples and the end mark to the sink."""
        ...


class ShardTask(msgspec.Struct, frozen=True, tag=True):
    """A shard whose samples are one file each, with the label of its class.

    texts: label -> name of the class, for formats that hold it.
    """

    name: str
    folder: bytes
    root: bytes
    paths: list[bytes]
    sizes: list[int]
    labels: list[int]
    keys: list[str]
    check: Check
    skip_bad: bool
    digest: str
    format: str = "tar"
    texts: dict[int, str] = {}
    transcode: Transcoding | None = None

    def files(self) -> Iterator[bytes]:
        """The files that the shard is made of."""
        prefix = os.path.join(self.root, b"")
        return (prefix + path for path in self.paths)

    def extent(self) -> tuple[int, int]:
        """(files, bytes) that are to be read."""
        return len(self.paths), sum(self.sizes)

    def fill(self, sink: Sink, advance: Advance) -> Filled:
        """Read, check and write the files."""
        done = Counter[str]()
        samples, skipped = _fill(sink, self, advance, done)
        return Filled(
            rows=_rows(self, samples),
            labels=[self.labels[sample[0]] for sample in samples],
            fields=list(dict.fromkeys(sample[9] for sample in samples)),
            types={" ".join(kind): count for kind, count in Counter(sample[8:] for sample in samples).items()},
            skipped=skipped,
            done=dict(done),
        )


class Skipped(msgspec.Struct, frozen=True):
    """A file that was left out, and why."""

    path: str
    reason: str


class Receipt(msgspec.Struct, frozen=True):
    """What is in a finished shard: its manifest entry, samples by label, field names, and what was left out.

    types: counts what the files really are, by "FORMAT extension". since: when the first file was read (nanoseconds,
    as file times). rows_crc32c: of the file with the index rows. done: counts what transcoding did, by its `How`, and
    as "first of several" where other images of a file were left out, as "incomplete JPEG" those that lack scans and
    therefore were not rewritten.
    """

    digest: str
    check: Check
    entry: ShardEntry
    labels: dict[int, int]
    fields: list[str]
    skipped: list[Skipped]
    types: dict[str, int]
    since: int
    rows_crc32c: int
    done: dict[str, int] = {}


class Rows(msgspec.Struct, frozen=True):
    """The index rows of a finished shard by column; each of `numbers` is native int64 as bytes."""

    keys: list[str]
    paths: list[str]
    numbers: dict[str, bytes]


class Filled(msgspec.Struct, frozen=True):
    """What was written to a shard: its index rows, the label of each sample (-1: none), and parts of its Receipt.

    counts: samples of each class, where a sample may have several.
    """

    rows: Rows
    labels: list[int]
    fields: list[str]
    types: dict[str, int]
    skipped: list[Skipped]
    done: dict[str, int] = {}
    counts: dict[int, int] | None = None


COLUMNS = ("label", "offset", "size", "image_offset", "image_size", "width", "height", "crc32c")
Advance = Callable[[int, int], None]


class Meter:
    """Tells `advance` how much of a task has been read, now and then; what it tells adds up to the task's `extent`.

    Bytes are those of the source, also of samples that are left out, however many the shard gets of them.
    """

    def __init__(self, advance: Advance, extent: tuple[int, int]) -> None:
        self._advance = advance
        self._left, self._left_bytes = extent
        self._samples = self._bytes = 0

    def read(self, size: int) -> None:
        """One more sample of `size` bytes has been read."""
        self._samples += 1
        self._bytes += size
        if self._bytes >= TELL_BYTES or self._samples >= TELL_FILES:
            self._tell(self._samples, self._bytes)

    def end(self) -> None:
        """All has been read."""
        self._tell(self._left, self._left_bytes)

    def _tell(self, samples: int, size: int) -> None:
        self._advance(samples, size)
        self._left -= samples
        self._left_bytes -= size
        self._samples = self._bytes = 0


def receipt_path(folder: bytes, name: str) -> bytes:
    """Where the receipt of a shard is kept."""
    return os.path.join(folder, os.fsencode(name) + b".receipt")


def rows_path(folder: bytes, name: str) -> bytes:
    """Where the index rows of a shard are kept until all shards are there."""
    return os.path.join(folder, os.fsencode(name) + b".rows")


def write_shard(task: Task, advance: Advance) -> Receipt:
    """Write the shard of `task` and its receipt; `advance(files, bytes)` is told what was read now and then.

    The shard appears under its name only when it is whole and on the disk, and its receipt after it.
    Raises BadFileError for a file that can't be packed (unless the task skips those), StorageError, DestinationError.
    """
    target = os.path.join(task.folder, os.fsencode(task.name))
    with whole_file(target) as file:
        with translated(target):
            since = os.fstat(file.fileno()).st_mtime_ns
        sink = Sink(file.fileno(), target)
        filled = task.fill(sink, advance)
    return keep_receipt(task.folder, task.name, sink, filled, digest=task.digest, check=task.check, since=since)


def keep_receipt(
    folder: bytes, name: str, sink: Sink, filled: Filled, *, digest: str, check: Check, since: int
) -> Receipt:
    """Write the index rows and the receipt of a shard that is there."""
    rows = msgspec.msgpack.encode(filled.rows)
    receipt = Receipt(
        digest=digest,
        check=check,
        entry=ShardEntry(name, len(filled.labels), sink.bytes, f"{sink.crc:08x}"),
        labels=dict(sorted((Counter(filled.labels) if filled.counts is None else filled.counts).items())),
        fields=filled.fields,
        skipped=filled.skipped,
        types=filled.types,
        since=since,
        rows_crc32c=crc32c(rows),
        done=filled.done,
    )
    # Not flushed: the receipt has the rows' checksum, and one that does not decode is none.
    with whole_file(rows_path(folder, name), sync=False) as file:
        file.write(rows)
    with whole_file(receipt_path(folder, name), sync=False) as file:
        file.write(msgspec.msgpack.encode(receipt))
    return receipt


class Sink:
    """The shard being written, and the CRC-32C of it all."""

    def __init__(self, fd: int, place: bytes) -> None:
        self.fd, self.place = fd, place
        self.bytes = 0
        self.crc = 0

    def write(self, pieces: list[bytes], size: int) -> None:
        """Write the pieces, which have `size` bytes together."""
        if size < 16384 * len(pieces):  # many small ones: joining costs less than a long vector
            pieces = [b"".join(pieces)]
        for piece in pieces:
            self.crc = crc32c(piece, self.crc)
        with translated(self.place):
            for first in range(0, len(pieces), 512):  # well under every system's IOV_MAX
                _write_all(self.fd, pieces[first : first + 512])
        self.bytes += size


def _write_all(fd: int, pieces: list[bytes]) -> None:
    wanted = sum(map(len, pieces))
    written = os.writev(fd, pieces)
    if written < wanted:
        rest = memoryview(b"".join(pieces))[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]


_Sample = tuple[int, int, int, int, int, int, int, int, str, str]
"""Number of the file in the task; offset, size, image offset and image size in the shard; width, height, CRC-32C;
format, field."""


def _fill(sink: Sink, task: ShardTask, advance: Advance, done: Counter[str]) -> tuple[list[_Sample], list[Skipped]]:
    """Write the samples to the sink. In one loop: for small files, a call for each step would cost a tenth more.

    done: counts what transcoding did, as in `Receipt`.
    """
    look, read = LOOKS[task.check], read_file
    form, texts, wish = FORMATS[task.format], task.texts, task.transcode
    encode = form.encode
    prefix, known = os.path.join(task.root, b""), _Fields()
    fields = [known[path[path.rfind(b".") + 1 :]] for path in task.paths]
    label_fields = {label: ("cls", b"%d" % label) for label in set(task.labels)}
    gather = _gatherer(task, prefix, fields)
    samples: list[_Sample] = []
    skipped: list[Skipped] = []
    pieces: list[bytes] = []
    position = pending = number = told = seen = 0
    while number < len(task.paths):
        if pending >= FLUSH_BYTES:
            sink.write(pieces, pending)
            pieces, pending = [], 0
        if seen >= TELL_BYTES or number - told >= TELL_FILES:
            advance(number - told, seen)
            told, seen = number, 0
        if gather is not None:
            found = gather.take(number)
            if found.records:
                first, size = number, len(found.data)
                number += len(found.records)
                samples += _gathered(found, first, position, fields, task.sizes)
                sink.write([*pieces, found.data], pending + size)
                pieces, pending = [], 0
                position += size
                seen += sum(task.sizes[first:number])
                continue
        path, size, label, key = task.paths[number], task.sizes[number], task.labels[number], task.keys[number]
        field = fields[number]
        number += 1
        seen += size
        try:
            data = read(prefix + path, size)
            if wish is not None:
                field, data = transcoded(field, data, wish, done)
            kind, width, height = look(data)
        except ShardkitError:
            raise
        except (OSError, ValueError) as exc:
            skipped.append(left_out(task.root, path, exc, skip_bad=task.skip_bad))
            continue
        text = texts[label] if texts else ""
        try:  # any other ValueError is our own mistake
            parts, offsets, length = encode(key, ((field, data), label_fields[label]), path, text)
        except TooLargeError as exc:
            skipped.append(left_out(task.root, path, exc, skip_bad=task.skip_bad))
            continue
        start = position + offsets[0]
        samples.append((number - 1, position, length, start, len(data), width, height, crc32c(data), kind, field))
        pieces += parts
        pending += length
        position += length
    sink.write([*pieces, form.end], pending + len(form.end))
    advance(len(task.paths) - told, seen)
    return samples, skipped


def _gatherer(task: ShardTask, prefix: bytes, fields: Sequence[str]) -> Gatherer | None:
    """The fast way, where it may be gone (it looks at headers, and writes tar) and pays.

    It copies the files, and Python does not: from about 30 kB on that costs more than Python's work for each file.
    """
    if task.check != "header" or task.transcode is not None:
        return None
    if sum(task.sizes) > GATHER_BYTES * len(task.sizes):
        return None
    return FORMATS[task.format].gatherer(prefix, task.paths, task.keys, fields, task.labels, task.sizes)


def transcoded(field: str, data: bytes, wish: Transcoding, done: Counter[str]) -> tuple[str, bytes]:
    """(field, bytes) of an image as it is asked for; `done` counts. ValueError as from `transcode`."""
    made = transcode(data, wish)
    done[made.how] += 1
    done["first of several"] += made.first_of
    done["incomplete JPEG"] += made.incomplete
    return made.field or field, made.data


def _gathered(found: Gathered, first: int, position: int, fields: Sequence[str], sizes: Sequence[int]) -> list[_Sample]:
    start = position + IMAGE_AT
    return [
        (number, position + at, size, start + at, sizes[number], width, height, crc, "JPEG", fields[number])
        for number, (at, size, width, height, crc, _) in enumerate(found.records, first)
    ]


class _Fields(dict[bytes, str]):
    """File extension -> field."""

    def __missing__(self, extension: bytes) -> str:
        self[extension] = field = field_of(text_of_path(extension))
        return field


def _rows(task: ShardTask, samples: Sequence[_Sample]) -> Rows:
    columns = list(zip(*samples, strict=True)) or [()] * 10
    numbers = columns[0]
    values = ([task.labels[n] for n in numbers], *columns[1:8])
    return Rows(
        [task.keys[n] for n in numbers],
        _texts([task.paths[n] for n in numbers]),
        {name: array.array("q", column).tobytes() for name, column in zip(COLUMNS, values, strict=True)},
    )


def _texts(paths: Sequence[bytes]) -> list[str]:
    joined = b"\0".join(paths)
    if paths and joined.isascii() and b"\\" not in joined:  # as `text_of_path`, at a tenth of the cost
        return joined.decode().split("\0")
    return [text_of_path(path) for path in paths]


def _kind_or_unknown(data: bytes) -> tuple[str, int, int]:
    try:
        return header.image_header(data)
    except ValueError:  # check "none": whatever it is, it goes in as it is
        return "", 0, 0


LOOKS: dict[str, Callable[[bytes], tuple[str, int, int]]] = {
    "header": header.image_header,
    "full": header.check_image,
    "none": _kind_or_unknown,
}


def left_out(root: bytes, path: bytes, exc: OSError | ValueError, *, skip_bad: bool) -> Skipped:
    """The note about a bad file. BadFileError where those are not skipped."""
    if isinstance(exc, FileNotFoundError):
        reason = "the file has vanished since the scan"
    else:
        reason = f"can't be read ({exc.strerror})" if isinstance(exc, OSError) else str(exc)
    if not skip_bad:
        place = fs_text(os.path.join(root, path))
        cure = 'fix or remove it, or skip such files with `on_error="skip"`; then run the same command again'
        raise BadFileError(place, reason, cure) from exc
    return Skipped(text_of_path(path), reason)
