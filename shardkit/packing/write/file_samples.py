"""Samples made of one or several files each, wherever these are, with fields that are not in a file."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping

import msgspec

from shardkit.errors import BadFileError
from shardkit.formats.columns import Strings, int64s
from shardkit.packing.write.receipt import Skipped
from shardkit.packing.write.writer import SampleWriter
from shardkit.sample import field_of, fs_text, text_of_path
from shardkit.sources.readers import AnyFiles, Reader, TreeFiles


class FileSamples(msgspec.Struct, frozen=True, tag=True):
    """The samples of a shard. Each consists of a file for each of `names`, or of one file whose extension is its field.

    root: the prefix of paths in messages. files: their origin. paths, sizes: of all files, sample by sample. labels: of
    each sample, -1 for none. keys: as UTF-8. Numbers are as `int64s` views them. primary: which file of each sample
    gives its path in the index. inline: field -> its bytes in each sample. multi: whether the field `cls.json` is a
    list of class numbers, to be counted.
    """

    root: bytes
    files: AnyFiles
    paths: Strings
    sizes: bytes
    labels: bytes
    keys: Strings
    names: list[str] = []
    primary: int = 0
    inline: dict[str, Strings] = {}
    multi: bool = False

    @property
    def width(self) -> int:
        """The number of files of each sample."""
        return len(self.names) or 1

    def watched(self) -> Iterator[bytes]:
        """The local files whose times show whether the shard is out of date."""
        return self.files.watched(self.paths)

    def extent(self) -> tuple[int, int]:
        """(samples, bytes) to read."""
        return len(self.keys), sum(int64s(self.sizes))

    def digest(self, salt: bytes, marks: bytes) -> str:
        """The digest of everything that determines the shard's bytes. salt: of the packing. marks: of these files'
        origin."""
        root = b"" if isinstance(self.files, TreeFiles) else self.root
        digest = hashlib.blake2b(digest_size=16)
        for part in (salt, marks, root, "\0".join(self.names).encode(), *self._columns()):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.hexdigest()

    def _columns(self) -> Iterator[bytes]:
        """All buffers."""
        yield from (self.paths.data, self.paths.offsets, self.keys.data, self.keys.offsets, self.sizes, self.labels)
        for name, values in self.inline.items():
            yield from (name.encode(), values.data, values.offsets)

    @contextlib.contextmanager
    def opened(self) -> Iterator[Iterator[_FileSample]]:
        """The samples in order; each must be read before the next."""
        sizes, labels = int64s(self.sizes), int64s(self.labels)
        with self.files.opened(self.paths, sizes) as reader:
            yield (_FileSample(self, number, labels[number], reader, sizes) for number in range(len(self.keys)))


class _FileSample:
    """One sample. path: of the file that is being read, or of the sample."""

    def __init__(self, samples: FileSamples, number: int, label: int, reader: Reader, sizes: memoryview[int]) -> None:
        self.samples, self.number, self.label, self.reader = samples, number, label, reader
        self.first = number * samples.width
        self.size = sum(sizes[self.first : self.first + samples.width])
        self.path = samples.paths[self.first + samples.primary]

    def write(self, writer: SampleWriter, texts: Mapping[int, str]) -> None:
        """Write its first file, its label, its other files, and the fields that are not in a file."""
        samples, label = self.samples, self.label
        fields = self._read()
        if label >= 0:
            fields.insert(1, ("cls", b"%d" % label))
        fields += [(name, values[self.number]) for name, values in samples.inline.items()]
        writer.add(samples.keys[self.number].decode(), fields, self.path, label, texts.get(label, ""))
        if samples.multi:
            writer.count(msgspec.json.decode(samples.inline["cls.json"][self.number], type=list[int]))

    def _read(self) -> list[tuple[str, bytes]]:
        samples, sample_path = self.samples, self.path
        names = samples.names or [field_of(text_of_path(self.path[self.path.rfind(b".") + 1 :]))]
        fields = []
        for place, name in enumerate(names, self.first):
            self.path = samples.paths[place]
            fields.append((name, self.reader.read(place)))
        self.path = sample_path
        return fields

    def leave_out(self, exc: OSError | ValueError, *, skip_bad: bool) -> Skipped:
        """The record of its bad file. BadFileError if bad files are not skipped."""
        return left_out(self.samples.root, self.path, exc, skip_bad=skip_bad)


def left_out(root: bytes, path: bytes, exc: OSError | ValueError, *, skip_bad: bool) -> Skipped:
    """The record of a bad file. BadFileError if bad files are not skipped."""
    if isinstance(exc, FileNotFoundError):
        reason = "the file has vanished since the scan"
    else:
        reason = f"can't be read ({exc.strerror})" if isinstance(exc, OSError) else str(exc)
    if not skip_bad:
        place = fs_text(os.path.join(root, path))
        cure = 'fix or remove it, or skip such files with `on_error="skip"`; then run the same command again'
        raise BadFileError(place, reason, cure) from exc
    return Skipped(text_of_path(path), reason)
