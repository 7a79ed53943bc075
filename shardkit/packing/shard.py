"""One shard: read its files, check them, write them to a tar beside the target, and tell what is in it.

This is the work that processes and machines share: `ShardTask` in, `Receipt` out, both plain data. Nothing here needs
NumPy, so that a worker process starts in a few hundredths of a second.
"""

from __future__ import annotations

import array
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal

import google_crc32c
import msgspec

from shardkit.errors import BadFileError
from shardkit.formats import images, tar
from shardkit.manifest import ShardEntry
from shardkit.sample import field_of, fs_text, text_of_path
from shardkit.storage.local import translated

Check = Literal["header", "full", "none"]
FLUSH_BYTES = 4 << 20
"""Bytes that wait before they are written: large enough for few calls, small enough to stay in memory's fast part."""


class ShardTask(msgspec.Struct, frozen=True):
    """What a worker needs to write one shard. `digest` names the content that is planned."""

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


class Skipped(msgspec.Struct, frozen=True):
    """A file that was left out, and why."""

    path: str
    reason: str


class Receipt(msgspec.Struct, frozen=True):
    """What is in a finished shard: its manifest entry, samples by label, field names, and what was left out.

    `types` counts what the files really are, by "FORMAT extension".
    """

    digest: str
    check: Check
    entry: ShardEntry
    labels: dict[int, int]
    fields: list[str]
    skipped: list[Skipped]
    types: dict[str, int]


class Rows(msgspec.Struct, frozen=True):
    """The index rows of a finished shard by column; each of `numbers` is native int64 as bytes."""

    keys: list[str]
    paths: list[str]
    numbers: dict[str, bytes]


COLUMNS = ("label", "offset", "size", "image_offset", "image_size", "width", "height", "crc32c")
Advance = Callable[[int, int], None]


def receipt_path(folder: bytes, name: str) -> bytes:
    """Where the receipt of a shard is kept."""
    return os.path.join(folder, os.fsencode(name) + b".receipt")


def rows_path(folder: bytes, name: str) -> bytes:
    """Where the index rows of a shard are kept until all shards are there."""
    return os.path.join(folder, os.fsencode(name) + b".rows")


def write_shard(task: ShardTask, advance: Advance) -> Receipt:
    """Write the shard of `task` and its receipt; `advance(files, bytes)` is told what was read now and then.

    The shard appears under its name only when it is whole and on the disk, and its receipt after it.
    Raises BadFileError for a file that can't be packed (unless the task skips those), StorageError, DestinationError.
    """
    target = os.path.join(task.folder, os.fsencode(task.name))
    part = target + b".%d.part" % os.getpid()
    try:
        with translated(target):
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                receipt, rows = _fill(_Sink(fd, target), task, advance)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(part, target)
            _save(rows_path(task.folder, task.name), msgspec.msgpack.encode(rows))
            _save(receipt_path(task.folder, task.name), msgspec.msgpack.encode(receipt))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    return receipt


def _save(path: bytes, data: bytes) -> None:
    part = path + b".%d.part" % os.getpid()
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


class _Sink:
    """The shard being written: collects pieces, writes them in large calls, and keeps the CRC-32C of it all."""

    def __init__(self, fd: int, place: bytes) -> None:
        self.fd, self.place = fd, place
        self.pieces: list[bytes] = []
        self.pending = 0
        self.bytes = 0
        self.crc = 0

    def add(self, pieces: list[bytes], size: int) -> None:
        self.pieces += pieces
        self.pending += size
        if self.pending >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        pieces, self.pieces = self.pieces, []
        if self.pending < 16384 * len(pieces):  # many small pieces: joining costs less than a long vector
            pieces = [b"".join(pieces)]
        for piece in pieces:
            self.crc = google_crc32c.extend(self.crc, piece)
        with translated(self.place):
            for first in range(0, len(pieces), 512):  # well under every system's IOV_MAX
                _write_all(self.fd, pieces[first : first + 512])
        self.bytes += self.pending
        self.pending = 0


def _write_all(fd: int, pieces: list[bytes]) -> None:
    wanted = sum(map(len, pieces))
    written = os.writev(fd, pieces)
    if written < wanted:
        rest = memoryview(b"".join(pieces))[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]


def _fill(sink: _Sink, task: ShardTask, advance: Advance) -> tuple[Receipt, Rows]:
    columns = {name: array.array("q") for name in COLUMNS}
    append = [columns[name].append for name in COLUMNS]
    keys: list[str] = []
    paths: list[str] = []
    fields: dict[str, None] = {}
    types: dict[str, int] = {}
    skipped: list[Skipped] = []
    position = told = told_bytes = seen_bytes = 0
    for number, (path, key, label, data, kind) in enumerate(_files(task, skipped), 1):
        if data is not None:
            name, width, height = kind
            extension = field_of(path.rpartition(".")[2])
            pieces, offsets, size = tar.encode_sample(key, ((extension, data), ("cls", b"%d" % label)))
            row = (
                label, position, size, position + offsets[0], len(data), width, height, google_crc32c.value(data),
            )  # fmt: skip
            for push, value in zip(append, row, strict=True):
                push(value)
            keys.append(key)
            paths.append(path)
            fields[extension] = None
            types[name + " " + extension] = types.get(name + " " + extension, 0) + 1
            sink.add(pieces, size)
            position += size
            seen_bytes += len(data)
        if seen_bytes - told_bytes >= FLUSH_BYTES or number - told >= 2000:
            advance(number - told, seen_bytes - told_bytes)
            told, told_bytes = number, seen_bytes
    sink.add([tar.END], len(tar.END))
    sink.flush()
    advance(len(task.paths) - told, seen_bytes - told_bytes)
    entry = ShardEntry(task.name, len(keys), sink.bytes, f"{sink.crc:08x}")
    counts = dict(sorted(Counter(columns["label"]).items()))
    receipt = Receipt(task.digest, task.check, entry, counts, [*fields], skipped, types)
    return receipt, Rows(keys, paths, {name: column.tobytes() for name, column in columns.items()})


_Kind = tuple[str, int, int]
_File = tuple[str, str, int, bytes | None, _Kind]
_UNKNOWN: _Kind = ("", 0, 0)


def _files(task: ShardTask, skipped: list[Skipped]) -> Iterator[_File]:
    """(path as text, key, label, data, (format, width, height)) of each file; data None for one that was skipped."""
    look = {"header": images.image_header, "full": images.check_image, "none": None}[task.check]
    prefix = os.path.join(task.root, b"")
    for path, size, label, key in zip(task.paths, task.sizes, task.labels, task.keys, strict=True):
        text = text_of_path(path)
        try:
            data = _read(prefix + path, size)
            kind = look(data) if look is not None else _kind_or_unknown(data)
        except (OSError, ValueError) as exc:
            reason = _reason(exc)
            if not task.skip_bad:
                cure = "mend or remove it, or leave such files out with --on-error skip"
                raise BadFileError(fs_text(prefix + path), reason, cure) from exc
            skipped.append(Skipped(text, reason))
            yield text, key, label, None, _UNKNOWN
        else:
            yield text, key, label, data, kind


def _kind_or_unknown(data: bytes) -> _Kind:
    try:
        return images.image_header(data)
    except ValueError:  # check "none": whatever it is, it goes in as it is
        return _UNKNOWN


def _reason(exc: OSError | ValueError) -> str:
    if isinstance(exc, FileNotFoundError):
        return "the file has vanished since the scan"
    if isinstance(exc, OSError):
        return f"can't be read ({exc.strerror})"
    return str(exc)


def _read(path: bytes, size: int) -> bytes:
    """The whole file, which must have `size` bytes. One byte more is asked for, so that growth is seen."""
    fd = os.open(path, os.O_RDONLY)
    try:
        data = os.read(fd, size + 1)
        while len(data) < size:  # a signal, a network file system, or more than 2 GiB
            more = os.read(fd, size + 1 - len(data))
            if not more:
                break
            data += more
    finally:
        os.close(fd)
    if len(data) != size:
        change = "grown" if len(data) > size else f"shrunk to {len(data)}"
        raise ValueError(f"the file had {size} bytes at the scan and has {change} since")
    return data
