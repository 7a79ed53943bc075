"""Batches of several shapes, and lists of images, in other frameworks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import shardkit
from shardkit import Dataset, UsageError

COUNT = 60


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> str:
    """60 PNGs of many sizes in 3 shards; the prefix."""
    root, rng = tmp_path_factory.mktemp("varied"), np.random.default_rng(0)
    for number in range(COUNT):
        path = root / "tree" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*rng.integers(10, 60, 2), 3), dtype=np.uint8)).save(path)
    shardkit.pack(root / "tree", root / "shards", max_count=20, workers=1)
    return str(root / "shards")


def bucketed(prefix: str, **options: Any) -> Dataset[Any]:
    return shardkit.dataset(prefix, shuffle=20, seed=1).buckets(3, size=32).decode(flip=True, **options).batch(8)


def test_torch_gets_the_same_batches_with_and_without_workers(varied: str) -> None:
    torch = pytest.importorskip("torch")
    expected = list(bucketed(varied))
    for loader in (bucketed(varied).to_torch(), bucketed(varied).to_torch().loader(num_workers=2)):
        found = list(loader)
        for batch, right in zip(found, expected, strict=True):
            assert batch.keys == right.keys and torch.equal(batch.images, torch.from_numpy(right.images))


def test_a_loader_with_workers_resumes_in_the_middle_of_the_buckets(varied: str) -> None:
    pytest.importorskip("torch")
    whole = [batch.keys for batch in bucketed(varied)]
    loader = bucketed(varied).to_torch().loader(num_workers=2)
    items = iter(loader)
    first = [next(items).keys for _ in range(3)]
    again = bucketed(varied).to_torch().loader(num_workers=1)
    again.load_state_dict(loader.state_dict())
    assert first + [batch.keys for batch in again] == whole
    del items


def test_tensorflow_gets_batches_whose_sides_it_does_not_know(varied: str) -> None:
    tf = pytest.importorskip("tensorflow")
    made = bucketed(varied).to_tf()
    images, labels = made.element_spec
    assert images.shape.as_list() == [None, None, None, 3] and labels.shape.as_list() == [None]
    for found, right in zip(made, bucketed(varied), strict=True):
        np.testing.assert_array_equal(found[0].numpy(), right.images)
    dropped = shardkit.dataset(varied).buckets(3, size=32).decode(layout="chw").batch(8, drop_last=True).to_tf()
    assert dropped.element_spec[0].shape.as_list() == [8, 3, None, None]
    with pytest.raises(UsageError, match=r"use map\(\) of the tf.data.Dataset"):
        bucketed(varied).map(lambda batch: batch).to_tf()
    with pytest.raises(UsageError, match="needs shardkit's order"):
        bucketed(varied).to_tf(graph=True)
    assert tf.data.experimental.cardinality(made).numpy() == len(bucketed(varied))


def test_keras_counts_the_samples_of_smaller_batches(varied: str) -> None:
    pytest.importorskip("keras")
    made = bucketed(varied).to_keras()
    assert made.samples == COUNT and len(made) == len(bucketed(varied))
    assert sum(len(images) for images, _ in made) == COUNT
    assert len(made.labels) == COUNT


def test_what_reads_single_samples_is_refused(varied: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    single = shardkit.dataset(varied).buckets(3, size=32).decode()
    for wrong in (lambda: single.to_torch(map_style=True)[0], lambda: list(single.to_torch()), lambda: single["a/0"]):
        with pytest.raises(UsageError, match=r"buckets\(\)"):
            wrong()


def test_lists_of_images_are_refused_where_arrays_are_needed(varied: str) -> None:
    lists = shardkit.dataset(varied).decode().batch(8, collate="list")
    for package, method in (("tensorflow", "to_tf"), ("keras", "to_keras")):
        pytest.importorskip(package)
        with pytest.raises(UsageError, match="keeps images apart"):
            getattr(lists, method)()
