"""Samples without labels, as for `predict`: every adapter hands over images alone, never a label that means "none"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit.errors import DatasetError, UsageError

SAMPLES, BATCH = 6, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any, draw_image: Any) -> Path:
    """A flat folder of images, packed without labels in both formats, and a few images with labels."""
    root = tmp_path_factory.mktemp("unlabelled")
    (root / "flat").mkdir()
    for n in range(SAMPLES):
        (root / "flat" / f"{n}.jpg").write_bytes(draw_image(n, size=(12, 12)))
    for form in ("tar", "tfrecord"):
        without = shardkit.LabelOptions(no_labels=True)
        shardkit.pack(root / "flat", root / form, format=form, labels=without, workers=1)
    shardkit.pack(draw_tree(root / "tree", {"blue": 2, "red": 2}, size=(12, 12)), root / "labelled", workers=1)
    return root


def batches(folder: Path, form: str = "tar") -> shardkit.Dataset:
    return shardkit.dataset(folder / form).decode(size=8).batch(BATCH)


@pytest.fixture(params=["tar", "tfrecord"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_batch_has_no_labels(folder: Path, form: str) -> None:
    """With a map() before batch() samples are decoded one by one, and otherwise straight into the batch."""
    one_by_one = shardkit.dataset(folder / form).decode(size=8).map(lambda sample: sample).batch(BATCH)
    without_manifest = shardkit.dataset([str(path) for path in folder.glob(f"{form}-*")]).decode(size=8).batch(BATCH)
    for data in (batches(folder, form), one_by_one, without_manifest):
        assert [(batch.images.shape, batch.labels) for batch in data] == 2 * [((BATCH, 8, 8, 3), None)]


@pytest.mark.parametrize("how", ["straight", "one by one"])
def test_a_batch_of_samples_with_and_without_labels_is_refused(folder: Path, how: str) -> None:
    both = shardkit.concat([shardkit.dataset(folder / "labelled"), shardkit.dataset(folder / "tar")]).decode(size=8)
    data = (both if how == "straight" else both.map(lambda sample: sample)).batch(BATCH)
    with pytest.raises(DatasetError, match=r"a batch needs a label .* for each sample, but '.*' has none"):
        list(data)


def test_torch_gets_images_alone(folder: Path, form: str) -> None:
    torch = pytest.importorskip("torch")
    for images, labels in batches(folder, form).to_torch().loader():
        assert (images.shape, labels) == ((BATCH, 8, 8, 3), None)
    for named in batches(folder, form).to_torch(names=("pixel_values", "labels")):
        assert list(named) == ["pixel_values"]
    numbered = shardkit.dataset(folder / form).decode(size=8).to_torch(map_style=True)
    [images] = torch.utils.data.DataLoader(numbered, batch_size=SAMPLES)
    assert images.shape == (SAMPLES, 8, 8, 3)


def test_tensorflow_gets_images_alone(folder: Path, form: str) -> None:
    tf = pytest.importorskip("tensorflow")
    for graph in (False, True)[: 1 + (form == "tfrecord")]:
        made = batches(folder, form).to_tf(graph=graph)
        assert made.element_spec == tf.TensorSpec((BATCH, 8, 8, 3), tf.uint8)
        assert [images.shape for images in made.as_numpy_iterator()] == 2 * [(BATCH, 8, 8, 3)]


def test_keras_predicts_and_does_not_train(folder: Path, form: str) -> None:
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    made = batches(folder, form).to_keras()
    assert [len(made[n]) for n in range(2)] == [1, 1]
    assert model.predict(made, verbose=0).shape == (SAMPLES, 2)
    with pytest.raises((ValueError, AttributeError)):
        model.fit(made, verbose=0)


def test_keras_own_loaders_need_to_be_told(folder: Path) -> None:
    pytest.importorskip("keras")
    from shardkit.keras import flow_from_shards, image_dataset_from_shards

    for mode in ("categorical", "sparse", "binary"):
        with pytest.raises(UsageError, match=f'class_mode: "{mode}" needs labels, and the samples have none; use None'):
            flow_from_shards(folder / "tar", class_mode=mode, verbose=False)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="labels: the samples have no labels; use labels=None"):
        image_dataset_from_shards(folder / "tar", format="keras", verbose=False)
    images = image_dataset_from_shards(folder / "tar", labels=None, image_size=(8, 8), format="keras", verbose=False)
    assert images[0].shape == (SAMPLES, 8, 8, 3)
    assert flow_from_shards(folder / "tar", class_mode=None, target_size=(8, 8), verbose=False)[0].shape[0] == SAMPLES


def test_sample_weights_need_labels(folder: Path) -> None:
    pytest.importorskip("keras")
    with pytest.raises(DatasetError, match="the samples have no labels to be weighed"):
        batches(folder).to_keras(sample_weight=[1.0] * SAMPLES)[0]
    pytest.importorskip("tensorflow")
    with pytest.raises(UsageError, match="the samples have no labels to be weighed"):
        batches(folder, "tfrecord").to_tf(graph=True, sample_weight=[1.0] * SAMPLES)
