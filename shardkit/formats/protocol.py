"""The `Format` protocol: bytes to samples and back, and everything else that callers need from a format.

A new format is a folder beside these two, its name in FormatName, and a line in the table of `format.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import msgspec

from shardkit.errors import DamagedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shardkit.formats.tar.fast_check import PlainShard
    from shardkit.formats.tar.fast_write import Gatherer, PlainFiles, StoredMembers, StoredTexts
    from shardkit.formats.tar.read_ahead import ReadAhead
    from shardkit.formats.tar.stream import Readable
    from shardkit.formats.tfrecord.salvage import Record
    from shardkit.formats.tfrecord.samples import FieldNames

FormatName = Literal["tar", "tfrecord"]
Encoded = tuple[list[bytes], tuple[int, ...], int]


class ShardData(Protocol):
    """The bytes of one shard, unpacked, for reading damaged shards."""

    @property
    def place(self) -> str:
        """The shard's name in messages."""
        ...

    @property
    def buffer(self) -> Any:
        """The bytes: with a length, slices, and `find`."""
        ...

    @property
    def view(self) -> NDArray[np.uint8]:
        """The same bytes as an array."""
        ...

    def __len__(self) -> int: ...

    def samples(self, start: int = 0, end: int | None = None) -> Iterator[StoredSample]:
        """The samples from byte `start` up to `end`. Raises DamagedError for damage."""
        ...


class StoredSample(Protocol):
    """Where a sample is in a shard: its first byte and length; (first byte, length) of each field that is bytes."""

    @property
    def key(self) -> str:
        """The sample's key."""
        ...

    @property
    def offset(self) -> int:
        """The first byte of the sample, headers included."""
        ...

    @property
    def size(self) -> int:
        """The length of the whole sample in bytes."""
        ...

    @property
    def fields(self) -> dict[str, tuple[int, int]]:
        """The fields that are bytes."""
        ...


class Paths(Protocol):
    """Paths as one block of bytes: path i is `blob[offsets[i] : offsets[i + 1]]`."""

    @property
    def blob(self) -> NDArray[np.uint8]:
        """The concatenated bytes of all paths."""
        ...

    @property
    def offsets(self) -> NDArray[np.int64]:
        """The start of each path, and the end of the last one."""
        ...

    def __getitem__(self, row: int, /) -> bytes: ...


class SampleColumns(Protocol):
    """The columns of a source: what is known about its samples before they are read."""

    @property
    def paths(self) -> Paths:
        """The paths of their files."""
        ...

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The size of each file in bytes."""
        ...

    @property
    def labels(self) -> NDArray[Any]:
        """The label of each sample."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes by label."""
        ...

    @property
    def renamed(self) -> Mapping[int, str]:
        """Row -> key, for rows whose key does not follow from their path."""
        ...

    def key(self, row: int) -> str:
        """The key of a sample."""
        ...

    def __len__(self) -> int: ...


class Description(NamedTuple):
    """What a shard says about a sample.

    names: of all fields. image: the first field that is an image, "" for none, and the place of its bytes (-1 if
    unknown). cls: as stored: bytes, an int, or None. path, text: of its file and its class, "" if the format does not
    store them.
    """

    key: str
    offset: int
    size: int
    names: Iterable[str]
    image: str
    image_offset: int
    image_size: int
    cls: object
    path: str
    text: str


class SalvagedSample(msgspec.Struct):
    """A sample that can still be read in a damaged shard. start: its first byte. fields: (first byte, length) of those
    that are bytes. split: whether they were not adjacent. record: the whole sample, if its own checksums prove it.
    """

    key: str
    start: int
    fields: dict[str, tuple[int, int]]
    split: bool = False
    record: Record | None = None


class Gap(msgspec.Struct, frozen=True):
    """Bytes that hold no intact sample. key, path: of the damaged sample, as far as they can be read."""

    start: int
    end: int
    key: str
    path: str
    error: DamagedError


class Salvaged(msgspec.Struct):
    """What a shard still holds, in order. damage: what was found on the way. suspects: the keys next to damage, which
    may lack a field. gaps: where samples were, if the format can tell.
    """

    samples: list[SalvagedSample] = []
    damage: list[DamagedError] = []
    suspects: set[str] = set()
    gaps: list[Gap] = []


Fetch = Callable[[int, int], bytes]
"""`fetch(at, n)` returns n bytes of a shard from byte `at` on, fewer at its end."""

PEEKED_BYTES, PEEKED_SHARE, PEEKED_MOST = 256, 512, 32 << 10
"""The first bytes of an image that are read for its size, where the whole image is not: so many, or so much of it. A
JPEG's frame header is at byte 158 to 200 unless metadata precede it."""


def peeked_bytes(size: int) -> int:
    """How many of the first bytes of an image of `size` bytes are read for its width and height."""
    return min(size, max(PEEKED_BYTES, min(size // PEEKED_SHARE, PEEKED_MOST)))


class Skimmed(NamedTuple):
    """A sample of which not all was read: what is known of it, and the first bytes of its image."""

    description: Description
    head: bytes


class SkimState(msgspec.Struct):
    """Where `Format.skim` begins, and what it knows of what is before: the keys, and records of a tar that hold for all
    members. It adds to both."""

    at: int = 0
    keys: set[str] = set()
    records: dict[bytes, bytes] = {}


class Format(Protocol):
    """A shard format."""

    @property
    def name(self) -> FormatName:
        """The format's name in a manifest."""
        ...

    @property
    def suffix(self) -> str:
        """The ending of a shard's file name."""
        ...

    @property
    def endings(self) -> str:
        """A regular expression for the endings of file names, with the dot, including those of other writers."""
        ...

    @property
    def checks_itself(self) -> bool:
        """Whether each sample has checksums in the shard, so that damage is found without an index."""
        ...

    @property
    def holds_class_names(self) -> bool:
        """Whether a sample has the name of its class besides the label."""
        ...

    @property
    def holds_values(self) -> bool:
        """Whether fields may be numbers and lists, not only bytes."""
        ...

    @property
    def holds_examples(self) -> bool:
        """Whether a sample is a `tf.train.Example`, whose features have names and which TensorFlow parses."""
        ...

    @property
    def notes(self) -> frozenset[str]:
        """Names of fields that describe the image in the same sample, and are not separate files."""
        ...

    @property
    def digest_marks(self) -> tuple[str, ...]:
        """The format's marks in a plan's digest: none for tar, which was once the only format."""
        ...

    def recognizes(self, head: bytes) -> bool:
        """Whether the first bytes of an unpacked file are those of this format for certain."""
        ...

    def is_packed(self, head: bytes) -> bool:
        """Whether the first bytes of a shard are those of compressed data."""
        ...

    @property
    def end(self) -> bytes:
        """The end mark of a shard."""
        ...

    def encode(self, key: str, fields: Sequence[tuple[str, bytes]], path: bytes, text: str) -> Encoded:
        """(pieces, offset of each field, size) of a sample; path and text (its class name) are stored if the format
        holds them."""
        ...

    def size(self, key: str, fields: Sequence[tuple[str, int]], path: bytes, text: str, label: int) -> int:
        """The size of a sample that `encode` writes for fields of these lengths, in bytes."""
        ...

    def sample_bytes(self, columns: SampleColumns) -> NDArray[np.int64]:
        """The bytes of samples of one image and its label, for many at once and before anything is read."""
        ...

    def most_added_bytes(self, names: NDArray[np.int64], fields: int) -> NDArray[np.int64]:
        """An upper bound of the bytes of samples with so many fields besides their data. names: the bytes of each key
        and path."""
        ...

    def most_key_bytes(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """An upper bound of the bytes that it adds to a sample to store a key that was derived from its position."""
        ...

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
        """The samples in a buffer. DamagedError for damage. base: the position of the buffer in the shard, for
        messages."""
        ...

    def fields(self, buffer: Any, sample: Any) -> dict[str, Any]:
        """The fields of a sample that `read` found in the buffer: bytes, or numbers and lists if the format has
        them."""
        ...

    def stream(
        self, file: Readable, *, place: str, names: FieldNames | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """(key, fields) of the samples of a whole shard, plain or packed."""
        ...

    def stream_stored(self, file: Readable, *, place: str) -> Iterator[tuple[str, Any]]:
        """(key, sample) of a whole shard, plain or packed: a sample that can be copied unchanged, if the format has
        such, or else its fields."""
        ...

    def stream_described(self, file: Readable, *, place: str) -> Iterator[Description]:
        """The samples of a whole shard, plain or packed, without byte positions (-1)."""
        ...

    def describe(self, buffer: Any, sample: Any) -> Description:
        """What is known about a sample that `read` found in the buffer."""
        ...

    def skim(self, fetch: Fetch, size: int, *, place: str, state: SkimState | None = None) -> Iterator[Skimmed]:
        """The samples of a whole plain shard of `size` bytes, without reading what is in their long fields: by headers
        and lengths. state: where to begin, if not at the first byte; it is kept up to date. `fetch` is called with
        ascending offsets. DamagedError for damage in what was read."""
        ...

    def find_start(self, data: bytes, left: int) -> int | None:
        """The first byte of `data` where `skim` may begin, since a sample or a part of one seems to begin there; None
        if there is none. left: the bytes from the beginning of `data` to the end of the shard."""
        ...

    def field_behind(self, buffer: memoryview, end: int, stop: int, key: str, field: str) -> bytes | None:
        """The bytes of the field after one that ends at byte `end`, in a sample that ends at `stop`; None if that can't
        be told without reading the sample."""
        ...

    def salvage(self, data: ShardData) -> Salvaged:
        """Everything that can still be read from a damaged shard. Never raises DamagedError."""
        ...

    def plain_sums(
        self, path: str, keys: Sequence[str], paths: Sequence[str], numbers: dict[str, NDArray[Any]]
    ) -> PlainShard | None:
        """The checksums of a shard that matches its index rows to the byte; None if it does not, or if the format has
        no such check. Raises OSError."""
        ...

    def has_gatherer(self) -> bool:
        """Whether `gatherer` returns one."""
        ...

    def gatherer(
        self,
        root: bytes,
        files: PlainFiles,
        held: StoredMembers | ReadAhead | None = None,
        *,
        texts: StoredTexts,
    ) -> Gatherer | None:
        """The fast path that writes the files of a shard, below `root` or in an archive; None if there is none or
        it was not built.

        held: the files in the archive, or what was read of those below `root` before. texts: for formats that store
        them.
        """
        ...


def shift_errors(samples: Iterator[StoredSample], base: int) -> Iterator[StoredSample]:
    """The samples of a buffer that begins at byte `base` of its shard; positions in errors count from the shard's
    beginning."""
    try:
        yield from samples
    except DamagedError as exc:
        offset = base if exc.offset is None else base + exc.offset
        raise DamagedError(exc.place, exc.fact, exc.cure, offset, exc.key) from exc
