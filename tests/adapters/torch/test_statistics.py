"""Statistics of a torch loader: with workers, of the loop here and of their threads there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit import Stats

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> Path:
    found: Path = draw_tree(tmp_path_factory.mktemp("torch-stats"), {"a": 40, "b": 60})
    return found


def made(tree: Path, told: list[tuple[int, Stats]]) -> shardkit.Dataset[Any]:
    data = shardkit.dataset(tree, threads=2, ahead=3, on_stats=lambda stats: told.append((os.getpid(), stats)))
    return data.decode(size=16).map(dict).batch(10)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_statistics_of_workers_come_back(tree: Path, workers: int) -> None:
    told: list[tuple[int, Stats]] = []
    data = made(tree, told)
    assert sum(1 for _ in data.to_torch().loader(num_workers=workers)) == 10
    stats = data.stats()
    assert (stats.batches, stats.samples) == (10, 100)
    assert stats.bytes == sum(path.stat().st_size for path in tree.rglob("*.jpg"))
    assert (stats.decode.count, stats.transform.count, stats.step.count) == (10, 10, 10)
    assert (stats.threads, stats.ahead) == (2 * max(1, workers), 3 * max(1, workers))
    assert {process for process, _ in told} == {os.getpid()}
    assert sum(each.samples for _, each in told) == 100


def test_a_loop_that_leaves_the_workers_early_has_statistics(tree: Path) -> None:
    told: list[tuple[int, Stats]] = []
    data = made(tree, told)
    for number, _ in enumerate(data.to_torch().loader(num_workers=2)):
        if number == 3:
            break
    assert data.stats().batches == 4
    assert [each.batches for _, each in told] == [4]


def test_persistent_workers_begin_again_with_each_epoch(tree: Path) -> None:
    data = made(tree, [])
    loader = data.to_torch().loader(num_workers=2, persistent_workers=True)
    for _ in range(2):
        assert sum(1 for _ in loader) == 10
        assert (data.stats().batches, data.stats().samples) == (10, 100)
