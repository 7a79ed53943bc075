"""Samples of an IndexCatalog in a store: their bytes as they were fetched, each checked when it is used."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.checksums import crc32c
from shardkit.errors import DamagedError, DecodeError
from shardkit.reading.blocks.indexed import NO_IMAGE_CURE, Images, IndexBlock, IndexCatalog, Rows, images_of
from shardkit.sample import Sample
from shardkit.shards.index_file import INDEX_CURE
from shardkit.shards.remote import RemoteShards
from shardkit.storage.mapped import MappedFile

if TYPE_CHECKING:
    from shardkit.reading.blocks.fetch_ahead import Job

log = logging.getLogger(__name__)


class RemoteBlock(IndexBlock):
    """A block whose samples are asked for ahead (`jobs`), lie in the cache, or else are fetched when they are used."""

    def __init__(self, catalog: IndexCatalog, rows: Rows, shards: Rows, local: Rows) -> None:
        super().__init__(catalog, rows, shards, local)
        assert isinstance(catalog.mapped, RemoteShards)
        self.remote_shards = catalog.mapped
        self.jobs: list[Job | None] = [None] * len(rows)
        """What fetches each sample, and puts its bytes into `data`."""
        self.data: list[bytes | memoryview | None] = [None] * len(rows)
        self.chunks: list[int] = []
        """The chunks that hold samples of it, in the order of need: shard << 32 | number."""
        self.wanted = 0
        """Bytes of samples that must be fetched."""
        self.here: dict[int, MappedFile] = {}
        """The shards that the cache has."""

    @property
    def remote(self) -> Sequence[RemoteBlock]:  # type: ignore[override]
        """Itself. It is not kept: a block in a cycle would hold its bytes until Python's collector comes by."""
        return (self,)

    def by_chunk(self, chunk_bytes: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(chunk, the samples that begin in it), for all that must be fetched; sets `chunks` and `wanted`.

        A gzip shard is one chunk.
        """
        shards, files = self.remote_shards, self.remote_shards.files
        numbers, chunks = np.arange(len(self)), self.firsts // chunk_bytes
        for shard in np.unique(self.shards).tolist():
            mapped = shards.here(shard)
            if mapped is not None:
                self.here[shard] = mapped
            elif files[shard].unpacked:
                chunks[self.shards == shard] = 0
        if self.here:
            numbers = np.flatnonzero(~np.isin(self.shards, list(self.here)))
        keys = (self.shards << 32 | chunks)[numbers]
        order = np.argsort(keys, kind="stable")
        bounds = [*np.flatnonzero(np.diff(keys[order], prepend=-1)).tolist(), len(order)]
        groups = [numbers[order[low:high]] for low, high in pairwise(bounds)]
        groups.sort(key=lambda group: int(group[0]))
        self.chunks = [int(self.shards[group[0]]) << 32 | int(chunks[group[0]]) for group in groups]
        self.wanted = int((self.stops - self.firsts)[numbers].sum())
        return zip(self.chunks, groups, strict=True)

    def image(self, number: int) -> memoryview:
        """The image's bytes, checked. DecodeError for a sample without an image, DamagedError for a wrong one."""
        if self._spans[1][number] < 0:
            place, _, key = self.place(number)
            raise DecodeError(place, "this sample has no image", NO_IMAGE_CURE, None, key)
        found: memoryview = self._checked(number, self._image_in)
        return found

    def images(self, begin: int, end: int) -> Images:
        """As `image` for each."""
        return images_of(self, begin, end)

    def samples(self) -> Iterator[Sample]:
        """All samples in order."""
        if (
            not self.catalog.plain
            or None in self.jobs
            or min(self.starts.min(initial=0), self.labels.min(initial=0)) < 0
        ):
            yield from map(self.sample, range(len(self)))
            return
        urls, labels = self._urls, self.labels.tolist()
        columns = zip(self.jobs, self._checksums, self.keys, self._spans[0], self.fields, labels, strict=True)
        for number, (job, crc, key, shard, name, label) in enumerate(columns):
            data = bytes(self.data[number] or self._come(number, job))
            if crc32c(data) != crc:
                data = bytes(self.image(number))
            yield {"__key__": key, "__url__": urls[shard], name: data, "cls": label}

    def sample(self, number: int, *, checked: bool = True) -> Sample:
        """One sample with all its fields, in any case checked."""
        label = int(self.labels[number])
        if not self.catalog.plain or label < 0 or self._spans[1][number] < 0:
            parsed: Sample = self._checked(number, self._parsed)
            return parsed
        url, image = self._urls[self._spans[0][number]], self.image(number)
        return {"__key__": self.keys[number], "__url__": url, self.fields[number]: bytes(image), "cls": label}

    @property
    def _urls(self) -> list[str]:
        return self.catalog.urls

    @cached_property
    def _wholes(self) -> tuple[list[int], list[int]]:
        return self.firsts.tolist(), self.stops.tolist()

    def _checked(self, number: int, use: Any) -> Any:
        """What `use` makes of a sample's bytes. Where they are wrong they are fetched once more."""
        try:
            return use(number, self._bytes(number))
        except DamagedError as exc:
            shard, (firsts, stops) = self._spans[0][number], self._wholes
            first, stop = firsts[number], stops[number]
            log.warning("%s; it is fetched once more", exc)
            if self.remote_shards.files[shard].unpacked:
                raise
            data = self.remote_shards.again(shard, first, stop)
            found = use(number, bytes(data))
            self.remote_shards.replace_damaged(shard, first, data)
            return found

    def _bytes(self, number: int) -> Any:
        """The bytes that are read of a sample: firsts … stops - 1 of its shard."""
        job, shard = self.jobs[number], self._spans[0][number]
        if job is not None:
            return self._come(number, job)
        first, stop = self._wholes[0][number], self._wholes[1][number]
        if (mapped := self.here.get(shard)) is not None and mapped.there() >= len(mapped):
            return memoryview(mapped)[first:stop]
        return bytes(self.remote_shards.read(shard, first, stop))

    def _come(self, number: int, job: Job | None) -> bytes | memoryview:
        """A sample's bytes when its job is done. Errors as in `Job.value`."""
        assert job is not None
        job.value()
        data = self.data[number]
        assert data is not None
        return data

    def _image_in(self, number: int, data: Any) -> Any:
        first = self._wholes[0][number]
        start, end = self._spans[1][number] - first, self._spans[2][number] - first
        found = data if end - start == len(data) else memoryview(data)[start:end]
        if crc32c(found) != self._checksums[number]:
            raise self._damaged(number)
        return found

    def _parsed(self, number: int, data: Any) -> Sample:
        form, url, first = self.catalog.format, self._urls[self._spans[0][number]], self._wholes[0][number]
        if self._spans[1][number] >= 0:
            self._image_in(number, data)
        data = bytes(data)
        found = next(form.read(data, place=url, end=len(data), names=self.catalog.names, base=first), None)
        if found is None:
            raise DamagedError(url, f"the index says that {self.keys[number]!r} is here", INDEX_CURE, first)
        return self._made(number, found.key, form.fields(data, found), first)
