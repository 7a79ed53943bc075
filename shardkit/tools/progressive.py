"""How many JPEGs of a dataset are progressive, which decode slowly; `pack --baseline` converts them without loss."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from shardkit.images.jpeg import PROGRESSIVE, start_of_frame
from shardkit.reading.dataset import Dataset, dataset
from shardkit.sample import IMAGE_FIELDS

LOOKED_AT = 64
"""Images whose headers are read, evenly spread over the dataset."""

TIMES = 4
"""How many times as fast a baseline JPEG decodes: a progressive one takes a pass over all pixels for each scan."""


@dataclass(frozen=True, slots=True)
class JpegKinds:
    """JPEGs among some images of a dataset, and how many of them are progressive."""

    jpegs: int
    progressive: int

    @property
    def advice(self) -> str:
        """What to do about progressive JPEGs, in a sentence; "" if there are none."""
        if not self.progressive:
            return ""
        share = "all" if self.progressive == self.jpegs else f"about {self.progressive / self.jpegs:.0%} of the"
        faster = f"'shardkit pack --baseline' converts them losslessly, and they decode about {TIMES} times as fast"
        return f"{share} JPEGs are progressive ({self.progressive} of {self.jpegs} looked at): {faster}"


NO_JPEGS = JpegKinds(0, 0)


def jpeg_kinds(source: str | os.PathLike[str] | Dataset) -> JpegKinds:
    """Look at some images of a dataset or class directory. Errors as from `dataset`."""
    data = source if isinstance(source, Dataset) else dataset(source)
    rows = np.unique(np.linspace(0, len(data) - 1, min(LOOKED_AT, len(data))).astype(np.int64))
    jpegs = progressive = 0
    for sample in data[rows]:
        image = next((bytes(value) for name, value in sample.items() if name in IMAGE_FIELDS), b"")
        if not image.startswith(b"\xff\xd8"):
            continue
        try:
            marker = image[start_of_frame(image) + 1]
        except (ValueError, IndexError):  # damaged: verify and report say so
            continue
        jpegs += 1
        progressive += marker == PROGRESSIVE
    return JpegKinds(jpegs, progressive)
