"""How the benchmark measures: files brought out of the page cache, passes over a dataset until a time is used up."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from shardkit.images.decoder import DecodeOptions, ImageDecoder
from shardkit.reading.batches.batch import Batch
from shardkit.reading.dataset import Dataset
from shardkit.sample import IMAGE_FIELDS
from shardkit.threads import in_threads
from shardkit.tools.pictures import open_picture

BATCH = 32
_MOST_CACHED = 0.2  # of the places that are looked at after dropping: more means that a cold read can't be had
_PROBES = 64
_PATIENCE = 2.0

MOST_PASSES = 6
TURNS = 2
"""Parts that a warm measurement is made in; each goes on over epochs, so that its start weighs little."""

What = Literal["directory", "shards", "store"]
Cache = Literal["cold", "warm"]
Stage = Literal["raw", "decoded"]
Open = Callable[[], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """How fast one way of reading is: the middle of its passes. images, bytes: a second, bytes of image files.

    what: the class directory, the shards, or shards in a store. cache: whether the files were in the page cache; of a
    store no copy is kept. stage: the files' bytes, or batches of decoded images. spread: the fastest pass to the
    slowest one, in times.
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
    """What is to be measured, and how a pass over it begins. files: those to drop from the cache before a cold one."""

    what: What
    cache: Cache
    stage: Stage
    threads: int
    open: Open
    files: Sequence[str]


def measure(ways: Sequence[Way], seconds: float, mean_bytes: float) -> list[Measurement]:
    """Each way for `seconds`, pass by pass in turns, so that a busy machine slows all of them alike."""
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
    """(images, seconds) of a pass, which ends after `seconds` at the latest. At least one item is taken.

    What `start` does, as opening an index or listing a folder, is not counted.
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
    first = 1 if len(times) > 4 else 0  # from the first item on: what is under way then is so at the end, too
    return counts[-1] - counts[first], max(times[-1] - times[first], 1e-9)


def drop(files: Sequence[str]) -> None:
    """Bring files out of the page cache. Those that are mapped somewhere stay; `can_drop` tells."""
    gc.collect()
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def can_drop(files: Sequence[str]) -> bool:
    """Whether dropping brings these files out of the cache, as preadv(RWF_NOWAIT) tells. Drops them.

    What was just written has to reach the disk first, which dropping begins: it is tried again for _PATIENCE seconds.
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
    """Whether the middle of a file is in the page cache; None where that can't be told."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.preadv(fd, [bytearray(1)], os.fstat(fd).st_size // 2, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:  # a file system that keeps everything in memory, or does not know the flag
        return None
    finally:
        os.close(fd)
    return True


def decoded(data: Dataset, size: int) -> Dataset:
    """A pass over batches as in training: a random crop, flipped by chance."""
    return data.decode(size=size, crop="random", flip=True, on_error="skip", skip_limit=1 << 40).batch(BATCH)


def contents(data: Dataset, most: int, most_bytes: int) -> list[bytes]:
    """The bytes of the first images, `most` and about `most_bytes` at most."""
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
    """Images a second that threads decode from memory, as in training."""
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
    """The images with a shorter side of `side`, as JPEGs of quality 90. What can't be decoded is left out."""
    import io

    found = []
    for image in images:
        try:
            picture = open_picture(image)
        except ValueError:  # left out, as logged
            continue
        factor = side / min(picture.size)
        if factor < 1:
            picture = picture.resize((round(picture.width * factor), round(picture.height * factor)))
        sink = io.BytesIO()
        picture.save(sink, "JPEG", quality=90)
        found.append(sink.getvalue())
    return found


def usual_short_side(images: Sequence[bytes]) -> int:
    """The middle one of the images' shorter sides; 0 where none can be read."""
    from shardkit.images.header import image_header

    sides = []
    for image in images:
        try:
            sides.append(min(image_header(image)[1:]))
        except ValueError:  # the median of the others will do
            continue
    return int(statistics.median(sides)) if sides else 0
