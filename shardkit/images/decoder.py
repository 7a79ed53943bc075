"""Decode images to arrays. The options are in options.py."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit import rng
from shardkit.errors import DecodeError, UsageError, reason_of
from shardkit.images import fused
from shardkit.images import pixels as images
from shardkit.images.annotations.move import Move
from shardkit.images.augment.augmenter import Augmenter
from shardkit.images.crops import MAX_SIDE, Box, center_box, cover_box, draws_of, pad_offset, random_box
from shardkit.images.header import image_header
from shardkit.images.jpeg import PROGRESSIVE, start_of_frame
from shardkit.images.options import (
    Color,
    Crop,
    DecodeOptions,
    Flip,
    Interpolation,
    LabelEncoding,
    Layout,
    OnError,
    PixelType,
    Statistics,
)
from shardkit.images.orientation import is_turned_on_its_side, orientation_in
from shardkit.images.pixels import Buffer, Pixels
from shardkit.images.views.boxes import HEADROOM, Target, fill, headroom_of, pillow_image

__all__ = [
    "HEADROOM", "Color", "Crop", "DecodeOptions", "Flip", "ImageDecoder", "Interpolation", "LabelEncoding", "Layout",
    "OnError", "PixelType", "Statistics",
]  # fmt: skip

SeekPoints = Sequence[bytes | None]
"""The seek points of images (shards/seek.py), None for those that have none."""

DRAWS_STRIDE = 32
"""Counters of the random stream for each position; `crops.draws_of` says what they are for."""

FUSED_CHUNK = 8
"""Images decoded before they are converted to another dtype or layout: few enough to stay in the cache."""


DECODE_CURE = 'fix or remove the image, or skip such images with on_error="skip"'


class OtherSizeError(Exception):
    """An image does not have the size that was known of another one."""


@contextmanager
def decode_errors() -> Iterator[None]:
    """In the block, whatever libjpeg and Pillow raise on damaged data becomes a DecodeError without a place."""
    try:
        yield
    except OtherSizeError:
        raise
    except MemoryError as exc:
        raise DecodeError("", "the image needs more memory than is available", DECODE_CURE) from exc
    except Exception as exc:
        raise DecodeError("", reason_of(exc), DECODE_CURE) from exc


def upright_ones(datas: Sequence[Buffer], options: DecodeOptions) -> Sequence[Buffer | None]:
    """The images, with None for each that has to be turned, which the decoder in C does not do."""
    if not options.orientation:
        return datas
    return [data if orientation_in(data) == images.UPRIGHT else None for data in datas]


class ImageDecoder:
    """Decode images according to `options`. Holds only configuration: it can be pickled, and used by any thread.

    shape: of a decoded image, in its layout; None without size. dtype: of its values. same: images are expected to have
    size already, and OtherSizeError is the error for others.
    DecodeErrors name no place, since only the caller knows shard, byte and key.
    """

    def __init__(self, options: DecodeOptions, *, same: bool = False) -> None:
        self.options = options
        self.size = options.height_width
        self.dtype = options.value_type
        self.channels = options.channels
        self.shape = None if self.size is None else self._laid_out(*self.size)
        self._same = same
        self._augmenter = None
        if options.augment is not None:
            channels_first, statistics = options.layout == "chw", options.statistics
            self._augmenter = Augmenter(
                options.augment, rescale=options.rescale, channels_first=channels_first, statistics=statistics
            )
        self._draws = draws_of(options.cropped, options.flip)
        self._table = None if self._augmenter is not None else options.value_table()
        self._plain = self.dtype == np.uint8 and options.layout == "hwc" and self._augmenter is None
        self._direct = self._plain and options.cropped == "resize" and not options.exact and not options.orientation
        self._fused = self._fused_settings()

    @property
    def settings_in_c(self) -> fused.FusedSettings | None:
        """What the decoder in C has to do; None where it is not built, or can't do it."""
        return self._fused if fused.available() else None

    def _fused_settings(self) -> fused.FusedSettings | None:
        options = self.options
        if self.size is None:
            return None
        finishes = self._augmenter is None  # which takes whole images of bytes
        return fused.FusedSettings(
            (*self.size, self.channels), options.cropped, options.flip, headroom_of(options.interpolation),
            options.max_pixels,
            interpolation=options.interpolation, exact=bool(options.exact), same=self._same,
            tall=images.resizes_tall_first(), limits=options.box_range, padding=int(options.padding or 0),
            fill=options.fill_bytes, planar=finishes and options.layout == "chw",
            table=self._table if finishes else None,
        )  # fmt: skip

    @property
    def seeks(self) -> bool:
        """Whether seek points make decoding faster: if the C decoder crops."""
        return self.options.cropped not in ("resize", "pad") and self.settings_in_c is not None

    def stored_size(self, data: Buffer) -> tuple[int, int] | None:
        """(height, width) of an image as it is decoded without a size, from its header; None if that does not tell."""
        options = self.options
        try:
            if options.orientation and orientation_in(data) != images.UPRIGHT:
                return None
            width, height = image_header(bytes(data), max_pixels=options.max_pixels, decode_rare=False)[1:]
        except ValueError:
            return None
        return (height, width) if max(height, width) <= MAX_SIDE else None

    def move(self, data: Buffer, draws_row: NDArray[np.float64] | None) -> Move:
        """How this image is moved into its slot, with these random numbers. DecodeError if its header does not tell its
        size."""
        options, crop = self.options, self.options.cropped
        with decode_errors():
            width, height = image_header(bytes(data), max_pixels=options.max_pixels)[1:]
            if options.orientation and is_turned_on_its_side(data):
                height, width = width, height
        shift = (0, 0)
        if crop == "pad" and draws_row is not None:
            shift = pad_offset(int(options.padding or 0), draws_row[self._draws.crop :].tolist())
        horizontal, vertical = self._flips(draws_row)
        box = self._box(height, width, draws_row)
        return Move((height, width), box, self.size or (height, width), shift, horizontal, vertical)

    def of_size(self, size: tuple[int, int]) -> ImageDecoder:
        """A decoder for images that have this size, for options without one: it has a shape."""
        return ImageDecoder(replace(self.options, size=size), same=True)

    def _laid_out(self, height: int, width: int) -> tuple[int, int, int]:
        if self.options.layout == "hwc":
            return height, width, self.channels
        return self.channels, height, width

    def draws(self, key: int, positions: NDArray[np.integer[Any]]) -> NDArray[np.float64] | None:
        """A row of random numbers in [0, 1) for each position, from key and position alone; None if not needed.

        float64 (n, 1) for a flip: below 1/2 means flipped. (n, 23) for a random crop. Those of `augment` follow.
        """
        numbers, augmenter = self._draws.counters, self._augmenter
        if not numbers:
            return None if augmenter is None else augmenter.draws(key, positions)
        counters: NDArray[np.uint64] = positions.astype(np.uint64)[:, None] * np.uint64(DRAWS_STRIDE)
        own = rng.uniform(key, np.add(counters, np.array(numbers, np.uint64), dtype=np.uint64))
        return own if augmenter is None else np.concatenate([own, augmenter.draws(key, positions)], axis=1)

    def batch_into(
        self,
        datas: Sequence[Buffer],
        out: NDArray[Any],
        draws: NDArray[np.float64] | None,
        points: SeekPoints | None = None,
    ) -> list[tuple[int, Exception]]:
        """Decode each image into its slot of out (n, *shape). Returns (index, error) for each that failed.

        draws: the rows for these images, as returned by `draws`. points: their seek points, which do not change the
        pixels. The content of a failed image's slot is undefined.
        """
        failures: list[tuple[int, Exception]] = []
        left: Iterable[int] = range(len(datas))
        if (settings := self.settings_in_c) is not None:
            left = self._by_fused(settings, datas, out, draws, points)
        straight = images.straight_decoder(gray=self.channels == 1) if self._direct else None
        known = b"?"  # the start of an image decoded directly into its slot: the next with this start can be, too
        for i in left:
            data = datas[i]
            try:
                if straight is not None and data[: len(known)] == known and straight(data, out[i]):
                    self._flip(out[i], None if draws is None else draws[i])
                    continue
                self._into(data, out[i], None if draws is None else draws[i])
                if straight is not None:
                    known = self._start_of_direct(data) or known
            except (DecodeError, OtherSizeError) as exc:
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
        points: SeekPoints | None,
    ) -> list[int]:
        """Decode the images that the C decoder supports. Returns the indices of the others."""
        mine = upright_ones(datas, self.options)
        if self._augmenter is None:
            return [i for i, _ in fused.decode_batch(settings, mine, out, draws, points)]
        left = []
        chunk = max(1, min(FUSED_CHUNK, images.SCRATCH_BYTES // math.prod(settings.size)))
        for begin in range(0, len(datas), chunk):
            part = mine[begin : begin + chunk]
            pixels = self._scratch_pixels(len(part))
            rows = None if draws is None else draws[begin : begin + chunk]
            own = None if points is None else points[begin : begin + chunk]
            failed = {begin + i for i, _ in fused.decode_batch(settings, part, pixels, rows, own)}
            left += sorted(failed)
            for number, image in enumerate(pixels, begin):
                if number not in failed:  # the pixels of those that did are undefined
                    self.convert(image, out[number], None if draws is None else draws[number])
        return left

    def into(
        self,
        data: Buffer,
        out: NDArray[Any],
        draws_row: NDArray[np.float64] | None,
        points: SeekPoints | None = None,
    ) -> None:
        """Decode one image into out, a C-contiguous array of `shape` and `dtype`. points: as in `batch_into`, of one
        image. Raises DecodeError."""
        for _, error in self.batch_into([data], out[None], None if draws_row is None else draws_row[None], points):
            raise error

    def _into(self, data: Buffer, out: NDArray[Any], draws_row: NDArray[np.float64] | None) -> None:
        if self.size is None:
            raise UsageError("size", "without a size there is no slot to decode into", "give size=")
        pixels = out if self._plain else self._scratch_pixels(1)[0]
        with decode_errors():
            self._sized(data, pixels, draws_row)
        if not self._plain:
            self.convert(pixels, out, draws_row)

    def array(
        self, data: Buffer, draws_row: NDArray[np.float64] | None, points: SeekPoints | None = None
    ) -> NDArray[Any]:
        """Decode one image to a new array; without size, the whole image. points: as in `into`. DecodeError if it can't
        be decoded."""
        if self.shape is not None:
            out = np.empty(self.shape, self.dtype)
            self.into(data, out, draws_row, points)
            return out
        with decode_errors():
            pixels = self._whole(data)
        self._flip(pixels, draws_row)
        if self._plain:
            return pixels
        out = np.empty(self._laid_out(*pixels.shape[:2]), self.dtype)
        self.convert(pixels, out, draws_row)
        return out

    def _flip(self, pixels: Pixels, draws_row: NDArray[np.float64] | None) -> None:
        """Flip an image (h, w, c) in place, as its random numbers say."""
        horizontal, vertical = self._flips(draws_row)
        if horizontal:
            images.flip(pixels)
        if vertical:
            pixels[:] = pixels[::-1].copy()

    def _flips(self, draws_row: NDArray[np.float64] | None) -> tuple[bool, bool]:
        """Whether the random numbers mirror the image horizontally, and vertically."""
        horizontal, vertical = (
            draws_row is not None and at >= 0 and bool(draws_row[at] < 0.5)
            for at in (self._draws.horizontal, self._draws.vertical)
        )
        return horizontal, vertical

    def _move(self, pixels: Pixels, draws_row: NDArray[np.float64] | None) -> None:
        """Replace an image by a random window of its padded self."""
        if draws_row is None:
            raise UsageError("crop", "a random window needs its draws")
        down, right = pad_offset(int(self.options.padding or 0), draws_row[self._draws.crop :].tolist())
        height, width = pixels.shape[:2]
        moved = np.empty_like(pixels)
        moved[:] = np.frombuffer(self.options.fill_bytes, np.uint8)
        if abs(down) < height and abs(right) < width:
            to, source = (
                pixels_at[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)]
                for pixels_at, y, x in ((moved, down, right), (pixels, -down, -right))
            )
            to[:] = source
        pixels[:] = moved

    def _scratch_pixels(self, n: int) -> Pixels:
        height, width = self.size or (0, 0)
        count = n * height * width * self.channels
        return images.scratch("sized", count)[:count].reshape(n, height, width, self.channels)

    def _box(self, height: int, width: int, draws_row: NDArray[np.float64] | None) -> Box:
        crop = self.options.cropped
        if crop in ("resize", "pad") or self.size is None:
            return 0, 0, height, width
        if crop == "center":
            return center_box(height, width, self.size)
        if crop == "cover":
            return cover_box(height, width, self.size)
        if draws_row is None:
            raise UsageError("crop", "a random crop needs its draws")
        own = draws_row[self._draws.crop :].tolist()
        if crop == "random-cover":
            return cover_box(height, width, self.size, own)
        return random_box(height, width, own, self.options.box_range)

    def target(self, pixels: Pixels, draws_row: NDArray[np.float64] | None) -> Target:
        """The pixels of an image, (height, width, channels) of size, with the box that its random numbers say."""
        return Target(pixels, lambda height, width: self._box(height, width, draws_row))

    def _sized(self, data: Buffer, out: Pixels, draws_row: NDArray[np.float64] | None) -> None:
        if self._same:
            self._whole_into(data, out)
        else:
            fill(data, [self.target(out, draws_row)], self.options)
        if self.options.crop == "pad":
            self._move(out, draws_row)
        self._flip(out, draws_row)

    @property
    def converts(self) -> bool:
        """Whether images are decoded as bytes (h, w, c), and then converted to their slots."""
        return not self._plain

    def finish(self, pixels: Pixels, out: NDArray[Any], draws_row: NDArray[np.float64] | None) -> None:
        """Flip the pixels of a `target` that was filled, and convert them to the slot; it may be the same memory."""
        self._flip(pixels, draws_row)
        if not self._plain:
            self.convert(pixels, out, draws_row)

    def _whole_into(self, data: Buffer, out: Pixels) -> None:
        pixels = self._whole(data)
        if pixels.shape != out.shape:
            raise OtherSizeError(f"{pixels.shape[1]} x {pixels.shape[0]} pixels, not {out.shape[1]} x {out.shape[0]}")
        out[:] = pixels

    def _whole(self, data: Buffer) -> Pixels:
        options = self.options
        if not options.exact and images.is_jpeg(data):
            stored = images.jpeg_size(data, options.max_pixels)
            pixels = None if stored is None else images.decode_jpeg(data, stored, gray=self.channels == 1)
            if pixels is not None:
                return images.upright(pixels, orientation_in(data) or 1 if options.orientation else 1)
        if not images.is_jpeg(data) and fused.part_of(data) and fused.available():
            size = self.stored_size(data)
            pixels = None if size is None else fused.whole(data, (*size, self.channels), options.max_pixels)
            if pixels is not None:
                return pixels
        return _array_of(pillow_image(data, options)).copy()

    def convert(self, pixels: Pixels, out: NDArray[Any], draws_row: NDArray[np.float64] | None) -> None:
        """Convert uint8 (h, w, c) to out's layout and values, as `DecodeOptions.value_table` has them. With an
        augmentation, apply that instead.
        """
        if self._augmenter is not None:
            if draws_row is None:
                raise UsageError("augment", "an augmentation needs its draws")
            self._augmenter.into(pixels, out, draws_row[len(self._draws.counters) :])
            return
        source = pixels if self.options.layout == "hwc" else pixels.transpose(2, 0, 1)
        if self._table is None or ((self._table[:, 1] == 1).all() and (self._table[:, 0] == 0).all()):
            np.copyto(out, source)
        elif self.dtype == np.float32 and not self.options.normalizes:
            np.multiply(source, np.float32(self.options.rescale or 1), out=out, casting="unsafe")
        else:
            channels = out if self.options.layout == "chw" else out.transpose(2, 0, 1)
            for channel, values, bytes_of in zip(channels, self._table, pixels.transpose(2, 0, 1), strict=True):
                channel[:] = values[bytes_of]


def _array_of(image: Any) -> Pixels:
    return np.asarray(image).reshape(image.height, image.width, -1)
