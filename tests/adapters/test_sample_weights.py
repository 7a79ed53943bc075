"""Sample weights as the third member of a batch, for Keras and TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.adapters.sample_weights import weighed
from shardkit.errors import DatasetError, UsageError

WEIGHTS = np.arange(12) / 4 + 0.25


@pytest.fixture
def listed(tree: Path, tmp_path: Path) -> Path:
    """12 samples with the weights WEIGHTS in the order of their paths, and a text, in the field json."""
    paths = [str(path) for path in sorted(tree.rglob("*.jpg"))]
    labels = [Path(path).parent.name for path in paths]
    shardkit.pack({"path": paths, "label": labels, "weight": WEIGHTS, "name": labels}, tmp_path / "x/all", workers=1)
    return tmp_path / "x/all"


def weights_by_key(listed: Path) -> dict[str, float]:
    keys = sorted(shardkit.dataset(listed).keys)
    return dict(zip(keys, WEIGHTS.tolist(), strict=True))


def batches(listed: Path, **options: Any) -> shardkit.Dataset:
    return shardkit.dataset(listed, **options).decode(size=8).batch(5)


def as_array(listed: Path) -> Any:
    by_key = weights_by_key(listed)
    return [by_key[key] for key in shardkit.dataset(listed).keys]


FORMS: dict[str, Callable[[Path], Any]] = {
    "a JSON value": lambda listed: "weight",
    "a list": as_array,
    "an array": lambda listed: np.array(as_array(listed)),
    "an array of float32": lambda listed: np.array(as_array(listed), np.float32),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("shuffle", [False, 12])
def test_each_sample_gets_its_weight(form: Callable[[Path], Any], shuffle: int, listed: Path) -> None:
    made = weighed(batches(listed, shuffle=shuffle), form(listed))
    plain = batches(listed, shuffle=shuffle)
    by_key = weights_by_key(listed)
    for (images, labels, weights), batch in zip(made, plain, strict=True):
        assert weights.dtype == np.float32
        assert weights.tolist() == [by_key[key] for key in batch.keys]
        assert np.array_equal(images, batch.images) and np.array_equal(labels, batch.labels)


def test_views_take_weights_in_their_own_order(listed: Path) -> None:
    by_key = weights_by_key(listed)
    view = shardkit.dataset(listed)[[7, 3, 9, 1, 0, 2]].take(5)
    given = [by_key[key] for key in view.keys]
    assert len(given) == 5
    (found,) = [weights.tolist() for _, _, weights in weighed(view.decode(size=8).batch(5), given)]
    assert found == given


def test_what_repeats_samples_keeps_their_weights(listed: Path) -> None:
    by_key = weights_by_key(listed)
    data = shardkit.dataset(listed, shuffle=12)
    for made in (data.balance().decode(size=8).batch(4), data.decode(size=8).batch(4).repeat(2)):
        keys = [key for batch in made for key in batch.keys]
        given = [by_key[key] for key in shardkit.dataset(listed).keys]
        found = np.concatenate([weights for _, _, weights in weighed(made, given)])
        assert found.tolist() == [by_key[key] for key in keys]


def test_no_weights_leave_the_batches_as_they_are(listed: Path) -> None:
    made = batches(listed)
    assert weighed(made, None) is made


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0] * 11, r"it has the shape \(11,\), and there are 12 samples"),
        (np.ones((12, 2)), r"it has the shape \(12, 2\)"),
        ([1.0] * 11 + [float("nan")], "1 of 12 weights are not finite, such as that of '.*/(blue|red)/"),
        ([1.0, float("inf")] * 6, "6 of 12 weights are not finite"),
        ([1e300] * 12, "12 of 12 weights are not finite"),
        (["a"] * 12, "an array of <U1 does not hold numbers"),
        (np.array([object()] * 12), "an array of object does not hold numbers"),
        ([None] * 12, "an array of object does not hold numbers"),
    ],
)
def test_what_is_not_one_number_for_each_sample_is_refused(weights: Any, message: str, listed: Path) -> None:
    with pytest.raises(UsageError, match=f"sample_weight: {message}"):
        weighed(batches(listed), weights)


def test_different_weights_of_one_key_are_refused(listed: Path) -> None:
    view = shardkit.dataset(listed)[[0, 0]].decode(size=8).batch(2)
    assert [weights.tolist() for _, _, weights in weighed(view, [3, 3])] == [[3.0, 3.0]]
    with pytest.raises(UsageError, match=r"several samples have the key '.*', and their weights differ"):
        weighed(view, [1, 2])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other", "sample '.*/(blue|red)/.*' has no value 'other' in a field json"),
        ("name", "'name' of sample '.*/(blue|red)/.*' is '(blue|red)', which is not a finite number"),
    ],
)
def test_a_sample_without_a_weight_is_named(name: str, message: str, listed: Path) -> None:
    with pytest.raises(DatasetError, match=message):
        list(weighed(batches(listed), name))


def test_samples_without_json_and_without_labels_are_refused(tree: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / "a/x", workers=1)
    with pytest.raises(DatasetError, match="no value 'weight' in a field json"):
        list(weighed(batches(tmp_path / "a/x"), "weight"))
    shardkit.pack(tree, tmp_path / "b/x", workers=1, labels=shardkit.LabelOptions(no_labels=True))
    with pytest.raises(DatasetError, match="the samples have no labels to be weighed"):
        list(weighed(shardkit.dataset(tmp_path / "b/x").decode(size=8).map(dict).batch(5), [1.0] * 12))


def test_weights_need_batches_that_map_has_left_alone(listed: Path) -> None:
    with pytest.raises(UsageError, match="weights are given to batches"):
        weighed(shardkit.dataset(listed).decode(size=8), "weight")
    with pytest.raises(DatasetError, match=r"map\(\) after batch\(\) returns a tuple"):
        list(weighed(batches(listed).map(tuple), "weight"))


def test_a_mixture_takes_the_name_of_a_value_only(listed: Path) -> None:
    mixed = shardkit.mix([shardkit.dataset(listed), shardkit.dataset(listed)], [0.5, 0.5]).decode(size=8).batch(4)
    with pytest.raises(UsageError, match="a mixture has no order of its samples"):
        weighed(mixed, [1.0] * 24)
    images, _, weights = next(iter(weighed(mixed, "weight")))
    assert len(images) == len(weights) == 4


def test_keras_weighs_the_loss_with_them(listed: Path) -> None:
    keras = pytest.importorskip("keras")
    made = batches(listed).to_keras(sample_weight="weight")
    assert [len(batch) for batch in made] == [3, 3, 3]
    assert sorted(made.labels.tolist()) == [0] * 5 + [1] * 7
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    nothing = batches(listed).to_keras(sample_weight=np.zeros(12))
    assert model.evaluate(nothing, verbose=0) == 0
    before = [weight.copy() for weight in model.get_weights()]
    model.fit(nothing, epochs=1, verbose=0)
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))
    model.fit(made, epochs=1, verbose=0)
    assert not all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))


def test_tensorflow_gets_them_with_their_type(listed: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    made = batches(listed).to_tf(sample_weight="weight")
    assert made.element_spec[2] == tf.TensorSpec((None,), tf.float32)
    found = np.concatenate([weights.numpy() for _, _, weights in made])
    assert found.tolist() == as_array(listed)


def test_a_graph_of_tensorflow_looks_an_array_of_them_up_by_key(listed: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    shardkit.convert(listed, tmp_path / "records", format="tfrecord", workers=1)
    data = shardkit.dataset(tmp_path / "records", shuffle=4, seed=1)
    given = data.labels * 100 + np.arange(12)
    data = data.decode(size=8).batch(5)
    made = data.to_tf(graph=True, sample_weight=given)
    assert made.element_spec[2].dtype == "float32" and made.cardinality() == 3
    labels, weights = (np.concatenate(part) for part in list(zip(*made.as_numpy_iterator(), strict=True))[1:])
    assert (weights // 100).tolist() == labels.tolist() and sorted(weights) == sorted(given)
    with pytest.raises(UsageError, match=r"sample_weight: 'weight' names a JSON value, .*; give an array in the order"):
        data.to_tf(graph=True, sample_weight="weight")
    with pytest.raises(UsageError, match="sample_weight: it has the shape"):
        data.to_tf(graph=True, sample_weight=[1, 2])
