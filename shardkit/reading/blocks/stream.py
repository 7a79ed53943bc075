"""Read shards without a manifest one after another from the first byte, as WebDataset does.

Their number of samples is not known, so each reader takes whole shards, and the shuffle buffer works on the stream of
its samples: the i-th one leaves by its sort key i + 2 B u(i), as in order.py.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import NotFoundError, StorageError
from shardkit.formats.format import FORMATS, format_of_head, format_of_name, is_packed_as, require_names_fit
from shardkit.formats.tfrecord.samples import FieldNames
from shardkit.location import Location
from shardkit.reading.batches.labels import FIELD, Kind
from shardkit.reading.blocks.block import Images, Placed, images_of
from shardkit.reading.blocks.source import BLOCK_BYTES, BLOCK_SAMPLES
from shardkit.reading.ops import ALL
from shardkit.reading.stats.record import Recorder
from shardkit.rng import permutation, stream_key, uniform
from shardkit.sample import IMAGE_FIELDS, AnySample, label_number
from shardkit.storage.access import Remote
from shardkit.storage.mapped import check_each, map_whole
from shardkit.threads import cached_property

if TYPE_CHECKING:
    from shardkit.reading.blocks.stream_ahead import RemoteFile

Streamed = tuple[int, AnySample]
"""(a unique number for the sample, the sample with `cls` as an int if it has one)."""


@dataclass(frozen=True)
class StreamBlocks:
    """The blocks of shards without a manifest. `part` of `parts` takes each `parts`-th shard (ranks and workers).
    window: the first sample to use, and the end."""

    shards: Sequence[Location]
    buffer: int
    seed: int
    epoch: int
    part: int = 0
    parts: int = 1
    names: FieldNames | None = None
    window: tuple[int, int] = (0, ALL)
    remote: Remote = field(default_factory=Remote)
    """How to read stores."""
    record: Recorder | None = None
    """Of the iteration."""

    samples = None
    classes = 0
    plain = False
    targets: ClassVar[Kind] = ""

    def blocks(self, low: int, high: int | None, unit: int, start: int = 0) -> Iterator[Placed]:
        """The samples low … high - 1; those before them are read and dropped, since their positions are not known."""
        samples = itertools.islice(self._shuffle(), *self.window)
        start = max(low, start)
        samples = itertools.islice(samples, start, high)
        while True:
            chosen: list[Streamed] = []
            size = 0
            while len(chosen) % unit or not chosen or (size < BLOCK_BYTES and len(chosen) < BLOCK_SAMPLES):
                item = next(samples, None)
                if item is None:
                    break
                chosen.append(item)
                size += sum(len(value) for value in item[1].values() if isinstance(value, bytes))
            if not chosen:
                return
            yield np.arange(start, start + len(chosen)), StreamBlock(chosen), None
            start += len(chosen)

    def size(self, number: int) -> None:
        """None: decode() says it."""
        return

    def random_counters(self, placed: Placed) -> NDArray[np.int64]:
        """The shard and position of each sample."""
        return placed[1].rows

    def _shuffle(self) -> Iterator[Streamed]:
        order = permutation(len(self.shards), stream_key("shards", self.seed, self.epoch))
        chosen = (order if self.buffer else np.arange(len(self.shards)))[self.part :: self.parts]
        remote = any(not shard.is_local for shard in self.shards)
        stream = self._fetch(chosen.tolist()) if remote else self._read(chosen.tolist())
        return (
            shuffle_stream(stream, self.buffer, stream_key("stream", self.seed, self.epoch)) if self.buffer else stream
        )

    def _read(self, numbers: Sequence[int]) -> Iterator[Streamed]:
        for number in numbers:
            for count, sample in enumerate(read_shard(self.shards[number], self.names)):
                yield number << 32 | count, sample

    def _fetch(self, numbers: Sequence[int]) -> Iterator[Streamed]:
        from shardkit.reading.blocks.stream_ahead import RemoteStreams

        streams = RemoteStreams([self.shards[number] for number in numbers], self.remote, self.record)
        with closing(streams.files()) as files:
            for number, file in zip(numbers, files, strict=True):
                for count, sample in enumerate(read_stream(file, self.names)):
                    yield number << 32 | count, sample


def read_shard(shard: Location, names: FieldNames | None = None) -> Iterator[AnySample]:
    """The samples of one shard, tar or TFRecord, plain or packed, in order.

    names: the features of a TFRecord shard that are image and label. Raises DamagedError, NotFoundError, StorageError.
    """
    place = str(shard)
    try:
        with open(shard.path, "rb") as file:
            head = file.peek(512)[:512]
            form = FORMATS[format_of_name(shard.name) or format_of_head(head)]
            require_names_fit(form, names, place)
            if is_packed_as(form.name, head) or not head:  # an empty file can't be mapped
                for key, fields in form.stream(file, place=place, names=names):
                    yield _sample(place, key, fields)
                return
        data = map_whole(shard.path)
        for found in check_each(form.read(data, place=place, names=names), data):
            yield _sample(place, found.key, form.fields(data, found))
    except FileNotFoundError as exc:
        raise NotFoundError(place, "there is no such shard", "check the name and the working directory") from exc
    except OSError as exc:
        raise StorageError(place, exc.strerror or str(exc), "check the disk and its permissions") from exc


def read_stream(file: RemoteFile, names: FieldNames | None = None) -> Iterator[AnySample]:
    """As `read_shard`, of a shard in a store."""
    place, head = str(file.shard), file.peek(512)
    form = FORMATS[format_of_name(file.shard.name) or format_of_head(head)]
    require_names_fit(form, names, place)
    for key, fields in form.stream(file, place=place, names=names):
        yield _sample(place, key, fields)


def _sample(place: str, key: str, fields: dict[str, Any]) -> AnySample:
    sample: AnySample = {"__key__": key, "__url__": place, **fields}
    label = label_number(fields.get("cls"))
    if label is not None:  # a value that is not a label stays unchanged
        sample["cls"] = label
    return sample


def shuffle_stream(stream: Iterator[Streamed], buffer: int, key: int) -> Iterator[Streamed]:
    """The stream ordered by i + 2 `buffer` u(i); at most 2 `buffer` samples wait."""
    waiting: list[tuple[float, int, Streamed]] = []
    for first in itertools.count(0, 4096):
        keys = uniform(key, np.arange(first, first + 4096)) * (2 * buffer)
        for number, offset in enumerate(keys.tolist(), first):
            item = next(stream, None)
            if item is None:
                yield from (entry[2] for entry in sorted(waiting))
                return
            heapq.heappush(waiting, (number + offset, number, item))
            while waiting and waiting[0][0] < number + 1:
                yield heapq.heappop(waiting)[2]


class StreamBlock:
    """Samples that have been read."""

    arriving = ()

    def __init__(self, chosen: Sequence[Streamed]) -> None:
        self.rows: NDArray[np.int64] = np.array([number for number, _ in chosen], np.int64)
        self.items = [sample for _, sample in chosen]
        self.keys: list[str] = [sample["__key__"] for sample in self.items]
        labels = [-1 if (label := label_number(sample.get("cls"))) is None else label for sample in self.items]
        self.labels: NDArray[np.int64] = np.array(labels, np.int64)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def fields(self) -> list[str]:
        """The name of each sample's image field, "" for none."""
        return [next((name for name in sample if name in IMAGE_FIELDS), "") for sample in self.items]

    @property
    def nbytes(self) -> int:
        """The bytes of all fields."""
        return sum(len(data) for item in self.items for data in item.values() if isinstance(data, bytes))

    def wanted(self) -> None:
        """None: the samples have been read."""
        return

    def image(self, number: int) -> Any:
        """The bytes of the image."""
        return self.items[number][self.fields[number]]

    def images(self, begin: int, end: int) -> Images:
        """The bytes of each image."""
        return images_of(self, begin, end)

    def seek_points(self, begin: int, end: int) -> None:
        """None: there is no index to know them from."""
        return

    def unchecked(self, begin: int, end: int) -> None:
        """None: they have been read."""
        return

    def shapes(self, begin: int, end: int) -> None:
        """None: only their headers tell."""
        return

    def target(self, number: int) -> bytes | None:
        """The bytes of the field with a label of several classes, or numbers."""
        return self.items[number].get(FIELD)

    def sample(self, number: int, *, checked: bool = False) -> AnySample:
        """One sample."""
        return self.items[number]

    def samples(self) -> Iterator[AnySample]:
        """All samples in order."""
        return iter(self.items)

    def place(self, number: int) -> tuple[str, int | None, str]:
        """(shard, None, key)."""
        return self.items[number]["__url__"], None, self.keys[number]
