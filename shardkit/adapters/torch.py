"""A Dataset as a torch IterableDataset of whole batches, for use alone or in a DataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from shardkit.errors import MissingExtraError, StateError, UsageError
from shardkit.reading.batch import Batch

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

try:
    import torch
    from torch.utils.data import DataLoader, IterableDataset, get_worker_info
except ImportError as exc:
    raise MissingExtraError("to_torch()", "torch is not installed", 'pip install "shardkit[torch]"') from exc

MAX_WORKERS = 1024


class TorchDataset(IterableDataset[Any]):  # type: ignore[misc]  # torch is not there when types are checked
    """The items of a Dataset with arrays as tensors that share their memory. Each new iteration is the next epoch.

    In a DataLoader give `batch_size=None`, since the items are batches already; `loader()` does that. Its workers take
    turns: worker w of V makes the batches w, w + V, …, so that the order is the same for any number of them.

    What each worker reads next, (epoch, samples that are over, items that were given out), lies in shared memory: the
    workers that a DataLoader starts anew for each epoch know nothing else of the ones before.
    `state_dict` tells where this process's own iteration is, in a worker that of the worker, of which torchdata's
    StatefulDataLoader keeps one for each. What a plain DataLoader has delivered only `loader()` knows.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._next = torch.zeros((MAX_WORKERS, 3), dtype=torch.int64).share_memory_()
        self._next[:, 0] = dataset.progress.where().epoch
        self._resume: dict[str, int] | None = None
        self._at: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:
        for _, item in self.counted():
            yield item

    def counted(self) -> Iterator[tuple[int, Any]]:
        """The items of the next epoch, each with the samples of this rank that were taken up to it."""
        info = get_worker_info()
        if info is None:
            for item in self.dataset:
                yield self.dataset.progress.where().taken, as_tensors(item)
            return
        epoch, done, delivered = self._next[info.id].tolist()
        self._at = at = self._resume or {"epoch": epoch, "done": done, "delivered": delivered, "taken": 0}
        self._resume = None
        self._next[info.id] = torch.tensor([at["epoch"] + 1, 0, 0])
        run = self.dataset.run(
            at["epoch"], done=at["done"], delivered=at["delivered"], start=at["taken"], worker=info.id,
            workers=info.num_workers,
        )  # fmt: skip
        for taken, item in run:
            at["taken"] = taken
            at["delivered"] += 1
            yield taken, as_tensors(item)
        self._at = None

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the number of the next iteration, here and in workers that run already."""
        self.dataset.set_epoch(epoch)
        self.begin_at(epoch, 0, 0)

    def begin_at(self, epoch: int, done: int, delivered: int) -> None:
        """Let all workers begin their next iteration there."""
        self._next[:] = torch.tensor([epoch, done, delivered])

    def state_dict(self) -> dict[str, Any]:
        """Where this process's iteration is: plain JSON."""
        state = self.dataset.state_dict()
        info = get_worker_info()
        if info is None:
            return state
        epoch, done, delivered = self._next[info.id].tolist()
        at = self._at or self._resume or {"epoch": epoch, "done": done, "delivered": delivered, "taken": 0}
        return {**state, "worker": info.id, "workers": info.num_workers, "at": dict(at)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken. StateError for another dataset or order, or another number of workers."""
        self.dataset.load_state_dict(state)
        info = get_worker_info()
        if info is None or "at" not in state:
            return
        if (state["worker"], state["workers"]) != (info.id, info.num_workers):
            fact = (
                f"the state of worker {state['worker']} of {state['workers']} in worker {info.id} of {info.num_workers}"
            )
            raise StateError("load_state_dict()", fact, "keep num_workers, or use to_torch().loader(), which need not")
        self._resume = dict(state["at"])

    def loader(self, *, num_workers: int = 0, **options: Any) -> Loader:
        """A DataLoader of this, whose `state_dict` counts what it has delivered; options are those of DataLoader."""
        return Loader(self, num_workers=num_workers, **options)


class _Counted(IterableDataset[Any]):  # type: ignore[misc]  # as above
    """The items with what they took, for a Loader."""

    def __init__(self, source: TorchDataset) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Any]:
        return self.source.counted()

    def __len__(self) -> int:
        return len(self.source)


class Loader(DataLoader[Any]):  # type: ignore[misc]  # as above
    """A DataLoader of whole batches that can be resumed at the next batch, with any number of workers or ranks."""

    def __init__(self, source: TorchDataset, **options: Any) -> None:
        if options.setdefault("batch_size", None) is not None:
            raise UsageError("batch_size", "the dataset gives batches already", "call batch() on the Dataset")
        options.setdefault("collate_fn", _same)
        super().__init__(_Counted(source), **options)

    @property
    def source(self) -> TorchDataset:
        """What is loaded."""
        found: TorchDataset = self.dataset.source
        return found

    def __iter__(self) -> Iterator[Any]:
        if self.num_workers == 0:
            for _, item in super().__iter__():
                yield item
            return
        progress = self.source.dataset.progress
        cursor = progress.begin()
        self.source.begin_at(cursor.epoch, cursor.done, cursor.delivered)
        for taken, item in super().__iter__():
            cursor.taken = int(taken)
            cursor.delivered += 1
            yield item
        progress.end(cursor)

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the number of the next iteration."""
        self.source.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is: what it has delivered, not what its workers have made ahead. Plain JSON."""
        return self.source.dataset.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration go on at the next batch. StateError for another dataset or order."""
        self.source.dataset.load_state_dict(state)


def _same(item: Any) -> Any:
    return item


def to_torch(dataset: Dataset) -> TorchDataset:
    """The Dataset for torch."""
    return TorchDataset(dataset)


def as_tensors(item: Any) -> Any:
    """The item with every number array in it as a tensor of the same memory; a Batch stays a Batch."""
    if isinstance(item, Batch):
        fields = {name: as_tensors(value) for name, value in item.fields.items()}
        return Batch(
            as_tensors(item.images), as_tensors(item.labels), keys=item.keys, fields=fields, repeats=item.repeats
        )
    if isinstance(item, np.ndarray):
        return torch.from_numpy(item) if item.dtype.kind in "biuf" else item
    if isinstance(item, dict):
        return {name: as_tensors(value) for name, value in item.items()}
    if isinstance(item, tuple):
        return tuple(as_tensors(value) for value in item)
    return item
