"""Statistics for monitoring: the text format of Prometheus, and instruments of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shardkit.errors import MissingExtraError, installs
from shardkit.reading.stats.record import STAGES
from shardkit.reading.stats.times import LEAST, PARTS, Times

if TYPE_CHECKING:
    from shardkit.reading.stats.stats import Stats

COUNTERS = {
    "batches": "Batches that were delivered.",
    "samples": "Samples that were delivered.",
    "bytes": "Bytes of these samples as they are stored.",
    "skipped": "Samples that could not be decoded.",
    "seconds": "Seconds since the first batch.",
}
"""The numbers of `Stats` that only grow."""

GAUGES = {
    "queue_depth": "Batches that were ready when the loop asked for one, on average.",
    "ahead": "Batches that may be made ahead.",
    "threads": "Threads that decode.",
    "first_seconds": "Seconds until the first batch.",
}

OCTAVES = range(7, 28)
"""The bounds of the histograms are 2^n microseconds: from 128 microseconds to 134 seconds."""


def prometheus_text(stats: Stats, stages: dict[str, Times]) -> str:
    """The statistics in the text format of Prometheus 0.0.4, which its textfile collector and push gateway take."""
    labels = f'rank="{stats.rank}"'
    lines: list[str] = []
    for kind, names in (("counter", COUNTERS), ("gauge", GAUGES)):
        for name, text in names.items():
            full = f"shardkit_{name}{'_total' if kind == 'counter' else ''}"
            lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full}{{{labels}}} {getattr(stats, name)}"]
    full = "shardkit_stage_seconds"
    lines += [f"# HELP {full} Seconds of a stage for each batch, or request.", f"# TYPE {full} histogram"]
    for stage in STAGES:
        lines += _histogram(full, f'{labels},stage="{stage}"', stages[stage])
    full = "shardkit_bottleneck"
    lines += [f"# HELP {full} What limits the loop.", f"# TYPE {full} gauge"]
    lines.append(f'{full}{{{labels},bottleneck="{stats.bottleneck}"}} 1')
    return "\n".join(lines) + "\n"


def _histogram(name: str, labels: str, times: Times) -> Iterator[str]:
    for octave in OCTAVES:
        yield f'{name}_bucket{{{labels},le="{LEAST * 2**octave:g}"}} {sum(times.counts[: octave * PARTS])}'
    yield f'{name}_bucket{{{labels},le="+Inf"}} {times.number}'
    yield f"{name}_sum{{{labels}}} {times.seconds:.9g}"
    yield f"{name}_count{{{labels}}} {times.number}"


@dataclass
class OpenTelemetryStats:
    """For `dataset(on_stats=)`: records the statistics in OpenTelemetry, with its meter provider. Needs the extra
    `opentelemetry`.

    name: of the meter, and the beginning of the names of its instruments: counters such as `shardkit.batches`,
    `shardkit.stage.seconds` with the attribute `stage`, and gauges `shardkit.queue_depth` and `shardkit.stage.p95`. All
    have the attribute `rank`. MissingExtraError when it is first called without the package.
    """

    name: str = "shardkit"
    _made: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, stats: Stats) -> None:
        """Record what happened since the last call."""
        made, rank = self._made or self._make(), {"rank": stats.rank}
        for name in COUNTERS:
            made[name].add(getattr(stats, name), rank)
        for name in GAUGES:
            made[name].set(getattr(stats, name), rank)
        for stage in STAGES:
            time = getattr(stats, stage)
            attributes = {**rank, "stage": stage}
            made["stage.seconds"].add(time.seconds, attributes)
            if time.count:
                made["stage.p95"].set(time.p95, attributes)

    def __reduce__(self) -> tuple[type[OpenTelemetryStats], tuple[str]]:
        return OpenTelemetryStats, (self.name,)

    def _make(self) -> dict[str, Any]:
        try:
            from opentelemetry.metrics import get_meter
        except ImportError as exc:
            fact = "the package opentelemetry-api is not installed"
            raise MissingExtraError("OpenTelemetryStats()", fact, installs("opentelemetry")) from exc
        meter = get_meter(self.name)
        for name, text in COUNTERS.items():
            self._made[name] = meter.create_counter(f"{self.name}.{name}", description=text)
        for name, text in GAUGES.items():
            self._made[name] = meter.create_gauge(f"{self.name}.{name}", description=text)
        seconds, p95 = "Seconds of a stage.", "Seconds that 95 % of the runs of a stage do not exceed."
        self._made["stage.seconds"] = meter.create_counter(f"{self.name}.stage.seconds", "s", seconds)
        self._made["stage.p95"] = meter.create_gauge(f"{self.name}.stage.p95", "s", p95)
        return self._made
