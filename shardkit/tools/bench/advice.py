"""Interpret the benchmark's results: the bottleneck, whether packing pays, and recommended options."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

from shardkit.reading.stats.bottleneck import limit_of
from shardkit.tools.bench.measure import Cache, Measurement, Stage, What
from shardkit.units import format_bytes

WORTH = 1.15
"""Smallest speed-up that counts as more than the noise of a short measurement."""

_LARGEST, _SMALLEST, _SHARDS = 256 * 10**6, 16 * 10**6, 16  # 16 lanes read 16 shards at a time
_HUGE = 10**9
_MOST_SHARDS = 10_000
_KEPT = 0.95  # of the best rate: threads beyond that are not worth their memory
SAMPLED = 8_000
_NOISE = 1.5  # if passes of one kind differ by more than this factor, the machine is busy
_BUSY = 0.5  # share of the cores used by other programs at the start: above this, no figure is reliable
FEW = 256
"""With fewer images, opening files and starting threads take longer than reading: the figures support no advice."""

Bottleneck = Literal["storage", "decode", "hand-over"]


@dataclass(frozen=True, slots=True)
class Figures:
    """Inputs for the advice.

    samples, bytes: of the whole source. memory_bytes: of the machine, 0 if unknown. size: crop side in pixels.
    decode_rate: images per second decoded from memory with one thread per core. resized_gain: decoding rate with
    resized images relative to the originals, in one thread. resized_bytes: size of a resized image relative to its
    original. load: cores that other programs used meanwhile. sampled: images that were measured.
    """

    measurements: tuple[Measurement, ...]
    samples: int
    bytes: int
    memory_bytes: int
    cores: int
    size: int
    decode_rate: float
    resized_gain: float | None
    resized_bytes: float | None
    load: float = 0.0
    sampled: int = SAMPLED

    @property
    def few(self) -> bool:
        """Whether there are too few images for the figures to support any advice."""
        return self.sampled < FEW

    @property
    def busy(self) -> bool:
        """Whether other programs used too much of the machine for the figures to support any advice."""
        return self.load > _BUSY * self.cores

    def shows(self, gain: float | None, cache: Cache, *kinds: What) -> bool:
        """Whether the difference (or the absence of one) exceeds the spread of the passes behind it."""
        kind = (cache, "decoded")
        spreads = (m.spread for m in self.measurements if m.what in kinds and (m.cache, m.stage) == kind)
        spread = max(spreads, default=1.0)
        return (
            gain is not None and not self.busy and not self.few and (spread < WORTH or not 1 / spread < gain < spread)
        )

    def rate(self, what: str, cache: Cache, stage: Stage, threads: int | None = None) -> float | None:
        """Return the best rate of this kind, or the one with `threads` threads; None if it was not measured."""
        found = [
            each.images
            for each in self.measurements
            if (each.what, each.cache, each.stage) == (what, cache, stage) and threads in (None, each.threads)
        ]
        return max(found, default=None)

    def gain(self, cache: Cache, stage: Stage) -> float | None:
        """Return how many times as fast the shards are; None if that was not measured."""
        shards, directory = self.rate("shards", cache, stage), self.rate("directory", cache, stage)
        return shards / directory if shards and directory else None


@dataclass(frozen=True, slots=True)
class Advice:
    """Recommendations. gain_cold, gain_warm: rate of decoded batches from shards relative to the directory.

    pack: whether packing speeds up training's input on this machine; None if the machine was too busy, or the passes
    differ too much, to tell. shard_bytes: recommended `max_bytes`. threads, buffer: for dataset(). resize: whether
    smaller images would pay off; resize_gain: decoding rate with them relative to without. lines: everything in words.
    gain_copy: for a store, the rate of a local copy relative to the store; copy: whether such a copy (cache=) pays off.
    """

    bottleneck: Bottleneck
    pack: bool | None
    gain_cold: float | None
    gain_warm: float | None
    shard_bytes: int
    threads: int
    buffer: int
    resize: bool
    resize_gain: float | None
    lines: tuple[str, ...]
    gain_copy: float | None = None
    copy: bool = False


def advise(figures: Figures, *, buffer: int) -> Advice:
    """Derive the advice from the figures. buffer: the shuffle buffer to propose."""
    if any(each.what == "store" for each in figures.measurements):
        return _advise_far(figures, buffer)
    threads, shard = threads_for(figures), shard_bytes_for(figures.bytes)
    where, why = bottleneck_of(figures)
    cold, warm = figures.gain("cold", "decoded"), figures.gain("warm", "decoded")
    gain = figures.resized_gain
    resize = (
        gain is not None
        and gain >= WORTH
        and not figures.busy
        and not figures.few
        and (where == "decode" or (figures.resized_bytes or 1) < 0.5)
    )
    lines: tuple[str, ...] = (
        why,
        *_packing(figures, cold, warm),
        _options(figures, shard, threads, buffer),
        _resizing(figures, gain, resize),
    )
    lines = _withheld(figures, lines)
    return Advice(where, _pays(figures, cold, warm), cold, warm, shard, threads, buffer, resize, gain, lines)


def _advise_far(figures: Figures, buffer: int) -> Advice:
    """Advice for shards in a store: whether they arrive fast enough, or a local copy would pay off."""
    threads, shard = threads_for(figures, "store"), shard_bytes_for(figures.bytes)
    where, why = bottleneck_of(figures, "store")
    there, here = figures.rate("store", "warm", "decoded") or 0.0, figures.rate("shards", "warm", "decoded") or 0.0
    gain_copy = here / there if there else None
    shown = figures.shows(gain_copy, "warm", "store", "shards")
    copy = gain_copy is not None and gain_copy >= WORTH and shown
    gain, size = figures.resized_gain, format_bytes(figures.bytes)
    resize = gain is not None and (figures.resized_bytes or 1) < (0.8 if where == "storage" else 0.5)
    if copy:
        told = f"A copy on this machine gives decoded batches {gain_copy:.1f} times as fast as the store"
        cure = f'{told}: keep one with dataset(…, cache="FOLDER"), which takes {size} and pays off from epoch 2 on.'
    elif not shown:
        cure = "There is no telling whether a copy on this machine pays off: the passes differ by more than the two do."
    else:
        cure = "The store gives decoded batches as fast as a copy on this machine would: a copy gains nothing."
    lines: tuple[str, ...] = (
        why, cure, f"Reading: threads={threads}, shuffle={buffer:_}.", _resizing(figures, gain, resize),
    )  # fmt: skip
    lines = _withheld(figures, lines)
    return Advice(
        where, False, None, None, shard, threads, buffer, resize, gain, lines, gain_copy=gain_copy, copy=copy
    )  # fmt: skip


def _pays(figures: Figures, cold: float | None, warm: float | None) -> bool | None:
    """Whether packing pays off; None if the measurements can't tell."""
    gains: list[tuple[float | None, Cache]] = [(cold, "cold"), (warm, "warm")]
    shown = [figures.shows(gain, cache, "shards", "directory") for gain, cache in gains if gain is not None]
    if any(figures.shows(gain, cache, "shards", "directory") and (gain or 0) >= WORTH for gain, cache in gains):
        return True
    return False if all(shown) and shown else None


def _withheld(figures: Figures, lines: tuple[str, ...]) -> tuple[str, ...]:
    """Add a warning about noise; on a busy machine or for few images, give the reason why there is no advice."""
    if figures.few:
        fact = f"{figures.sampled:,} images are too few to advise: opening files takes longer than reading them"
        return (f"{fact}. Measure a larger dataset.",)
    if not figures.busy:
        return (*lines, *_noise(figures))
    fact = f"Other programs kept {figures.load:.1f} of {plural_cores(figures.cores)} busy"
    return (f"{fact}: the figures above support no advice. Run it again when nothing else runs.",)


def plural_cores(cores: int) -> str:
    """`1 core`, `2 cores`."""
    return "1 core" if cores == 1 else f"{cores} cores"


def _noise(figures: Figures) -> tuple[str, ...]:
    spread = statistics.median(each.spread for each in figures.measurements) if figures.measurements else 1.0
    if spread < _NOISE:
        return ()
    noise = f"Passes of the same kind differ by {spread:.1f} times: the machine is busy, or the time is too short."
    return (f"{noise} Run it again for longer before acting on this.",)


def threads_for(figures: Figures, what: What = "shards") -> int:
    """The fewest threads that decode the warm shards (or those in the store) at nearly the best rate."""
    rates = {
        m.threads: m.images for m in figures.measurements if (m.what, m.cache, m.stage) == (what, "warm", "decoded")
    }
    best = max(rates.values(), default=0.0)
    return min((count for count, rate in rates.items() if rate >= _KEPT * best), default=1)


def shard_bytes_for(total: int) -> int:
    """256 MB; less (at least 16 MB) if that gives fewer than 16 shards; more (at most 1 GB) if it gives over 10,000."""
    if total > _LARGEST * _MOST_SHARDS:
        return min(_HUGE, _rounded(total // _MOST_SHARDS))
    return max(_SMALLEST, min(_LARGEST, _rounded(total // _SHARDS)))


def _rounded(size: int) -> int:
    return max(1, size // 10**6) * 10**6


def bottleneck_of(figures: Figures, what: What = "shards") -> tuple[Bottleneck, str]:
    """The bottleneck when reading the shards, and the reason."""
    decode = figures.decode_rate
    storage, kind = figures.rate(what, "cold", "raw"), "the disk"
    if storage is None:
        storage, kind = figures.rate(what, "warm", "raw") or 0.0, "the store" if what == "store" else "the page cache"
    whole = figures.rate(what, "warm", "decoded") or 0.0
    said = (
        f"{kind} gives {storage:,.0f} images/s, {plural(figures.cores)} can decode {decode:,.0f}, "
        f"and training would get {whole:,.0f} from {'there' if what == 'store' else 'the warm shards'}"
    )
    needed = {name: 1 / rate if rate else inf for name, rate in (("decode", decode), ("storage", storage))}
    limit = limit_of(needed, 1 / whole if whole else inf)
    if limit is None:
        return "hand-over", f"The time goes between reading, decoding and batching: {said}."
    if limit == "storage":
        return "storage", f"Storage is the limit: {said}."
    return "decode", f"Decoding is the limit: {said}."


def plural(threads: int) -> str:
    """`1 thread`, `2 threads`."""
    return "1 thread" if threads == 1 else f"{threads} threads"


def _packing(figures: Figures, cold: float | None, warm: float | None) -> list[str]:
    fits = figures.memory_bytes and figures.bytes < 0.6 * figures.memory_bytes
    size, memory = format_bytes(figures.bytes), format_bytes(figures.memory_bytes)
    gains: list[tuple[float | None, Cache, str]] = [
        (cold, "cold", "from a cold disk"), (warm, "warm", "from the page cache"),
    ]  # fmt: skip
    told = ", ".join(
        f"{words} {_times(gain) if figures.shows(gain, cache, 'shards', 'directory') else _UNSHOWN}"
        for gain, cache, words in gains
        if gain is not None
    )
    lines = [f"The shards give decoded batches {told}."]
    pays = _pays(figures, cold, warm)
    if pays is None:
        lines.append(
            "There is no telling whether packing pays off: the passes of one kind differ by more than the two kinds do."
        )
    elif not pays:
        lines.append(
            "So packing brings no speed here; what remains is few files instead of many, and exact order and resume."
        )
    elif warm is not None and warm < WORTH:
        memory_is = f"The images ({size}) {'fit' if fits else 'do not fit'} in memory ({memory})"
        when = "so only the first epoch gains" if fits else "so every epoch gains"
        lines.append(
            f"{memory_is}, {when}." if figures.memory_bytes else "It gains where the cache does not hold them."
        )
    if cold is None:
        lines.append("Cold reads could not be measured: these files can't be evicted from the page cache.")
    return lines


_UNSHOWN = "with no difference that these passes can show"


def _times(gain: float) -> str:
    if gain >= WORTH:
        return f"{gain:.1f} times as fast as the directory"
    return f"{1 / gain:.1f} times slower than the directory" if gain <= 1 / WORTH else "as fast as the directory"


def _options(figures: Figures, shard: int, threads: int, buffer: int) -> str:
    return (
        f"Packing: max_bytes={shard // 10**6}MB ({max(1, round(figures.bytes / shard)):,} of them). "
        f"Reading: threads={threads}, shuffle={buffer:_}."
    )


def _resizing(figures: Figures, gain: float | None, resize: bool) -> str:
    if gain is None:
        return f"Smaller images would gain nothing: they are hardly larger than the {figures.size} pixels of a crop."
    side = resize_side(figures.size)
    effect = f"decoding {gain:.1f} times as fast, and {figures.resized_bytes or 1:.0%} of the bytes"
    verdict = "would pay" if resize else "would not pay here"
    return f"To shrink the images to a shorter side of {side} before packing {verdict}: {effect}."


def resize_side(size: int) -> int:
    """The shorter side that leaves room for a random crop of `size`: the usual 256 for 224."""
    return round(size * 256 / 224)


MOST_SHOWN = 0.5
"""A wider spread is not given exactly: the figure means nothing."""


def _cell(measurement: Measurement) -> str:
    """Images a second with half the spread of the passes, and bytes a second."""
    several = measurement.passes > 1 and measurement.spread > 1.01
    half = (measurement.spread - 1) / 2
    spread = "" if not several else f" ± {half:.0%}" if half <= MOST_SHOWN else f" ± over {MOST_SHOWN:.0%}"
    return f"{measurement.images:,.0f} images/s{spread}, {measurement.bytes / 1e6:,.0f} MB/s"


def measured_table(measurements: Sequence[Measurement]) -> list[list[str]]:
    """The measurements as rows: stage, cache, threads, directory (or store), shards, times."""
    far = any(m.what == "store" for m in measurements)
    sides: tuple[What, What] = ("store", "shards") if far else ("directory", "shards")
    names = ("the store", "a local copy", "the copy is") if far else (*sides, "shards are")
    rows = [["", "cache", "threads", *names]]
    found = {(m.stage, m.cache, m.threads, m.what): m for m in measurements}
    for stage, cache, threads in dict.fromkeys((m.stage, m.cache, m.threads) for m in measurements):
        pair = [found.get((stage, cache, threads, what)) for what in sides]
        cells = ["" if m is None else _cell(m) for m in pair]
        times = f"{pair[1].images / pair[0].images:.2f} times as fast" if pair[0] and pair[1] else ""
        rows.append([stage, "none" if far else cache, str(threads), *cells, times])
    return rows
