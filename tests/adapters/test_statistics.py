"""Statistics of a Dataset that a framework reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import shardkit


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> Path:
    found: Path = draw_tree(tmp_path_factory.mktemp("statistics"), {"a": 40, "b": 60})
    return found


@pytest.mark.parametrize("weights", [None, [1.0] * 100], ids=["plain", "weighed"])
@pytest.mark.parametrize("name", ["to_tf", "to_keras"])
def test_the_dataset_has_the_statistics_of_what_was_made_from_it(tree: Path, name: str, weights: Any) -> None:
    pytest.importorskip("tensorflow" if name == "to_tf" else "keras")
    data = shardkit.dataset(tree).decode(size=16).batch(10)
    made = getattr(data, name)(sample_weight=weights)
    assert sum(1 for _ in made) == 10
    stats = data.stats()
    assert (stats.batches, stats.samples, stats.decode.count) == (10, 100, 10)
    assert (stats.transform.count > 0) == (weights is not None)
