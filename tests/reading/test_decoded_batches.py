"""Batches without a size, and the recipes of decode(), through a Dataset."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import shardkit
from shardkit import DatasetError, DecodeError
from shardkit.images import fused
from shardkit.reading.batches.tasks.worker import Worker

SIDE, COUNT = 40, 70


def jpeg(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> bytes:
    file = io.BytesIO()
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def packed(folder: Path, others: dict[int, bytes]) -> str:
    for number in range(COUNT):
        data = others.get(number, jpeg(number))
        path = folder / "tree" / "ab"[number % 2] / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    shardkit.pack(folder / "tree", folder / "shards", workers=1, check="none")
    return str(folder / "shards")


@pytest.fixture(params=["fused", "simplejpeg"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "simplejpeg":
        monkeypatch.setattr(fused, "available", lambda part="": False)


def batches_of(prefix: str, **options: Any) -> list[Any]:
    return list(shardkit.dataset(prefix, threads=2).decode(**options).batch(32))


@pytest.mark.parametrize("options", [{}, {"flip": "both"}, {"layout": "chw", "mean": 0.5}, {"exact": True}])
def test_images_of_one_size_are_written_into_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Any
) -> None:
    prefix = packed(tmp_path, {})
    with monkeypatch.context() as patch:
        patch.setattr(Worker, "general", lambda *_: (None, None))  # the other way is not used
        found = batches_of(prefix, **options)
    samples = list(shardkit.dataset(prefix).decode(**options))
    assert [len(batch.images) for batch in found] == [32, 32, 6]
    for image, label, sample in zip(
        np.concatenate([batch.images for batch in found]),
        np.concatenate([batch.labels for batch in found]),
        samples,
        strict=True,
    ):
        np.testing.assert_array_equal(image, sample["jpg"])
        assert label == sample["cls"]


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    prefix = packed(tmp_path, {31: jpeg(31, (SIDE, SIDE + 1))})
    with pytest.raises(DatasetError, match=r"a batch needs images of one size: .* is 40 x 40 x 3 and .*31 is 41 x 40"):
        batches_of(prefix)


def test_each_batch_may_have_a_size_of_its_own(tmp_path: Path) -> None:
    prefix = packed(tmp_path, {number: jpeg(number, (30 + number % 5, 20)) for number in range(COUNT)})
    shapes = [batch.images.shape for batch in shardkit.dataset(prefix).decode().batch(1)]
    assert len(shapes) == COUNT
    assert {shape[1:] for shape in shapes} == {(20, 30 + i, 3) for i in range(5)}


def test_a_damaged_image_is_reported_or_omitted_once(tmp_path: Path) -> None:
    prefix = packed(tmp_path, {0: jpeg(0)[:300], 40: jpeg(40)[:300], 41: b"no image"})
    with pytest.raises(DecodeError, match="000"):
        batches_of(prefix)
    found = batches_of(prefix, on_error="skip", skip_limit=3)
    assert sum(len(batch.images) for batch in found) == COUNT - 3


@pytest.mark.parametrize("options", [{"crop": "pad", "padding": 4}, {"crop": "random", "scale": (0.5, 1)}])
def test_recipes_are_the_same_for_any_threads_and_after_a_resume(tmp_path: Path, options: Any) -> None:
    prefix = packed(tmp_path, {})

    def dataset(threads: int) -> Any:
        made = shardkit.dataset(prefix, shuffle=True, seed=3, threads=threads)
        return made.decode(size=SIDE, flip="both", **options).batch(16)

    first = [batch.images for batch in dataset(1)]
    for images, again in zip(first, dataset(3), strict=True):
        np.testing.assert_array_equal(images, again.images)
    begun = dataset(2)
    rest = iter(begun)
    for _ in range(2):
        next(rest)
    resumed = dataset(2)
    resumed.load_state_dict(begun.state_dict())
    for images, again in zip(first[2:], resumed, strict=True):
        np.testing.assert_array_equal(images, again.images)


def test_bfloat16_arrays_become_tensors_of_that_type(tmp_path: Path) -> None:
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("ml_dtypes")
    prefix = packed(tmp_path, {})
    options = {"size": 16, "mean": "imagenet", "std": "imagenet", "layout": "chw"}
    made = shardkit.dataset(prefix).decode(**options, dtype="bfloat16").batch(COUNT)
    ((images, _),) = made.to_torch()
    ((expected, _),) = shardkit.dataset(prefix).decode(**options).batch(COUNT)
    assert images.dtype == torch.bfloat16
    assert torch.equal(images, torch.from_numpy(expected).to(torch.bfloat16))
