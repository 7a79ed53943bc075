"""Items of a Dataset as torch tensors on the same memory."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypedDict, Unpack

import numpy as np
import torch

from shardkit.adapters.names import not_an_item
from shardkit.errors import WorkerError
from shardkit.reading.batches.batch import Batch, image_field
from shardkit.sample import IMAGE_FIELDS

CURE_OF_WORKERS = (
    "enlarge /dev/shm (docker run --shm-size=8g), use smaller batches, "
    "or use num_workers=0: threads decode all the same"
)


class MoveOptions(TypedDict, total=False):
    """The options of `Tensor.to`. All may be omitted."""

    device: torch.device | str | int | None
    dtype: torch.dtype | None
    non_blocking: bool
    copy: bool
    memory_format: torch.memory_format | None


class TorchBatch(Batch[torch.Tensor]):
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
            images = each_tensor(self.images, lambda tensor: tensor.to(*target, **options))
            return TorchBatch(images, self.labels, keys=self.keys, fields=self.fields, repeats=self.repeats)
        return self._each(lambda tensor: tensor.to(*target, **options))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> TorchBatch:
        fields = {name: each_tensor(value, change) for name, value in self.fields.items()}
        images, labels = each_tensor(self.images, change), each_tensor(self.labels, change)
        return TorchBatch(images, labels, keys=self.keys, fields=fields, repeats=self.repeats)

    def __reduce__(self) -> tuple[Any, ...]:
        return _batch_again, (self.images, self.labels, self.keys, self.fields, self.repeats)


def each_tensor(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A tensor, or each of a dict such as the views of images, or of a list, changed; anything else as it is."""
    if isinstance(value, dict):
        return {name: each_tensor(one, change) for name, one in value.items()}
    if isinstance(value, list) and value and not isinstance(value[0], (str, bytes)):
        return [each_tensor(one, change) for one in value]
    return change(value) if isinstance(value, torch.Tensor) else value


def channels_before(images: Any) -> Any:
    """Images (…, height, width, channels) as (…, channels, height, width), on the same memory."""
    return each_tensor(images, lambda tensor: tensor.movedim(-1, -3))


def _batch_again(images: Any, labels: Any, keys: list[str], fields: dict[str, Any], repeats: Any) -> TorchBatch:
    return TorchBatch(images, labels, keys=keys, fields=fields, repeats=repeats)


def as_named(
    item: Any, *, names: tuple[str, str], channels_last: bool = False, columns: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A batch, or a decoded sample, as {name of the images: images, name of the labels: labels}, with further columns
    by their names; a missing label is omitted. UsageError for anything else.
    """
    if isinstance(item, Batch):
        batch = as_tensors(item, channels_last=channels_last)
        images, labels, fields = batch.images, batch.labels, batch.fields
    else:
        image = image_field(item) if isinstance(item, dict) else None
        if image is None:
            raise not_an_item(item)
        sample = as_tensors(item, channels_last=channels_last)
        images, labels, fields = sample[image], sample.get("cls"), sample
    further = {name: fields[name] for name in columns if name in fields}
    return {names[0]: images} | ({} if labels is None else {names[1]: labels}) | further


def as_tensors(item: Any, *, channels_last: bool = False) -> Any:
    """The item with every numeric array in it as a tensor on the same memory; a Batch becomes a TorchBatch. A whole
    number or truth value of NumPy becomes Python's, as a label is.

    channels_last: images (…, height, width, channels) become (…, channels, height, width) on the unchanged memory,
    which is torch's format of that name.
    """
    if isinstance(item, Batch):
        fields = {name: as_tensors(value) for name, value in item.fields.items()}
        images = as_tensors(item.images)
        images = channels_before(images) if channels_last else images
        return TorchBatch(images, as_tensors(item.labels), keys=item.keys, fields=fields, repeats=item.repeats)
    if isinstance(item, np.ndarray):
        return tensor_of(item) if item.dtype.kind in "biuf" or item.dtype.name == "bfloat16" else item
    if isinstance(item, np.generic) and item.dtype.kind in "iub":
        return item.item()
    if isinstance(item, dict):
        tensors = {name: as_tensors(value) for name, value in item.items()}
        turned = [name for name, value in tensors.items() if channels_last and _is_image(name, value)]
        return tensors | {name: channels_before(tensors[name]) for name in turned}
    if isinstance(item, tuple):
        return tuple(as_tensors(value) for value in item)
    if isinstance(item, list) and any(isinstance(value, (np.ndarray, dict)) for value in item):
        return [as_tensors(value) for value in item]
    return item


def tensor_of(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A numeric array as a tensor on the same memory. NumPy has no bfloat16 of its own, and torch does not know that of
    ml_dtypes.
    """
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _is_image(name: str, value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(_is_image(name, one) for one in value.values())
    return name in IMAGE_FIELDS and isinstance(value, torch.Tensor) and value.ndim >= 3


def shared(item: Any) -> Any:
    """The item with its tensors in shared memory, as the training process receives it.

    Done where a worker makes the item, so that a full /dev/shm, or an object that can't be pickled, is an error of the
    item; in torch's own background thread it would be lost.
    """
    if isinstance(item, torch.Tensor):
        moved_to_shared_memory(item)
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
            raise unpassable(item, exc) from exc
    return item


def moved_to_shared_memory(tensor: torch.Tensor) -> None:
    """Move a tensor into a file in /dev/shm. WorkerError if it does not fit."""
    try:
        tensor.share_memory_()
    except RuntimeError as exc:
        fact = f"a batch of {tensor.nbytes:,} bytes does not fit in shared memory ({exc})"
        raise WorkerError("DataLoader worker", fact, CURE_OF_WORKERS) from exc


def unpassable(item: Any, exc: Exception) -> WorkerError:
    """The error for an item that can't be pickled."""
    fact = f"{type(item).__name__} can't be passed to the training process ({exc})"
    return WorkerError("map()", fact, "return something that can be pickled, or use num_workers=0")


PLAIN = {str, int, float, bool, bytes, type(None), np.ndarray}
"""Types that a worker can always pass."""
