"""Write samples with any fields to a shard, one after another, and collect their index rows."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from shardkit.checksums import crc32c
from shardkit.formats.columns import GrowingStrings
from shardkit.formats.format import FORMATS
from shardkit.formats.tfrecord.samples import TfrecordSample, carry_over, is_bytes
from shardkit.images.rewrite.transcode import Transcoding
from shardkit.packing.write.images import LOOKS, ImageCheck, transcoded
from shardkit.packing.write.receipt import COLUMNS, Rows, Skipped, Written
from shardkit.packing.write.sink import Sink
from shardkit.sample import IMAGE_FIELDS, text_of_path


class Batch(msgspec.Struct, frozen=True):
    """Samples that were framed and given to the sink already, `size` bytes in all. columns: the numbers of their index
    rows as native int64, in the order of COLUMNS. keys, paths: as `GrowingStrings.extend` takes them.

    names: of fields that were not in earlier batches. classes: of samples that may have several. jpegs, progressive: as
    in Receipt.
    """

    size: int
    columns: list[bytes]
    keys: tuple[bytes, bytes]
    paths: tuple[bytes, bytes]
    names: list[str]
    classes: list[int]
    jpegs: int
    progressive: int


class SampleWriter:
    """Writes samples with any fields to a sink, and collects their index rows. transcode: how to transcode first
    images."""

    def __init__(self, sink: Sink, form: str, check: ImageCheck, transcode: Transcoding | None = None) -> None:
        self.sink, self.format, self.transcode = sink, FORMATS[form], transcode
        self.look = LOOKS[check]
        self.columns = {name: array("q") for name in COLUMNS}
        self.keys, self.paths = GrowingStrings(), GrowingStrings()
        self.fields: dict[str, None] = {}
        self.types, self.done = Counter[str](), Counter[str]()
        self.counts: Counter[int] | None = None
        self.jpegs = self.progressive = 0
        self.uncounted = (array("q"), array("q"))
        self.pieces: list[bytes] = []
        self.position = self.pending = 0

    def add(self, key: str, fields: list[tuple[str, Any]], path: bytes, label: int, text: str) -> None:
        """Write a sample. ValueError for an invalid image, and for a key or field that the format can't hold.

        fields: bytes; for TFRecord, anything that `tfrecord.encode_sample` accepts.
        """
        image = next((n for n, (name, data) in enumerate(fields) if name in IMAGE_FIELDS and is_bytes(data)), None)
        kind, width, height, crc, size = "", 0, 0, 0, -1
        if image is not None:
            name, data = fields[image]
            if self.transcode is not None:
                name, data = transcoded(name, data, self.transcode, self.done)
                if any(other == name for other, _ in [*fields[:image], *fields[image + 1 :]]):
                    raise ValueError(f"it becomes {name}, which is already a field of the sample")
                fields = [*fields[:image], (name, data), *fields[image + 1 :]]
            kind, width, height = self.look(data)
            crc, size = crc32c(data), len(data)
        parts, offsets, length = self.format.encode(key, fields, path, text)
        start = -1 if image is None else offsets[image]
        if image is not None:
            self.types[f"{kind} {name}"] += 1
        self._take(key, [name for name, _ in fields], path, (label, length, start, size, width, height, crc), parts)

    def carry(self, sample: TfrecordSample, path: bytes, label: int) -> None:
        """Copy a sample from one TFRecord shard to another, with everything in its Example. ValueError for a key that a
        record can't hold."""
        record, found = carry_over(sample)
        image = next((name for name in found.fields if name in IMAGE_FIELDS), None)
        width, height, crc, start, size = 0, 0, 0, -1, -1
        if image is not None:
            start, size = found.fields[image]
            data = record[start : start + size]
            kind, width, height = self.look(data)
            crc = crc32c(data)
            self.types[f"{kind} {image}"] += 1
        self._take(sample.key, found.names, path, (label, len(record), start, size, width, height, crc), [record])

    def _take(
        self, key: str, names: Sequence[str], path: bytes, numbers: tuple[int, ...], parts: Sequence[bytes]
    ) -> None:
        """Record a sample. numbers: label, length, the image's first byte in it (-1: none), size, width, height and
        CRC."""
        label, length, start, *image = numbers
        row = (label, self.position, length, self.position + start if start >= 0 else -1, *image)
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(value)
        if start >= 0:
            self.uncounted[0].append(self.position + start)
            self.uncounted[1].append(image[0])
        self.keys.add(key.encode())
        self.paths.add(text_of_path(path).encode())
        self.fields.update(dict.fromkeys(names))
        self.pieces += parts
        self.position += length
        self.pending += length
        if self.pending >= self.sink.FLUSH_BYTES:
            self._flush()

    def take(self, batch: Batch) -> None:
        """Record samples that the sink has already, and count their classes."""
        for column, values in zip(self.columns.values(), batch.columns, strict=True):
            column.frombytes(values)
        labels = self.columns["label"][len(self.keys) :]
        self.count(labels if labels[0] >= 0 else batch.classes)  # all samples have the same kind of label
        self.keys.extend(*batch.keys)
        self.paths.extend(*batch.paths)
        self.fields.update(dict.fromkeys(batch.names))
        self.jpegs += batch.jpegs
        self.progressive += batch.progressive
        self.position += batch.size

    def count(self, classes: Iterable[int]) -> None:
        """Count the classes of the last sample, if samples may have several."""
        if self.counts is None:
            self.counts = Counter()
        self.counts.update(classes)

    def end(self) -> None:
        """Write the end mark."""
        self.pieces.append(self.format.end)
        self.pending += len(self.format.end)
        self._flush()

    def _flush(self) -> None:
        self.sink.write(self.pieces, self.pending)
        self.pieces, self.pending = [], 0

    def written(self, skipped: list[Skipped]) -> Written:
        """What was written."""
        numbers = {name: column.tobytes() for name, column in self.columns.items()}
        return Written(
            rows=Rows(self.keys.strings(), self.paths.strings(), numbers),
            fields=[*self.fields],
            types=dict(self.types),
            skipped=skipped,
            done=dict(self.done),
            counts=None if self.counts is None else dict(self.counts),
            jpegs=(self.jpegs, self.progressive),
            uncounted=(self.uncounted[0].tobytes(), self.uncounted[1].tobytes()),
        )
