"""The fast path of packing: a tree with one file for each sample, in one tight loop, with small JPEGs handled by the C
extension.

It writes the same bytes as the loop in samples.py.
"""

from __future__ import annotations

import array
import os
from collections import Counter
from collections.abc import Sequence

from shardkit.checksums import crc32c
from shardkit.errors import ShardkitError
from shardkit.formats.format import FORMATS
from shardkit.formats.tar.fast_write import IMAGE_AT, Gathered, Gatherer
from shardkit.formats.tfrecord.samples import TooLargeError
from shardkit.packing.write.file_samples import FileSamples, left_out
from shardkit.packing.write.images import LOOKS, transcoded
from shardkit.packing.write.receipt import COLUMNS, Rows, Skipped, Written
from shardkit.packing.write.sink import Advance, Meter, Sink
from shardkit.packing.write.task import ShardTask
from shardkit.sample import field_of, text_of_path
from shardkit.sources.readers import TreeFiles, read_file

GATHER_BYTES = 1 << 15
"""The largest mean file size for which a shard is written by the C extension."""

_Sample = tuple[int, int, int, int, int, int, int, int, str, str]
"""The file's number in the task; offset, size, image offset and image size in the shard; width, height, CRC-32C;
format, field."""


def write_plain(task: ShardTask, sink: Sink, advance: Advance) -> Written | None:
    """Write the samples of a task and the end mark if each is one file of a tree; otherwise do nothing and return
    None."""
    samples = task.samples
    if not isinstance(samples, FileSamples) or not isinstance(samples.files, TreeFiles):
        return None
    if samples.names or samples.inline or (samples.labels and min(samples.labels) < 0):
        return None
    done = Counter[str]()
    found, skipped = _write(task, samples, sink, advance, done)
    return Written(
        rows=_rows(samples, found),
        labels=[samples.labels[each[0]] for each in found],
        fields=list(dict.fromkeys(each[9] for each in found)),
        types={" ".join(kind): count for kind, count in Counter(each[8:] for each in found).items()},
        skipped=skipped,
        done=dict(done),
    )


def _write(
    task: ShardTask, samples: FileSamples, sink: Sink, advance: Advance, done: Counter[str]
) -> tuple[list[_Sample], list[Skipped]]:
    """Write the samples to the sink. It is a single loop: for small files, a call for each step would cost a tenth
    more.

    done: counts what transcoding did, as in `Receipt`.
    """
    look, read, wish = LOOKS[task.check], read_file, task.transcode
    form, texts, root = FORMATS[task.format], task.texts, samples.root
    paths, sizes = samples.paths, samples.sizes
    encode = form.encode
    prefix, known = os.path.join(root, b""), _Fields()
    fields = [known[path[path.rfind(b".") + 1 :]] for path in paths]
    label_fields = {label: ("cls", b"%d" % label) for label in set(samples.labels)}
    gather = _gatherer(task, samples, prefix, fields)
    found: list[_Sample] = []
    skipped: list[Skipped] = []
    pieces: list[bytes] = []
    position = pending = number = reported = seen = 0
    while number < len(paths):
        if pending >= sink.FLUSH_BYTES:
            sink.write(pieces, pending)
            pieces, pending = [], 0
        if seen >= Meter.TELL_BYTES or number - reported >= Meter.TELL_FILES:
            advance(number - reported, seen)
            reported, seen = number, 0
        if gather is not None:
            gathered = gather.take(number)
            if gathered.records:
                first, size = number, len(gathered.data)
                number += len(gathered.records)
                found += _gathered(gathered, first, position, fields, sizes)
                sink.write([*pieces, gathered.data], pending + size)
                pieces, pending = [], 0
                position += size
                seen += sum(sizes[first:number])
                continue
        path, size, label, key = paths[number], sizes[number], samples.labels[number], samples.keys[number]
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
            skipped.append(left_out(root, path, exc, skip_bad=task.skip_bad))
            continue
        text = texts[label] if texts else ""
        try:  # any other ValueError is a bug
            parts, offsets, length = encode(key, ((field, data), label_fields[label]), path, text)
        except TooLargeError as exc:
            skipped.append(left_out(root, path, exc, skip_bad=task.skip_bad))
            continue
        start = position + offsets[0]
        found.append((number - 1, position, length, start, len(data), width, height, crc32c(data), kind, field))
        pieces += parts
        pending += length
        position += length
    sink.write([*pieces, form.end], pending + len(form.end))
    advance(len(paths) - reported, seen)
    return found, skipped


def _gatherer(task: ShardTask, samples: FileSamples, prefix: bytes, fields: Sequence[str]) -> Gatherer | None:
    """The C extension's gatherer, if it can be used (it checks headers only, and writes tar) and is worth it.

    It copies the files, which Python does not: above about 30 kB this costs more than Python's work per file.
    """
    if task.check != "header" or task.transcode is not None:
        return None
    if sum(samples.sizes) > GATHER_BYTES * len(samples.sizes):
        return None
    return FORMATS[task.format].gatherer(prefix, samples.paths, samples.keys, fields, samples.labels, samples.sizes)


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


def _rows(samples: FileSamples, found: Sequence[_Sample]) -> Rows:
    columns = list(zip(*found, strict=True)) or [()] * 10
    numbers = columns[0]
    values = ([samples.labels[n] for n in numbers], *columns[1:8])
    return Rows(
        [samples.keys[n] for n in numbers],
        _texts([samples.paths[n] for n in numbers]),
        {name: array.array("q", column).tobytes() for name, column in zip(COLUMNS, values, strict=True)},
    )


def _texts(paths: Sequence[bytes]) -> list[str]:
    joined = b"\0".join(paths)
    if paths and joined.isascii() and b"\\" not in joined:  # as `text_of_path`, at a tenth of the cost
        return joined.decode().split("\0")
    return [text_of_path(path) for path in paths]
