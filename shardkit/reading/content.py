"""What a Dataset reads: a source named by the user, or several combined Datasets. Opened once per process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import isqrt
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from shardkit.errors import DatasetError, UsageError, redacted
from shardkit.formats.tfrecord.samples import FieldNames
from shardkit.location import Location, locate
from shardkit.reading.blocks.block import Catalog, Rows
from shardkit.reading.blocks.catalog import IndexCatalog
from shardkit.reading.order.derived import MIX_BLOCK, MixedOrder, order_of_rows, quotas_of
from shardkit.reading.order.epoch_order import EpochOrder, Order
from shardkit.reading.order.layout import Layout
from shardkit.reading.order.schedule import Schedule
from shardkit.reading.state import ReadPosition
from shardkit.shards.find.find import resolve, resolve_with
from shardkit.shards.find.found import Found
from shardkit.shards.find.reference import FoundReference, reference_to
from shardkit.shards.find.shards import SourceLike
from shardkit.storage.access import Remote
from shardkit.threads import cached_property

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset
    from shardkit.reading.options import Reading


AUTO = "auto"
"""An index that is made when it is needed, and kept in the user's cache."""


class Ordering(Protocol):
    """The options that determine an order."""

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
        """The shards, if they have no manifest; otherwise empty."""
        ...

    @property
    def names(self) -> FieldNames | None:
        """The features of TFRecord shards that are image and label; None for the usual ones."""
        ...

    @property
    def remote(self) -> Remote:
        """Options for reading from stores."""
        ...

    @property
    def identity(self) -> str:
        """A text that identifies this content."""
        ...

    @property
    def versions(self) -> Sequence[int]:
        """The version of each dataset: 1 as packed."""
        ...

    @property
    def resolved(self) -> bool:
        """Whether anything about the content was already looked up."""
        ...

    @property
    def whole_only(self) -> bool:
        """Whether only whole epochs are read, and no part of the content alone."""
        ...

    def now(self, reading: Reading) -> Content:
        """What an epoch reads that begins now, and that stays the same until its end."""
        ...

    def forget(self) -> None:
        """Look the content up again at the next use."""
        ...

    def rows(self) -> Rows | None:
        """The rows of the catalog that belong to the content, in order; None for all of them."""
        ...

    def members(self, rows: Rows | None) -> Rows | None:
        """The rows of the catalog that can occur: the given ones or, for a mix, those of its parts.

        The order of a mix refers to rows in another way.
        """
        ...

    def samples(self, rows: Rows | None) -> int:
        """The number of samples in an epoch over all ranks, for some rows or all. DatasetError without a manifest."""
        ...

    def layout(self, reading: Reading) -> Layout:
        """The layout of an epoch's order."""
        ...

    def order(self, ordering: Ordering, layout: Layout, epoch: int) -> Order | None:
        """The content's own order; None if the usual order of its rows applies."""
        ...

    def window(self, ordering: Ordering, layout: Layout) -> int:
        """The number of samples between the first and the last one of a chunk of a store's shard, in all sections."""
        ...


class _PerProcess:
    """Keeps opened content per process, and out of pickles."""

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


class UsualContent:
    """What most contents have in common: all rows of one catalog, in the usual order."""

    def rows(self) -> Rows | None:
        """All rows."""
        return None

    def members(self, rows: Rows | None) -> Rows | None:
        """The given rows."""
        return rows

    def samples(self: Content, rows: Rows | None) -> int:
        """The number of these rows, or of all."""
        return int(self.catalog.counts.sum()) if rows is None else len(rows)

    def layout(self, reading: Reading) -> Layout:
        """The usual layout."""
        return reading.order_layout

    def order(self, ordering: Ordering, layout: Layout, epoch: int) -> Order | None:
        """None: the usual order applies."""
        return None

    def window(self: Content, ordering: Ordering, layout: Layout) -> int:
        """Twice the shuffle's buffer of each section, plus the samples of a chunk in each lane."""
        if not ordering.buffer and layout.lanes == 1:
            return 0
        from shardkit.reading.blocks.fetch_ahead import CHUNK_BYTES

        buffer, chunk = ordering.buffer // layout.lanes, CHUNK_BYTES // self.catalog.mean_bytes
        return layout.all_lanes * (
            2 * buffer + chunk + 8 * isqrt(buffer + chunk) + 2
        )  # the square root accounts for the spread of the order


def _absolute(source: Any) -> Any:
    """A source with absolute paths."""
    if isinstance(source, (list, tuple)):
        return [_absolute(part) for part in source]
    if not isinstance(source, (str, os.PathLike)):
        return source  # which is refused when it is looked up
    place = locate(source)
    return place.absolute().path if place.is_local else source


class Named(UsualContent):
    """A source named by the user: shards, or a class directory."""

    def __init__(
        self,
        source: SourceLike,
        *,
        index: str | os.PathLike[str] | None = None,
        verify: bool | None = None,
        names: FieldNames | None = None,
        remote: Remote | None = None,
    ) -> None:
        self.source = source
        self.index = index
        self.verify = verify
        self.names = names
        self.remote = remote or Remote()
        self._kept = _PerProcess()
        self._reference: FoundReference | None = None

    @cached_property
    def found(self) -> Found:
        """What the name refers to. Looked up once."""
        if self._reference is not None:
            return self._reference.found(self.remote)
        if self.index == AUTO:
            return self._indexed(resolve(self.source, self.remote))
        if self.index is not None:
            return resolve_with(self.index, self.source, self.remote)
        return resolve(self.source, self.remote)

    def _indexed(self, found: Found) -> Found:
        """The dataset; shards without a manifest with an index in the user's cache."""
        found.require_dataset("omit `index`: a class directory has none")
        if found.manifest is not None:
            return found
        from shardkit.shards.indexing.auto import automatic_index

        return automatic_index(found.shards, self.remote)

    whole_only = False

    def now(self, reading: Reading) -> Content:
        """Itself."""
        return self

    @property
    def resolved(self) -> bool:
        """Whether the name was looked up, here or in the process that pickled this."""
        return "found" in self.__dict__ or self._reference is not None

    def forget(self) -> None:
        """Look the name up again at the next use."""
        self.__dict__.pop("found", None)
        self._reference = None
        self._kept.forget()

    def __getstate__(self) -> dict[str, Any]:
        """With a reference to a large manifest in its place, and absolute paths: a worker on another machine, or one of
        Ray on this, has its own working directory."""
        state = dict(self.__dict__)
        if self._reference is None and "found" in state:
            self._reference = state["_reference"] = reference_to(self.found.absolute())
        if self._reference is not None:
            state.pop("found", None)
        if "found" in state:
            state["found"] = self.found.absolute()
        state["source"] = _absolute(self.source)
        state["index"] = self.index if self.index in (None, AUTO) else _absolute(self.index)
        return state

    @property
    def streams(self) -> Sequence[Location]:
        """The shards, if they have no manifest."""
        return self.found.shards

    @property
    def catalog(self) -> Catalog:
        """The catalog. DatasetError for shards without a manifest."""
        return self._kept.opened(self._open)

    def _open(self) -> Catalog:
        found = self.found
        if found.tree is not None:
            from shardkit.reading.blocks.tree import tree_catalog

            return tree_catalog(found.tree.path)
        if found.manifest is None or found.location is None:
            place = str(found.shards[0])
            fact = "these shards have no manifest, so their samples and classes are not known before they are read"
            raise DatasetError(place, fact, f'make one with: shardkit index "{_pattern(self.source)}"')
        return IndexCatalog(
            found.manifest, found.location, shards=found.numbers, verify=self.verify, names=self.names,
            remote=self.remote,
        )  # fmt: skip

    @property
    def identity(self) -> str:
        """The identity of the catalog, or the names of the shards."""
        return ",".join(map(str, self.streams)) if self.streams else self.catalog.identity

    @property
    def versions(self) -> Sequence[int]:
        """Its version."""
        manifest = None if self.streams else self.catalog.manifest
        return (1 if manifest is None else manifest.number,)

    def __repr__(self) -> str:
        return redacted(repr(self.source))


def _pattern(source: SourceLike) -> str:
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else "SHARDS"


class Concatenated(UsualContent):
    """Concatenated datasets. Their selections are kept, their orders are not."""

    def __init__(self, parts: Sequence[Dataset]) -> None:
        self.parts = tuple(parts)
        self._kept = _PerProcess()

    streams: Sequence[Location] = ()
    names: FieldNames | None = None
    remote = Remote()

    @property
    def catalog(self) -> Catalog:
        """The combined catalog."""
        return self._kept.opened(lambda: combine_catalogs(self.parts))

    whole_only = False

    def now(self, reading: Reading) -> Content:
        """Itself."""
        return self

    @property
    def resolved(self) -> bool:
        """Whether anything about one of the parts was already looked up."""
        return any(part.content.resolved for part in self.parts)

    def forget(self) -> None:
        """Look all parts up again at the next use."""
        self._kept.forget()
        for part in self.parts:
            part.forget()

    @property
    def versions(self) -> Sequence[int]:
        """Those of the parts."""
        return [number for part in self.parts for number in part.content.versions]

    @property
    def identity(self) -> str:
        """The identities of the parts."""
        return "concat:" + "|".join(part.identity for part in self.parts)

    def rows(self) -> Rows | None:
        """The rows selected by the parts."""
        selected = [part.rows() for part in self.parts]
        if all(rows is None for rows in selected):
            return None
        starts = self.catalog.starts.tolist()
        bounds = zip(selected, starts[:-1], starts[1:], strict=True)
        lengths = [stop - start if rows is None else len(rows) for rows, start, stop in bounds]
        found, at = np.empty(sum(lengths), np.int64), 0
        for rows, start, length in zip(selected, starts[:-1], lengths, strict=True):
            np.add(np.arange(length) if rows is None else rows, start, out=found[at : at + length])
            at += length
        return found

    def __repr__(self) -> str:
        return f"concat of {len(self.parts)}"


class Mixed(Concatenated):
    """Interleaved datasets in proportion to weights, each in its own order and restarting when it is exhausted."""

    def __init__(self, parts: Sequence[Dataset], weights: Sequence[float] | Schedule) -> None:
        super().__init__(parts)
        self.quotas = weights if isinstance(weights, Schedule) else quotas_of(weights)

    @property
    def identity(self) -> str:
        """The identities of the parts, with their weights and orders."""
        if isinstance(self.quotas, Schedule):
            orders = "|".join(part.order_identity for part in self.parts)
            return f"mix by {self.quotas.describe(self.samples(None))}:{orders}"
        parts = (f"{quota}:{part.order_identity}" for part, quota in zip(self.parts, self.quotas, strict=True))
        return "mix:" + "|".join(parts)

    def rows(self) -> None:
        """All rows."""
        return

    def members(self, rows: Rows | None) -> Rows | None:
        """The rows of the parts."""
        return super().rows()

    def samples(self, rows: Rows | None) -> int:
        """As many samples as the parts have together."""
        return sum(part.epoch_samples for part in self.parts)

    def layout(self, reading: Reading) -> Layout:
        """One section for each rank if a part is shuffled. The lanes are those of the parts."""
        shuffled = [part.reading for part in self.parts if part.reading.buffer]
        if not shuffled:
            return reading.order_layout
        return replace(shuffled[0], layout=reading.layout, node_affinity=reading.node_affinity).order_layout

    def window(self, ordering: Ordering, layout: Layout) -> int:
        """The largest window of its parts, scaled to the mix."""
        quotas = self.quotas.mean_quotas(self.samples(None)) if isinstance(self.quotas, Schedule) else self.quotas
        return max(
            part.content.window(part.reading, _in_mix(part, layout).reading.order_layout) * MIX_BLOCK // quota
            for part, quota in zip(self.parts, quotas, strict=True)
            if quota
        )

    def order(self, ordering: Ordering, layout: Layout, epoch: int) -> Order:
        """The order of the mix, with as many places per epoch as the parts have samples."""
        lengths = [part.epoch_samples for part in self.parts]
        if not all(lengths):
            raise UsageError("mix()", "one of the datasets has no samples", "omit it")
        orders = [partial(_order_of, _in_mix(part, layout)) for part in self.parts]
        offsets = self.catalog.starts[:-1].tolist()
        return MixedOrder(
            orders, lengths, offsets, self.quotas, ordering.seed, epoch, sum(lengths), layout.sections
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"mix of {len(self.parts)}"


def _in_mix(part: Dataset, layout: Layout) -> Dataset:
    """A part of a mix, laid out for the ranks of the mix."""
    reading = replace(part.reading, layout=layout.sections, node_affinity=layout.node or False)
    return replace(part, reading=reading, position=ReadPosition())


def _order_of(part: Dataset, epoch: int) -> Order:
    return part.epoch(epoch).order


def combine_catalogs(parts: Sequence[Dataset]) -> Catalog:
    """The combined catalog of some Datasets."""
    from shardkit.reading.blocks.combined import CombinedCatalog

    return CombinedCatalog([part.content.catalog for part in parts])


def usual_order(catalog: Catalog, rows: Rows | None, ordering: Ordering, layout: Layout, epoch: int) -> Order:
    """The order of reading/order/epoch_order.py, of all rows or of some."""
    buffer, seed = ordering.buffer, ordering.seed
    if rows is None:
        return EpochOrder(catalog.counts, buffer, seed, epoch, layout.lanes, layout.sections, layout.node)
    starts = np.cumsum(catalog.counts) - catalog.counts
    return order_of_rows(rows, starts, buffer=buffer, seed=seed, epoch=epoch, layout=layout)
