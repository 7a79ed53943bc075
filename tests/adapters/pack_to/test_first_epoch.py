"""The first epoch with `pack_to`: what it reads, and what it leaves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters.pack_to.packings import COUNTS, SMALL, TOTAL, files_in

import shardkit
from shardkit.formats.tar import fast_write
from shardkit.location import locate


def opened(photos: Path, dest: Path, *, shuffle: bool | int = True, **options: Any) -> shardkit.Dataset[Any]:
    return shardkit.dataset(photos, pack_to={"dest": dest, **SMALL, **options}, shuffle=shuffle)


def test_the_first_epoch_has_every_sample_once_in_the_order_of_the_shards(photos: Path, tmp_path: Path) -> None:
    data = opened(photos, tmp_path / "shards" / "train")
    assert len(data) == TOTAL
    keys = [sample["__key__"] for sample in data]
    assert keys == [sample["__key__"] for sample in shardkit.dataset(tmp_path / "shards" / "train")]
    assert sorted(keys) == sorted(data.keys)


@pytest.mark.parametrize("native", [True, False], ids=["native", "python"])
@pytest.mark.parametrize("options", [{}, {"format": "tfrecord"}, {"seed": 3}, {"max_count": 7, "check": "full"}],
                         ids=["default", "tfrecord", "seed", "full"])  # fmt: skip
def test_the_shards_are_those_of_pack(
    photos: Path, tmp_path: Path, packed: Callable[..., dict[str, bytes]], options: dict[str, Any], native: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if not native:
        monkeypatch.setattr(fast_write, "extension", lambda: None)
    for _ in opened(photos, tmp_path / "shards" / "train", **options):
        pass
    assert files_in(tmp_path / "shards") == packed(**options)


def test_a_packing_that_falls_behind_writes_several_shards_at_a_time(
    photos: Path, tmp_path: Path, packed: Callable[..., dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from shardkit.adapters.pack_to import packer

    begun, most, written = [0], [0], packer._Engine.written_here

    def slowly(self: Any, *given: Any) -> Any:
        begun[0] += 1
        most[0] = max(most[0], begun[0])
        time.sleep(0.05)
        try:
            return written(self, *given)
        finally:
            begun[0] -= 1

    monkeypatch.setattr(packer._Engine, "written_here", slowly)
    monkeypatch.setattr(packer, "LATE_BYTES", -1)
    for _ in opened(photos, tmp_path / "shards" / "train"):
        pass
    assert files_in(tmp_path / "shards") == packed()
    assert most[0] > 2


def test_the_second_epoch_reads_the_shards_in_the_usual_order(photos: Path, tmp_path: Path) -> None:
    data = opened(photos, tmp_path / "shards" / "train")
    assert {locate(sample["__url__"]).parent.name for sample in data} == set(COUNTS)
    second = list(data)
    assert {Path(sample["__url__"]).parent for sample in second} == {tmp_path / "shards"}
    shards = shardkit.dataset(tmp_path / "shards" / "train", shuffle=True)
    shards.set_epoch(1)
    assert [sample["__key__"] for sample in second] == [sample["__key__"] for sample in shards]


def test_samples_and_batches_are_those_of_the_shards(photos: Path, tmp_path: Path) -> None:
    data = opened(photos, tmp_path / "shards" / "train").decode(size=16, crop="random", flip=True).batch(16)
    first = [(images.copy(), labels) for images, labels in data]
    again = opened(photos, tmp_path / "shards" / "train").decode(size=16, crop="random", flip=True).batch(16)
    for (images, labels), (same_images, same_labels) in zip(first, again, strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)


def test_a_run_on_finished_shards_has_the_orders_of_the_run_that_packed(photos: Path, tmp_path: Path) -> None:
    data = opened(photos, tmp_path / "shards" / "train").repeat(3)
    packing = [sample["__key__"] for sample in data]
    again = opened(photos, tmp_path / "shards" / "train").repeat(3)
    assert [sample["__key__"] for sample in again] == packing
    assert again.fingerprint == data.fingerprint


def test_without_shuffling_each_epoch_has_the_order_of_the_shards(photos: Path, tmp_path: Path) -> None:
    data = opened(photos, tmp_path / "shards" / "train", shuffle=False)
    first, second = ([sample["__key__"] for sample in data] for _ in range(2))
    assert first == second == list(data.keys)


def test_labels_keys_and_paths_are_numbered_as_in_the_shards(photos: Path, tmp_path: Path) -> None:
    data = opened(photos, tmp_path / "shards" / "train")
    labels, keys, paths, one = data.labels.tolist(), list(data.keys), list(data.paths), data[7]
    assert not (tmp_path / "shards").exists()
    for _ in data:
        pass
    shards = shardkit.dataset(tmp_path / "shards" / "train")
    assert (labels, keys, paths) == (shards.labels.tolist(), list(shards.keys), list(shards.paths))
    assert {**shards[7], "__url__": ""} == {**one, "__url__": ""}
    assert data.class_counts == COUNTS


def test_the_images_of_the_first_epoch_come_from_the_shards_that_are_being_written(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fast_write.extension() is None:
        pytest.skip("only the C extension tells where it wrote an image")
    from shardkit.adapters.pack_to import catalog, patience

    monkeypatch.setattr(patience, "LEAST_SECONDS", 30.0)
    taken = []
    views = catalog.WrittenBlock.__init__

    def noted(self: Any, *given: Any) -> None:
        taken.append(len(given[1]))
        views(self, *given)

    monkeypatch.setattr(catalog.WrittenBlock, "__init__", noted)
    expected = {str(path.relative_to(photos).with_suffix("")): path.read_bytes() for path in photos.rglob("*.jpg")}
    read = {sample["__key__"]: sample["jpg"] for sample in opened(photos, tmp_path / "shards" / "train")}
    assert read == expected
    assert sum(taken) == TOTAL


def test_a_destination_in_a_bucket(photos: Path, s3_server: Any) -> None:
    dest = f"{s3_server.url}/train"
    data = shardkit.dataset(photos, pack_to={"dest": dest, **SMALL}, shuffle=True, storage_options=s3_server.options)
    first, second = (sorted(sample["__key__"] for sample in data) for _ in range(2))
    assert first == second == sorted(data.keys)
    shards = shardkit.dataset(dest, storage_options=s3_server.options)
    assert len(shards) == TOTAL and list(shards.keys) == list(data.keys)
