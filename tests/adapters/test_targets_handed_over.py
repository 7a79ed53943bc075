"""Labels that are several classes, or numbers, as each framework gets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.errors import UsageError

SEVERAL = [[0, 2], [], [1], [0, 1, 2], [2], [1, 2]]
HOT = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1], [0, 1, 1]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, draw_image: Any) -> Path:
    """Six images with several classes, and with one and two numbers to be predicted."""
    root = tmp_path_factory.mktemp("targets")
    images = [draw_image(n, size=(20, 20)) for n in range(6)]
    for name, labels in (("multi", SEVERAL), ("one", [n / 2 for n in range(6)]), ("two", [[n, 0.5] for n in range(6)])):
        rows: Any = ({"jpg": image, "cls": label} for image, label in zip(images, labels, strict=True))
        shardkit.write(rows, root / name, format="tfrecord")
    return root


def data_of(folder: Path, name: str) -> shardkit.Dataset:
    return shardkit.dataset(folder / name).decode(size=8).batch(3)


@pytest.mark.parametrize(("name", "shape"), [("multi", (3, 3)), ("one", (3,)), ("two", (3, 2))])
def test_tensorflow_knows_their_shape(folder: Path, name: str, shape: tuple[int, ...]) -> None:
    tf = pytest.importorskip("tensorflow")
    made = data_of(folder, name).to_tf()
    assert made.element_spec == (tf.TensorSpec((3, 8, 8, 3), tf.uint8), tf.TensorSpec(shape, tf.float32))
    labels = np.concatenate([labels for _, labels in made.as_numpy_iterator()])
    assert labels.tolist() == np.concatenate([batch.labels for batch in data_of(folder, name)]).tolist()


def test_keras_fits_several_classes_and_numbers(folder: Path) -> None:
    keras = pytest.importorskip("keras")
    for name, outputs, loss in (("multi", 3, "binary_crossentropy"), ("two", 2, "mse")):
        model = keras.Sequential(
            [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(outputs, "sigmoid")]
        )
        model.compile("sgd", loss)
        made = data_of(folder, name).to_keras()
        assert made[0][1].shape == (3, outputs)
        assert len(model.fit(made, verbose=0).history["loss"]) == 1
        with pytest.raises(UsageError, match="not in the index"):
            _ = made.labels
        assert len(made.keys) == 6


def test_torch_gets_them_as_tensors(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    first = next(iter(data_of(folder, "multi").to_torch()))
    assert first.labels.dtype == torch.float32 and first.labels.tolist() == HOT[:3]
    mapped = shardkit.dataset(folder / "two").decode(size=8).to_torch(map_style=True)
    assert mapped[4][1].tolist() == [4.0, 0.5]


def test_what_knows_one_class_only_refuses_them(folder: Path) -> None:
    pytest.importorskip("tensorflow")
    pytest.importorskip("keras")
    with pytest.raises(UsageError, match="omit graph=True"):
        data_of(folder, "multi").to_tf(graph=True)
    for make in (shardkit.keras.flow_from_shards, shardkit.keras.image_dataset_from_shards):
        with pytest.raises(UsageError, match=r"\.to_keras\(\)"):
            make(str(folder / "multi"), verbose=False)
