"""The bytes of a block's samples: their rows of the index, their places in the shards, and the protocols of what holds
them. Rows are looked up in C, or in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as Named
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DamagedError
from shardkit.native import load
from shardkit.reading.blocks.block import Buffer, Prefetch, Rows
from shardkit.sample import AnySample
from shardkit.shards.buffers import ShardBuffers
from shardkit.shards.columns.arrays import Values
from shardkit.storage.mapping import Mapping
from shardkit.threads import cached_property

if TYPE_CHECKING:
    from shardkit.reading.blocks.fetched import FetchedBytes

T = TypeVar("T")

Read = Callable[[int, Any, int], T]
"""`read(number, data, base)` extracts a sample from bytes of its shard: data[0] is byte `base`. DamagedError if they
are wrong."""

AT_ONCE = 16
"""The number of samples to copy at once: one check of a mapped shard serves them all."""


COLUMNS = ("image_offset", "image_size", "label", "crc32c", "offset", "size")
"""The columns of the index that `Table.numbers` has."""


class Table:
    """The index rows of one shard.

    numbers: COLUMNS (int64, (n, 6)), row by row, since the samples of a shuffled block are anywhere. key: the keys, an
    Arrow array of strings. -1 is the label of a sample without one, and the image_offset and image_size of one without
    an image.
    """

    def __init__(self, columns: Named[str, Any], read: Callable[..., Named[str, Any]]) -> None:
        """columns: COLUMNS and key. read: reads other columns by name."""
        self.numbers: Rows = np.stack([columns[name] for name in COLUMNS], axis=1, dtype=np.int64)
        self.image_offset, self.image_size, self.label, self.crc32c, self.offset, self.size = self.numbers.T
        self.key = columns["key"]
        self.seek: Any = None
        """The seek points of each image (an Arrow array), once they were asked for; None if there are none."""
        self.has_seek = True
        self.further: dict[tuple[str, str], Values] = {}
        """The further columns that were asked for, by NAME and type."""
        self.targets: dict[int, bytes] | None = None
        """Corrected labels that are not class numbers, by row, once they were asked for."""
        self._read = read

    @cached_property
    def texts(self) -> tuple[NDArray[np.int32], Any]:
        """(offsets, bytes) of the keys: key i is bytes[offsets[i] : offsets[i + 1]]."""
        _, offsets, data = self.key.buffers()
        if offsets is None or data is None:
            return np.zeros(len(self.key) + 1, np.int32), b""
        return np.frombuffer(offsets, np.int32, len(self.key) + 1, 4 * self.key.offset), data

    @property
    def path(self) -> Any:
        """The paths, an Arrow array of strings: read when they are asked for, since reading samples seldom needs
        them."""
        return self._read("path")["path"]

    @cached_property
    def extents(self) -> NDArray[np.int32]:
        """(width, height) of each image as it is stored; 0 where it is not known (int32, (n, 2))."""
        columns = self._read("width", "height")
        return np.stack([columns["width"], columns["height"]], axis=1)


def extension() -> Any:
    """The C extension; None if it was not built."""
    return load("lookup")[0]


def samples_extension() -> Any:
    """The C extension that makes samples; None if it was not built."""
    return load("samples")[0]


def split_rows(firsts: Rows, rows: Rows) -> tuple[list[int], Rows, Rows]:
    """(the shards of these rows, ascending; the place of each row's shard among them; its number in the shard).

    firsts: the first row of each shard, and the number of rows (int64).
    """
    native = extension()
    if native is not None:
        slots, local = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        return native.split(firsts, np.ascontiguousarray(rows, np.int64), slots, local), slots, local
    shards = np.searchsorted(firsts, rows, side="right") - 1
    used, slots = np.unique(shards, return_inverse=True)
    return used.tolist(), slots.astype(np.int64), rows - firsts[shards]


def texts_at(tables: Sequence[Table], slots: Rows, local: Rows) -> list[str]:
    """The key of each sample: row `local` of table `slots`."""
    native = samples_extension()
    if native is not None and tables:
        offsets, data = zip(*(table.texts for table in tables), strict=True)
        found: list[str] = native.texts(offsets, data, slots, local, 0, len(slots))
        return found
    keys = np.empty(len(slots), object)
    for slot, table in enumerate(tables):
        where = np.flatnonzero(slots == slot)
        keys[where] = table.key.take(local[where]).to_numpy(zero_copy_only=False)
    return keys.tolist()


def gather(tables: Sequence[Rows], slots: Rows, local: Rows) -> Rows:
    """Row `local` of table `slots` for each of n samples, as columns (len(COLUMNS), n). tables: `Table.numbers`."""
    found = np.empty((len(COLUMNS), len(slots)), np.int64)
    native = extension()
    if native is not None:
        native.gather(tables, slots, local, found)
        return found
    for slot, table in enumerate(tables):
        where = np.flatnonzero(slots == slot)
        found[:, where] = table[local[where]].T
    return found


class Spans:
    """The places of a block's samples.

    used: the numbers of their shards, ascending; slots: the place of each sample's shard among them. starts, ends: the
    images, -1 or less for a sample without one. firsts, stops: the bytes to read of each sample, which is all of it
    unless it is plain. (int64, n)
    """

    __slots__ = ("__dict__", "ends", "firsts", "slots", "starts", "stops", "used")

    def __init__(self, used: list[int], slots: Rows, starts: Rows, ends: Rows, firsts: Rows, stops: Rows) -> None:
        self.used, self.slots = used, slots
        self.starts, self.ends, self.firsts, self.stops = starts, ends, firsts, stops

    def __len__(self) -> int:
        return len(self.slots)

    @cached_property
    def shards(self) -> Rows:
        """The number of each sample's shard."""
        return np.array(self.used, np.int64)[self.slots]

    @cached_property
    def images(self) -> tuple[list[int], list[int], list[int]]:
        """(shards, starts, ends) as lists."""
        return self.shards.tolist(), self.starts.tolist(), self.ends.tolist()

    @cached_property
    def wholes(self) -> tuple[list[int], list[int]]:
        """(firsts, stops) as lists."""
        return self.firsts.tolist(), self.stops.tolist()


@dataclass(frozen=True, slots=True)
class Columns:
    """What a block's samples have besides their images, if each has an image and a class number and nothing else.

    texts: (offsets, bytes) of all keys of each of the block's shards. rows: the place of each sample's key there;
    labels: its class number (int64, n). urls: of the shards. fields: the names of the images.
    """

    texts: list[tuple[NDArray[np.int32], Any]]
    rows: Rows
    labels: Rows
    urls: list[str]
    fields: list[str]


class SampleBytes(Protocol):
    """Holds the bytes of a block's samples. Its methods may be called from any thread.

    They raise NotFoundError, StorageError, and ManifestError or DamagedError for a shard that is not as expected.
    """

    whole: bool
    """Whether whole shards are available locally, and not only the samples' own spans."""

    @property
    def arriving(self) -> Sequence[FetchedBytes]:
        """Itself, if it should be requested ahead of use."""
        ...

    def view(self, number: int, read: Read[T]) -> T:
        """What `read` extracts from the bytes of a sample, without a copy. If it raises DamagedError, bytes that may
        have been damaged in transit are fetched once more."""
        ...

    def parse(self, number: int, read: Read[T]) -> T:
        """As `view`, from data whose slices are bytes."""
        ...

    def again(self, number: int, read: Read[T], error: DamagedError) -> T:
        """As `view`, for a sample whose bytes were wrong: `error` is raised if they can't be fetched again."""
        ...

    def views(self, begin: int, end: int) -> list[Buffer] | None:
        """The bytes of the images of some samples, without a copy; None if each has to be awaited."""
        ...

    def copies(self) -> Iterator[list[bytes]]:
        """The bytes of all images in order, at most AT_ONCE at a time, each as soon as it is available."""
        ...

    def dicts(self, columns: Columns) -> Iterator[AnySample] | None:
        """All samples in order, made in C from bytes that need no check; None if they have to be awaited, or the C
        extension is missing."""
        ...

    def prove(self, require: Callable[[int, Mapping], None]) -> None:
        """Call `require(shard, data)` for each shard that is new or was written to: it may be another dataset's."""
        ...


class ShardAccess(Protocol):
    """Access to the shards of a catalog."""

    @property
    def shards(self) -> ShardBuffers:
        """The shards as buffers."""
        ...

    @property
    def prefetch(self) -> Prefetch:
        """Loads their bytes ahead of use."""
        ...

    @property
    def unsure(self) -> bool:
        """Whether bytes may be damaged in transit, so that each image is checked."""
        ...

    def bytes_of(self, spans: Spans) -> SampleBytes:
        """The bytes of a block's samples."""
        ...
