"""What `Dataset.stats()` returns."""

from __future__ import annotations

import html
from dataclasses import dataclass, field

from shardkit.reading.stats.advice import sentence
from shardkit.reading.stats.bottleneck import Bottleneck, Figures, bottleneck_of
from shardkit.reading.stats.exported import prometheus_text
from shardkit.reading.stats.record import Counts, Setting
from shardkit.reading.stats.times import Times
from shardkit.units import format_bytes


@dataclass(frozen=True, slots=True)
class StageTime:
    """The time of one stage: how often it ran, all its seconds, and the percentiles of a single run in seconds, exact
    to 20 %."""

    count: int
    seconds: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Stats:
    """What an iteration of one rank has spent its time on.

    seconds: from the first batch on; first_seconds: until then. batches, samples: that were delivered (without batch(),
    runs of 64 samples). bytes: of these samples as they are stored. skipped: samples that could not be decoded.
    queue_depth: batches that were ready when the loop asked for one, on average, of at most `ahead`. threads: that
    decode.

    Times of the loop for each batch: `wait` for it, `hand_over` in code of the loader, `step` in the loop itself. Times
    of the decoding threads for each batch, added up over the threads: `fetch` for its bytes, `decode`, `transform` in
    functions of map() and filter(). `request`: time of one request to a store.
    bottleneck: "step" (the loop itself), "store", "disk", "decode", "transform", "buffer" (too little is made ahead),
    "hand-over", or "none" while there is too little to tell. advice: the same in a sentence, with the option that would
    change it.

    `later - earlier` has what was spent between two calls; `one + other` adds several readers.
    """

    rank: int
    world_size: int
    threads: int
    ahead: int
    seconds: float
    first_seconds: float
    batches: int
    samples: int
    bytes: int
    skipped: int
    queue_depth: float
    wait: StageTime
    hand_over: StageTime
    step: StageTime
    fetch: StageTime
    decode: StageTime
    transform: StageTime
    request: StageTime
    bottleneck: Bottleneck
    advice: str
    _counts: Counts = field(repr=False, compare=False)
    _early: Counts = field(repr=False, compare=False)
    _setting: Setting = field(repr=False, compare=False)

    def __sub__(self, earlier: Stats) -> Stats:
        return stats_of(self._counts.plus(earlier._counts, -1), self._early.plus(earlier._early, -1), self._setting)

    def __add__(self, other: Stats) -> Stats:
        return stats_of(self._counts.plus(other._counts), self._early.plus(other._early), self._setting)

    def prometheus(self) -> str:
        """The statistics in the text format of Prometheus: counters, gauges, and a histogram of each stage."""
        return prometheus_text(self, self._counts.stages)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def __str__(self) -> str:
        rate = self.samples / self.seconds if self.seconds else 0.0
        lines = [
            f"{self.batches:,} batches, {self.samples:,} samples, {format_bytes(self.bytes)} in {self.seconds:.1f} s "
            f"({rate:,.0f} samples/s), the first after {self.first_seconds:.2f} s",
            f"{self.queue_depth:.1f} of {self.ahead} batches ready, {self.threads} threads, {self.skipped:,} skipped",
            f"{'':12}{'share':>7}{'p50':>10}{'p95':>10}{'p99':>10}",
        ]
        lines += [self._line(name, getattr(self, name), self._counts.seconds) for name in ("wait", "hand_over", "step")]
        available = sum(getattr(self, name).seconds for name in ("fetch", "decode", "transform"))
        stages = ("fetch", "decode", "transform") if self.threads else ()
        lines += [self._line(name, getattr(self, name), available) for name in stages]
        if self.request.count:
            lines.append(self._line("request", self.request, 0.0))
        return "\n".join([*lines, self.advice])

    @staticmethod
    def _line(name: str, time: StageTime, whole: float) -> str:
        share = f"{time.seconds / whole:.0%}" if whole else ""
        return f"{name.replace('_', '-'):12}{share:>7}" + "".join(
            f"{value * 1e3:>7.1f} ms" for value in (time.p50, time.p95, time.p99)
        )


def stats_of(counts: Counts, early: Counts, setting: Setting) -> Stats:
    """The statistics for what was counted. early: before the first batch, which says nothing about the limit."""
    figures = figures_of(counts.plus(early, -1), setting)
    name = bottleneck_of(figures)
    stages = {stage: _time(times) for stage, times in counts.stages.items()}
    return Stats(
        rank=setting.rank, world_size=setting.world_size, threads=setting.threads, ahead=setting.ahead,
        seconds=counts.seconds, first_seconds=counts.first, batches=counts.batches, samples=counts.samples,
        bytes=round(counts.bytes), skipped=counts.skipped,
        queue_depth=counts.ready / counts.batches if counts.batches else 0.0, bottleneck=name,
        advice=sentence(name, figures, setting, counts.bytes), _counts=counts, _early=early, _setting=setting, **stages,
    )  # fmt: skip


def figures_of(counts: Counts, setting: Setting) -> Figures:
    """The inputs of the rule that names the bottleneck."""
    spent = {name: times.seconds for name, times in counts.stages.items()}
    return Figures(
        batches=counts.stages["step"].number, seconds=counts.seconds, wait=spent["wait"],
        hand_over=spent["hand_over"], step=spent["step"], available=counts.available, busy=counts.busy,
        fetch=spent["fetch"], decode=spent["decode"], transform=spent["transform"],
        requests=counts.stages["request"].number, narrow=setting.narrow, cpu=counts.cpu, faults=counts.faults,
        latency=counts.latency / spent["request"] if spent["request"] else 0.0,
    )  # fmt: skip


def _time(times: Times) -> StageTime:
    percentiles = [times.percentile(percent) for percent in (50, 95, 99)]
    return StageTime(times.number, times.seconds, *percentiles)
