"""Batches of images that can be read by number: arrays in memory, or files of a list. As Keras' own iterators."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shardkit import rng
from shardkit.adapters.keras.absent import absent
from shardkit.adapters.keras.arguments import flags, folder_of, require_part
from shardkit.adapters.keras.flow import PILLOW_FILTERS, Saving
from shardkit.adapters.keras.pydataset import keras
from shardkit.errors import DecodeError, NotFoundError, SampleIndexError
from shardkit.images.augment import checks
from shardkit.images.augment.augmenter import Augmenter
from shardkit.images.augment.options import Augment
from shardkit.images.decoder import DecodeOptions, ImageDecoder
from shardkit.reading.options import at_least
from shardkit.threads import in_threads
from shardkit.units import cores

Numbers = NDArray[np.int64]
Targets = Callable[[Numbers, NDArray[Any]], tuple[Any, ...]]
"""What follows the images in a batch, from the numbers of its samples and its images."""


@dataclass(frozen=True, slots=True)
class FlowOptions:
    """What all flows take, by Keras' names. UsageError for what makes no sense."""

    data_format: str
    dtype: str
    batch_size: int = 32
    shuffle: bool = True
    seed: int | None = None
    save_to_dir: str | os.PathLike[str] | None = None
    save_prefix: str = ""
    save_format: str = "png"
    subset: str | None = None
    validation_split: float = 0.0

    def __post_init__(self) -> None:
        at_least("batch_size", self.batch_size, 1)
        checks.seed(self.seed)
        (shuffle,) = flags(shuffle=self.shuffle)
        object.__setattr__(self, "shuffle", shuffle)
        object.__setattr__(self, "save_to_dir", folder_of("save_to_dir", self.save_to_dir))
        require_part(self.subset, self.validation_split)

    @property
    def split(self) -> tuple[float, float] | None:
        """The part of the samples that the subset is, from 0 to 1, as in Keras: validation comes first."""
        held = self.validation_split
        return None if self.subset is None else (0, held) if self.subset == "validation" else (held, 1)

    @property
    def channels_first(self) -> bool:
        """Whether images are (channels, height, width)."""
        return self.data_format == "channels_first"

    @property
    def saving(self) -> Saving | None:
        """How pictures are saved, if they are."""
        if self.save_to_dir is None:
            return None
        layout = "chw" if self.channels_first else "hwc"
        return Saving(os.fspath(self.save_to_dir), self.save_prefix, self.save_format, layout, {})

    def part(self, count: int) -> range:
        """The numbers among so many samples that belong to the subset: validation comes first, as in Keras."""
        held = int(self.validation_split * count)
        return range(held) if self.subset == "validation" else range(held if self.subset else 0, count)


class Images(Protocol):
    """Images by number."""

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of each."""
        ...

    def pixels(self, number: int) -> NDArray[Any]:
        """Return the image with this number, uint8 or float32 (height, width, channels), contiguous."""
        ...


@dataclass(frozen=True, slots=True)
class Arrays:
    """Images in an array, float32 (n, height, width, channels), or (n, channels, height, width)."""

    values: NDArray[np.float32]
    channels_first: bool

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, int, int]:
        """As in `Images`."""
        a, b, c = self.values.shape[1:]
        return (b, c, a) if self.channels_first else (a, b, c)

    def pixels(self, number: int) -> NDArray[Any]:
        """As in `Images`."""
        image = self.values[number]
        return np.ascontiguousarray(image.transpose(1, 2, 0) if self.channels_first else image)


@dataclass(frozen=True, slots=True)
class Files:
    """Images in files, loaded at one size. NotFoundError and DecodeError for a file that can't be loaded."""

    paths: Sequence[str]
    size: tuple[int, int]
    color_mode: str
    interpolation: str

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int]:
        """As in `Images`."""
        return (*self.size, {"rgb": 3, "rgba": 4, "grayscale": 1}[self.color_mode])

    def pixels(self, number: int) -> NDArray[Any]:
        """As in `Images`."""
        path = self.paths[number]
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError as exc:
            raise NotFoundError(path, "there is no such file", "correct the list of files") from exc
        if self.color_mode == "rgba" or self.interpolation == "hamming":
            return self._by_keras(path, data)
        options = DecodeOptions(
            size=self.size, color="gray" if self.color_mode == "grayscale" else "rgb",
            interpolation=PILLOW_FILTERS[self.interpolation],
        )  # fmt: skip
        try:
            return ImageDecoder(options).array(data, None)
        except DecodeError as exc:
            raise DecodeError(path, exc.fact, exc.cure) from exc

    def _by_keras(self, path: str, data: bytes) -> NDArray[Any]:
        try:
            image = keras.utils.load_img(
                io.BytesIO(data), color_mode=self.color_mode, target_size=self.size, interpolation=self.interpolation
            )
        except Exception as exc:  # Pillow raises nearly anything on damaged data
            raise DecodeError(path, f"the image can't be decoded: {exc}", "fix or remove it") from exc
        array: NDArray[Any] = keras.utils.img_to_array(image, "channels_last", dtype="float32")
        return array


class IndexedFlow(keras.utils.PyDataset):  # type: ignore[misc]  # keras is not there when types are checked
    """Batches (images, …) by number, augmented, for `fit`, `evaluate` and `predict`. `next()` has no end.

    A batch depends on seed, epoch and its number only: it is the same for any number of threads, in any order.
    `on_epoch_end`, or the end of a pass by `next()`, begins the next epoch, with another order if it is shuffled.
    """

    def __init__(self, images: Images, targets: Targets, augment: Augment, options: FlowOptions) -> None:
        super().__init__(workers=1)
        self.batch_size, self.shuffle, self.seed = options.batch_size, options.shuffle, options.seed
        self.data_format, self.dtype = options.data_format, options.dtype
        self.save_to_dir, self.save_prefix, self.save_format = (
            options.save_to_dir, options.save_prefix, options.save_format,
        )  # fmt: skip
        self.subset, self.split = options.subset, options.split
        height, width, channels = images.shape
        first = options.channels_first
        self.image_shape = (channels, height, width) if first else (height, width, channels)
        self.n = self.samples = len(images)
        self._images, self._targets, self._save = images, targets, options.saving
        self._augmenter = Augmenter(augment, channels_first=first)
        self._epoch = self._next = self.total_batches_seen = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        names = ("n", "image_shape", "batch_size", "shuffle", "seed")
        return f"<{type(self).__name__}: {', '.join(f'{name}={getattr(self, name)!r}' for name in names)}>"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        """Raise AttributeError; for what only Keras' own iterators have, with what to use instead."""
        raise absent(self, name)

    @property
    def batch_index(self) -> int:
        """The number of the batch that `next()` returns next."""
        return self._next

    @property
    def index_array(self) -> Numbers:
        """The numbers of the samples in the order of the batches of this epoch (int64)."""
        return self.order(self._epoch)

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __getitem__(self, number: int) -> Any:
        return self._batch(self._epoch, number)

    def __iter__(self) -> IndexedFlow:
        return self

    def __next__(self) -> Any:
        with self._lock:
            epoch, number = self._epoch, self._next
            self._next += 1
            if self._next >= len(self):
                self._next, self._epoch = 0, epoch + 1
        return self._batch(epoch, number)

    next = __next__

    def reset(self) -> None:
        """Let `next()` begin at the first batch again."""
        self._next = 0

    def on_epoch_end(self) -> None:
        """Begin the next epoch."""
        self._epoch += 1

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the current one: its order and its random changes."""
        self._epoch, self._next = epoch, 0

    def order(self, epoch: int) -> Numbers:
        """The numbers of the samples in the order of an epoch (int64)."""
        if not self.shuffle:
            return np.arange(self.n)
        return rng.permutation(self.n, rng.stream_key("order", self.seed or 0, epoch))

    def _batch(self, epoch: int, number: int) -> Any:
        if not 0 <= number < len(self):
            fact = f"there is no batch {number} among {len(self)}"
            raise SampleIndexError(type(self).__name__, fact, "they count from 0")
        with self._lock:
            self.total_batches_seen += 1
        chosen = self.order(epoch)[number * self.batch_size : (number + 1) * self.batch_size]
        rows = self._augmenter.draws(rng.stream_key("augment", self.seed or 0, epoch), chosen)
        images = np.empty((len(chosen), *self.image_shape), np.float32)

        def fill(at: int) -> None:
            self._augmenter.into(self._images.pixels(int(chosen[at])), images[at], rows[at])

        for _ in in_threads(fill, range(len(chosen)), min(cores(), len(chosen)), name="shardkit-flow"):
            continue
        given = images.astype(self.dtype, copy=False)
        if self._save is not None:
            for sample, image in zip(chosen.tolist(), given, strict=True):
                self._save.image(sample, image)
        batch = self._targets(chosen, given)
        return batch if len(batch) > 1 else batch[0]
