"""Samples of an IndexCatalog: their index rows and the holder of their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.checksums import crc32c, differing
from shardkit.errors import DamagedError, DecodeError
from shardkit.reading.batches.labels import FIELD
from shardkit.reading.blocks.block import NO_IMAGE_CURE, Buffer, Images, Rows, Unchecked, Wanted, images_of
from shardkit.reading.blocks.held import Columns, SampleBytes, Spans, gather, texts_at
from shardkit.sample import IMAGE_FIELDS, AnySample, field_of
from shardkit.shards.parquet.sources import INDEX_CURE
from shardkit.shards.seek import belongs
from shardkit.threads import cached_property

if TYPE_CHECKING:
    from shardkit.reading.blocks.catalog import IndexCatalog
    from shardkit.reading.blocks.fetched import FetchedBytes


class IndexBlock:
    """Samples of an IndexCatalog: their index rows gathered, and what holds their bytes."""

    __slots__ = (
        "__dict__", "catalog", "crcs", "held", "labels", "local", "rows", "slots", "spans", "tables",
    )  # fmt: skip

    def __init__(self, catalog: IndexCatalog, rows: Rows, used: list[int], slots: Rows, local: Rows) -> None:
        """used: the shards, ascending. slots: the place of each sample's shard among them. local: its number there."""
        self.catalog, self.rows = catalog, rows
        self.slots, self.local = slots, local
        self.tables = catalog.tables(used)
        tables = [table.numbers for table in self.tables]
        starts, sizes, self.labels, crcs, firsts, lengths = gather(tables, slots, local)
        self.crcs = crcs.astype(np.uint32)
        ends = starts + sizes
        stops = firsts + lengths
        if catalog.plain:
            parsed = np.minimum(starts, self.labels) < 0  # samples without image or label, which are read as a whole
            firsts, stops = np.where(parsed, firsts, starts), np.where(parsed, stops, ends)
        self.spans = Spans(used, slots, starts, ends, firsts, stops)
        self.held: SampleBytes = catalog.access.bytes_of(self.spans)

    @cached_property
    def keys(self) -> list[str]:
        """The samples' keys."""
        return texts_at(self.tables, self.slots, self.local)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def arriving(self) -> Sequence[FetchedBytes]:
        """The bytes to fetch ahead of use. They are not kept here: a cycle would hold them until Python's collector
        runs."""
        return self.held.arriving

    @property
    def nbytes(self) -> int:
        """The bytes to read of all samples."""
        return int((self.spans.stops - self.spans.firsts).sum())

    def wanted(self) -> Wanted:
        """Where the bytes of its samples are."""
        return self.spans.shards, self.spans.firsts, self.spans.stops

    def image(self, number: int) -> Buffer:
        """The image's bytes, without a copy if possible. DecodeError for a sample without an image, DamagedError for a
        damaged one."""
        if self.spans.images[1][number] < 0:
            place, _, key = self.place(number)
            raise DecodeError(place, "this sample has no image", NO_IMAGE_CURE, None, key)
        return self.held.view(number, self._image_in)

    def unchecked(self, begin: int, end: int) -> Unchecked | None:
        """The bytes of images in mapped shards. None if one is missing, or has to be awaited."""
        has_none = int(self.spans.starts[begin:end].min(initial=0)) < 0
        datas = None if has_none else self.held.views(begin, end)
        if datas is None:
            return None
        sums = self.crcs[begin:end] if self.catalog.checked else None
        return Unchecked(datas, sums, lambda number: self._damaged(begin + number))

    def images(self, begin: int, end: int) -> Images:
        """As `image` for each, with checksums computed together if they are available locally. DecodeError for a sample
        without an image."""
        found = self.unchecked(begin, end)
        if found is None:
            return images_of(self, begin, end)
        datas, sums, _ = found
        wrong: dict[int, DamagedError | DecodeError] = {}
        for at in [] if sums is None else differing(datas, sums):
            datas[at] = b""
            wrong[at] = self._damaged(begin + at)
        return datas, wrong

    def seek_points(self, begin: int, end: int) -> list[bytes | None] | None:
        """The seek points of images, if the index has any. Only of those whose checksum is the one that the points were
        made for, and only where images are checked: elsewhere, a changed image would get wrong pixels, not an error."""
        if not (self.catalog.manifest.seek_points and self.catalog.checked):
            return None
        found: list[bytes | None] = []
        for at in range(begin, end):
            column = self.catalog.seek_points(self.spans.images[0][at])
            points = None if column is None else column[int(self.local[at])].as_py()
            found.append(points if points and belongs(points, self._checksums[at]) else None)
        return found

    def _image_in(self, number: int, data: Buffer, base: int) -> Buffer:
        """The image in bytes of its shard. DamagedError if its checksum is wrong, or it is of another sample."""
        start, end = self.spans.images[1][number] - base, self.spans.images[2][number] - base
        found = data if end - start == len(data) else memoryview(data)[start:end]
        if not self.catalog.summed:
            self._sample_in(number, data, base)
        if self.catalog.checked and crc32c(found) != self._checksums[number]:
            raise self._damaged(number)
        return found

    @cached_property
    def _checksums(self) -> list[int]:
        sums: list[int] = self.crcs.tolist()
        return sums

    def _damaged(self, number: int) -> DamagedError:
        """The error for an image whose checksum is not the one in the index."""
        place, offset, key = self.place(number)
        fact = f"the checksum of the image's {self.spans.ends[number] - self.spans.starts[number]} bytes is wrong"
        return DamagedError(place, fact, "copy the shard again, or pack again", offset, key)

    def shapes(self, begin: int, end: int) -> NDArray[np.int32]:
        """(height, width) of the images of some samples as stored, 0 where it is not known (int32, (n, 2))."""
        slots, local = self.slots[begin:end], self.local[begin:end]
        found = np.zeros((end - begin, 2), np.int32)
        for slot in np.unique(slots).tolist():
            where = np.flatnonzero(slots == slot)
            found[where] = self.tables[slot].extents[local[where]][:, ::-1]
        return found

    def target(self, number: int) -> bytes | None:
        """The bytes of the field: the corrected ones; right after the image in a tar; otherwise found by reading the
        sample."""
        corrected = self._corrected(number)
        if corrected is not None:
            return corrected
        if not self.catalog.plain and self.held.whole:
            data = self.held.view(number, self._field_behind)
            if data is not None:
                return data
        value: bytes | None = self.sample(number).get(FIELD)
        return value

    def _corrected(self, number: int) -> bytes | None:
        """The corrected bytes of the field; None if it is as packed."""
        if not self.catalog.corrects_targets:
            return None
        return self.catalog.targets(self.spans.images[0][number]).get(int(self.local[number]))

    def _field_behind(self, number: int, data: Any, base: int) -> bytes | None:
        end, stop = self.spans.images[2][number] - base, self.spans.wholes[1][number] - base
        return self.catalog.format.field_behind(data, end, stop, self.keys[number], FIELD)

    def samples(self) -> Iterator[AnySample]:
        """All samples in order."""
        if not self.catalog.plain or self._least < 0:
            return map(self.sample, range(len(self)))
        if not self.catalog.checked_raw:
            self.held.prove(self.catalog.require_own)
            urls = [self.catalog.urls[shard] for shard in self.spans.used]
            texts = [table.texts for table in self.tables]
            dicts = self.held.dicts(Columns(texts, self.local, self.labels, urls, self.fields))
            if dicts is not None:
                return dicts
        datas = chain.from_iterable(self._copies())
        places = map(self.catalog.urls.__getitem__, self.spans.images[0])
        columns = zip(datas, self.keys, places, self.labels.tolist(), self.fields, strict=True)
        return ({"__key__": key, "__url__": url, name: data, "cls": label} for data, key, url, label, name in columns)

    @cached_property
    def _least(self) -> int:
        """Negative if a sample has no image or no label."""
        return min(int(self.spans.starts.min(initial=0)), int(self.labels.min(initial=0)))

    def _copies(self) -> Iterator[list[bytes]]:
        """The images as bytes. Those before a damaged one are yielded first, then DamagedError is raised."""
        if not self.catalog.checked_raw:
            self.held.prove(self.catalog.require_own)
            return self.held.copies()
        return self._checked(self.held.copies())

    def _checked(self, copies: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
        begin = 0
        for datas in copies:
            for at in differing(datas, self.crcs[begin : begin + len(datas)]):
                try:
                    datas[at] = bytes(self.held.again(begin + at, self._image_in, self._damaged(begin + at)))
                except DamagedError:
                    yield datas[:at]
                    raise
            yield datas
            begin += len(datas)

    def sample(self, number: int, *, checked: bool = False) -> AnySample:
        """One sample with all its fields. checked: whether to check the CRC-32C of its image, unless disabled."""
        label, has_image = int(self.labels[number]), self.spans.images[1][number] >= 0
        if self.catalog.plain and label >= 0 and has_image and not self.held.whole:
            url, image = self.catalog.urls[self.spans.images[0][number]], self.image(number)
            return {"__key__": self.keys[number], "__url__": url, self.fields[number]: bytes(image), "cls": label}
        if (checked or self.catalog.access.unsure) and has_image and self.catalog.summed:
            self.image(number)
        return self.held.parse(number, self._sample_in)

    def _sample_in(self, number: int, data: Any, base: int) -> AnySample:
        """A whole sample in bytes of its shard. DamagedError if they are damaged, or not what the index says."""
        form, shard, at = self.catalog.format, self.spans.images[0][number], int(self.local[number])
        table, url = self.tables[self.slots[number]], self.catalog.urls[shard]
        start = int(table.offset[at])
        end = start + int(table.size[at])
        found = next(
            form.read(data, place=url, start=start - base, end=end - base, names=self.catalog.names, base=base), None
        )
        if found is None:
            raise DamagedError(url, f"the index says that {self.keys[number]!r} is here", INDEX_CURE, start)
        sample: AnySample = {"__key__": found.key, "__url__": url, **form.fields(data, found)}
        if found.key != self.keys[number]:
            fact = f"the index says {self.keys[number]!r}, but the shard holds {found.key!r}"
            raise DamagedError(url, fact, INDEX_CURE, start)
        if self.labels[number] >= 0:  # if labels are folders, only the index has them
            sample["cls"] = int(self.labels[number])
        corrected = self._corrected(number)
        if corrected is not None:
            sample[FIELD] = corrected
        return sample

    def place(self, number: int) -> tuple[str, int | None, str]:
        """(shard, first byte of the image or None for a sample without one, key)."""
        shard, start = self.spans.images[0][number], self.spans.images[1][number]
        return self.catalog.urls[shard], start if start >= 0 else None, self.keys[number]

    @cached_property
    def fields(self) -> list[str]:
        """The name of each sample's image field."""
        names = self.catalog.image_fields
        if self.catalog.names is not None:  # the index does not have these names
            names = list(IMAGE_FIELDS)
        elif len(names) == 1:
            if int(self.spans.starts.min(initial=0)) >= 0:
                return names * len(self)
            return [names[0] if start >= 0 else "" for start in self.spans.images[1]]
        if not self.catalog.plain:
            return [next((name for name in self.sample(i) if name in names), "") for i in range(len(self))]
        columns = [table.path for table in self.tables]
        paths = (columns[slot][i].as_py() for slot, i in zip(self.slots.tolist(), self.local.tolist(), strict=True))
        return [field_of(path.rpartition(".")[2]) for path in paths]
