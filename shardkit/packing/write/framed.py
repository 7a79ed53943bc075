"""The fast path for samples that a program writes: the optional C extension `framing`, and what it needs.

It frames plain samples into the memory of a ThreadSink, and collects their index rows in batches, which a SampleWriter
takes over. If it is not built, and for samples that are not plain, `SampleWriter.add` does the same work; the bytes are
equal either way.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any, Protocol

from shardkit.formats.format import FORMATS, Format, FormatName
from shardkit.formats.tar.headers import ustar_block
from shardkit.images.jpeg import MAX_SCANS, is_progressive
from shardkit.images.pillow import MAX_PIXELS
from shardkit.native import load
from shardkit.packing.write.encoders import encoded
from shardkit.packing.write.images import LOOKS, ImageCheck
from shardkit.packing.write.labels import Targets
from shardkit.packing.write.sink import ThreadSink
from shardkit.packing.write.writer import Batch, SampleWriter
from shardkit.sample import IMAGE_FIELDS, MAX_LABEL, field_of

TAKEN, DUE, NOT_TAKEN = range(3)
"""The answers of `FramedSamples.add`: DUE asks for `drain`, NOT_TAKEN that the caller writes the sample."""

_IGNORED, _PLAIN, _IMAGE, _LABEL, _KEY = range(5)
_LABELS = {None: 0, "none": 1, "class": 2, "multi": 3, "number": 3}
_SECRET_BYTES = 16


def extension() -> Any:
    """The C extension, or None if it was not built or this processor lacks what it needs."""
    return load("framing")[0]


class Keys(Protocol):
    """The keys of a dataset, without the memory that their text takes."""

    def add(self, key: bytes, /) -> bool:
        """Add a key. Whether it is new."""
        ...


class PlainKeys:
    """The keys by 80 bits of their digest."""

    def __init__(self) -> None:
        self._marks: set[bytes] = set()

    def add(self, key: bytes, /) -> bool:
        """Add a key. Whether it is new."""
        mark = hashlib.blake2b(key, digest_size=10).digest()
        known = len(self._marks)
        self._marks.add(mark)
        return len(self._marks) > known


def new_keys() -> Keys:
    """An empty set of keys; with the C extension, it holds 128 bits of each."""
    native = extension()
    if native is None:
        return PlainKeys()
    keys: Keys = native.KeySet(os.urandom(_SECRET_BYTES))
    return keys


class FramedSamples:
    """The samples of one shard that the C extension frames. Requires `extension()`.

    sink: of the shard. keys: those of the dataset; None if samples are numbered.
    """

    def __init__(
        self, sink: ThreadSink, form: FormatName, check: ImageCheck, targets: Targets, keys: Keys | None
    ) -> None:
        self._sink, self._targets, self._form, self._look = sink, targets, FORMATS[form], LOOKS[check]
        names = targets.classes
        self._framer = extension().Framer(
            ustar_block(b"", 0, b"0", b""), form == "tfrecord", check == "full", MAX_PIXELS, MAX_SCANS,
            MAX_LABEL + 1 if names is None else len(names), self._described, encoded, self._looked, targets.stored,
            None if names is None else tuple(map(_utf8, names)), targets.places, keys,
        )  # fmt: skip

    def add(self, sample: Mapping[str, Any], path: bytes | None) -> int:
        """Frame a sample, if it is plain and fits. Returns TAKEN, DUE or NOT_TAKEN."""
        answer: int = self._framer.add(sample, path)
        return answer

    def go_on(self, writer: SampleWriter, *, limit: int, number: int, left: int) -> Any:
        """Go on where the writer is, with the sample `number`; returns `add` of the extension itself.

        limit: the bytes of the shard without its end mark. left: samples that fit it, -1 for any number.
        """
        self._framer.go_on(self._sink.output, writer.position, limit, number, left, _LABELS[self._targets.kind])
        return self._framer.add

    def drain(self, writer: SampleWriter) -> tuple[int, int]:
        """Give the index rows of what was framed to the writer. Returns (samples, bytes)."""
        count, size, columns, keys, paths, names, jpegs, types, classes, most, *found = self._framer.drain(
            writer.keys.length, writer.paths.length
        )
        if not count:
            return 0, 0
        for name, number in jpegs:
            writer.types[f"JPEG {name}"] += number
        writer.types.update(types)
        self._targets.most = max(self._targets.most, most)
        writer.take(Batch(size, columns, keys, paths, names, classes, *found))
        return count, size

    def _looked(self, data: bytes) -> tuple[str, int, int, bool, bool]:
        """(format, width, height, whether it is a JPEG, a progressive one) of an image."""
        progressive = is_progressive(data)
        return (*self._look(data), progressive is not None, progressive is True)

    def _described(self, name: str) -> tuple[str, int] | None:
        """(field, what it is) for a name in a sample; None if the format can't hold it."""
        if name == "__key__":
            return name, _KEY
        if name == "cls":
            return name, _LABEL
        if name.startswith("__"):
            return name, _IGNORED
        field = field_of(name)
        if field == "cls" or not _holds(self._form, field):
            return None
        return field, _IMAGE if field in IMAGE_FIELDS else _PLAIN


def _holds(form: Format, field: str) -> bool:
    try:
        form.encode("key", [(field, b"")], b"key", "")
    except ValueError:
        return False
    return True


def _utf8(name: str) -> bytes | None:
    try:
        return name.encode()
    except UnicodeEncodeError:  # Python writes its samples
        return None
