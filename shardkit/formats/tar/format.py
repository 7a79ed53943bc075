"""Tar shards as a `Format`."""

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
from shardkit.formats.tar import samples
from shardkit.formats.tar.headers import GZIP_MAGIC, pad_size
from shardkit.formats.tar.skim import find_header, skim_samples
from shardkit.formats.tar.stream import Readable, stream_samples
from shardkit.sample import IMAGE_FIELDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shardkit.formats.tar.fast_check import PlainShard
    from shardkit.formats.tar.fast_write import Gatherer, PlainFiles, StoredMembers, StoredTexts
    from shardkit.formats.tar.read_ahead import ReadAhead
    from shardkit.formats.tfrecord.samples import FieldNames


class Tar(msgspec.Struct, frozen=True):
    """Tar shards."""

    name: FormatName = "tar"
    suffix: str = ".tar"
    endings: str = r"\.(?:tar|tar\.gz|tgz)"
    end: bytes = samples.END
    checks_itself: bool = False
    holds_class_names: bool = False
    holds_values: bool = False
    holds_examples: bool = False
    notes: frozenset[str] = frozenset()
    digest_marks: tuple[str, ...] = ()

    def recognizes(self, head: bytes) -> bool:
        """Never for certain: old tar files have no magic."""
        return False

    def is_packed(self, head: bytes) -> bool:
        """Whether the first bytes are those of gzip data."""
        return head[:2] == GZIP_MAGIC

    def encode(self, key: str, fields: Sequence[tuple[str, bytes]], path: bytes, text: str) -> Encoded:
        """As `samples.encode_sample`."""
        return samples.encode_sample(key, fields)

    def size(self, key: str, fields: Sequence[tuple[str, int]], path: bytes, text: str, label: int) -> int:
        """As `samples.sample_size`."""
        return samples.sample_size(key, fields)

    def sample_bytes(self, columns: SampleColumns) -> NDArray[np.int64]:
        """As `sizes.sample_bytes`."""
        from shardkit.formats.tar.sizes import sample_bytes

        return sample_bytes(columns)

    def most_added_bytes(self, names: NDArray[np.int64], fields: int) -> NDArray[np.int64]:
        """A header for each field, with those for a long name."""
        return names * fields + fields * 2048

    def most_key_bytes(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Always 0: a key is written in any case."""
        import numpy as np

        return np.zeros(len(keys), np.int64)

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
        found = samples.read_samples(buffer, place=place, start=start, end=end)
        return shift_errors(found, base) if base else found

    def fields(self, buffer: Any, sample: Any) -> dict[str, Any]:
        """The bytes of each field."""
        return {name: buffer[first : first + size] for name, (first, size) in sample.fields.items()}

    def stream(
        self, file: Readable, *, place: str, names: FieldNames | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """As `stream.stream_samples`."""
        return stream_samples(file, place=place)

    def stream_stored(self, file: Readable, *, place: str) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Yield (key, fields) of each sample."""
        return stream_samples(file, place=place)

    def stream_described(self, file: Readable, *, place: str) -> Iterator[Description]:
        """Yield a description of each sample; `size` counts only the data of its fields."""
        for key, fields in stream_samples(file, place=place):
            image = next((name for name in fields if name in IMAGE_FIELDS), "")
            size, cls = sum(map(len, fields.values())), fields.get("cls")
            yield Description(key, -1, size, list(fields), image, -1, len(fields[image]) if image else -1, cls, "", "")

    def describe(self, buffer: Any, sample: Any) -> Description:
        """Describe a sample by the names of its members."""
        image, start, size, cls = "", -1, -1, None
        for name, (first, length) in sample.fields.items():
            if name == "cls":
                cls = bytes(buffer[first : first + length])
            elif not image and name in IMAGE_FIELDS:
                image, start, size = name, first, length
        return Description(sample.key, sample.offset, sample.size, sample.fields, image, start, size, cls, "", "")

    def skim(self, fetch: Fetch, size: int, *, place: str, state: SkimState | None = None) -> Iterator[Skimmed]:
        """As `skim.skim_samples`."""
        return skim_samples(fetch, size, place=place, state=state or SkimState())

    def find_start(self, data: bytes, left: int) -> int | None:
        """As `skim.find_header`."""
        return find_header(data)

    def field_behind(self, buffer: memoryview, end: int, stop: int, key: str, field: str) -> bytes | None:
        """The data of the next member, if it is the field as we write it."""
        return samples.plain_member(buffer, pad_size(end), stop, f"{key}.{field}".encode())

    def salvage(self, data: ShardData) -> Salvaged:
        """As `salvage.salvage`."""
        from shardkit.formats.tar.salvage import salvage

        return salvage(data)

    def plain_sums(
        self, path: str, keys: Sequence[str], paths: Sequence[str], numbers: dict[str, NDArray[Any]]
    ) -> PlainShard | None:
        """As `fast_check.plain_sums`."""
        from shardkit.formats.tar.fast_check import plain_sums

        return plain_sums(path, keys, paths, numbers)

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

        return Gatherer(root, files, held) if self.has_gatherer() else None
