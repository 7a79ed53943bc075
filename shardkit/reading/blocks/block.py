"""The protocols of reading: a catalog provides blocks of samples, and a prefetch that loads their bytes ahead of
use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DamagedError, DecodeError
from shardkit.reading.batches.labels import Kind
from shardkit.reading.stats.record import Recorder
from shardkit.sample import AnySample
from shardkit.shards.buffers import ShardFile
from shardkit.shards.columns.arrays import Values
from shardkit.shards.columns.ranges import Holds
from shardkit.shards.columns.types import Types
from shardkit.shards.manifest import ClassEntry, Manifest

if TYPE_CHECKING:
    import pyarrow as pa

    from shardkit.reading.blocks.fetched import FetchedBytes

Rows = NDArray[np.int64]
Labels = NDArray[np.signedinteger[Any]]
Buffer = Any
"""bytes, or a memoryview of a mapped shard."""

Images = tuple[list[Buffer], dict[int, DamagedError | DecodeError]]
"""(the bytes of each image, empty for a damaged one; position among them -> the error)."""

Wanted = tuple[Rows, Rows, Rows]
"""(shards, first bytes, end bytes) of n samples (int64)."""


class Unchecked(NamedTuple):
    """The bytes of some images without a copy; their CRC-32C (uint32), None if none is to be checked; and the error for
    one that has another, by its number among them."""

    datas: list[Buffer]
    sums: NDArray[np.uint32] | None
    damaged: Callable[[int], DamagedError] | None


class Block(Protocol):
    """A run of samples. Its methods may be called from any thread."""

    @property
    def rows(self) -> Rows:
        """The samples' rows in the dataset (int64, n)."""
        ...

    @property
    def keys(self) -> Sequence[str]:
        """The samples' keys."""
        ...

    @property
    def labels(self) -> Rows:
        """The class numbers (int64, n); -1 for a sample without one."""
        ...

    def __len__(self) -> int: ...

    def image(self, number: int) -> Buffer:
        """The bytes of an image. DamagedError if they are known to have changed."""
        ...

    def images(self, begin: int, end: int) -> Images:
        """The bytes of the images of some samples, and the errors of those that are damaged."""
        ...

    def seek_points(self, begin: int, end: int) -> Sequence[bytes | None] | None:
        """The seek points of the images of some samples (shards/seek.py), as far as they are known."""
        ...

    def unchecked(self, begin: int, end: int) -> Unchecked | None:
        """The bytes of the images of some samples before they are checked; None if `images` has to return them."""
        ...

    def shapes(self, begin: int, end: int) -> NDArray[np.int32] | None:
        """(height, width) of the images of some samples as stored, 0 where it is not known (int32, (n, 2)); None if it
        is for none."""
        ...

    def target(self, number: int) -> bytes | None:
        """The bytes of the field with a label of several classes, or numbers; None if there is none."""
        ...

    def sample(self, number: int, *, checked: bool = False) -> AnySample:
        """A whole sample: keys, fields as bytes, `cls` as an int. checked: DamagedError as in `image`."""
        ...

    def samples(self) -> Iterator[AnySample]:
        """All samples in order."""
        ...

    def place(self, number: int) -> tuple[str, int | None, str]:
        """(shard or file, byte or None, key) of a sample, for errors."""
        ...

    @property
    def fields(self) -> Sequence[str]:
        """The name of each sample's image field."""
        ...

    @property
    def nbytes(self) -> int:
        """The bytes of its samples, as far as they are read."""
        ...

    def wanted(self) -> Wanted | None:
        """Where the bytes of its samples are; None if reading ahead is pointless."""
        ...

    @property
    def arriving(self) -> Sequence[FetchedBytes]:
        """The bytes of its samples to fetch from a store ahead of use."""
        ...


Placed = tuple[NDArray[np.int64], Block, NDArray[np.bool_] | None]
"""(the numbers of the block's samples in the share, the block, which of them are repeats, or None)."""


NO_IMAGE_CURE = 'read it without decode(), or leave such samples out with on_error="skip"'


def images_of(block: Block, begin: int, end: int) -> Images:
    """`Block.images`, one by one."""
    datas, wrong = list[Buffer](), dict[int, DamagedError | DecodeError]()
    for at, number in enumerate(range(begin, end)):
        try:
            datas.append(block.image(number))
        except (DamagedError, DecodeError) as exc:
            datas.append(b"")
            wrong[at] = exc
    return datas, wrong


class Catalog(Protocol):
    """What an indexed dataset offers."""

    counts: NDArray[np.int64]
    """The samples of each shard."""
    classes: tuple[ClassEntry, ...]
    fields: tuple[str, ...]
    mean_bytes: int
    """Bytes of a sample, on average."""
    plain: bool
    """Whether each sample is one image with a label."""
    identity: str
    """Identifies the dataset: equal for all copies of the same content."""
    starts: Rows
    """The first row of each of its component datasets, and the total number of rows."""

    @property
    def manifest(self) -> Manifest | None:
        """The manifest, if this is a single dataset that has one."""
        ...

    @property
    def prefetch(self) -> Prefetch:
        """Loads the bytes of its blocks ahead of use."""
        ...

    @property
    def kind(self) -> Kind:
        """The kind of the labels. UsageError if datasets of several kinds were combined."""
        ...

    @property
    def one_image_each(self) -> bool:
        """Whether each sample is one image with a label of some kind, and nothing else."""
        ...

    def block(self, rows: Rows) -> Block:
        """The samples at these rows."""
        ...

    def files(self) -> Sequence[ShardFile]:
        """The shards, by number."""
        ...

    def hold(self) -> None:
        """Keep the current files for as long as this is used, if that is cheap."""
        ...

    def labels(self) -> Labels:
        """The labels of all rows (N, of the smallest signed type that holds them); -1 for none. Kept in memory from the
        first call on."""
        ...

    def index_schema(self) -> pa.Schema:
        """The names and types of the index's columns."""
        ...

    def index_tables(self, names: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The columns of these names, or all, in the order of the rows: a part of the rows at a time."""
        ...

    def candidates(self, names: Sequence[str], holds: Holds) -> Iterator[tuple[Rows, pa.Table]]:
        """(rows, their columns of these names) in order, a part at a time, but not those of shards that `holds` rules
        out, which are not read."""
        ...

    def further(self, rows: Rows, types: Types) -> dict[str, Values]:
        """The values of some rows in further columns, by NAME. types: those of the columns, as in `index_schema`."""
        ...

    def rows_of(self, key: str) -> list[int]:
        """The rows of a key: none or one, or several if datasets were combined."""
        ...


class Readers(NamedTuple):
    """Who reads: the readers of this machine between which the epoch's samples are dealt, and which worker of how many
    of its rank this one is."""

    here: int = 1
    worker: int = 0
    workers: int = 1


ALONE = Readers()


class Prefetch(Protocol):
    """Loads the bytes of blocks ahead of use: by nothing, the system's read-ahead, or requests to a store."""

    @property
    def strength(self) -> int:
        """Of combined catalogs, the strongest serves all: it passes on the blocks of the others unchanged."""
        ...

    def block_bytes(self, usual: int) -> int:
        """The bytes of samples to look up together, given the usual number."""
        ...

    def through(
        self,
        catalog: Catalog,
        blocks: Iterator[Placed],
        window: int,
        readers: Readers = ALONE,
        record: Recorder | None = None,
    ) -> Iterator[Placed]:
        """The blocks of a catalog (at least one) in order, each yielded once its bytes have been requested.

        window: the samples from which the shuffle draws at a time; 0 for stored order. record: of the iteration.
        """
        ...


def index_table(catalog: Catalog, names: Sequence[str] | None = None) -> pa.Table:
    """The columns of these names, or all, of all rows."""
    import pyarrow as pa

    parts = list(catalog.index_tables(names))
    return pa.concat_tables(parts, promote_options="permissive").unify_dictionaries()
