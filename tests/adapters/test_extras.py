"""Packages that are not there, and Keras on another backend: each in an interpreter of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import shardkit

HIDE = "import sys\nsys.modules[{!r}] = None\nimport shardkit\n"
"""Makes a package as good as not installed."""


@pytest.mark.parametrize(
    ("hidden", "code", "extra"),
    [
        ("torch", "d.to_torch()", "torch"),
        ("tensorflow", "d.to_tf()", "tensorflow"),
        ("tensorflow", "shardkit.tensorflow.feature_spec(d)", "tensorflow"),
        ("keras", "d.to_keras()", "keras"),
        ("keras", "shardkit.keras.flow_from_shards('x')", "keras"),
        ("webdataset", "d.to_webdataset()", "webdataset"),
        ("tensorflow", "d.to_keras()", "tensorflow"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    hidden: str, code: str, extra: str, run_python: Any, tmp_path: Path
) -> None:
    if hidden == "tensorflow" and "keras" in code:
        pytest.importorskip("keras")
    lines = f"""
d = shardkit.dataset("nowhere").decode(size=8).batch(2)
try:
    {code}
except shardkit.MissingExtraError as exc:
    print(exc)
"""
    run = run_python("-c", HIDE.format(hidden) + lines, cwd=tmp_path, KERAS_BACKEND="tensorflow")
    assert f'pip install "shardkit[{extra}]"' in run.stdout


def test_keras_on_torch_needs_no_tensorflow(tree: Path, run_python: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("keras")
    shardkit.pack(tree, tmp_path / "shards" / "all")
    code = """
import keras, numpy as np
assert keras.backend.backend() == "torch"
data = shardkit.dataset("shards/all", shuffle=6).decode(size=8).batch(5)
layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
model = keras.Sequential(layers)
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
held = shardkit.keras.flow_from_shards("shards/all", target_size=(8, 8), class_mode="sparse", shuffle=False)
fitted = model.fit(data.to_keras(), epochs=2, validation_data=held, class_weight={0: 1.0, 1: 2.0}, verbose=0)
print(sorted(fitted.history), model.predict(held, verbose=0).shape, held.filenames[0])
made = shardkit.keras.image_dataset_from_shards("shards/all", image_size=8, verbose=False)
print(type(made).__name__, made.class_names, made[0][0].shape)
try:
    shardkit.keras.image_dataset_from_shards("shards/all", image_size=8, exact=True, format="tf", verbose=False)
except shardkit.MissingExtraError as exc:
    print(exc)
"""
    run = run_python("-c", HIDE.format("tensorflow") + code, cwd=tmp_path, KERAS_BACKEND="torch")
    assert run.stdout.splitlines() == [
        "Found 12 images belonging to 2 classes.",
        "['loss', 'val_loss'] (12, 2) blue/0000.jpg",
        "KerasDataset ['blue', 'red'] (12, 8, 8, 3)",
        'image_dataset_from_shards(): TensorFlow is not installed; pip install "shardkit[tensorflow]"',
    ]
