"""What a dataset holds and where: by row (0 … N - 1, in the order of the shards), blocks of samples.

A catalog knows its counts at once, reads the index rows of a shard when they are needed, and keeps those of the shards
in use. It opens no shard before a sample's bytes are asked for.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shardkit.checksums import crc32c, differing
from shardkit.errors import DamagedError, DecodeError, ManifestError
from shardkit.formats.format import format_named, require_names_fit
from shardkit.formats.tfrecord.samples import FieldNames
from shardkit.location import Location
from shardkit.reading.batches.labels import FIELD
from shardkit.sample import IMAGE_FIELDS, Sample, field_of
from shardkit.shards.buffers import MappedShards, ShardFile, Stamp
from shardkit.shards.index_file import INDEX_CURE, IndexFile, index_entries
from shardkit.shards.manifest import ClassEntry, Manifest
from shardkit.shards.objects import Objects
from shardkit.shards.remote import RemoteShards, open_index_at
from shardkit.storage.access import Remote
from shardkit.storage.mapped import LOOK_SECONDS
from shardkit.storage.mapping import Mapping, view_of

if TYPE_CHECKING:
    import pyarrow as pa

    from shardkit.reading.blocks.fetched import RemoteBlock

Rows = NDArray[np.int64]
Buffer = Any
"""bytes, or a memoryview of a mapped shard."""

Images = tuple[list[Buffer], dict[int, DamagedError | DecodeError]]
"""(the bytes of each image, none for a damaged one; place among them -> what is wrong)."""


KEPT_SHARDS = 48
KEPT_ROWS = 500_000
"""The shards in use whose index rows are kept: so many, or more where they are small, up to so many rows (100 bytes
each). A shuffle of 10,000 samples through shards of 200, or of many lanes, has far more than 48 in use."""

KEPT_INDEXES = 32
"""Index files that are kept open."""

GAP_BYTES = 1 << 20
"""Bytes between two samples that are read along with them: less than what a disk reads in the time of one seek."""

AT_ONCE = 16
"""Samples that are copied out of a mapped shard at once: one look at the shard serves them all."""


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
        """The class numbers (int64, n); -1 where a sample has none."""
        ...

    def __len__(self) -> int: ...

    def image(self, number: int) -> Buffer:
        """The bytes of an image. DamagedError where they are known to be others than they were."""
        ...

    def images(self, begin: int, end: int) -> Images:
        """The bytes of the images of some samples, and what is wrong with those that are damaged."""
        ...

    def target(self, number: int) -> bytes | None:
        """The bytes of the field that holds a label of several classes, or numbers; None where there is none."""
        ...

    def sample(self, number: int, *, checked: bool = False) -> Sample:
        """A whole sample: keys, fields as bytes, `cls` as an int. checked: DamagedError as in `image`."""
        ...

    def samples(self) -> Iterator[Sample]:
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
    def remote(self) -> Sequence[RemoteBlock]:
        """The parts of it that lie in a store, to be fetched ahead of use."""
        ...


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
    """Tells this dataset from others: the same for every copy of the same content."""
    remote: Remote | None
    """How the store is read that it lies in; None on a disk. Of several, the first that lies in one."""

    def block(self, rows: Rows) -> Block:
        """The samples at these rows."""
        ...

    def files(self) -> Sequence[ShardFile]:
        """The shards, by number."""
        ...

    def hold(self) -> None:
        """Keep the files that are there now for as long as this is used, where that is cheap."""
        ...

    def labels(self) -> Rows:
        """The labels of all rows (int64, N); -1 where there is none. Held in memory from the first call on."""
        ...

    def index_table(self) -> pa.Table:
        """The whole index, for queries."""
        ...

    def rows_of(self, key: str) -> list[int]:
        """The rows of a key: none or one, or several where datasets were put together."""
        ...

    def runs(self, block: Any) -> list[tuple[int, int, int]]:
        """(shard, first byte, end byte) that hold a block's samples; empty where reading ahead has no sense."""
        ...


@dataclass(slots=True)
class _Table:
    """The index rows of one shard."""

    image_offset: Rows
    image_size: Rows
    label: NDArray[np.int64]
    key: Any
    path: Any
    offset: Rows
    size: Rows
    crc32c: Rows


class IndexCatalog:
    """A dataset with manifest and index. `shards` limits it to some of the manifest's shards. `remote` says how a store
    is read; without it the files are local ones.

    verify: None checks the CRC-32C of each image that is decoded, and of the others that the format or a store wants
    checked; True that of each whole shard too, when it is first opened; False only what the format or a store wants.
    """

    def __init__(
        self,
        manifest: Manifest,
        location: Location,
        *,
        shards: Sequence[int] | None = None,
        verify: bool | None = None,
        tables: int | None = None,
        names: FieldNames | None = None,
        remote: Remote | None = None,
    ) -> None:
        self.format = format_named(manifest.shard_format, str(location))
        require_names_fit(self.format, names, str(location))
        self.names = names
        self.manifest = manifest
        self.location = location
        self.numbers = list(range(len(manifest.shards))) if shards is None else list(shards)
        entries = [manifest.shards[number] for number in self.numbers]
        self.counts = np.array([entry.samples for entry in entries], np.int64)
        self.classes = manifest.classes
        self.fields = manifest.fields
        self.mean_bytes = max(1, sum(entry.bytes for entry in entries) // max(1, int(self.counts.sum())))
        self.identity = f"{manifest.plan or _digest(manifest)}:{_ranges(self.numbers)}"
        unpacked = manifest.unpacked_bytes
        files = [
            ShardFile(location.sibling(entry.name), entry.bytes, int(entry.crc32c, 16), unpacked[number])
            for entry, number in zip(entries, self.numbers, strict=True)
        ]
        if tables is None:
            tables = max(KEPT_SHARDS, KEPT_ROWS * len(entries) // max(1, int(self.counts.sum())))
        self.remote = remote
        self._objects = Objects(remote)
        kept = KEPT_SHARDS if any(unpacked) else tables
        if remote is None:
            self.mapped = MappedShards(files, verify=bool(verify), limit=kept)
        else:
            self.mapped = RemoteShards(files, self._objects, verify=bool(verify), limit=kept)
        self.urls = [file.url for file in files]
        self.image_fields = [name for name in manifest.fields if name in IMAGE_FIELDS]
        others = [name for name in manifest.fields if name not in IMAGE_FIELDS]
        packed = manifest.one_image_each  # whose path says of which field
        self.plain = names is None and others in (["cls"], []) and (packed or len(self.image_fields) == 1)
        self.checked_raw = self.format.checks_itself
        """Whether images are checked that are not decoded: the format has checksums of its own for that."""
        self.checked = self.checked_raw or verify is not False
        """Whether images are checked that are decoded."""
        self._verify = bool(verify)
        self._first = np.concatenate([[0], np.cumsum(self.counts)])
        self._tables: OrderedDict[int, _Table] = OrderedDict()
        self._limit = tables
        self._labels: Rows | None = None
        self._keys: Any = None
        self.proven: dict[int, Stamp] = {}
        """The shards that were found to be the index's own: what was known of the file then."""
        self._entries = list(index_entries(manifest))
        self._indexes: dict[int, IndexFile] = {}
        self._lock = threading.RLock()

    def files(self) -> Sequence[ShardFile]:
        """The shards, by number."""
        return self.mapped.files

    def labels(self) -> Rows:
        """The labels of all rows."""
        with self._lock:
            if self._labels is None:
                parts = [self._columns(shard, ("label",))["label"] for shard in range(len(self.numbers))]
                labels = np.concatenate([np.empty(0, np.int64), *parts])
                if self.classes and labels.max(initial=-1) >= len(self.classes):  # they are counted by label
                    fact = f"the index has the label {labels.max()}, and the manifest {len(self.classes)} classes"
                    raise ManifestError(str(self.location), fact, INDEX_CURE)
                self._labels = labels
            return self._labels

    def index_table(self) -> pa.Table:
        """The whole index."""
        import pyarrow as pa

        parts = []
        for shard in range(len(self.numbers)):
            part, row_group = self._row_group(self.numbers[shard])
            parts.append(self._index(part).table(row_group))
        return pa.concat_tables(parts).unify_dictionaries()

    def rows_of(self, key: str) -> list[int]:
        """The row of a key, found in the column of all keys, which is held from the first call on."""
        import pyarrow as pa
        import pyarrow.compute as pc

        with self._lock:
            if self._keys is None:
                parts = [self._columns(shard, ("key",))["key"] for shard in range(len(self.numbers))]
                self._keys = pa.chunked_array(parts, pa.string())
            found: int = pc.index(self._keys, pa.scalar(key)).as_py()
        return [] if found < 0 else [found]

    def block(self, rows: Rows) -> IndexBlock:
        """The samples at these rows, with their index rows."""
        shards = np.searchsorted(self._first, rows, side="right") - 1
        local = rows - self._first[shards]
        if self.remote is None:
            return IndexBlock(self, rows, shards, local)
        from shardkit.reading.blocks.fetched import RemoteBlock

        return RemoteBlock(self, rows, shards, local)

    def runs(self, block: IndexBlock) -> list[tuple[int, int, int]]:
        """The runs of the block's images in each shard: one where they lie close, several where they are sparse."""
        order = np.lexsort((block.firsts, block.shards))
        shards, starts, ends = block.shards[order], block.firsts[order], block.stops[order]
        apart = (np.diff(shards) != 0) | (starts[1:] - ends[:-1] > GAP_BYTES)
        firsts = np.concatenate([[0], np.flatnonzero(apart) + 1])
        lasts = np.append(firsts[1:], len(order)) - 1
        return list(zip(shards[firsts].tolist(), starts[firsts].tolist(), ends[lasts].tolist(), strict=True))

    def table(self, shard: int) -> _Table:
        """The index rows of a shard. Raises ManifestError where the index does not fit."""
        with self._lock:
            found = self._tables.get(shard)
            if found is None:
                found = self._tables[shard] = self._read_table(shard)
                while len(self._tables) > self._limit:
                    self._tables.popitem(last=False)
            else:
                self._tables.move_to_end(shard)
            return found

    def require_own(self, shard: int, data: Mapping) -> None:
        """ManifestError where the first or last sample of a shard is not what the index has there."""
        table, url = self.table(shard), self.urls[shard]
        for at in sorted({0, int(self.counts[shard]) - 1}):
            start, key = int(table.offset[at]), table.key[at].as_py()
            end = start + int(table.size[at])
            try:
                found = next(self.format.read(data, place=url, start=start, end=end, names=self.names), None)
            except DamagedError as exc:
                raise DamagedError(url, exc.fact, f"copy the shard again, or {INDEX_CURE}", exc.offset, key) from exc
            image = int(table.image_offset[at]), int(table.image_size[at])
            if found is None or found.key != key or (image[0] >= 0 and image not in found.fields.values()):
                fact = f"this is not the shard that the index is of, which has the sample {key!r} at byte {start}"
                raise ManifestError(url, fact, f"copy the shard again, or {INDEX_CURE}")

    def hold(self) -> None:
        """Keep the files that are there now, until this catalog is gone, where that is cheap."""
        self.mapped.hold()

    def _read_table(self, shard: int) -> _Table:
        names = ("image_offset", "image_size", "label", "key", "path", "offset", "size", "crc32c")
        table = _Table(**self._columns(shard, names))
        file = self.mapped.files[shard]
        stops, ends = table.offset + table.size, table.image_offset + table.image_size
        has_image = table.image_offset >= 0
        outside = has_image & ((table.image_size < 0) | (table.image_offset < table.offset) | (ends > stops))
        if bool((stops > (file.unpacked or file.bytes)).any() or outside.any()):
            raise ManifestError(str(self.location), f"the index does not fit {self.urls[shard]}", INDEX_CURE)
        return table

    def _columns(self, shard: int, names: Sequence[str]) -> dict[str, Any]:
        """Columns of the index for one shard. Raises ManifestError where it is damaged or does not fit."""
        part, row_group = self._row_group(self.numbers[shard])
        return self._index(part).columns(row_group, names)

    def _row_group(self, number: int) -> tuple[int, int]:
        """(index file, row group in it) of a shard of the manifest."""
        for part, entry in enumerate(self.manifest.index):
            if number < entry.shards:
                return part, number
            number -= entry.shards
        raise ManifestError(str(self.location), "the manifest names no index", "run 'shardkit index' to make one")

    def _index(self, part: int) -> IndexFile:
        """An index file, opened and checked. The last few are kept: large ones hold a file open, small ones memory."""
        with self._lock:
            found = self._indexes.pop(part, None) or self._opened_index(part)
            self._indexes[part] = found
            while len(self._indexes) > KEPT_INDEXES:
                del self._indexes[next(iter(self._indexes))]
            return found

    def _opened_index(self, part: int) -> IndexFile:
        entry, shards = self._entries[part]
        return open_index_at(self._objects, self.location.sibling(entry.name), entry, shards, again=self._verify)


_NONE = np.zeros(0, np.bool_)


class IndexBlock:
    """Samples of an IndexCatalog: their index rows gathered, their bytes in the mapped shards.

    starts, ends: the images; firsts, stops: what is read of each sample, which is all of it where it is no plain one.
    """

    remote: Sequence[RemoteBlock] = ()

    __slots__ = (
        "__dict__", "catalog", "crcs", "ends", "firsts", "keys", "labels", "local", "rows", "shards", "starts", "stops",
    )  # fmt: skip

    def __init__(self, catalog: IndexCatalog, rows: Rows, shards: Rows, local: Rows) -> None:
        self.catalog = catalog
        self.rows, self.shards, self.local = rows, shards, local
        self._due = 0.0
        n = len(rows)
        self.starts = np.empty(n, np.int64)
        self.labels = np.empty(n, np.int64)
        self.crcs = np.empty(n, np.uint32)
        sizes = np.empty(n, np.int64)
        whole = np.empty((2, n), np.int64)
        keys = np.empty(n, object)
        for where, shard in _by_shard(shards):
            table = catalog.table(shard)
            at = local[where]
            self.starts[where] = table.image_offset[at]
            sizes[where] = table.image_size[at]
            self.labels[where] = table.label[at]
            self.crcs[where] = table.crc32c[at]
            whole[:, where] = table.offset[at], table.size[at]
            keys[where] = table.key.take(_arrow(at)).to_numpy(zero_copy_only=False)
        self.ends = self.starts + sizes
        self.firsts: Rows = self.starts if catalog.plain else whole[0]
        self.stops: Rows = self.ends if catalog.plain else whole.sum(axis=0)
        parsed = np.minimum(self.starts, self.labels) < 0 if catalog.plain else _NONE
        if parsed.any():  # samples without image or label, of which the whole is needed
            self.firsts = np.where(parsed, whole[0], self.firsts)
            self.stops = np.where(parsed, whole.sum(axis=0), self.stops)
        self.keys: list[str] = keys.tolist()

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _maps(self) -> dict[int, Mapping]:
        files = self.catalog.mapped
        return {shard: files.buffer(shard) for shard in np.unique(self.shards).tolist()}

    def _look(self) -> float:
        """When to look again. StorageError where a shard became shorter. What was seen counts until `_due`: a block may
        be in use for long, and one that reads many samples asks for it by itself."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + LOOK_SECONDS
            for shard in self._maps:
                self.catalog.mapped.require_unchanged(shard)
        return self._due

    @cached_property
    def _buffers(self) -> dict[int, memoryview]:
        return {shard: view_of(data) for shard, data in self._maps.items()}

    @cached_property
    def _spans(self) -> tuple[list[int], list[int], list[int]]:
        return self.shards.tolist(), self.starts.tolist(), self.ends.tolist()

    def image(self, number: int) -> memoryview:
        """The image's bytes in the mapped shard, without a copy. DecodeError for a sample without an image."""
        shards, starts, ends = self._spans
        start = starts[number]
        if start < 0:
            place, _, key = self.place(number)
            raise DecodeError(place, "this sample has no image", NO_IMAGE_CURE, None, key)
        self._look()
        data = self._buffers[shards[number]][start : ends[number]]
        if self.catalog.checked and crc32c(data) != self._checksums[number]:
            raise self._damaged(number)
        return data

    def images(self, begin: int, end: int) -> Images:
        """As `image` for each, summed together. DecodeError for a sample without an image."""
        shards, starts, ends = self._spans
        buffers = self._buffers
        if int(self.starts[begin:end].min(initial=0)) < 0:
            return images_of(self, begin, end)
        self._look()
        columns = zip(shards[begin:end], starts[begin:end], ends[begin:end], strict=True)
        datas: list[Buffer] = [buffers[shard][start:stop] for shard, start, stop in columns]
        wrong: dict[int, DamagedError | DecodeError] = {}
        for at in differing(datas, self.crcs[begin:end]) if self.catalog.checked else ():
            datas[at] = b""
            wrong[at] = self._damaged(begin + at)
        return datas, wrong

    def _require_own(self, maps: dict[int, Mapping]) -> None:
        """Look at the first and last sample of each shard when it is new, or was written to: it may be another's."""
        proven, stamps = self.catalog.proven, self.catalog.mapped.stamps
        for shard, data in maps.items():
            stamp = stamps.get(shard)
            if stamp is not None and proven.get(shard) != stamp:
                self.catalog.require_own(shard, data)
                proven[shard] = stamp

    @cached_property
    def _checksums(self) -> list[int]:
        sums: list[int] = self.crcs.tolist()
        return sums

    def _damaged(self, number: int) -> DamagedError:
        """What to say of an image whose bytes have another checksum than the index has."""
        place, offset, key = self.place(number)
        fact = f"the checksum of the image's {self.ends[number] - self.starts[number]} bytes is wrong"
        return DamagedError(place, fact, "copy the shard again, or pack again", offset, key)

    def target(self, number: int) -> bytes | None:
        """The bytes of the field, found right behind the image in a tar; in any other place by reading the sample."""
        if self._mapped:
            shard, end = self._spans[0][number], self._spans[2][number]
            form = self.catalog.format
            data = form.field_behind(self._buffers[shard], end, self._stops[number], self.keys[number], FIELD)
            if data is not None:
                return data
        value: bytes | None = self.sample(number).get(FIELD)
        return value

    @cached_property
    def _mapped(self) -> bool:
        return not self.catalog.plain and self.catalog.remote is None

    @cached_property
    def _stops(self) -> list[int]:
        stops: list[int] = self.stops.tolist()
        return stops

    def samples(self) -> Iterator[Sample]:
        """All samples in order."""
        if not self.catalog.plain or min(self.starts.min(initial=0), self.labels.min(initial=0)) < 0:
            yield from map(self.sample, range(len(self)))
            return
        urls, maps, clock, due = self.catalog.urls, self._maps, time.monotonic, 0.0
        columns = zip(self.keys, *self._spans, self.labels.tolist(), self.fields, strict=True)
        if not self.catalog.checked_raw:
            self._require_own(maps)
        for begin in range(0, len(self), AT_ONCE):
            if clock() >= due:
                due = self._look()
            chunk: list[Sample] = [
                {"__key__": key, "__url__": urls[shard], name: maps[shard][start:end], "cls": label}
                for key, shard, start, end, label, name in itertools.islice(columns, AT_ONCE)
            ]
            if self.catalog.checked_raw and (bad := self._first_damaged(chunk, begin)) is not None:
                yield from chunk[: bad - begin]
                raise self._damaged(bad)
            yield from chunk

    def _first_damaged(self, chunk: list[Sample], begin: int) -> int | None:
        """The first of some samples, the first of which is number `begin`, whose image has another CRC-32C."""
        datas = [sample[name] for sample, name in zip(chunk, self.fields[begin : begin + len(chunk)], strict=True)]
        wrong = differing(datas, np.array(self._checksums[begin : begin + len(chunk)], np.uint32))
        return begin + wrong[0] if wrong else None

    def sample(self, number: int, *, checked: bool = False) -> Sample:
        """One sample with all its fields. checked: with the CRC-32C of its image, unless that is not wanted."""
        form = self.catalog.format
        if checked and self._spans[1][number] >= 0:
            self.image(number)
        shard = int(self.shards[number])
        table, at = self.catalog.table(shard), int(self.local[number])
        self._look()
        data, start = self._maps[shard], int(table.offset[at])
        url, end = self.catalog.urls[shard], start + int(table.size[at])
        found = next(form.read(data, place=url, start=start, end=end, names=self.catalog.names), None)
        if found is None:
            raise DamagedError(url, f"the index says that {self.keys[number]!r} is here", INDEX_CURE, start)
        return self._made(number, found.key, form.fields(data, found), start)

    def _made(self, number: int, key: str, fields: dict[str, Any], start: int) -> Sample:
        """A sample of what was found at byte `start`. DamagedError where the index says something else."""
        url = self.catalog.urls[int(self.shards[number])]
        sample: Sample = {"__key__": key, "__url__": url, **fields}
        if key != self.keys[number]:
            fact = f"the index says {self.keys[number]!r}, and the shard holds {key!r}"
            raise DamagedError(url, fact, INDEX_CURE, start)
        if self.labels[number] >= 0:  # of a dataset whose labels are its folders, the index alone has them
            sample["cls"] = int(self.labels[number])
        return sample

    def place(self, number: int) -> tuple[str, int | None, str]:
        """(shard, first byte of the image, key)."""
        return self.catalog.urls[int(self.shards[number])], int(self.starts[number]), self.keys[number]

    @cached_property
    def fields(self) -> list[str]:
        """The name of each sample's image field."""
        names = self.catalog.image_fields
        if self.catalog.names is not None:  # the index does not know these
            names = list(IMAGE_FIELDS)
        elif len(names) == 1:
            return [names[0] if start >= 0 else "" for start in self.starts.tolist()]
        if not self.catalog.plain:
            return [next((name for name in self.sample(i) if name in names), "") for i in range(len(self))]
        paths = zip(self.shards.tolist(), self.local.tolist(), strict=True)
        return [field_of(self.catalog.table(s).path[i].as_py().rpartition(".")[2]) for s, i in paths]


def _by_shard(shards: Rows) -> Iterator[tuple[Rows | slice, int]]:
    """(where it comes up, shard) for each that does."""
    if len(shards) and (shards == shards[0]).all():
        yield slice(None), int(shards[0])
        return
    order = np.argsort(shards, kind="stable")
    bounds = np.flatnonzero(np.diff(shards[order], prepend=-1)).tolist()
    for first, stop in zip(bounds, [*bounds[1:], len(order)], strict=True):
        where = order[first:stop]
        yield where, int(shards[where[0]])


def _arrow(at: Rows) -> Any:
    import pyarrow as pa

    return pa.array(at)


def _digest(manifest: Manifest) -> str:
    from hashlib import blake2b

    text = "\0".join(f"{e.samples} {e.bytes} {e.crc32c}" for e in manifest.shards)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers as short text: "0-7,9"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in parts)
