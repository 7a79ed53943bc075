"""The options for decoding an image: their values, limits and errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import UsageError
from shardkit.images.annotations.options import Boxes, as_boxes, as_masks
from shardkit.images.augment.options import Augment
from shardkit.images.crops import MAX_SIDE, RATIO, SCALE, BoxRange
from shardkit.images.pillow import MAX_PIXELS
from shardkit.images.views.options import View, as_views, is_size, sides_of
from shardkit.options.keywords import cure_of_choice
from shardkit.options.numbers import is_finite, is_range, is_whole, switch

Crop = Literal["resize", "center", "cover", "random", "random-cover", "pad"]
Flip = Literal["horizontal", "vertical", "both"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "hamming", "lanczos"]
Color = Literal["rgb", "gray"]
PixelType = Literal["uint8", "float16", "bfloat16", "float32"]
Statistics = Literal["imagenet", "clip"]
Layout = Literal["hwc", "chw"]
LabelEncoding = Literal["int", "onehot", "binary", "multihot"]
OnError = Literal["raise", "skip"]


STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""(mean, std) of values from 0 to 1, by name: those of torchvision's weights, and of OpenAI's CLIP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """Options for decoding an image to an array. UsageError for an invalid value.

    size: a square's side or (height, width); None keeps each image's own.
    views: several random crops of each image, by name: a View, (count, size), or a mapping of a View's fields.
    crop: "resize" squashes the whole image (as Keras does), "center" takes the center (the shorter side scaled to
    size * 256/224), "cover" the largest part with the proportions of size, in the middle or, with "random-cover", at a
    random place, "random" is torchvision's RandomResizedCrop with `scale` (shares of the area) and `ratio` (width /
    height), "pad" squashes, adds `padding` pixels of `fill` on each side, and cuts a random window of size: for images
    of that size, torchvision's RandomCrop(size, padding). None is "resize", or "random" with views.
    flip: True or "horizontal" is left to right, "vertical" top to bottom, each with probability 1/2; "both" is both,
    independently.
    mean, std: values become (value - mean) / std, for all channels or each; "imagenet" and "clip" name those of
    `STATISTICS`. Unless rescale is given, values are divided by 255 before, as by torchvision's ToTensor. With augment
    this comes last.
    exact: bit-equal to Pillow's decoder and resize; without it, JPEGs may be decoded at a smaller scale.
    dtype: None is float32 if rescale, mean or std is given (as in Keras), otherwise uint8. "bfloat16" needs ml_dtypes.
    rescale: factor for every value.
    boxes, masks: the fields that are moved with the image, by the same crop, size and flip (images/annotations/).
    augment: applied to each image after size, crop and flip; float32 is then the default if it normalizes values.
    orientation: turn images as EXIF or XMP says (the rule is in images/orientation.py). label: as in `encode_labels`;
    labels of several classes are always multi-hot, and numbers to predict stay numbers (batches/labels.py).
    on_error, skip_limit: what the reader does with an image that can't be decoded, and how many it may leave out.
    max_pixels: an image of any format with more pixels is refused before it is decoded.
    """

    size: int | tuple[int, int] | None = None
    views: Mapping[str, View | tuple[int, int | tuple[int, int]] | Mapping[str, Any]] | None = None
    crop: Crop | None = None
    flip: bool | Flip = False
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] | None = None
    padding: int | None = None
    fill: int | tuple[int, int, int] = 0
    interpolation: Interpolation = "bilinear"
    color: Color = "rgb"
    exact: bool = False
    dtype: PixelType | None = None
    rescale: float | None = None
    mean: float | Sequence[float] | Statistics | None = None
    std: float | Sequence[float] | Statistics | None = None
    augment: Augment | None = None
    boxes: str | Boxes | None = None
    masks: str | Sequence[str] | None = None
    layout: Layout = "hwc"
    orientation: bool = False
    label: LabelEncoding = "int"
    on_error: OnError = "raise"
    skip_limit: int = 100
    max_pixels: int = MAX_PIXELS

    by_bucket: ClassVar[bool] = False
    """Whether the size is found for each batch."""

    def __post_init__(self) -> None:
        for name, allowed in _choices().items():
            if not _is_choice(getattr(self, name), allowed):
                expected = ", ".join(repr(value) for value in allowed)
                cure = cure_of_choice(name, getattr(self, name), allowed)
                raise UsageError(name, f"{getattr(self, name)!r} is not one of {expected}", cure)
        if not isinstance(self.flip, (bool, np.bool_)) and not _is_choice(self.flip, get_args(Flip)):
            cure = cure_of_choice("flip", self.flip, get_args(Flip))
            raise UsageError("flip", f"{self.flip!r} is not True or False, 'horizontal', 'vertical' or 'both'", cure)
        for name in ("exact", "orientation"):
            switch(name, getattr(self, name))
        for name, least in (("skip_limit", 0), ("max_pixels", 1)):
            if not is_whole(getattr(self, name)) or getattr(self, name) < least:
                raise UsageError(name, f"{getattr(self, name)!r} is not a whole number of at least {least}")
        if self.views is not None:
            self._check_views()
        if self.size is None:
            if self.views is None and self.cropped != "resize" and not self.by_bucket:
                raise UsageError("crop", f"{self.crop!r} needs a size", "give size= or views= as well")
        elif not is_size(self.size):
            raise UsageError(
                "size", f"{self.size!r} is neither a number of pixels nor (height, width), 1 to {MAX_SIDE:,}"
            )
        self._check_crop()
        self._check_values()
        if self.augment is not None:
            self._check_augment(self.augment)
        self._check_annotations()
        self._check_table()

    def _check_annotations(self) -> None:
        for name, checked in (("boxes", as_boxes), ("masks", as_masks)):
            if getattr(self, name) is None:
                continue
            object.__setattr__(self, name, checked(getattr(self, name)))
            if self.views is not None:
                raise UsageError(name, "each of the views has a crop of its own", f"omit views=, or {name}=")
            if self.augment is not None and self.augment.moves:
                fact = "this augmentation rotates, shifts, shears, zooms or flips the image only"
                raise UsageError(
                    name, fact, f"omit these options of `augment` and use `crop` and `flip`, or omit {name}="
                )

    @property
    def annotated(self) -> bool:
        """Whether fields are moved with the image."""
        return self.boxes is not None or self.masks is not None

    def _check_views(self) -> None:
        object.__setattr__(self, "views", as_views(self.views))
        if self.size is not None:
            raise UsageError("size", "each view has its own size", "omit size=, or views=")
        if self.crop not in (None, "random"):
            fact = f"{self.crop!r} can't be combined with views, which are random crops"
            raise UsageError("crop", fact, "omit crop=, or views=")

    def of_view(self, view: View) -> DecodeOptions:
        """The options for a single image that has the size and the boxes of one of the views."""
        scale, ratio = view.scale or self.scale, view.ratio or self.ratio
        return replace(self, views=None, crop="random", size=view.size, scale=scale, ratio=ratio)

    def _check_augment(self, augment: Augment) -> None:
        if not isinstance(augment, Augment):
            raise UsageError("augment", f"{augment!r} is not a shardkit.Augment", "give one, or None")
        if augment.missing:
            fact = f"it needs {', '.join(augment.missing)}, which it does not have"
            raise UsageError("augment", fact, "give them, or find them with augment.fit(images)")
        if augment.rescale is not None and self.rescale is not None:
            raise UsageError("rescale", "the augmentation has a rescale of its own", "give one of the two")
        if self.dtype == "uint8" and augment.normalizes:
            fact = 'dtype="uint8" has no room for the values of this augmentation'
            raise UsageError("augment", fact, 'give dtype="float32", or no dtype')

    def _check_crop(self) -> None:
        for name, most in (("scale", 1.0), ("ratio", math.inf)):
            limits = getattr(self, name)
            if limits is None:
                continue
            if self.cropped != "random":
                raise UsageError(name, f"a crop of {self.cropped!r} does not use it", 'give crop="random" as well')
            if not is_range(limits, most):
                least = "(low, high) with 0 < low <= high" + (" <= 1" if most == 1 else "")
                raise UsageError(name, f"{limits!r} is not {least}")
        if self.crop == "pad":
            if not is_whole(self.padding) or not 0 <= int(self.padding or 0) <= MAX_SIDE:
                fact = f"{self.padding!r} is not a number of pixels from 0 to {MAX_SIDE:,}"
                raise UsageError("padding", fact, 'give crop="pad" the pixels to add on each side, such as padding=4')
        elif self.padding is not None:
            raise UsageError("padding", f"a crop of {self.cropped!r} does not use it", 'give crop="pad" as well')
        values = self.fill if isinstance(self.fill, (tuple, list)) else (self.fill,)
        if len(values) not in (1, self.channels) or not all(is_whole(v) and 0 <= v <= 255 for v in values):
            raise UsageError("fill", f"{self.fill!r} is neither a value from 0 to 255 nor one for each channel")
        if self.fill != 0 and self.crop != "pad":
            raise UsageError("fill", f"a crop of {self.cropped!r} does not use it", 'give crop="pad" as well')

    def _check_values(self) -> None:
        if self.rescale is not None:
            if isinstance(self.rescale, bool) or not isinstance(self.rescale, (int, float, np.number)):
                raise UsageError("rescale", f"{self.rescale!r} is not a number")
            if not is_finite(self.rescale) or self.rescale == 0:
                raise UsageError("rescale", f"{self.rescale!r} would make all values equal; expected 1/255 or the like")
        for name in ("mean", "std"):
            self._check_statistics(name)
        for name in ("rescale", "mean", "std"):
            if getattr(self, name) is not None and self.dtype == "uint8":
                fact = 'dtype="uint8" has no room for scaled values'
                raise UsageError(name, fact, 'give dtype="float32", or no dtype')
        if self.dtype == "bfloat16":
            bfloat16()

    def _check_table(self) -> None:
        """UsageError for numbers with which a value is not finite in the dtype, or all are equal."""
        with np.errstate(all="ignore"):
            table = self.value_table()
        given = [name for name in ("rescale", "mean", "std") if getattr(self, name) is not None]
        if table is None or not given:
            return
        values = table.astype(np.float32)
        if not np.isfinite(values).all():
            fact = f"{getattr(self, given[-1])!r} gives values that {self.value_type.name} can't hold"
        elif (values[:, 0] == values[:, -1]).any():
            fact = f"{getattr(self, given[-1])!r} makes all values equal in {self.value_type.name}"
        else:
            return
        raise UsageError(given[-1], fact, f"give other numbers for {', '.join(given)}, or another dtype")

    def _check_statistics(self, name: str) -> None:
        given = getattr(self, name)
        if given is None:
            return
        if self.augment is not None and self.augment.standardizes:
            fact = "the augmentation has its own mean and deviation"
            raise UsageError(name, fact, "omit its featurewise, samplewise and zca options, or omit mean= and std=")
        if isinstance(given, str):
            if given not in STATISTICS:
                fact = f"{given!r} is not one of {', '.join(map(repr, STATISTICS))}, or numbers"
                raise UsageError(name, fact, cure_of_choice(name, given, STATISTICS))
            if self.channels != 3:
                raise UsageError(name, f"{given!r} has a value for each of red, green and blue", "give one number")
            return
        try:
            values = np.asarray(given)
        except ValueError:  # rows of several lengths
            values = np.empty(0, object)
        if values.dtype.kind not in "iuf" or values.shape not in ((), (1,), (self.channels,)):
            raise UsageError(name, f"{given!r} is neither a number nor one for each of {self.channels} channels")
        if not np.isfinite(values).all() or (name == "std" and not (values > 0).all()):
            raise UsageError(name, f"{given!r} has values that can't be used", "give finite numbers; std is above 0")
        object.__setattr__(self, name, tuple(values.reshape(-1).tolist()))  # an array would not compare as a value

    @property
    def gives_floats(self) -> bool:
        """Whether values are changed to what uint8 has no room for."""
        augment = self.augment
        changed = augment is not None and (augment.normalizes or augment.preprocessing_function is not None)
        return changed or any(value is not None for value in (self.rescale, self.mean, self.std))

    @property
    def cropped(self) -> Crop:
        """The crop, with what None stands for."""
        return self.crop or ("random" if self.views else "resize")

    @property
    def random(self) -> bool:
        """Whether an image is another one in each epoch."""
        return self.cropped in ("random", "random-cover", "pad") or bool(self.flip) or self.augment is not None

    @property
    def moves_pixels(self) -> bool:
        """Whether what is next to the image in its sample, such as a mask, would not fit it afterwards."""
        return self.cropped != "resize" or self.random

    @property
    def channels(self) -> int:
        """Of a decoded image."""
        return 1 if self.color == "gray" else 3

    @property
    def box_range(self) -> BoxRange:
        """What random crops are drawn from."""
        return BoxRange(*(_floats(given or default) for given, default in ((self.scale, SCALE), (self.ratio, RATIO))))

    @property
    def fill_bytes(self) -> bytes:
        """The value of each channel of the padding."""
        values = tuple(self.fill) if isinstance(self.fill, (tuple, list)) else (self.fill,)
        return bytes(int(value) for value in (values * self.channels)[: self.channels])

    @property
    def value_type(self) -> np.dtype[Any]:
        """The dtype of a decoded image."""
        name = self.dtype or ("float32" if self.gives_floats else "uint8")
        return bfloat16() if name == "bfloat16" else np.dtype(name)

    def value_table(self) -> NDArray[Any] | None:
        """What becomes of the values 0 to 255: `value_type` (channels, 256), computed in float32. None: nothing."""
        if self.value_type == np.uint8:
            return None
        values = np.broadcast_to(np.arange(256, dtype=np.float32), (self.channels, 256))
        if self.rescale is not None:
            values = values * np.float32(self.rescale)
        elif self.normalizes:
            values = values / np.float32(255)
        if self.mean is not None:
            values = values - self._statistic(self.mean, 0)
        if self.std is not None:
            values = values / self._statistic(self.std, 1)
        return np.ascontiguousarray(values.astype(self.value_type))

    @property
    def normalizes(self) -> bool:
        """Whether mean or std is given."""
        return self.mean is not None or self.std is not None

    @property
    def statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """(mean, std), each (channels, 1); None if neither is given."""
        if not self.normalizes:
            return None
        mean = self._statistic(0 if self.mean is None else self.mean, 0)
        return mean, self._statistic(1 if self.std is None else self.std, 1)

    def _statistic(self, given: Any, which: int) -> NDArray[np.float32]:
        values = np.asarray(STATISTICS[given][which] if isinstance(given, str) else given, np.float32)
        return np.broadcast_to(values.reshape(-1), (self.channels,))[:, None]

    @property
    def height_width(self) -> tuple[int, int] | None:
        """size as (height, width)."""
        if self.size is None:
            return None
        height, width = sides_of(self.size)
        return int(height), int(width)


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketOptions(DecodeOptions):
    """Options for images that are sorted into buckets, each of which has a size of its own."""

    by_bucket: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.size is not None:
            raise UsageError("size", "buckets() comes before, and each bucket has its own size", "omit it here")
        if self.views is not None:
            raise UsageError("views", "buckets() comes before, but each view has its own size", "omit one of them")
        if self.crop is None:
            object.__setattr__(self, "crop", "cover")
        DecodeOptions.__post_init__(self)

    def of_size(self, size: tuple[int, int]) -> DecodeOptions:
        """The options for the images of a bucket."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return DecodeOptions(**(given | {"size": size}))


@lru_cache(maxsize=1)
def _choices() -> dict[str, tuple[Any, ...]]:
    hints = get_type_hints(DecodeOptions)
    found = {}
    for field in fields(DecodeOptions):
        if field.name in ("flip", "mean", "std"):  # which take other values as well
            continue
        parts = [hints[field.name], *get_args(hints[field.name])]
        values = [value for part in parts if getattr(part, "__origin__", None) is Literal for value in get_args(part)]
        if values:
            found[field.name] = (*values, None) if type(None) in parts else tuple(values)
    return found


def _is_choice(value: object, allowed: Sequence[object]) -> bool:
    """Whether it is one of them; an array, which can't be compared with them, is not."""
    return not isinstance(value, np.ndarray) and value in allowed


def _floats(pair: Sequence[float]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


def bfloat16() -> np.dtype[Any]:
    """NumPy's dtype of that name, from ml_dtypes (it comes with JAX and TensorFlow). UsageError without the package."""
    try:
        import ml_dtypes
    except ImportError as exc:
        cure = "pip install ml_dtypes; or use float16"
        raise UsageError("dtype", '"bfloat16" needs the package ml_dtypes', cure) from exc
    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found
