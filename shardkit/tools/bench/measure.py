"""Measure reading: evict files from the page cache, and pass over a dataset until the time is used up."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from shardkit.images.decoder import DecodeOptions, ImageDecoder
from shardkit.images.rewrite import lossless
from shardkit.images.thumbnails import open_picture
from shardkit.reading.batches.batch import Batch
from shardkit.reading.dataset import Dataset
from shardkit.sample import IMAGE_FIELDS
from shardkit.threads import in_threads
from shardkit.tools.progressive import JpegKinds, kinds_of

BATCH = 32
_MOST_CACHED = 0.2  # share of the probed positions still cached after dropping: above this, no cold read is possible
_PROBES = 64
_PATIENCE = 2.0

MOST_PASSES = 6
TURNS = 2
"""Parts of a warm measurement; each runs over several epochs, so that its start-up weighs little."""

CONVERTED = 32
"""The most progressive JPEGs that are converted to measure what that brings."""

What = Literal["directory", "shards", "store"]
Cache = Literal["cold", "warm"]
Stage = Literal["raw", "decoded"]
Open = Callable[[], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Speed of one way of reading: the median of its passes. images, bytes: per second, bytes of image files.

    what: the class directory, the shards, or shards in a store. cache: whether the files were in the page cache;
    nothing is kept of a store. stage: the files' bytes, or batches of decoded images. spread: the ratio of the fastest
    pass to the slowest.
    """

    what: What
    cache: Cache
    stage: Stage
    threads: int
    images: float
    bytes: float
    passes: int
    spread: float = 1.0


@dataclass(frozen=True, slots=True)
class Way:
    """Something to measure, and how to start a pass over it. files: those to evict before a cold pass."""

    what: What
    cache: Cache
    stage: Stage
    threads: int
    open: Open
    files: Sequence[str]


def measure(ways: Sequence[Way], seconds: float, mean_bytes: float) -> list[Measurement]:
    """Measure each way for `seconds`, with passes in turns, so that a busy machine slows all of them alike."""
    passes: list[list[tuple[int, float]]] = [[] for _ in ways]
    for way in ways:
        if way.cache == "warm":
            one_pass(way.open, seconds / 2)
    waiting = list(range(len(ways)))
    while waiting:
        for number in list(waiting):
            way, done = ways[number], passes[number]
            left = seconds - sum(spent for _, spent in done)
            if way.cache == "cold":
                drop(way.files)
            part = left if way.cache == "cold" else min(left, seconds / TURNS)
            done.append(one_pass(way.open, max(part, 0.05)))
            if sum(spent for _, spent in done) >= 0.8 * seconds or len(done) >= MOST_PASSES:
                waiting.remove(number)
    return [_measured(way, done, mean_bytes) for way, done in zip(ways, passes, strict=True)]


def _measured(way: Way, passes: Sequence[tuple[int, float]], mean_bytes: float) -> Measurement:
    rates = [images / spent for images, spent in passes]
    rate, spread = statistics.median(rates), max(rates) / min(rates)
    return Measurement(way.what, way.cache, way.stage, way.threads, rate, rate * mean_bytes, len(passes), spread)


def one_pass(start: Open, seconds: float) -> tuple[int, float]:
    """Run one pass of at most `seconds` and at least one item; return (images, seconds).

    The work of `start`, such as opening an index or listing a folder, is not timed.
    """
    opened = start()
    items = iter(opened)
    images, times, counts = 0, [time.perf_counter()], [0]
    for item in items:
        images += len(item.keys) if isinstance(item, Batch) else 1
        times.append(time.perf_counter())
        counts.append(images)
        if times[-1] - times[0] >= seconds:
            break
    close = getattr(items, "close", None)
    if close is not None:
        close()
    first = 1 if len(times) > 4 else 0  # from the first item on: as much is in flight at the start as at the end
    return counts[-1] - counts[first], max(times[-1] - times[first], 1e-9)


def drop(files: Sequence[str]) -> None:
    """Evict files from the page cache. Files that are mapped somewhere stay; see `can_drop`."""
    gc.collect()
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def can_drop(files: Sequence[str]) -> bool:
    """Evict these files, and return whether that worked, according to preadv(RWF_NOWAIT).

    Data just written has to reach the disk first, which dropping initiates: it is retried for _PATIENCE seconds.
    """
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT") or not files:
        return False
    chosen = [files[n * len(files) // _PROBES] for n in range(_PROBES)] if len(files) > _PROBES else files
    pause = 0.05
    while True:
        drop(files)
        cached = [_cached(path) for path in dict.fromkeys(chosen)]
        if None not in cached and sum(map(bool, cached)) <= _MOST_CACHED * len(cached):
            return True
        if None in cached or pause > _PATIENCE / 2:
            return False
        time.sleep(pause)
        pause *= 2


def _cached(path: str) -> bool | None:
    """Whether the middle of a file is in the page cache; None if that can't be determined."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.preadv(fd, [bytearray(1)], os.fstat(fd).st_size // 2, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:  # a file system that keeps everything in memory, or does not support the flag
        return None
    finally:
        os.close(fd)
    return True


def decoded(data: Dataset, size: int) -> Dataset:
    """Batches as in training: a random crop and a random flip."""
    return data.decode(size=size, crop="random", flip=True, on_error="skip", skip_limit=1 << 40).batch(BATCH)


def contents(data: Dataset, most: int, most_bytes: int) -> list[bytes]:
    """The bytes of the first images: at most `most` images and about `most_bytes` bytes."""
    found: list[bytes] = []
    left = most_bytes
    for sample in data.take(most):
        image = next((bytes(value) for name, value in sample.items() if name in IMAGE_FIELDS), None)
        if image is not None:
            found.append(image)
            left -= len(image)
        if left <= 0:
            break
    return found


def decode_rate(images: Sequence[bytes], size: int, seconds: float, threads: int = 1) -> float:
    """Images per second that the threads decode from memory, as in training."""
    return sum(in_threads(lambda _: _decode_rate(images, size, seconds), range(threads), threads))


def _decode_rate(images: Sequence[bytes], size: int, seconds: float) -> float:
    decoder = ImageDecoder(DecodeOptions(size=size, crop="random", flip=True))
    batches = [images[begin : begin + BATCH] for begin in range(0, len(images), BATCH)]
    out = np.zeros((BATCH, *(decoder.shape or ())), np.uint8)
    draws = decoder.draws(0, np.arange(BATCH))
    done, begun = 0, time.perf_counter()
    while True:
        for batch in batches:
            decoder.batch_into(batch, out[: len(batch)], None if draws is None else draws[: len(batch)])
            done += len(batch)
            if (spent := time.perf_counter() - begun) >= seconds:
                return done / spent


def resized(images: Sequence[bytes], side: int) -> list[bytes]:
    """The images with a shorter side of `side`, as JPEGs of quality 90. Images that can't be decoded are omitted."""
    import io

    found = []
    for image in images:
        try:
            picture = open_picture(image)
        except ValueError:  # omitted, as logged
            continue
        factor = side / min(picture.size)
        if factor < 1:
            picture = picture.resize((round(picture.width * factor), round(picture.height * factor)))
        sink = io.BytesIO()
        picture.save(sink, "JPEG", quality=90)
        found.append(sink.getvalue())
    return found


def progressive_jpegs(images: Sequence[bytes], size: int, seconds: float, *, whole: bool) -> JpegKinds:
    """How many JPEGs are progressive, and how many times as fast some of them decode after they were converted. whole:
    whether these are all images of the dataset.
    """
    found = kinds_of(images, whole=whole)
    before, after = [], []
    some = [image for image in images if found.progressive and kinds_of([image]).progressive][:CONVERTED]
    for image in some if lossless.available() else ():
        with suppress(ValueError):  # a damaged one stays as it is
            after.append(lossless.rewrite(image))
            before.append(image)
    if not before:
        return found
    part = max(seconds / TURNS, 0.1)
    rates = [[decode_rate(each, size, part) for each in (after, before)] for _ in range(TURNS)]
    return replace(found, gain=statistics.median(fast / slow for fast, slow in rates))


def usual_short_side(images: Sequence[bytes]) -> int:
    """The median of the images' shorter sides; 0 if none can be read."""
    from shardkit.images.header import image_header

    sides = []
    for image in images:
        try:
            sides.append(min(image_header(image)[1:]))
        except ValueError:  # the median of the others will do
            continue
    return int(statistics.median(sides)) if sides else 0
