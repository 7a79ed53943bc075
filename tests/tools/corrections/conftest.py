"""What the tests of corrections share: a packed dataset of three classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import shardkit


@pytest.fixture(scope="session")
def packed_once(tmp_path_factory: pytest.TempPathFactory, draw_tree: Callable[..., Path]) -> Path:
    """The folder of a dataset `train` in six shards: cat/0000 … dog/0000 … fox/0000 …, four of each."""
    root = tmp_path_factory.mktemp("corrections")
    tree = draw_tree(root / "tree", {"cat": 4, "dog": 4, "fox": 4}, size=(12, 10))
    shardkit.pack(tree, root / "shards" / "train", max_count=2, workers=1)
    return root


@pytest.fixture
def train(packed_once: Path, tmp_path: Path) -> str:
    """A dataset of its own for a test, as a prefix."""
    import shutil

    shutil.copytree(packed_once / "shards", tmp_path / "shards")
    return str(tmp_path / "shards" / "train")


def labels_of(source: str) -> dict[str, str]:
    """Key -> name of the class."""
    data = shardkit.dataset(source)
    return {sample["__key__"]: data.classes[sample["cls"]] for sample in data}


@pytest.fixture(name="labels_of", scope="session")
def fixture_labels_of() -> Callable[[str], dict[str, str]]:
    """The function `labels_of`."""
    return labels_of
