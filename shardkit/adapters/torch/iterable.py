"""A Dataset as a torch IterableDataset of whole batches, for use alone or in a DataLoader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch.utils.data import IterableDataset, get_worker_info

from shardkit.adapters.torch.exchange import Sender
from shardkit.adapters.torch.loader import LoaderOptions, TorchLoader
from shardkit.adapters.torch.parcel import Parcel
from shardkit.adapters.torch.readers import require_readable
from shardkit.adapters.torch.tensors import as_tensors, shared
from shardkit.errors import StateError
from shardkit.options.keywords import named_options
from shardkit.reading.batches.tasks.work import LOST
from shardkit.reading.fingerprint import Address, require_same_in_worker, store_address
from shardkit.reading.state import Cursor
from shardkit.storage.node.client import LoaderPlace

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

MAX_WORKERS = 1024


class TorchDataset(IterableDataset[Any]):  # type: ignore[misc]  # torch is not available to mypy
    """The items of a Dataset with arrays as tensors that share their memory. Each new iteration is the next epoch.

    In a DataLoader pass `batch_size=None`, since the items are already batches; it then converts each to a plain list,
    [images, labels]. `loader()` returns one that leaves the items unchanged. Its workers take turns: worker w of V
    makes the batches w, w + V, …, so that the order is the same for any number of them.

    What each worker reads next, (epoch, finished samples, delivered items, turn of repeat()), is in shared memory, with
    the layout of a loaded state (0 and 0 for none):
    workers that a DataLoader restarts for each epoch know nothing else about the previous ones. `state_dict` describes
    this process's own iteration; in a worker, that of the worker, and torchdata's StatefulDataLoader keeps one for
    each. Only `loader()` knows what a plain DataLoader has delivered.
    """

    def __init__(self, dataset: Dataset, *, convert: Callable[[Any], Any] | None = None) -> None:
        self.dataset = dataset
        self.convert = convert or as_tensors
        self._next = torch.zeros((MAX_WORKERS, 6), dtype=torch.int64).share_memory_()
        self._given = torch.zeros(6, dtype=torch.int64)
        self._alone = torch.zeros(1, dtype=torch.bool).share_memory_()
        self._address: Address | None = None
        self._meeting = LoaderPlace()
        self._begin_where()
        self._resume: dict[str, int] | None = None
        self._at: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:
        require_readable(self.dataset)
        self._require_same()
        return (item for _, _, item in self.counted() if item is not LOST)

    def _require_same(self) -> None:
        """In the first worker of a plain DataLoader: DatasetError if the ranks read different datasets."""
        info = get_worker_info()
        if info is None or info.id:
            return
        address = self._address or store_address()
        if address is not None and self.dataset.reading.ranks == (address.rank, address.world_size):
            self._alone[0] = not require_same_in_worker(self.dataset, address, wait=not self._alone[0])

    def counted(self, sender: Sender | None = None) -> Iterator[tuple[int, int, Any]]:
        """The items of the next epoch, each with its epoch and the samples that this rank has taken so far.
        sender: the worker makes and packs them in its slots.

        In a worker, LOST takes the place of a batch none of whose images could be decoded, so that the turns stay in
        step. The epoch is fixed at the call, not at the first item: a worker that is never asked for one also counts
        on.
        """
        info = get_worker_info()
        if info is None:
            return self._here()
        self.dataset.watch.made = []  # the process of the loop reports
        if info.num_workers > 1:
            self._meeting.join()
        self._at = self._resume or self._upcoming(info.id)
        self._resume = None
        turns = self.dataset.reading.turns or 1
        self._keep_layout(info.id)
        self._next[info.id, :4] = torch.tensor([self._at["epoch"] + max(1, turns - self._at["turn"]), 0, 0, 0])
        return self._in_worker(info.id, info.num_workers, self._at, sender)

    def _here(self) -> Iterator[tuple[int, int, Any]]:
        for item in self.dataset:
            at = self.dataset.position.where()
            yield at.epoch, at.taken, self.convert(item)

    def _in_worker(
        self, worker: int, workers: int, at: dict[str, int], sender: Sender | None
    ) -> Iterator[tuple[int, int, Any]]:
        dataset = self.dataset
        while True:
            where = {"done": at["done"], "delivered": at["delivered"]}
            own = (worker - at["shift"]) % workers  # the loader continues around the workers where the last epoch ended
            place = {"start": at["taken"], "worker": own, "workers": workers}
            for taken, item in dataset.run(at["epoch"], **where, **place, lost=True, memory=sender):
                at["taken"] = taken
                if item is not LOST:
                    made = self.convert(item)
                    item = shared(made) if sender is None else Parcel(made, sender)
                yield at["epoch"], taken, item
            if dataset.reading.turns is not None and at["turn"] + 1 >= dataset.reading.turns:
                break
            if dataset.countable:
                items = dataset.epoch(at["epoch"], done=at["done"]).item_count(at["delivered"])
                if not items and not at["done"]:
                    break  # an endless repeat() of nothing
                at["shift"] += items
            at.update(epoch=at["epoch"] + 1, done=0, delivered=0, taken=0, turn=at["turn"] + 1)
        self._at = None

    def _upcoming(self, worker: int) -> dict[str, int]:
        epoch, done, delivered, turn, *_ = self._next[worker].tolist()
        return {"epoch": epoch, "done": done, "delivered": delivered, "turn": turn, "taken": 0, "shift": 0}

    def _keep_layout(self, worker: int) -> None:
        """In a worker, also one that has run since before a state was loaded: read in the layout of that state."""
        sections, node = self._next[worker, 4:].tolist()
        if sections:
            self.dataset.position.placement = (sections, node)

    def __getstate__(self) -> dict[str, Any]:
        """Include the rank of this process: a restarted worker can't ask torch.distributed for it."""
        require_readable(self.dataset)
        rank, world_size = self.dataset.reading.ranks
        reading = replace(self.dataset.reading, rank=rank, world_size=world_size)
        return self.__dict__ | {"dataset": replace(self.dataset, reading=reading), "_address": store_address()}

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next iteration's epoch, here and in running workers."""
        require_readable(self.dataset)
        self.dataset.set_epoch(epoch)
        self._begin_where()

    def begin_at(self, cursor: Cursor) -> None:
        """Make all workers start their next iteration there."""
        kept = self.dataset.position.placement or (0, 0)
        self._given = torch.tensor([cursor.epoch, cursor.done, cursor.delivered, cursor.turn, *kept])
        self._next[:] = self._given

    def _begin_where(self) -> None:
        self.begin_at(self.dataset.position.where())

    def state_dict(self) -> dict[str, Any]:
        """The position of this process's iteration, as plain JSON.

        StateError if the workers of a plain DataLoader did the reading: they have made more than the DataLoader
        delivered.
        """
        info = get_worker_info()
        if info is not None:
            at = self._at or self._resume or self._upcoming(info.id)
            return {**self.dataset.state_dict(), "worker": info.id, "workers": info.num_workers, "at": dict(at)}
        if bool((self._next != self._given).any()):
            fact = "the workers of a DataLoader read this dataset, and they don't know how much of it was delivered"
            cure = "take the state of to_torch().loader(num_workers=…), or of torchdata's StatefulDataLoader"
            raise StateError("to_torch().state_dict()", fact, cure)
        return self.dataset.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken. StateError for another dataset or order, or another number of workers."""
        self.dataset.load_state_dict(state)
        info = get_worker_info()
        if info is None:
            self._begin_where()
        if info is None or "at" not in state:
            return
        if (state["worker"], state["workers"]) != (info.id, info.num_workers):
            fact = (
                f"the state of worker {state['worker']} of {state['workers']} in worker {info.id} of {info.num_workers}"
            )
            raise StateError("load_state_dict()", fact, "keep num_workers, or use to_torch().loader(), which need not")
        self._resume = dict(state["at"])

    @named_options
    def loader(self, **options: Unpack[LoaderOptions]) -> TorchLoader:
        """A DataLoader of this, whose `state_dict` counts what it has delivered; options are those of DataLoader.

        num_workers: processes that make batches, each with its own decoding threads; 0, the default, uses none, which
        is usually enough. UsageError for batch_size, since the items are already batches.
        """
        return TorchLoader(self, **options)
