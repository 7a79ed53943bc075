"""How a Dataset and a batch show themselves: in one line of text, and in a notebook with a few of their images.

Neither changes anything, and neither raises: what can't be found out is omitted.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import printable
from shardkit.images.thumbnails import data_uri, open_picture, thumbnail
from shardkit.location import locate
from shardkit.reading.content import AUTO, Named
from shardkit.reading.ops import BatchUp, Buckets, Decode, EpochSize, Filter, Map, Op, Skip, Take
from shardkit.reading.options import Reading
from shardkit.reading.select import AtNumbers, OfClasses, Where
from shardkit.reading.state import ReadPosition
from shardkit.sample import IMAGE_FIELDS
from shardkit.units import short_value

if TYPE_CHECKING:
    from PIL import Image

    from shardkit.reading.batches.batch import Batch
    from shardkit.reading.dataset import Dataset

SHOWN_IMAGES = 8
"""The most images in a notebook."""

SIDE = 96
"""The longer side of an image in a notebook, in pixels."""

SHOWN_LABEL = 24
"""The most characters of a label below an image."""


def line_of(data: Dataset[Any]) -> str:
    """A Dataset in one line: what it reads, its options, its steps, and how many samples and batches there are."""
    source = f"{data.content!r}{''.join(_selections(data))}"
    counts = ", ".join(_counts(data))
    return f"<shardkit.Dataset {source}{''.join(_options(data))}{f': {counts}' if counts else ''}>"


def _selections(data: Dataset[Any]) -> Iterator[str]:
    for step in data.selection:
        if isinstance(step, OfClasses):
            yield f".select({short_value(step.classes[0] if len(step.classes) == 1 else list(step.classes))})"
        else:
            yield "[…]" if isinstance(step, AtNumbers) else ".where(…)" if isinstance(step, Where) else ".split(…)"
    if data.weights is not None:
        yield ".balance()" if data.weights.weights is None else ".weight(…)"


def _options(data: Dataset[Any]) -> Iterator[str]:
    names = {"buffer": "shuffle", "turns": "repeat"}
    given = [each for each in fields(Reading) if each.name not in ("decoders", "on_stats")]
    changed = {each.name: value for each in given if (value := getattr(data.reading, each.name)) != each.default}
    if changed:
        yield " " + " ".join(f"{names.get(name, name)}={'endless' if v is None else v}" for name, v in changed.items())
    steps = [_step(op) for op in data.ops if not isinstance(op, EpochSize)]
    if steps:
        yield " " + "".join(steps)


def _step(op: Op) -> str:
    if isinstance(op, Decode):
        options = op.options
        changed = [each for each in fields(options) if getattr(options, each.name) != each.default]
        shown = (f"{each.name}={getattr(options, each.name)!r}" for each in changed if each.default is not MISSING)
        return f".decode({', '.join(shown)})"
    if isinstance(op, (Map, Filter)):
        name = getattr(op.fn, "__name__", type(op.fn).__name__)
        return f".{type(op).__name__.lower()}({printable(str(name))})"
    if isinstance(op, BatchUp):
        marks = ", drop_last=True" * op.drop_last + ", encoded=True" * op.encoded + ', collate="list"' * op.ragged
        return f".batch({op.size}{marks})"
    if isinstance(op, Buckets):
        given = list(op.shapes) if isinstance(op.shapes, tuple) else f"{op.shapes}, size={op.size}"
        return f".buckets({given})"
    assert isinstance(op, (Take, Skip))
    return f".{type(op).__name__.lower()}({op.count})"


def _counts(data: Dataset[Any]) -> Iterator[str]:
    """The numbers that are known, or that the manifest on a disk tells; nothing is opened for `data` itself."""
    with suppress(Exception):  # a missing or damaged dataset is reported when it is read
        seen = _opened(data)
        if seen is None or seen.content.streams:
            return
        samples, classes = seen.epoch_samples, len(seen.classes)
        yield f"{samples:,} sample{'' if samples == 1 else 's'}"
        if classes:
            yield f"{classes:,} class{'' if classes == 1 else 'es'}"
        if seen.batch_size is not None:
            batches = len(seen)
            yield f"{batches:,} batch{'' if batches == 1 else 'es'}"


def _opened(data: Dataset[Any]) -> Dataset[Any] | None:
    """The Dataset if it is open, or a copy to open if that takes only a manifest on a disk; otherwise None."""
    if data.content.resolved:
        return data
    content = data.content
    if (
        not isinstance(content, Named)
        or data.selection
        or content.index == AUTO  # which may have to be made
        or not all(locate(place).is_local for place in _places(content))
    ):
        return None
    copy = Named(content.source, index=content.index, verify=content.verify, names=content.names, remote=content.remote)
    here = copy.found.tree is None and all(place.is_local for place in copy.found.places[:1])
    return None if not here else replace(data, content=copy, position=ReadPosition())


def _places(content: Named) -> Sequence[Any]:
    source: Any = content.source
    return list(source) if isinstance(source, (list, tuple)) else [source]


def page_of(data: Dataset[Any]) -> str | None:
    """The Dataset for a notebook: its line, and a few of its images with their classes; None if they can't be read.

    The images are those that are stored, spread evenly over the samples.
    """
    with suppress(Exception):
        seen = _opened(data)
        if seen is None or seen.content.streams:
            return None
        stored = replace(seen, ops=(), position=ReadPosition())
        rows = stored.content.members(stored.rows())
        total = int(stored.content.catalog.counts.sum()) if rows is None else len(rows)
        numbers = np.unique(np.linspace(0, total - 1, min(SHOWN_IMAGES, total)).astype(int)).tolist()
        names = dict(enumerate(stored.classes))
        plain = replace(stored, weights=None, reading=Reading(rank=0, world_size=1))
        return _page(line_of(data), _stored(plain, numbers, names))
    return None


def _stored(data: Dataset[Any], numbers: Sequence[int], names: dict[int, str]) -> Iterator[tuple[Image.Image, str]]:
    for number in numbers:
        with suppress(Exception):  # one that can't be decoded is not shown
            sample = data[number]
            content = next(value for name, value in sample.items() if name in IMAGE_FIELDS)
            label = sample.get("cls", "")
            yield thumbnail(open_picture(bytes(content), side=SIDE), SIDE), str(names.get(label, label))


def page_of_batch(batch: Batch[Any]) -> str | None:
    """A batch for a notebook: its line, and the first of its images with their labels; None if these are not images."""
    with suppress(Exception):
        shown_images: Any = batch.images
        if isinstance(shown_images, dict):  # of views, the first of the first name
            shown_images = next(iter(shown_images.values()))[:, 0]
        images, labels = np.asarray(shown_images), batch.labels
        shown = range(min(len(images), SHOWN_IMAGES))
        texts = ["" if labels is None else short_value(np.asarray(labels[number]).tolist()) for number in shown]
        return _page(repr(batch), [(_drawn(images[number]), text) for number, text in zip(shown, texts, strict=True)])
    return None


def _drawn(image: NDArray[Any]) -> Image.Image:
    """An array of an image: (height, width, channels) or (channels, height, width), of any numbers."""
    from PIL import Image

    if image.shape[-1] not in (1, 3) and image.shape[0] in (1, 3):
        image = np.moveaxis(image, 0, -1)
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(f"{image.shape} is not the shape of an image")
    if image.dtype != np.uint8:
        image = image.astype(np.float32)
        low, high = float(image.min()), float(image.max())
        if low < 0 or not 1 < high <= 255:  # scaled or normalized values: their range becomes that of pixels
            image = (image - min(low, 0)) / max(high - min(low, 0), 1 if low >= 0 else 1e-6) * 255
        image = image.clip(0, 255).astype(np.uint8)
    return thumbnail(Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image), SIDE)


def _page(line: str, images: Iterable[tuple[Image.Image, str]]) -> str:
    figures = []
    for image, label in images:
        text = html.escape(label if len(label) <= SHOWN_LABEL else label[: SHOWN_LABEL - 1] + "…")
        picture = f'<img src="{data_uri(image)}" width="{image.width}" height="{image.height}" alt="{text}">'
        figures.append(
            f'<figure style="margin:0;width:{SIDE}px;text-align:center;overflow:hidden">{picture}'
            f'<figcaption style="font-size:12px;white-space:nowrap">{text}</figcaption></figure>'
        )
    row = "".join(figures)
    return (
        f'<div><code style="white-space:normal;overflow-wrap:anywhere">{html.escape(line)}</code>'
        f'<div style="display:flex;flex-wrap:wrap;align-items:flex-end;gap:8px;margin-top:8px">{row}</div></div>'
    )
