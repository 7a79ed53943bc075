"""Decode several random crops of each image at once: the entropy-coded data and the pixels are decoded once for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit import rng
from shardkit.errors import DecodeError, UsageError
from shardkit.images import fused
from shardkit.images.decoder import ImageDecoder, decode_errors, upright_ones
from shardkit.images.options import DecodeOptions
from shardkit.images.pixels import Buffer
from shardkit.images.views.boxes import fill

Arrays = dict[str, NDArray[Any]]


class ViewDecoder:
    """Decode the views of images. Holds only configuration: it can be pickled, and used by any thread.

    shapes: of the views of an image by name, (count, height, width, channels) or with layout "chw" (count, channels,
    height, width). dtype: of their values. Views are numbered in the order of the names; each has a stream of random
    numbers of its own, and that of number 0 is the one of a single image. DecodeErrors name no place.
    """

    def __init__(self, options: DecodeOptions) -> None:
        views: Mapping[str, Any] = options.views or {}
        self.options = options
        self.decoders = {name: ImageDecoder(options.of_view(view)) for name, view in views.items()}
        self.counts = {name: int(view.count) for name, view in views.items()}
        self.dtype = options.value_type
        self.shapes = {name: (self.counts[name], *(decoder.shape or ())) for name, decoder in self.decoders.items()}
        self._one = next(iter(self.decoders.values()))
        self._kinds = [
            fused.FusedView(self.counts[name], decoder.size or (0, 0), decoder.options.box_range)
            for name, decoder in self.decoders.items()
        ]

    def draws(self, key: int, positions: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """A row of random numbers in [0, 1) for each position: those of all views side by side."""
        total = sum(self.counts.values())
        keys = [key, *(rng.stream_key("view", number, key) for number in range(1, total))]
        rows = [self._one.draws(each, positions) for each in keys]
        return np.concatenate([row for row in rows if row is not None], axis=1)

    def batch_into(
        self, datas: Sequence[Buffer], outs: Arrays, draws: NDArray[np.float64] | None
    ) -> list[tuple[int, Exception]]:
        """Decode each image into its slots of outs, for each name (n, *shape). Returns (index, error) for each that
        failed; the content of its slots is undefined.

        draws: the rows for these images, as returned by `draws`.
        """
        if draws is None:
            raise UsageError("views", "random crops need their draws")
        failures: list[tuple[int, Exception]] = []
        for i in self._by_fused(datas, outs, draws):
            try:
                self._into(datas[i], {name: out[i] for name, out in outs.items()}, draws[i])
            except DecodeError as exc:
                failures.append((i, exc))
        return failures

    def array(self, data: Buffer, draws_row: NDArray[np.float64] | None) -> Arrays:
        """Decode the views of one image to new arrays of `shapes`. DecodeError if it can't be decoded."""
        outs = {name: np.empty((1, *shape), self.dtype) for name, shape in self.shapes.items()}
        for _, error in self.batch_into([data], outs, None if draws_row is None else draws_row[None]):
            raise error
        return {name: out[0] for name, out in outs.items()}

    def _by_fused(self, datas: Sequence[Buffer], outs: Arrays, draws: NDArray[np.float64]) -> Sequence[int]:
        """Decode the images that the C decoder supports. Returns the indices of the others."""
        settings = self._one.settings_in_c
        if settings is None:
            return range(len(datas))
        mine = upright_ones(datas, self.options)
        if self.options.augment is None:
            return [i for i, _ in fused.decode_views(settings, self._kinds, mine, list(outs.values()), draws)]
        left = []
        for i, data in enumerate(mine):
            pixels = self._pixels()
            slots = [one[None] for one in pixels.values()]
            if fused.decode_views(settings, self._kinds, [data], slots, draws[i : i + 1]):
                left.append(i)
                continue
            for decoder, row, name, number in self._each(draws[i]):
                decoder.convert(pixels[name][number], outs[name][i, number], row)
        return left

    def _into(self, data: Buffer, outs: Arrays, draws_row: NDArray[np.float64]) -> None:
        """As the decoder in C, without it."""
        pixels = self._pixels() if self._one.converts else outs
        targets = [decoder.target(pixels[name][number], row) for decoder, row, name, number in self._each(draws_row)]
        with decode_errors():
            fill(data, targets, self.options)
        for decoder, row, name, number in self._each(draws_row):
            decoder.finish(pixels[name][number], outs[name][number], row)

    def _pixels(self) -> Arrays:
        """Memory for the bytes of an image's views."""
        channels = self.options.channels
        return {
            name: np.empty((self.counts[name], *(decoder.size or ()), channels), np.uint8)
            for name, decoder in self.decoders.items()
        }

    def _each(self, draws_row: NDArray[np.float64]) -> Iterator[tuple[ImageDecoder, NDArray[np.float64], str, int]]:
        """For each view its decoder, its random numbers, its name and its number among those of the name."""
        rows = iter(draws_row.reshape(sum(self.counts.values()), -1))
        for name, decoder in self.decoders.items():
            for number in range(self.counts[name]):
                yield decoder, next(rows), name, number
