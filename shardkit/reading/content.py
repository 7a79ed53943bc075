"""What a Dataset reads: something a user named, or several Datasets put together. Opened once for each process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from math import isqrt
from typing import TYPE_CHECKING, Protocol

import numpy as np

from shardkit.errors import DatasetError, UsageError, redacted
from shardkit.formats.tfrecord.samples import FieldNames
from shardkit.location import Location
from shardkit.reading.blocks.block import Catalog, Rows
from shardkit.reading.blocks.catalog import IndexCatalog
from shardkit.reading.order.derived import MixedOrder, order_of_rows, quotas_of
from shardkit.reading.order.epoch_order import EpochOrder, Order
from shardkit.shards.find.find import resolve
from shardkit.shards.find.found import Found
from shardkit.shards.find.shards import SourceLike
from shardkit.storage.access import Remote

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset


class Ordering(Protocol):
    """The options that an order follows from."""

    @property
    def buffer(self) -> int: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102


class Content(Protocol):
    """What a Dataset reads."""

    @property
    def catalog(self) -> Catalog:
        """The catalog. DatasetError for shards without a manifest."""
        ...

    @property
    def streams(self) -> Sequence[Location]:
        """The shards that have no manifest; empty for everything else."""
        ...

    @property
    def names(self) -> FieldNames | None:
        """The features of TFRecord shards that are image and label; None for the usual ones."""
        ...

    @property
    def remote(self) -> Remote:
        """How stores are read."""
        ...

    @property
    def identity(self) -> str:
        """Tells this content from others."""
        ...

    @property
    def resolved(self) -> bool:
        """Whether anything was told of what is there already."""
        ...

    def forget(self) -> None:
        """Look up again what is there, the next time."""
        ...

    def rows(self) -> Rows | None:
        """The rows of the catalog that belong to it, in order; None for all of them."""
        ...

    def members(self, rows: Rows | None) -> Rows | None:
        """The rows of the catalog that can come up: those given, or, of a mix, those of its parts, which its own
        order refers to in another way."""
        ...

    def samples(self, rows: Rows | None) -> int:
        """The samples of an epoch of all ranks, of some rows or of all. DatasetError without a manifest."""
        ...

    def order(self, ordering: Ordering, lanes: int, epoch: int) -> Order | None:
        """An order of its own; None where the usual one of its rows applies."""
        ...

    def window(self, ordering: Ordering, lanes: int) -> int:
        """The samples that come up between the first and the last of one chunk of a store's shard, over all ranks."""
        ...


class _PerProcess:
    """Keeps what is opened apart for each process, and out of pickles."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._process = 0
        self._catalog: Catalog | None = None

    def opened(self, open_it: Callable[[], Catalog]) -> Catalog:
        with self._lock:
            if self._catalog is None or self._process != os.getpid():
                self._catalog, self._process = open_it(), os.getpid()
            return self._catalog

    def forget(self) -> None:
        with self._lock:
            self._catalog = None

    def __reduce__(self) -> tuple[type[_PerProcess], tuple[()]]:
        return _PerProcess, ()


class Named:
    """What a user named: shards, or a class directory."""

    def __init__(
        self,
        source: SourceLike,
        *,
        verify: bool | None = None,
        names: FieldNames | None = None,
        remote: Remote | None = None,
    ) -> None:
        self.source = source
        self.verify = verify
        self.names = names
        self.remote = remote or Remote()
        self._kept = _PerProcess()

    @cached_property
    def found(self) -> Found:
        """What the name means. Looked up once."""
        return resolve(self.source, self.remote)

    @property
    def resolved(self) -> bool:
        """Whether the name was looked up, here or in the process that this was pickled in."""
        return "found" in self.__dict__

    def forget(self) -> None:
        """Look the name up again, the next time."""
        self.__dict__.pop("found", None)
        self._kept.forget()

    @property
    def streams(self) -> Sequence[Location]:
        """The shards, where they have no manifest."""
        return self.found.shards

    @property
    def catalog(self) -> Catalog:
        """The catalog. DatasetError for shards without a manifest."""
        return self._kept.opened(self._open)

    def _open(self) -> Catalog:
        found = self.found
        if found.tree is not None:
            from shardkit.reading.blocks.tree import TreeCatalog

            return TreeCatalog(found.tree.path)
        if found.manifest is None or found.location is None:
            place = str(found.shards[0])
            fact = "these shards have no manifest, so that their samples and classes are not known before they are read"
            raise DatasetError(place, fact, f'make one with: shardkit index "{_pattern(self.source)}"')
        return IndexCatalog(
            found.manifest, found.location, shards=found.numbers, verify=self.verify, names=self.names,
            remote=self.remote,
        )  # fmt: skip

    @property
    def identity(self) -> str:
        """That of the catalog, or the names of the shards."""
        return ",".join(map(str, self.streams)) if self.streams else self.catalog.identity

    def rows(self) -> None:
        """All."""
        return

    def members(self, rows: Rows | None) -> Rows | None:
        """The rows given."""
        return rows

    def samples(self, rows: Rows | None) -> int:
        """Those of the rows."""
        return usual_samples(self, rows)

    def order(self, ordering: Ordering, lanes: int, epoch: int) -> None:
        """The usual one."""
        return

    def window(self, ordering: Ordering, lanes: int) -> int:
        """The usual one."""
        return usual_window(self.catalog, ordering, lanes)

    def __repr__(self) -> str:
        return redacted(repr(self.source))


def _pattern(source: SourceLike) -> str:
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else "SHARDS"


class Concatenated:
    """Datasets one after the other, as one. Their own order does not count, their selections do."""

    def __init__(self, parts: Sequence[Dataset]) -> None:
        self.parts = tuple(parts)
        self._kept = _PerProcess()

    streams: Sequence[Location] = ()
    names: FieldNames | None = None
    remote = Remote()

    @property
    def catalog(self) -> Catalog:
        """The catalogs as one."""
        return self._kept.opened(lambda: combined(self.parts))

    @property
    def resolved(self) -> bool:
        """Whether anything was told of one of the parts."""
        return any(part.content.resolved for part in self.parts)

    def forget(self) -> None:
        """Look all parts up again, the next time."""
        self._kept.forget()
        for part in self.parts:
            part.forget()

    @property
    def identity(self) -> str:
        """Those of the parts."""
        return "concat:" + "|".join(part.identity for part in self.parts)

    def rows(self) -> Rows | None:
        """The rows of the parts' selections."""
        selected = [part.rows() for part in self.parts]
        if all(rows is None for rows in selected):
            return None
        starts = self.catalog.starts.tolist()
        whole = [
            np.arange(start, stop) if rows is None else rows + start
            for rows, start, stop in zip(selected, starts[:-1], starts[1:], strict=True)
        ]
        return np.concatenate(whole)

    def members(self, rows: Rows | None) -> Rows | None:
        """The rows given."""
        return rows

    def samples(self, rows: Rows | None) -> int:
        """Those of the rows."""
        return usual_samples(self, rows)

    def order(self, ordering: Ordering, lanes: int, epoch: int) -> Order | None:
        """The usual one."""
        return None

    def window(self, ordering: Ordering, lanes: int) -> int:
        """The usual one."""
        return usual_window(self.catalog, ordering, lanes)

    def __repr__(self) -> str:
        return f"concat of {len(self.parts)}"


class Mixed(Concatenated):
    """Datasets interleaved, each as often as its weight says, each in its own order and beginning again by itself."""

    def __init__(self, parts: Sequence[Dataset], weights: Sequence[float]) -> None:
        super().__init__(parts)
        self.quotas = quotas_of(weights)

    @property
    def identity(self) -> str:
        """Those of the parts, with their weights and orders."""
        parts = (f"{quota}:{part.order_identity}" for part, quota in zip(self.parts, self.quotas, strict=True))
        return "mix:" + "|".join(parts)

    def rows(self) -> None:
        """All."""
        return

    def members(self, rows: Rows | None) -> Rows | None:
        """Those of the parts."""
        return super().rows()

    def samples(self, rows: Rows | None) -> int:
        """As many as the parts have."""
        return sum(part.epoch_samples for part in self.parts)

    def window(self, ordering: Ordering, lanes: int) -> int:
        """What its most spread part has."""
        total = sum(self.quotas)
        return max(
            part.content.window(part.reading, part.reading.order_lanes) * total // quota
            for part, quota in zip(self.parts, self.quotas, strict=True)
            if quota
        )

    def order(self, ordering: Ordering, lanes: int, epoch: int) -> Order:
        """That of the mix: as many places an epoch as the parts have samples."""
        lengths = [part.epoch_samples for part in self.parts]
        if not all(lengths):
            raise UsageError("mix()", "one of the datasets has no samples", "leave it out")
        orders = [partial(_order_of, part) for part in self.parts]
        offsets = self.catalog.starts[:-1].tolist()
        return MixedOrder(orders, lengths, offsets, self.quotas, ordering.seed, epoch, sum(lengths))

    def __repr__(self) -> str:
        return f"mix of {len(self.parts)}"


def _order_of(part: Dataset, epoch: int) -> Order:
    return part.epoch(epoch).order


def combined(parts: Sequence[Dataset]) -> Catalog:
    """The catalogs of some Datasets as one."""
    from shardkit.reading.blocks.combined import CombinedCatalog

    return CombinedCatalog([part.content.catalog for part in parts])


def usual_samples(content: Content, rows: Rows | None) -> int:
    """One for each row."""
    return int(content.catalog.counts.sum()) if rows is None else len(rows)


def usual_window(catalog: Catalog, ordering: Ordering, lanes: int) -> int:
    """Twice the shuffle's buffer, and the samples of a chunk in each lane."""
    if not ordering.buffer and lanes == 1:
        return 0
    from shardkit.reading.blocks.fetch_ahead import CHUNK_BYTES

    buffer, chunk = ordering.buffer // lanes, CHUNK_BYTES // catalog.mean_bytes
    return lanes * (2 * buffer + chunk + 8 * isqrt(buffer + chunk) + 2)  # that root is the order's spread


def usual_order(catalog: Catalog, rows: Rows | None, ordering: Ordering, lanes: int, epoch: int) -> Order:
    """The order of reading/order/epoch_order.py, of all rows or of some."""
    if rows is None:
        return EpochOrder(catalog.counts, ordering.buffer, ordering.seed, epoch, lanes)
    starts = np.cumsum(catalog.counts) - catalog.counts
    return order_of_rows(rows, starts, buffer=ordering.buffer, seed=ordering.seed, epoch=epoch, lanes=lanes)
