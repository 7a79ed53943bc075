"""A Dataset of batches given to Keras itself, without `to_keras()`, with each backend."""

from __future__ import annotations

import copy
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit.errors import UsageError
from shardkit.reading.numbered import KERAS

SAMPLES, BATCH, EPOCHS = 14, 4, 2
STEPS = -(-SAMPLES // BATCH)

SCRIPT = """
import json, sys
import shardkit

seen = []

def noted(batch):
    seen.append(list(batch.keys))
    return batch

prefix, epochs, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
train = shardkit.dataset(prefix, shuffle=True, seed=1, threads=1).decode(size=8).batch(size).map(noted)
test = shardkit.dataset(prefix, threads=1).decode(size=8).batch(size)
import keras  # after the datasets were made

model = keras.Sequential(
    [keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(2)]
)
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
history = model.fit(train, validation_data=test, epochs=epochs, verbose=0).history
both = model.fit(test, validation_data=test, verbose=0).history
pixels = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
predicted = pixels.predict(test, verbose=0).astype(int).tolist()
print(json.dumps({
    "backend": keras.backend.backend(), "seen": seen, "history": {name: len(each) for name, each in history.items()},
    "evaluated": len(model.evaluate(test, verbose=0)), "predicted": predicted, "both": sorted(both),
    "is": [isinstance(train, keras.utils.PyDataset), isinstance(train, shardkit.Dataset)],
}))
"""


@pytest.fixture(scope="module")
def cars(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> Path:
    root = tmp_path_factory.mktemp("bare")
    tree = draw_tree(root / "tree", {"blue": SAMPLES // 2, "red": SAMPLES - SAMPLES // 2}, size=(12, 12))
    shardkit.pack(tree, root / "cars", workers=1)
    return root / "cars"


@pytest.mark.parametrize("backend", ["tensorflow", "torch", "jax"])
def test_fit_evaluate_and_predict_read_every_sample_once(cars: Path, run_python: Any, backend: str) -> None:
    """Keras looks at some batches before it begins, which are read again then."""
    if not (find_spec("keras") and find_spec(backend)):
        pytest.skip(f"Keras on {backend} is not installed")
    arguments = (str(cars), str(EPOCHS), str(BATCH))
    run = run_python("-c", SCRIPT, *arguments, cwd=cars.parent, KERAS_BACKEND=backend, TF_CPP_MIN_LOG_LEVEL="3")
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["backend"] == backend
    everything = sorted(sample["__key__"] for sample in shardkit.dataset(cars))
    trained = found["seen"][-EPOCHS * STEPS :]
    for epoch in range(EPOCHS):
        keys = [key for batch in trained[epoch * STEPS : (epoch + 1) * STEPS] for key in batch]
        assert sorted(keys) == everything
    assert trained[:STEPS] != trained[STEPS:]  # each epoch has its own order
    assert found["history"] == {"accuracy": EPOCHS, "loss": EPOCHS, "val_accuracy": EPOCHS, "val_loss": EPOCHS}
    assert found["both"] == sorted(found["history"])
    assert found["evaluated"] == 2
    images = [image for batch in shardkit.dataset(cars).decode(size=8).batch(BATCH) for image in batch.images]
    assert found["predicted"] == [image.flatten().tolist() for image in images]
    assert found["is"] == [False, True]


def test_single_samples_are_refused_before_the_first_step(cars: Path) -> None:
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    with pytest.raises(UsageError, match=r"Keras needs batches; add \.batch\(32\)"):
        model.predict(shardkit.dataset(cars).decode(size=8))


def test_only_keras_sees_another_class(cars: Path) -> None:
    batches = shardkit.dataset(cars).decode(size=8).batch(BATCH)
    assert batches.__class__ is type(batches) is shardkit.Dataset
    assert type(copy.copy(batches)) is shardkit.Dataset
    with pytest.raises(AttributeError):
        _ = batches.num_batches  # type: ignore[attr-defined]
    pytest.importorskip("keras")
    asker = {"__name__": f"{KERAS[0]}data_adapters", "asked": batches}
    exec("found = (asked.__class__, asked.num_batches, asked[1][1].shape)", asker)
    assert asker["found"] == (shardkit.KerasDataset, STEPS, (BATCH,))
