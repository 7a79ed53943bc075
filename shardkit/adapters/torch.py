"""A Dataset as a torch IterableDataset of whole batches, for use alone or in a DataLoader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing.context import BaseContext
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np

from shardkit.adapters import accelerate
from shardkit.adapters.readers import loaded_by_lightning, require_readable
from shardkit.errors import (
    DatasetError,
    MissingExtraError,
    SampleIndexError,
    ShardkitError,
    StateError,
    UsageError,
    WorkerError,
)
from shardkit.reading.batches.batch import Batch, image_field
from shardkit.reading.batches.pipeline import LOST
from shardkit.reading.fingerprint import Address, require_same, require_same_in_worker, store_address
from shardkit.reading.ops import Map
from shardkit.reading.state import Cursor
from shardkit.sample import IMAGE_FIELDS

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

try:
    import torch
    from torch.utils.data import DataLoader, IterableDataset, get_worker_info
    from torch.utils.data import Dataset as MapDataset
    from torch.utils.data._utils.pin_memory import pin_memory
except ImportError as exc:
    raise MissingExtraError("to_torch()", "torch is not installed", 'pip install "shardkit[torch]"') from exc

MAX_WORKERS = 1024

CURE_OF_WORKERS = (
    "enlarge /dev/shm (docker run --shm-size=8g), use smaller batches, "
    "or use num_workers=0: threads decode all the same"
)


class LoaderOptions(TypedDict, total=False):
    """The options of torch's DataLoader that make sense for whole batches. All may be omitted."""

    batch_size: None
    num_workers: int
    collate_fn: Callable[[Any], Any]
    pin_memory: bool
    timeout: float
    worker_init_fn: Callable[[int], None] | None
    multiprocessing_context: str | BaseContext | None
    generator: torch.Generator | None
    prefetch_factor: int | None
    persistent_workers: bool
    pin_memory_device: str
    in_order: bool


class MoveOptions(TypedDict, total=False):
    """The options of `Tensor.to`. All may be omitted."""

    device: torch.device | str | int | None
    dtype: torch.dtype | None
    non_blocking: bool
    copy: bool
    memory_format: torch.memory_format | None


class TorchDataset(IterableDataset[Any]):  # type: ignore[misc]  # torch is not available to mypy
    """The items of a Dataset with arrays as tensors that share their memory. Each new iteration is the next epoch.

    In a DataLoader pass `batch_size=None`, since the items are already batches; it then converts each to a plain list,
    [images, labels]. `loader()` returns one that leaves the items unchanged. Its workers take turns: worker w of V
    makes the batches w, w + V, …, so that the order is the same for any number of them.

    What each worker reads next, (epoch, finished samples, delivered items, turn of repeat()), is in shared memory:
    workers that a DataLoader restarts for each epoch know nothing else about the previous ones. `state_dict` describes
    this process's own iteration; in a worker, that of the worker, and torchdata's StatefulDataLoader keeps one for
    each. Only `loader()` knows what a plain DataLoader has delivered.
    """

    def __init__(self, dataset: Dataset, *, convert: Callable[[Any], Any] | None = None) -> None:
        self.dataset = dataset
        self.convert = convert or as_tensors
        self._next = torch.zeros((MAX_WORKERS, 4), dtype=torch.int64).share_memory_()
        self._given = torch.zeros(4, dtype=torch.int64)
        self._alone = torch.zeros(1, dtype=torch.bool).share_memory_()
        self._address: Address | None = None
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

    def counted(self) -> Iterator[tuple[int, int, Any]]:
        """The items of the next epoch, each with its epoch and the samples that this rank has taken so far.

        In a worker, LOST takes the place of a batch none of whose images could be decoded, so that the turns stay in
        step. The epoch is fixed at the call, not at the first item: a worker that is never asked for one also counts
        on.
        """
        info = get_worker_info()
        if info is None:
            return self._here()
        self._at = self._resume or self._upcoming(info.id)
        self._resume = None
        turns = self.dataset.reading.turns or 1
        self._next[info.id] = torch.tensor([self._at["epoch"] + max(1, turns - self._at["turn"]), 0, 0, 0])
        return self._in_worker(info.id, info.num_workers, self._at)

    def _here(self) -> Iterator[tuple[int, int, Any]]:
        for item in self.dataset:
            at = self.dataset.position.where()
            yield at.epoch, at.taken, self.convert(item)

    def _in_worker(self, worker: int, workers: int, at: dict[str, int]) -> Iterator[tuple[int, int, Any]]:
        dataset = self.dataset
        while True:
            where = {"done": at["done"], "delivered": at["delivered"]}
            own = (worker - at["shift"]) % workers  # the loader continues around the workers where the last epoch ended
            place = {"start": at["taken"], "worker": own, "workers": workers}
            for taken, item in dataset.run(at["epoch"], **where, **place, lost=True):
                at["taken"] = taken
                yield at["epoch"], taken, item if item is LOST else shared(self.convert(item))
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
        epoch, done, delivered, turn = self._next[worker].tolist()
        return {"epoch": epoch, "done": done, "delivered": delivered, "turn": turn, "taken": 0, "shift": 0}

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
        self._given = torch.tensor([cursor.epoch, cursor.done, cursor.delivered, cursor.turn])
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

    def loader(self, **options: Unpack[LoaderOptions]) -> TorchLoader:
        """A DataLoader of this, whose `state_dict` counts what it has delivered; options are those of DataLoader.

        num_workers: processes that make batches, each with its own decoding threads; 0, the default, uses none, which
        is usually enough. UsageError for batch_size, since the items are already batches.
        """
        return TorchLoader(self, **options)


@dataclass(frozen=True)
class _Passed:
    """What a worker of a TorchLoader passes on: item number `made`; at the end, the number of items; or an error."""

    worker: int
    made: int
    epoch: int = 0
    taken: int = 0
    item: Any = None
    over: bool = False
    error: ShardkitError | None = None

    def pin_memory(self, *device: Any) -> _Passed:
        """The same, pinned. torch calls it for pin_memory=True."""
        return replace(self, item=pin_memory(self.item, *device))


class _Counted(IterableDataset[Any]):  # type: ignore[misc]  # as above
    """The items with what they took, for the workers of a TorchLoader."""

    def __init__(self, source: TorchDataset) -> None:
        self.source = source

    def __iter__(self) -> Iterator[_Passed]:
        worker, made = get_worker_info().id, 0
        try:
            for made, (epoch, taken, item) in enumerate(self.source.counted(), 1):
                yield _Passed(worker, made, epoch, taken, item)
        except ShardkitError as exc:
            yield _Passed(worker, made, error=exc)
        yield _Passed(worker, made, over=True)


class TorchLoader(DataLoader[Any]):  # type: ignore[misc]  # as above
    """A DataLoader of whole batches that can be resumed at the next batch, with any number of workers or ranks.

    `dataset` is the TorchDataset, so that what takes a loader apart to build one of its own (Lightning, Accelerate)
    gets batches. Each worker numbers its batches: one that does not arrive is a WorkerError, never a shorter epoch.
    Accelerate's `prepare` returns the loader itself, which then moves its batches to the device of the process.
    """

    end_of_dataloader = False
    remainder = -1

    def __init__(self, dataset: TorchDataset, **options: Unpack[LoaderOptions]) -> None:
        if options.setdefault("batch_size", None) is not None:
            raise UsageError("batch_size", "the dataset already yields batches", "call batch() on the Dataset")
        options.setdefault("collate_fn", _same)
        super().__init__(dataset, **options)
        self._workers = DataLoader(_Counted(dataset), **options) if self.num_workers else None
        dataset.dataset.steps.require_dealable(self.num_workers)
        self._prepared = False
        self._delivered: Cursor | None = None

    @property
    def _is_accelerate_prepared(self) -> bool:
        """What Accelerate asks a loader before it replaces it; no other code does."""
        self._prepared = accelerate.keeps_its_part(self.source.dataset)
        return self._prepared

    @_is_accelerate_prepared.setter
    def _is_accelerate_prepared(self, prepared: bool) -> None:
        self._prepared = prepared

    @property
    def source(self) -> TorchDataset:
        """The dataset being loaded."""
        found: TorchDataset = self.dataset
        return found

    def __iter__(self) -> Iterator[Any]:
        return accelerate.watched(self, self._looking_ahead()) if self._prepared else self._items()

    def _looking_ahead(self) -> Iterator[tuple[Any, bool]]:
        """The items, each with whether it is the last; the state is that of the item, not of the next one."""
        items = self._items()
        try:
            following = list(islice(items, 1))
            while following:
                item = following[0]
                self._delivered = replace(self.source.dataset.position.where())
                following = list(islice(items, 1))
                yield item, not following
        finally:
            self._delivered = None

    def _items(self) -> Iterator[Any]:
        if self._workers is None:
            yield from super().__iter__()
            return
        require_readable(self.source.dataset)
        require_same(self.source.dataset)
        position = self.source.dataset.position
        cursor = position.begin()
        self.source.begin_at(cursor)
        for passed in _complete(self._workers, self.num_workers):
            while cursor.epoch < passed.epoch:
                cursor = position.next_epoch(cursor)
            cursor.taken = passed.taken
            cursor.delivered += 1
            if passed.item is not LOST:
                yield passed.item
        position.end(cursor)

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next iteration's epoch."""
        self.source.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The position of the loader: what it has delivered, not what its workers have made ahead. Plain JSON.

        StateError with filter() and several workers, which are then at different positions.
        """
        if self.num_workers > 1 and not self.source.dataset.steps.counted:
            fact = f"with filter() the {self.num_workers} workers are at different positions"
            raise StateError("state_dict()", fact, "use num_workers=0: threads decode all the same")
        data = self.source.dataset
        state, at = data.state_dict(), self._delivered
        if at is None:
            return state
        return data.position.state_dict(at, order=data.order_identity, ranks=data.reading.ranks, steps=data.steps)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration resume at the next batch. StateError for another dataset or order.

        After the last batch of an epoch, the next iteration is empty, unless Lightning loads the state: it counts
        such an epoch as finished, and begins the next one.
        """
        self.source.dataset.load_state_dict(state)
        if loaded_by_lightning(1):
            self._leave_finished_epoch()

    def _leave_finished_epoch(self) -> None:
        data, at = self.source.dataset, self.source.dataset.position.where()
        last = data.reading.turns is not None and at.turn + 1 >= data.reading.turns
        if last and at.done and data.countable and not data.epoch(at.epoch, done=at.done).item_count(at.delivered):
            data.position.set_epoch(at.epoch + 1)


def _complete(passed: Iterable[_Passed], workers: int) -> Iterator[_Passed]:
    """The items from the workers, without the end markers. WorkerError if any did not arrive."""
    made, ended = [0] * workers, set[int]()
    for one in passed:
        if one.error is not None:
            raise one.error
        if one.over:
            ended.add(one.worker)
        else:
            made[one.worker] += 1
        if one.made != made[one.worker]:
            raise _lost(one.worker, one.made - made[one.worker] + (not one.over))
        if not one.over:
            yield one
    for worker in range(workers):
        if worker not in ended:
            raise _lost(worker, 1)


def _lost(worker: int, count: int) -> WorkerError:
    fact = f"{max(1, count)} or more of its batches did not arrive, see the worker's own message on stderr"
    return WorkerError(f"DataLoader worker {worker}", fact, CURE_OF_WORKERS)


def _same(item: Any) -> Any:
    return item


class TorchBatch(Batch):
    """A Batch of tensors. `pin_memory` and `to` return one too, in a DataLoader and in Lightning."""

    def pin_memory(self, *_: Any) -> TorchBatch:
        """The same in page-locked memory, which can be copied to a GPU asynchronously. torch calls it for
        pin_memory=True.
        """
        return self._each(lambda tensor: tensor.pin_memory())

    def to(
        self, *target: torch.device | torch.dtype | torch.Tensor | str | int | bool, **options: Unpack[MoveOptions]
    ) -> TorchBatch:
        """The same with every tensor moved, like `Tensor.to`; a dtype applies only to the images."""
        if "dtype" in options or any(isinstance(value, torch.dtype) for value in target):
            return TorchBatch(
                self.images.to(*target, **options), self.labels, keys=self.keys, fields=self.fields,
                repeats=self.repeats,
            )  # fmt: skip
        return self._each(lambda tensor: tensor.to(*target, **options))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> TorchBatch:
        def changed(value: Any) -> Any:
            return change(value) if isinstance(value, torch.Tensor) else value

        fields = {name: changed(value) for name, value in self.fields.items()}
        return TorchBatch(
            changed(self.images), changed(self.labels), keys=self.keys, fields=fields, repeats=self.repeats
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _batch_again, (self.images, self.labels, self.keys, self.fields, self.repeats)


def _batch_again(images: Any, labels: Any, keys: list[str], fields: dict[str, Any], repeats: Any) -> TorchBatch:
    return TorchBatch(images, labels, keys=keys, fields=fields, repeats=repeats)


ANY_EPOCH = -1
"""Marker: no epoch was set."""
ANY_EPOCH_BELOW = 1 << 62


class TorchMap(MapDataset[Any]):  # type: ignore[misc]  # as above
    """Single samples by their number, for samplers and for code that needs a map-style dataset.

    Decoded samples are (image, label), like those of torchvision's ImageFolder, or with `names` a dict of both; others,
    and the output of map(), are unchanged. Random crops and flips are new each time, from torch's own random numbers,
    as in torchvision; after `set_epoch`, which reaches running workers, they are those of that epoch. A DataLoader
    requests a whole batch at a time, which shardkit's threads then decode in parallel.
    """

    def __init__(self, dataset: Dataset, *, channels_last: bool = False, names: tuple[str, str] | None = None) -> None:
        if dataset.steps.batch is not None:
            raise UsageError("to_torch(map_style=True)", "batches are not numbered", "omit .batch()")
        if not dataset.steps.counted:
            raise UsageError(
                "to_torch(map_style=True)", "with filter() the numbers are not known", "use where() or select()"
            )
        if dataset.steps.window:
            fact = "take() and skip() apply to the order of an epoch, which numbers ignore"
            raise UsageError("to_torch(map_style=True)", fact, "use a view instead: dataset[:1000]")
        reading = replace(dataset.reading, buffer=0, lanes=1, rank=0, world_size=1, turns=1)
        self.dataset = replace(dataset, reading=reading)
        self.channels_last = channels_last
        self.names = names
        self._epoch = torch.tensor([dataset.position.where().epoch or ANY_EPOCH], dtype=torch.int64).share_memory_()
        mapped = any(isinstance(op, Map) for op in dataset.ops)
        self._pairs = dataset.steps.decode is not None and not mapped

    @property
    def classes(self) -> list[str]:
        """The names of the classes in label order."""
        return self.dataset.classes

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class name -> label."""
        return {name: label for label, name in enumerate(self.dataset.classes)}

    @property
    def targets(self) -> list[int]:
        """The label of each sample."""
        targets: list[int] = self.dataset.content.catalog.labels()[self.dataset.epoch(0).rows_in_order].tolist()
        return targets

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> Any:
        count = len(self)
        if not -count <= number < count:
            raise SampleIndexError(
                repr(self.dataset), f"there is no sample {number} among {count}", "numbers start at 0"
            )
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Any]:
        """Several samples, decoded in parallel; called by torch's DataLoader."""
        chosen = self.dataset[np.asarray(numbers, np.int64)]
        found = [self._item(item) for _, item in chosen.run(self._chances())]
        if len(found) != len(numbers):  # on_error="skip"
            fact = f"{len(numbers) - len(found)} of these samples can't be decoded"
            raise DatasetError(repr(self.dataset), fact, 'each number needs its sample: use on_error="raise"')
        return found

    def set_epoch(self, epoch: int) -> None:
        """Use the random numbers of `epoch`, in running workers too."""
        self._epoch[0] = epoch

    def _chances(self) -> int:
        """The epoch whose random numbers are used."""
        epoch, decode = int(self._epoch[0]), self.dataset.steps.decode
        if epoch != ANY_EPOCH:
            return epoch
        random = decode is not None and decode.options.random
        return int(torch.randint(ANY_EPOCH_BELOW, ())) if random else 0

    def _item(self, item: Any) -> Any:
        if self.names is not None:
            return as_named(item, names=self.names, channels_last=self.channels_last)
        if not self._pairs:
            return as_tensors(item, channels_last=self.channels_last)
        image = torch.from_numpy(item[image_field(item)])
        label = item.get("cls")
        return image.movedim(-1, -3) if self.channels_last else image, label


def shared(item: Any) -> Any:
    """The item with its tensors in shared memory, as the training process receives it.

    Done where a worker makes the item, so that a full /dev/shm, or an object that can't be pickled, is an error of the
    item; in torch's own background thread it would be lost.
    """
    if isinstance(item, torch.Tensor):
        try:
            item.share_memory_()
        except RuntimeError as exc:
            fact = f"a batch of {item.nbytes:,} bytes does not fit in shared memory ({exc})"
            raise WorkerError("DataLoader worker", fact, CURE_OF_WORKERS) from exc
    elif isinstance(item, Batch):
        shared((item.images, item.labels, item.fields, item.repeats))
    elif isinstance(item, dict):
        shared(list(item.values()))
    elif isinstance(item, (list, tuple)):
        for value in item:
            if type(value) not in PLAIN:
                shared(value)
    elif type(item) not in PLAIN:
        try:
            ForkingPickler.dumps(item)
        except Exception as exc:
            fact = f"{type(item).__name__} can't be passed to the training process ({exc})"
            raise WorkerError("map()", fact, "return something that can be pickled, or use num_workers=0") from exc
    return item


PLAIN = {str, int, float, bool, bytes, type(None), np.ndarray}
"""Types that a worker can always pass."""


def to_torch(
    dataset: Dataset, *, map_style: bool = False, channels_last: bool = False, names: tuple[str, str] | None = None
) -> TorchDataset | TorchMap:
    """The Dataset for torch."""
    decode = dataset.steps.decode
    if channels_last and (decode is None or decode.options.layout != "hwc"):
        cure = 'decode() with a size and without layout="chw", which has a different memory order'
        raise UsageError("channels_last", "there are no images of (height, width, channels)", cure)
    chosen = None if names is None else _checked(dataset, names)
    if map_style:
        return TorchMap(dataset, channels_last=channels_last, names=chosen)
    if chosen is not None:
        return TorchDataset(dataset, convert=partial(as_named, names=chosen, channels_last=channels_last))
    return TorchDataset(dataset, convert=partial(as_tensors, channels_last=channels_last))


def _checked(dataset: Dataset, names: Any) -> tuple[str, str]:
    """The names of images and labels. UsageError unless they are two, and the dataset has images."""
    pair = () if isinstance(names, str) else tuple(names)
    if len(pair) != 2 or not all(isinstance(name, str) for name in pair) or pair[0] == pair[1]:
        raise UsageError("names", f"{names!r} is not a name for the images and one for the labels", NAMES_CURE)
    if dataset.steps.decode is None:
        raise UsageError("names", "the images are not decoded", "call decode(size=…) before")
    return pair[0], pair[1]


NAMES_CURE = 'give two names, such as ("pixel_values", "labels")'


def as_named(item: Any, *, names: tuple[str, str], channels_last: bool = False) -> dict[str, Any]:
    """A batch, or a decoded sample, as {name of the images: images, name of the labels: labels}; a missing label is
    omitted. UsageError for anything else.
    """
    if isinstance(item, Batch):
        batch = as_tensors(item, channels_last=channels_last)
        images, labels = batch.images, batch.labels
    else:
        image = image_field(item) if isinstance(item, dict) else None
        if image is None:
            fact = f"map() returned {type(item).__name__}, which is neither a batch nor a decoded sample"
            raise UsageError("names", fact, "omit `names`, and return the dict from map()")
        sample = as_tensors(item, channels_last=channels_last)
        images, labels = sample[image], sample.get("cls")
    return {names[0]: images} | ({} if labels is None else {names[1]: labels})


def as_tensors(item: Any, *, channels_last: bool = False) -> Any:
    """The item with every numeric array in it as a tensor on the same memory; a Batch becomes a TorchBatch.

    channels_last: images (…, height, width, channels) become (…, channels, height, width) on the unchanged memory,
    which is torch's format of that name.
    """
    if isinstance(item, Batch):
        fields = {name: as_tensors(value) for name, value in item.fields.items()}
        images = as_tensors(item.images)
        images = images.movedim(-1, -3) if channels_last else images
        return TorchBatch(images, as_tensors(item.labels), keys=item.keys, fields=fields, repeats=item.repeats)
    if isinstance(item, np.ndarray):
        return torch.from_numpy(item) if item.dtype.kind in "biuf" else item
    if isinstance(item, dict):
        tensors = {name: as_tensors(value) for name, value in item.items()}
        turned = [name for name, value in tensors.items() if channels_last and _is_image(name, value)]
        return tensors | {name: tensors[name].movedim(-1, -3) for name in turned}
    if isinstance(item, tuple):
        return tuple(as_tensors(value) for value in item)
    return item


def _is_image(name: str, value: Any) -> bool:
    return name in IMAGE_FIELDS and isinstance(value, torch.Tensor) and value.ndim >= 3
