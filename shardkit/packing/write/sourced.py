"""A shard whose files are in an archive, in a store or anywhere on disk, with fields that are in no file.

What it writes is what `ShardTask` and `FieldsTask` write for the same files in a tree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from shardkit.errors import ShardkitError
from shardkit.images.rewrite.transcode import Transcoding
from shardkit.packing.write.samples import SampleWriter
from shardkit.packing.write.shard import Advance, Check, Filled, Meter, Sink, Skipped, left_out
from shardkit.sample import field_of, text_of_path
from shardkit.sources.readers import AnyFiles, Reader


class SourcedTask(msgspec.Struct, frozen=True, tag=True):
    """A shard of samples of one or several files each.

    root: what messages say before a path. source: where the files are, numbered through from the first sample's first.
    names: the fields of a sample's files; empty where it is one file, whose extension is its field. labels: -1 for
    none. inline: field -> its bytes in each sample. multi: the field `cls.json` has a list of class numbers, to be
    counted.
    """

    name: str
    folder: bytes
    root: bytes
    source: AnyFiles
    names: list[str]
    primary: int
    paths: list[list[bytes]]
    sizes: list[int]
    labels: list[int]
    keys: list[str]
    inline: dict[str, list[bytes]]
    multi: bool
    check: Check
    skip_bad: bool
    digest: str
    format: str
    texts: dict[int, str]
    transcode: Transcoding | None = None

    def files(self) -> Iterator[bytes]:
        """The files whose times say whether the shard is out of date."""
        return self.source.watched([path for paths in self.paths for path in paths])

    def extent(self) -> tuple[int, int]:
        """(samples, bytes) that are to be read."""
        return len(self.paths), sum(self.sizes)

    def fill(self, sink: Sink, advance: Advance) -> Filled:
        """Read, check and write the samples."""
        writer = SampleWriter(sink, self.format, self.check, self.transcode)
        skipped: list[Skipped] = []
        counts: Counter[int] = Counter()
        meter, first = Meter(advance, self.extent()), 0
        with self.source.opened([path for paths in self.paths for path in paths], self.sizes) as reader:
            for number, paths in enumerate(self.paths):
                path = paths[self.primary]
                label = self.labels[number]
                try:
                    fields = self._fields(number, first, reader)
                    writer.add(self.keys[number], fields, path, label, self.texts.get(label, ""))
                except ShardkitError:
                    raise
                except (OSError, ValueError) as exc:
                    skipped.append(left_out(self.root, path, exc, skip_bad=self.skip_bad))
                else:
                    counts.update(self._classes(number))
                meter.read(sum(self.sizes[first : first + len(paths)]))
                first += len(paths)
        writer.end()
        meter.end()
        filled = writer.filled(skipped)
        return msgspec.structs.replace(filled, counts=dict(counts)) if self.multi else filled

    def _fields(self, number: int, first: int, reader: Reader) -> list[tuple[str, bytes]]:
        """The fields of a sample: its first file, its label, its other files, and what is in no file."""
        paths = self.paths[number]
        names = self.names or [field_of(text_of_path(paths[0][paths[0].rfind(b".") + 1 :]))]
        fields = [(name, reader.read(first + place)) for place, name in enumerate(names)]
        inline = [(name, values[number]) for name, values in self.inline.items()]
        label = self.labels[number]
        return [*fields[:1], *([("cls", b"%d" % label)] if label >= 0 else []), *fields[1:], *inline]

    def _classes(self, number: int) -> list[int]:
        if not self.multi:
            return []
        found: list[int] = msgspec.json.decode(self.inline["cls.json"][number])
        return found
