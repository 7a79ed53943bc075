"""Drawn pictures that look like photographs to a perceptual hash: detail at many scales."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 260, 320


def photo(seed: int) -> Image.Image:
    """A picture of WIDTH x HEIGHT; another one for each seed."""
    rng = np.random.default_rng(seed)
    found = np.zeros((HEIGHT, WIDTH, 3))
    for side in (3, 6, 12, 24, 48):
        layer = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        found += np.asarray(layer.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), float) / side
    low, high = found.min(), found.max()
    return Image.fromarray(((found - low) * 255 / (high - low)).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    """The picture as a file."""
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def copies(image: Image.Image) -> dict[str, Any]:
    """Files of changed copies of a picture, by what was changed."""
    return {
        "half": jpeg(image.resize((WIDTH // 2, HEIGHT // 2))),
        "coarse": jpeg(image, 30),
        "gray": jpeg(image.convert("L")),
        "cut": jpeg(image.crop((8, 6, WIDTH - 8, HEIGHT - 7))),
    }
