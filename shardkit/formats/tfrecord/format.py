"""TFRecord shards as a `Format`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from shardkit.formats.protocol import (
    Description,
    Encoded,
    Fetch,
    FormatName,
    Salvaged,
    SampleColumns,
    ShardData,
    Skimmed,
    SkimState,
    StoredSample,
    shift_errors,
)
from shardkit.formats.tar.stream import Readable
from shardkit.formats.tfrecord import samples, stream
from shardkit.formats.tfrecord.features import FILENAME, FORMAT, KEY, TEXT
from shardkit.formats.tfrecord.samples import FieldNames
from shardkit.formats.tfrecord.skim import find_record, skim_samples
from shardkit.sample import IMAGE_FIELDS, text_of_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shardkit.formats.tar.fast_check import PlainShard
    from shardkit.formats.tar.fast_write import Gatherer, PlainFiles, StoredMembers, StoredTexts
    from shardkit.formats.tar.read_ahead import ReadAhead


class Tfrecord(msgspec.Struct, frozen=True):
    """TFRecord shards."""

    name: FormatName = "tfrecord"
    suffix: str = ".tfrecord"
    endings: str = r"\.(?:tfrecords?|tfrec|tfr)(?:\.gz|\.gzip|\.zlib|-\d+-of-\d+)?"
    end: bytes = samples.END
    checks_itself: bool = True
    holds_class_names: bool = True
    holds_values: bool = True
    holds_examples: bool = True
    notes: frozenset[str] = frozenset((KEY, FILENAME, FORMAT, TEXT))
    digest_marks: tuple[str, ...] = ("tfrecord",)

    def recognizes(self, head: bytes) -> bool:
        """Whether the checksum of the first record's length is correct."""
        return len(head) >= 12 and head[8:12] == samples.masked_crc(head[:8])

    def is_packed(self, head: bytes) -> bool:
        """Whether the first bytes are those of gzip or zlib data."""
        return stream.is_packed(head)

    def encode(self, key: str, fields: Sequence[tuple[str, bytes]], path: bytes, text: str) -> Encoded:
        """As `samples.encode_sample`."""
        return samples.encode_sample(key, fields, path=text_of_path(path), text=text)

    def size(self, key: str, fields: Sequence[tuple[str, int]], path: bytes, text: str, label: int) -> int:
        """As `samples.sample_size`."""
        return samples.sample_size(key, fields, path=text_of_path(path), text=text, label=label)

    def sample_bytes(self, columns: SampleColumns) -> NDArray[np.int64]:
        """As `sizes.sample_bytes`."""
        from shardkit.formats.tfrecord.sizes import sample_bytes

        return sample_bytes(columns)

    def most_added_bytes(self, names: NDArray[np.int64], fields: int) -> NDArray[np.int64]:
        """Tags and lengths for each field; key and path once."""
        return names + fields * 64

    def most_key_bytes(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """The size of a feature with the key."""
        import numpy as np

        return np.array([len(key.encode("utf-8", "surrogateescape")) + 64 for key in keys], np.int64)

    def read(
        self,
        buffer: Any,
        *,
        place: str,
        start: int = 0,
        end: int | None = None,
        names: FieldNames | None = None,
        base: int = 0,
    ) -> Iterator[StoredSample]:
        """As `samples.read_samples`."""
        found = samples.read_samples(buffer, place=place, start=start, end=end, names=names, base=base)
        return shift_errors(found, base) if base else found

    def fields(self, buffer: Any, sample: Any) -> dict[str, Any]:
        """As `samples.fields_of`."""
        return samples.fields_of(sample)

    def stream(
        self, file: Readable, *, place: str, names: FieldNames | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """As `stream.stream_samples`."""
        return stream.stream_samples(file, place=place, names=names)

    def stream_stored(self, file: Readable, *, place: str) -> Iterator[tuple[str, samples.TfrecordSample]]:
        """Yield (key, record) of each sample."""
        return ((record.key, record) for record in stream.stream_records(file, place=place))

    def stream_described(self, file: Readable, *, place: str) -> Iterator[Description]:
        """Yield a description of each record."""
        for record in stream.stream_records(file, place=place):
            yield self.describe(None, record)._replace(offset=-1, image_offset=-1)

    def describe(self, buffer: Any, sample: Any) -> Description:
        """Describe a sample by the features of its record."""
        fields = sample.fields
        image = next((name for name in fields if name in IMAGE_FIELDS), "")
        start, size = fields.get(image, (-1, -1))
        cls = sample.values.get("cls")
        if cls is None and "cls" in fields:
            first, length = fields["cls"]
            first -= sample.offset + samples.HEAD
            cls = sample.data[first : first + length]
        path = samples.path_of(sample, image)
        return Description(
            sample.key, sample.offset, sample.size, sample.names, image, start, size, cls, path, sample.text
        )

    def skim(self, fetch: Fetch, size: int, *, place: str, state: SkimState | None = None) -> Iterator[Skimmed]:
        """As `skim.skim_samples`."""
        begin = 0 if state is None else state.at
        return skim_samples(fetch, size, begin, place=place, describe=lambda sample: self.describe(None, sample))

    def find_start(self, data: bytes, left: int) -> int | None:
        """As `skim.find_record`."""
        return find_record(data, left)

    def field_behind(self, buffer: memoryview, end: int, stop: int, key: str, field: str) -> bytes | None:
        """Always None: the features of a record have no fixed order."""
        return None

    def salvage(self, data: ShardData) -> Salvaged:
        """As `salvage.salvage`."""
        from shardkit.formats.tfrecord.salvage import salvage

        return salvage(data)

    def plain_sums(
        self, path: str, keys: Sequence[str], paths: Sequence[str], numbers: dict[str, NDArray[Any]]
    ) -> PlainShard | None:
        """Always None: each record has checksums, which the parser checks."""
        return None

    def has_gatherer(self) -> bool:
        """Whether the extension was built."""
        from shardkit.formats.tar.fast_write import extension

        return extension() is not None

    def gatherer(
        self,
        root: bytes,
        files: PlainFiles,
        held: StoredMembers | ReadAhead | None = None,
        *,
        texts: StoredTexts,
    ) -> Gatherer | None:
        """The gatherer of `fast_write`, or None if the extension was not built."""
        from shardkit.formats.tar.fast_write import Gatherer

        return Gatherer(root, files, held, texts) if self.has_gatherer() else None
