"""Decode images to arrays: the options (`DecodeOptions`), and the decoder (`ImageDecoder`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from shardkit import rng
from shardkit.errors import DecodeError, UsageError
from shardkit.images import fused
from shardkit.images import pixels as images
from shardkit.images.augment.augmenter import Augmenter
from shardkit.images.augment.options import Augment
from shardkit.images.crops import RANDOM_DRAWS, Box, center_box, dct_divisor, random_box
from shardkit.images.jpeg import PROGRESSIVE, start_of_frame
from shardkit.images.orientation import orientation_in
from shardkit.images.pillow import MAX_PIXELS, reason_of
from shardkit.images.pixels import Buffer, Pixels
from shardkit.options.keywords import cure_of_choice

HEADROOM = 1.5
"""How many decoded pixels DCT scaling must leave for each target pixel (3 for area, bicubic and lanczos)."""

DRAWS_STRIDE = 32
"""Counters of the random stream for each position: number 0 is for the flip, those from 1 are for the crop."""

FUSED_CHUNK = 8
"""Images decoded before they are converted to another dtype or layout: few enough to stay in the cache."""

Crop = Literal["resize", "center", "random"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "lanczos"]
Color = Literal["rgb", "gray"]
PixelType = Literal["uint8", "float16", "float32"]
Layout = Literal["hwc", "chw"]
LabelEncoding = Literal["int", "onehot", "binary", "multihot"]
OnError = Literal["raise", "skip"]

DECODE_CURE = 'fix or remove the image, or skip such images with on_error="skip"'


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """Options for decoding an image to an array. UsageError for an invalid value.

    size: a square's side or (height, width); None keeps each image's own.
    crop: "resize" squashes the whole image (as Keras does), "center" takes the center (the shorter side scaled to
    size * 256/224), "random" is torchvision's RandomResizedCrop. flip: left to right, with probability 1/2.
    exact: bit-equal to Pillow's decoder and resize; without it, JPEGs may be decoded at a smaller scale.
    dtype: None is float32 if rescale is given (as in Keras), otherwise uint8. rescale: factor for every value.
    augment: applied to each image after size, crop and flip; float32 is then the default if it normalizes values.
    orientation: turn images as EXIF or XMP says (the rule is in images/orientation.py). label: as in `encode_labels`;
    labels of several classes are always multi-hot, and numbers to predict stay numbers (batches/labels.py).
    on_error, skip_limit: what the reader does with an image that can't be decoded, and how many it may leave out.
    max_pixels: an image of any format with more pixels is refused before it is decoded.
    """

    size: int | tuple[int, int] | None = None
    crop: Crop = "resize"
    flip: bool = False
    interpolation: Interpolation = "bilinear"
    color: Color = "rgb"
    exact: bool = False
    dtype: PixelType | None = None
    rescale: float | None = None
    augment: Augment | None = None
    layout: Layout = "hwc"
    orientation: bool = False
    label: LabelEncoding = "int"
    on_error: OnError = "raise"
    skip_limit: int = 100
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        for name, allowed in _choices().items():
            if getattr(self, name) not in allowed:
                expected = ", ".join(repr(value) for value in allowed)
                cure = cure_of_choice(name, getattr(self, name), allowed)
                raise UsageError(name, f"{getattr(self, name)!r} is not one of {expected}", cure)
        for name in ("flip", "exact", "orientation"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise UsageError(name, f"{getattr(self, name)!r} is not True or False")
        for name, least in (("skip_limit", 0), ("max_pixels", 1)):
            if not _is_int(getattr(self, name)) or getattr(self, name) < least:
                raise UsageError(name, f"{getattr(self, name)!r} is not a whole number of at least {least}")
        if self.size is None:
            if self.crop != "resize":
                raise UsageError("crop", f"{self.crop!r} needs a size", "give size= as well")
        elif not all(_is_int(side) and 1 <= side <= 65_535 for side in self._sides()) or len(self._sides()) != 2:
            raise UsageError("size", f"{self.size!r} is neither a number of pixels nor (height, width), 1 to 65,535")
        self._check_rescale()
        if self.augment is not None:
            self._check_augment(self.augment)

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

    def _check_rescale(self) -> None:
        if self.rescale is None:
            return
        if isinstance(self.rescale, bool) or not isinstance(self.rescale, (int, float, np.number)):
            raise UsageError("rescale", f"{self.rescale!r} is not a number")
        if not math.isfinite(self.rescale) or self.rescale == 0:
            raise UsageError("rescale", f"{self.rescale!r} would make all values equal; expected 1/255 or the like")
        if self.dtype == "uint8":
            raise UsageError(
                "rescale", 'dtype="uint8" has no room for scaled values', 'give dtype="float32", or no dtype'
            )

    def _sides(self) -> tuple[Any, ...]:
        return tuple(self.size) if isinstance(self.size, (tuple, list)) else (self.size, self.size)

    @property
    def gives_floats(self) -> bool:
        """Whether values are changed to what uint8 has no room for."""
        augment = self.augment
        changed = augment is not None and (augment.normalizes or augment.preprocessing_function is not None)
        return changed or self.rescale is not None

    @property
    def random(self) -> bool:
        """Whether an image is another one in each epoch."""
        return self.crop == "random" or self.flip or self.augment is not None

    @property
    def moves_pixels(self) -> bool:
        """Whether what is next to the image in its sample, such as a mask, would not fit it afterwards."""
        return self.crop != "resize" or self.random

    @property
    def height_width(self) -> tuple[int, int] | None:
        """size as (height, width)."""
        return None if self.size is None else (int(self._sides()[0]), int(self._sides()[1]))


@lru_cache(maxsize=1)
def _choices() -> dict[str, tuple[Any, ...]]:
    hints = get_type_hints(DecodeOptions)
    found = {}
    for field in fields(DecodeOptions):
        parts = [hints[field.name], *get_args(hints[field.name])]
        values = [value for part in parts if getattr(part, "__origin__", None) is Literal for value in get_args(part)]
        if values:
            found[field.name] = (*values, None) if type(None) in parts else tuple(values)
    return found


def _is_int(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


class ImageDecoder:
    """Decode images according to `options`. Holds only configuration: it can be pickled, and used by any thread.

    shape: of a decoded image, in its layout; None without size. dtype: of its values.
    DecodeErrors name no place, since only the caller knows shard, byte and key.
    """

    def __init__(self, options: DecodeOptions) -> None:
        self.options = options
        self.size = options.height_width
        self.dtype: np.dtype[Any] = np.dtype(options.dtype or ("float32" if options.gives_floats else "uint8"))
        self.channels = 1 if options.color == "gray" else 3
        self.shape = None if self.size is None else self._laid_out(*self.size)
        self._augmenter = None
        if options.augment is not None:
            rescale, channels_first = options.rescale, options.layout == "chw"
            self._augmenter = Augmenter(options.augment, rescale=rescale, channels_first=channels_first)
        self._own_draws = 1 + RANDOM_DRAWS if options.crop == "random" else int(options.flip)
        self._plain = self.dtype == np.uint8 and options.layout == "hwc" and self._augmenter is None
        self._direct = self._plain and options.crop == "resize" and not options.exact and not options.orientation
        headroom = 2 * HEADROOM if options.interpolation in ("area", "bicubic", "lanczos") else HEADROOM
        self._headroom = math.inf if options.interpolation == "nearest" else headroom  # nearest: no averaging at all
        self._fused = self._fused_settings()

    def _fused_settings(self) -> fused.FusedSettings | None:
        options = self.options
        if self.size is None or options.exact or options.interpolation != "bilinear":
            return None
        return fused.FusedSettings(
            (*self.size, self.channels), options.crop, options.flip, self._headroom, options.max_pixels
        )

    def _laid_out(self, height: int, width: int) -> tuple[int, int, int]:
        if self.options.layout == "hwc":
            return height, width, self.channels
        return self.channels, height, width

    def draws(self, key: int, positions: NDArray[np.integer[Any]]) -> NDArray[np.float64] | None:
        """A row of random numbers in [0, 1) for each position, from key and position alone; None if not needed.

        float64 (n, 1) for a flip: below 1/2 means flipped. (n, 23) for a random crop. Those of `augment` follow.
        """
        count, augmenter = self._own_draws, self._augmenter
        if count == 0:
            return None if augmenter is None else augmenter.draws(key, positions)
        counters: NDArray[np.uint64] = positions.astype(np.uint64)[:, None] * np.uint64(DRAWS_STRIDE)
        own = rng.uniform(key, np.add(counters, np.arange(count, dtype=np.uint64), dtype=np.uint64))
        return own if augmenter is None else np.concatenate([own, augmenter.draws(key, positions)], axis=1)

    def batch_into(
        self, datas: Sequence[Buffer], out: NDArray[Any], draws: NDArray[np.float64] | None
    ) -> list[tuple[int, Exception]]:
        """Decode each image into its slot of out (n, *shape). Returns (index, error) for each that failed.

        draws: the rows for these images, as returned by `draws`. The content of a failed image's slot is undefined.
        """
        failures: list[tuple[int, Exception]] = []
        left: Iterable[int] = range(len(datas))
        if self._fused is not None and fused.available():
            left = self._by_fused(self._fused, datas, out, draws)
        straight = images.straight_decoder(gray=self.channels == 1) if self._direct else None
        flips = (draws[:, 0] < 0.5).tolist() if self.options.flip and draws is not None else None
        known = b"?"  # the start of an image decoded directly into its slot: the next with this start can be, too
        for i in left:
            data = datas[i]
            try:
                if straight is not None and data[: len(known)] == known and straight(data, out[i]):
                    if flips is not None and flips[i]:
                        images.flip(out[i])
                    continue
                self._into(data, out[i], None if draws is None else draws[i])
                if straight is not None:
                    known = self._start_of_direct(data) or known
            except DecodeError as exc:
                failures.append((i, exc))
        return failures

    def _start_of_direct(self, data: Buffer) -> bytes | None:
        """The bytes up to the frame header's end, if it is a JPEG of the target size that needs no processing."""
        with suppress(ValueError):
            if images.is_jpeg(data) and images.jpeg_size(data, self.options.max_pixels) == self.size:
                start = bytes(data[:4096])
                frame = start_of_frame(start)
                return start[: frame + 10] if start[frame + 1] != PROGRESSIVE else None
        return None

    def _by_fused(
        self,
        settings: fused.FusedSettings,
        datas: Sequence[Buffer],
        out: NDArray[Any],
        draws: NDArray[np.float64] | None,
    ) -> list[int]:
        """Decode the images that the C decoder supports. Returns the indices of the others."""
        mine: Sequence[Buffer | None] = datas
        if self.options.orientation:
            mine = [None if images.is_jpeg(data) and orientation_in(data) != 1 else data for data in datas]
        if self._plain:
            return [i for i, _ in fused.decode_batch(settings, mine, out, draws)]
        left = []
        chunk = max(1, min(FUSED_CHUNK, images.SCRATCH_BYTES // math.prod(settings.size)))
        for begin in range(0, len(datas), chunk):
            part = mine[begin : begin + chunk]
            pixels = self._scratch_pixels(len(part))
            rows = None if draws is None else draws[begin : begin + chunk]
            left += [begin + i for i, _ in fused.decode_batch(settings, part, pixels, rows)]
            for number, image in enumerate(pixels, begin):
                self._convert(image, out[number], None if draws is None else draws[number])
        return left

    def into(self, data: Buffer, out: NDArray[Any], draws_row: NDArray[np.float64] | None) -> None:
        """Decode one image into out, a C-contiguous array of `shape` and `dtype`. Raises DecodeError."""
        for _, error in self.batch_into([data], out[None], None if draws_row is None else draws_row[None]):
            raise error

    def _into(self, data: Buffer, out: NDArray[Any], draws_row: NDArray[np.float64] | None) -> None:
        if self.size is None:
            raise UsageError("size", "without a size there is no slot to decode into", "give size=")
        pixels = out if self._plain else self._scratch_pixels(1)[0]
        try:
            self._sized(data, pixels, self.size, draws_row)
        except MemoryError as exc:
            raise DecodeError("", "the image needs more memory than is available", DECODE_CURE) from exc
        except Exception as exc:  # libjpeg and Pillow raise nearly anything on damaged data
            raise DecodeError("", reason_of(exc), DECODE_CURE) from exc
        if not self._plain:
            self._convert(pixels, out, draws_row)

    def array(self, data: Buffer, draws_row: NDArray[np.float64] | None) -> NDArray[Any]:
        """Decode one image to a new array; without size, the whole image. DecodeError if it can't be decoded."""
        if self.shape is not None:
            out = np.empty(self.shape, self.dtype)
            self.into(data, out, draws_row)
            return out
        try:
            pixels = self._whole(data)
        except Exception as exc:  # as above
            raise DecodeError("", reason_of(exc), DECODE_CURE) from exc
        if self._flips(draws_row):
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        if self._plain:
            return pixels
        out = np.empty(self._laid_out(*pixels.shape[:2]), self.dtype)
        self._convert(pixels, out, draws_row)
        return out

    def _flips(self, draws_row: NDArray[np.float64] | None) -> bool:
        return self.options.flip and draws_row is not None and bool(draws_row[0] < 0.5)

    def _scratch_pixels(self, n: int) -> Pixels:
        height, width = self.size or (0, 0)
        count = n * height * width * self.channels
        return images.scratch("sized", count)[:count].reshape(n, height, width, self.channels)

    def _box(self, height: int, width: int, draws_row: NDArray[np.float64] | None) -> Box:
        crop = self.options.crop
        if crop == "resize" or self.size is None:
            return 0, 0, height, width
        if crop == "center":
            return center_box(height, width, self.size)
        if draws_row is None:
            raise UsageError("crop", "a random crop needs its draws")
        return random_box(height, width, draws_row[1:].tolist())

    def _sized(self, data: Buffer, out: Pixels, size: tuple[int, int], draws_row: NDArray[np.float64] | None) -> None:
        options = self.options
        if options.exact or not self._jpeg(data, out, size, draws_row):
            image = self._by_pillow(data)
            box = self._box(image.height, image.width, draws_row)
            out[:] = images.resize_exact(image, box, size, options.interpolation)
        if self._flips(draws_row):
            images.flip(out)

    def _jpeg(self, data: Buffer, out: Pixels, size: tuple[int, int], draws_row: NDArray[np.float64] | None) -> bool:
        """Decode a JPEG the fast way; False if Pillow has to do it."""
        options = self.options
        if not images.is_jpeg(data) or (stored := images.jpeg_size(data, options.max_pixels)) is None:
            return False
        gray = self.channels == 1
        orientation = orientation_in(data) or 1 if options.orientation else 1
        if stored == size and options.crop == "resize" and orientation == 1:
            return images.decode_jpeg(data, stored, gray=gray, buffer=out) is not None
        box = self._box(*(stored if orientation < 5 else stored[::-1]), draws_row)
        divisor = dct_divisor(box, size, headroom=self._headroom)
        memory = images.scratch("decoded", -(-stored[0] // divisor) * -(-stored[1] // divisor) * self.channels)
        pixels = images.decode_jpeg(data, stored, gray=gray, divisor=divisor, buffer=memory)
        if pixels is None:
            return False
        if divisor > 1:
            box = (box[0] / divisor, box[1] / divisor, box[2] / divisor, box[3] / divisor)
        images.resize_into(images.upright(pixels, orientation), box, out, options.interpolation)
        return True

    def _whole(self, data: Buffer) -> Pixels:
        options = self.options
        if not options.exact and images.is_jpeg(data):
            stored = images.jpeg_size(data, options.max_pixels)
            pixels = None if stored is None else images.decode_jpeg(data, stored, gray=self.channels == 1)
            if pixels is not None:
                return images.upright(pixels, orientation_in(data) or 1 if options.orientation else 1)
        return _array_of(self._by_pillow(data)).copy()

    def _by_pillow(self, data: Buffer) -> Any:
        options = self.options
        return images.pillow_image(
            data, gray=options.color == "gray", orientation=options.orientation, max_pixels=options.max_pixels
        )

    def _convert(self, pixels: Pixels, out: NDArray[Any], draws_row: NDArray[np.float64] | None) -> None:
        """Convert uint8 (h, w, c) to out's layout and dtype: each value times rescale in float32, then to dtype. With
        an augmentation, apply that instead.
        """
        if self._augmenter is not None:
            if draws_row is None:
                raise UsageError("augment", "an augmentation needs its draws")
            self._augmenter.into(pixels, out, draws_row[self._own_draws :])
            return
        source = pixels if self.options.layout == "hwc" else pixels.transpose(2, 0, 1)
        if self.dtype == np.uint8:
            np.copyto(out, source)
        elif self.dtype == np.float16:
            out[:] = _half_table(self.options.rescale)[source]
        elif self.options.rescale is None:
            np.copyto(out, source)
        else:
            np.multiply(source, np.float32(self.options.rescale), out=out, casting="unsafe")


@lru_cache(maxsize=16)
def _half_table(rescale: float | None) -> NDArray[np.float16]:
    values = np.arange(256, dtype=np.float32) * np.float32(1 if rescale is None else rescale)
    return values.astype(np.float16)


def _array_of(image: Any) -> Pixels:
    return np.asarray(image).reshape(image.height, image.width, -1)
