"""Packages that are not there, and Keras on another backend: each in an interpreter of its own."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import shardkit

PUBLIC = {
    "keras": ["ImageDataGenerator", "KerasDataset", "flow_from_shards", "image_dataset_from_shards", "to_keras"],
    "lightning": ["DataModule"],
    "tensorflow": ["element_spec", "feature_spec", "to_tf"],
}

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


@pytest.mark.parametrize("name", list(PUBLIC))
def test_a_module_for_a_framework_is_imported_in_every_way(name: str, run_python: Any, tmp_path: Path) -> None:
    pytest.importorskip(name)
    code = f"""
import sys, shardkit
print({name!r} in sys.modules, {name!r} in dir(shardkit))
lazy = shardkit.{name}
import shardkit.{name} as whole
from shardkit.{name} import {", ".join(PUBLIC[name])}
print(lazy is whole, whole.__name__, {name!r} in sys.modules, sorted(whole.__all__))
"""
    run = run_python("-c", code, cwd=tmp_path, TF_CPP_MIN_LOG_LEVEL="3")
    assert run.stdout.splitlines() == ["False True", f"True shardkit.{name} True {PUBLIC[name]}"]


@pytest.mark.parametrize("name", list(PUBLIC))
def test_a_module_for_a_framework_that_is_missing_says_so(name: str, run_python: Any, tmp_path: Path) -> None:
    code = f"try:\n    import shardkit.{name}\nexcept shardkit.MissingExtraError as exc:\n    print(exc)"
    run = run_python("-c", HIDE.format(name) + code, cwd=tmp_path)
    assert f'pip install "shardkit[{name}]"' in run.stdout


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_keras_on_another_backend_needs_no_tensorflow(
    backend: str, tree: Path, run_python: Any, tmp_path: Path
) -> None:
    pytest.importorskip("keras")
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    shardkit.pack(tree, tmp_path / "shards" / "all")
    code = """
import keras, numpy as np
assert keras.backend.backend() == "BACKEND"
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
    code = HIDE.format("tensorflow") + code.replace("BACKEND", backend)
    run = run_python("-c", code, cwd=tmp_path, KERAS_BACKEND=backend)
    assert run.stdout.splitlines() == [
        "Found 12 images belonging to 2 classes.",
        "['loss', 'val_loss'] (12, 2) blue/0000.jpg",
        "KerasDataset ['blue', 'red'] (12, 8, 8, 3)",
        'image_dataset_from_shards(): TensorFlow is not installed; pip install "shardkit[tensorflow]"',
    ]


def test_a_backend_of_keras_without_an_extra_is_named_by_its_package(run_python: Any, tmp_path: Path) -> None:
    pytest.importorskip("keras")
    code = "try:\n    import shardkit.keras\nexcept shardkit.MissingExtraError as exc:\n    print(exc)"
    run = run_python("-c", HIDE.format("jax") + code, cwd=tmp_path, KERAS_BACKEND="jax")
    assert "since jax is not installed; pip install jax, or choose another backend" in run.stdout
