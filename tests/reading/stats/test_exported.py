from __future__ import annotations

import pickle
import re
import sys
from typing import Any

import pytest

import shardkit
from shardkit.reading.stats.record import Counts, Setting
from shardkit.reading.stats.stats import Stats, stats_of


def made() -> Stats:
    counts = Counts(seconds=9.0, batches=20, samples=200, bytes=5000.0, ready=30)
    for number in range(20):
        counts.stages["wait"].add(0.001 * number)
        counts.stages["step"].add(0.3)
    return stats_of(counts, Counts(), Setting(rank=3, world_size=4, threads=2, ahead=4))


def test_the_text_for_prometheus_has_numbers_and_histograms() -> None:
    text = made().prometheus()
    assert 'shardkit_batches_total{rank="3"} 20\n' in text
    assert 'shardkit_queue_depth{rank="3"} 1.5\n' in text
    assert 'shardkit_stage_seconds_count{rank="3",stage="step"} 20\n' in text
    assert f'shardkit_bottleneck{{rank="3",bottleneck="{made().bottleneck}"}} 1\n' in text
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) shardkit_\w+ .+|shardkit_\w+\{(\w+="[^"]+",?)+\} [\d.e+-]+', line), line
    named = re.findall(r"(?m)^# TYPE (\w+) ", text)
    assert len(named) == len(set(named)) > 8


def test_the_histograms_are_cumulative() -> None:
    found = re.findall(r'_bucket\{rank="3",stage="wait",le="([^"]+)"\} (\d+)', made().prometheus())
    bounds, counts = [float(bound) for bound, _ in found], [int(count) for _, count in found]
    assert bounds == sorted(bounds) and bounds[-1] == float("inf")
    assert counts == sorted(counts) and counts[-1] == 20
    for bound, count in zip(bounds, counts, strict=True):
        assert sum(0.001 * number * 1.2 < bound for number in range(20)) <= count
        assert count <= sum(0.001 * number / 1.2 < bound for number in range(20))


def test_opentelemetry_gets_counters_and_gauges(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = pytest.importorskip("opentelemetry.sdk.metrics")
    export = pytest.importorskip("opentelemetry.sdk.metrics.export")
    reader = export.InMemoryMetricReader()
    provider = metrics.MeterProvider([reader])
    monkeypatch.setattr("opentelemetry.metrics.get_meter", provider.get_meter)
    told = pickle.loads(pickle.dumps(shardkit.OpenTelemetryStats()))
    told(made())
    told(made())
    found: dict[str, Any] = {}
    for metric in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.data.data_points:
            assert point.attributes["rank"] == 3
            found[metric.name, point.attributes.get("stage", "")] = point.value
    assert found["shardkit.batches", ""] == 40
    assert found["shardkit.queue_depth", ""] == 1.5
    assert found["shardkit.stage.seconds", "step"] == pytest.approx(12.0)
    assert ("shardkit.stage.p95", "wait") in found and ("shardkit.stage.p95", "request") not in found


def test_without_opentelemetry_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    with pytest.raises(shardkit.MissingExtraError, match=r'pip install "shardkit\[opentelemetry\]"'):
        shardkit.OpenTelemetryStats()(made())
