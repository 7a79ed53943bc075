from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shardkit.reading.stats.advice import sentence
from shardkit.reading.stats.bottleneck import ENOUGH, IDLE, QUIET, Bottleneck, Figures, bottleneck_of, limit_of
from shardkit.reading.stats.record import Setting

WAITING = Figures(batches=100, seconds=10.0, wait=6.0, hand_over=0.5, step=3.5, available=40.0, busy=39.0, decode=39.0)
"""A loop that waits for four threads that decode."""


def changed(**changes: Any) -> Figures:
    return replace(WAITING, **changes)


@pytest.mark.parametrize(
    ("figures", "name"),
    [
        (WAITING, "decode"),
        (changed(decode=15.0, fetch=24.0, requests=50), "store"),
        (changed(decode=15.0, fetch=24.0), "disk"),
        (changed(decode=15.0, transform=24.0), "transform"),
        (changed(decode=5.0, busy=20.0), "buffer"),
        (changed(decode=5.0, busy=20.0, batches=19_000), "buffer"),
        (changed(decode=5.0, busy=20.0, batches=21_000), "hand-over"),
        (changed(decode=5.0, fetch=34.0, requests=50, narrow=True, latency=0.9), "buffer"),
        (changed(decode=5.0, fetch=34.0, requests=50, narrow=True, latency=0.2), "store"),
        (changed(decode=5.0, fetch=34.0, requests=50, narrow=False, latency=0.9), "store"),
        (changed(wait=0.2, step=9.3), "step"),
        (changed(wait=1.0, hand_over=4.0, step=5.0), "hand-over"),
        (changed(cpu=5.0, faults=5_000), "disk"),
        (changed(cpu=39.0, faults=5_000), "decode"),
        (changed(cpu=5.0, faults=0), "decode"),
        (changed(available=0.0, busy=0.0, decode=0.0), "disk"),
        (changed(available=0.0, busy=0.0, decode=0.0, requests=9), "store"),
        (changed(batches=ENOUGH - 1), "none"),
        (Figures(0, 0.0, 0.0, 0.0, 0.0), "none"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_bottleneck_is_named(figures: Figures, name: Bottleneck) -> None:
    assert bottleneck_of(figures) == name


def test_the_limits_are_those_of_the_rule() -> None:
    still = changed(wait=QUIET * 10.0 - 0.01, hand_over=0.0)
    assert bottleneck_of(still) == "step"
    assert bottleneck_of(replace(still, wait=QUIET * 10.0)) == "decode"
    assert bottleneck_of(changed(busy=IDLE * 40.0)) == "decode"
    assert bottleneck_of(changed(busy=IDLE * 40.0 - 0.01)) == "buffer"


def test_of_stages_at_the_same_time_the_slowest_is_the_limit_unless_the_time_is_lost_between_them() -> None:
    assert limit_of({"decode": 1.0, "storage": 2.0}, 2.1) == "storage"
    assert limit_of({"decode": 1.0, "storage": 0.5}, 1.0) == "decode"
    assert limit_of({"decode": 1.0, "storage": 0.5}, 1.0 / IDLE + 0.1) is None


@pytest.mark.parametrize(
    ("name", "setting", "words"),
    [
        ("step", Setting(), "The training step is the limit: the loop waits 65% of its time"),
        ("store", Setting(), '`cache="…"`'),
        ("store", Setting(cached=True), "later epochs come from the cache"),
        ("disk", Setting(), "`pack(resize=…)`"),
        ("decode", Setting(threads=2, cores=8), "`threads=8`, one for each core"),
        ("decode", Setting(threads=8, cores=8), "`size` of decode()"),
        ("transform", Setting(threads=2, cores=8), "`threads=8`, one for each core"),
        ("transform", Setting(threads=8, cores=8), "`to_torch().loader(num_workers=…)`"),
        ("buffer", Setting(threads=2, ahead=1), "`ahead=8`"),
        ("hand-over", Setting(), "`batch(…)`"),
        ("none", Setting(), "Too few batches"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_advice_names_the_option(name: Bottleneck, setting: Setting, words: str) -> None:
    text = sentence(name, WAITING, setting, 1e9)
    assert words in text
    assert text.endswith(".") and "\n" not in text


def test_a_store_that_is_asked_for_little_at_a_time_needs_more_bytes_ahead() -> None:
    figures = changed(decode=5.0, fetch=30.0, requests=50, narrow=True, latency=0.9)
    assert "raise `ahead_bytes`" in sentence(bottleneck_of(figures), figures, Setting(), 1e6)
