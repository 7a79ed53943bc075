"""Augmentation is the libraries' business: examples with each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit


@pytest.fixture
def shards(tree: Path, tmp_path: Path) -> str:
    shardkit.pack(tree, tmp_path / "shards" / "all")
    return str(tmp_path / "shards" / "all")


def changed_image(sample: Any, change: Any) -> Any:
    """The sample with its image changed."""
    return {**sample, "jpg": change(sample["jpg"])}


def test_layers_of_keras_after_to_tf_or_in_the_model(shards: str) -> None:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    layers = keras.layers
    augment = keras.Sequential(
        [
            layers.RandomFlip("horizontal", seed=1),
            layers.RandomRotation(0.1, fill_mode="nearest", seed=2),
            layers.RandomTranslation(0.1, 0.1, fill_mode="reflect", seed=3),
            layers.RandomZoom(0.2, fill_mode="wrap", seed=4),
            layers.RandomShear(0.1, 0.1, seed=5),
        ]
    )
    data = shardkit.dataset(shards).decode(size=16, dtype="float32").batch(6)
    made = data.to_tf().map(lambda images, labels: (augment(images, training=True), labels))
    plain = data.to_tf()
    for (images, labels), (before, same) in zip(made, plain, strict=True):
        assert images.shape == (6, 16, 16, 3)
        assert float(np.abs(images - before).max()) > 1
        assert (labels.numpy() == same.numpy()).all()
    model = keras.Sequential([keras.Input((16, 16, 3)), augment, layers.Flatten(), layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert len(model.fit(data.to_keras(), verbose=0).history["loss"]) == 1


def test_albumentations_through_map(shards: str) -> None:
    pytest.importorskip("scipy")
    a = pytest.importorskip("albumentations")
    augment = a.Compose([a.HorizontalFlip(p=1.0), a.Resize(8, 8)])
    data = shardkit.dataset(shards).decode(size=16)
    made = list(data.map(lambda sample: changed_image(sample, lambda image: augment(image=image)["image"])).batch(6))
    assert [batch.images.shape for batch in made] == [(6, 8, 8, 3)] * 2
    flipped = a.Resize(8, 8)(image=np.ascontiguousarray(next(iter(data))["jpg"][:, ::-1]))["image"]
    np.testing.assert_array_equal(made[0].images[0], flipped)


class RandomErasing:
    """In the style of torchvision: a callable on a tensor (channels, height, width)."""

    def __call__(self, image: Any) -> Any:
        image = image.clone()
        image[:, 2:6, 2:6] = 0
        return image


def test_a_callable_in_the_style_of_torchvision_through_map(shards: str) -> None:
    torch = pytest.importorskip("torch")
    erase = RandomErasing()

    def augment(image: Any) -> Any:
        return erase(torch.from_numpy(image)).numpy()

    data = shardkit.dataset(shards).decode(size=8, layout="chw", dtype="float32", rescale=1 / 255)
    for batch in data.map(lambda sample: changed_image(sample, augment)).batch(6).to_torch():
        assert batch.images.shape == (6, 3, 8, 8)
        assert float(batch.images[:, :, 2:6, 2:6].max()) == 0 < float(batch.images.max())


def test_torchvisions_transforms_through_map(shards: str) -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2")
    torch = pytest.importorskip("torch")
    augment = transforms.Compose([transforms.RandomHorizontalFlip(1.0), transforms.ToDtype(torch.float32, scale=True)])
    data = shardkit.dataset(shards).decode(size=8, layout="chw")
    mapped = data.map(lambda sample: changed_image(sample, lambda image: augment(torch.from_numpy(image)).numpy()))
    assert next(iter(mapped.batch(6))).images.dtype == np.float32
