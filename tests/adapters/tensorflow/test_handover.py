"""tf.data: shapes, cardinality, epochs, strategies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.errors import UsageError

tf: Any = None


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    """Not while tests are collected: some of them fork, and a process that has loaded TensorFlow should not."""
    global tf
    tf = pytest.importorskip("tensorflow")


@pytest.fixture
def shards(tree: Path, tmp_path: Path) -> str:
    shardkit.pack(tree, tmp_path / "shards" / "all")
    return str(tmp_path / "shards" / "all")


def spec(made: Any) -> list[tuple[tuple[int | None, ...], str]]:
    return [(tuple(part.shape), part.dtype.name) for part in tf.nest.flatten(made.element_spec)]


def test_shapes_types_and_length_are_known_before_the_first_batch(shards: str) -> None:
    data = shardkit.dataset(shards)
    open_end = data.decode(size=8).batch(5).to_tf()
    assert spec(open_end) == [((None, 8, 8, 3), "uint8"), ((None,), "int64")]
    assert open_end.cardinality() == 3
    even = data.decode(size=(8, 9), color="gray", label="onehot", rescale=1 / 255).batch(6).to_tf()
    assert spec(even) == [((6, 8, 9, 1), "float32"), ((6, 2), "float32")]
    dropped = data.decode(size=8, layout="chw", dtype="float16", label="binary").batch(5, drop_last=True).to_tf()
    assert spec(dropped) == [((5, 3, 8, 8), "float16"), ((5,), "float32")]
    assert dropped.cardinality() == 2
    assert open_end.class_names == ["blue", "red"]


def test_the_batches_are_those_of_the_dataset_in_each_epoch(shards: str) -> None:
    data = shardkit.dataset(shards, shuffle=6, seed=4).decode(size=8, crop="random").batch(5)
    made = data.to_tf()
    again = list(shardkit.dataset(shards, shuffle=6, seed=4).decode(size=8, crop="random").batch(5).repeat(2))
    given = [item for _ in range(2) for item in made.as_numpy_iterator()]
    for (images, labels), batch in zip(given, again, strict=True):
        np.testing.assert_array_equal(images, batch.images)
        np.testing.assert_array_equal(labels, batch.labels)
    assert any((one[0] != other[0]).any() for one, other in zip(given[:3], given[3:], strict=True))


def test_what_a_map_makes_has_its_shapes_too(shards: str) -> None:
    data = shardkit.dataset(shards).decode(size=8).batch(6)
    made = data.map(lambda batch: {"image": batch.images[:, :4], "y": batch.labels.astype(np.float32)}).to_tf()
    assert made.element_spec == {"image": tf.TensorSpec((6, 4, 8, 3), tf.uint8), "y": tf.TensorSpec((6,), tf.float32)}
    assert next(iter(made))["image"].shape == (6, 4, 8, 3)


def test_no_thread_tunes_it_which_would_be_waited_for_at_the_end_of_each_epoch(shards: str) -> None:
    made = shardkit.dataset(shards).decode(size=8).batch(6).to_tf()
    assert made.options().autotune.enabled is False
    tuned = tf.data.Options()
    tuned.autotune.enabled = True
    assert made.with_options(tuned).options().autotune.enabled is True


def test_repeat_without_end_is_known_as_such(shards: str) -> None:
    made = shardkit.dataset(shards).decode(size=8).batch(6).repeat().to_tf()
    assert made.cardinality() == tf.data.INFINITE_CARDINALITY
    assert len(list(made.take(5))) == 5


def test_a_dataset_with_a_filter_has_an_unknown_length(shards: str) -> None:
    made = shardkit.dataset(shards).decode(size=8).filter(lambda sample: sample["cls"] == 1).batch(5).to_tf()
    assert made.cardinality() == tf.data.UNKNOWN_CARDINALITY
    assert sum(len(labels) for _, labels in made) == 7


@pytest.mark.parametrize("make", [lambda data: data, lambda data: data.decode(size=8), lambda data: data.batch(4)])
def test_what_is_no_batch_of_images_is_refused(make: Any, shards: str) -> None:
    with pytest.raises(UsageError, match=r"\.decode\(size=224\)"):
        make(shardkit.dataset(shards)).to_tf()


def test_an_error_of_the_data_reaches_tensorflow_with_its_text(shards: str) -> None:
    def fail(_: Any) -> Any:
        raise ValueError("this one is bad")

    made = shardkit.dataset(shards).decode(size=8).batch(5)
    signature = made.to_tf().element_spec
    from shardkit.adapters.tensorflow.handover import handed_over

    with pytest.raises(tf.errors.InvalidArgumentError, match="this one is bad"):
        list(handed_over(made, signature, fail))


def test_fit_under_a_mirrored_strategy_sees_every_batch_split_over_the_replicas(
    shards: str, run_python: Any, tmp_path: Path
) -> None:
    """In a process of its own: the number of devices can be set before TensorFlow begins only."""
    code = """
import sys
import tensorflow as tf, keras, shardkit
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
data = shardkit.dataset(sys.argv[1], shuffle=6).decode(size=8).batch(4)
seen = []
for parts in strategy.experimental_distribute_dataset(data.to_tf()):
    seen.append([len(part) for part in strategy.experimental_local_results(parts[1])])
print(seen)
with strategy.scope():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
for made in (data.to_tf(), data.to_keras()):
    print(len(model.fit(made, epochs=2, verbose=0).history["loss"]))
"""
    run = run_python("-c", code, shards, cwd=tmp_path, TF_CPP_MIN_LOG_LEVEL="3")
    assert run.stdout.splitlines() == ["[[2, 2], [2, 2], [2, 2]]", "2", "2"]


def read_by_tensorflow(name: Path) -> dict[bytes, dict[str, Any]]:
    """key -> features of every record, as TensorFlow's own reader and the feature spec give them."""
    spec = shardkit.tensorflow.feature_spec(shardkit.dataset(name))
    paths = sorted(str(path) for path in name.parent.glob(f"{name.name}-*.tfrecord"))
    records = tf.data.TFRecordDataset(paths).map(lambda record: tf.io.parse_single_example(record, spec))
    return {found["image/key"]: found for found in records.as_numpy_iterator()}


def test_tensorflow_reads_the_shards_with_the_feature_spec(tree: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / "all", format="tfrecord", max_count=5)
    found = read_by_tensorflow(tmp_path / "all")
    data = shardkit.dataset(tmp_path / "all")
    assert len(found) == len(data) == 12
    for sample in data:
        record = found[sample["__key__"].encode()]
        assert record["image/encoded"] == sample["jpg"]
        assert record["image/class/label"] == sample["cls"]
        assert record["image/class/text"].decode() == data.classes[sample["cls"]]
        assert record["image/filename"].decode() == f"{sample['__key__']}.jpg"
        assert record["image/format"] == b"jpeg"


def test_the_feature_spec_names_other_fields(tree: Path, tmp_path: Path) -> None:
    for path in tree.rglob("*.jpg"):
        path.with_suffix(".txt").write_text(path.stem, "utf-8")
    shardkit.pack(tree, tmp_path / "all", format="tfrecord", fields=["jpg", "txt"])
    found = read_by_tensorflow(tmp_path / "all")
    assert len(found) == 12
    assert all(key.endswith(b"/" + one["field/txt"]) for key, one in found.items())


def test_shards_of_another_kind_have_no_feature_spec(shards: str) -> None:
    with pytest.raises(UsageError, match='format="tfrecord"'):
        shardkit.tensorflow.feature_spec(shardkit.dataset(shards))


def test_the_rest_of_an_epoch_is_handed_over_after_a_state_is_loaded(shards: str) -> None:
    def fresh() -> Any:
        return shardkit.dataset(shards, shuffle=6, seed=4).decode(size=8).batch(5)

    data, labels = fresh(), []
    for number, (_, batch) in enumerate(data):
        if number == 0:
            state = data.state_dict()
        else:
            labels.append(batch.tolist())
    resumed = fresh()
    resumed.load_state_dict(state)
    made = resumed.to_tf()
    assert [batch.numpy().tolist() for _, batch in made] == labels
    assert len(list(made)) == len(fresh()), "the next epoch is a whole one"


def test_a_state_that_is_loaded_too_late_is_refused(shards: str) -> None:
    data = shardkit.dataset(shards, shuffle=6).decode(size=8).batch(5)
    made = data.to_tf()
    next(iter(data))
    data.load_state_dict(data.state_dict())
    with pytest.raises(Exception, match=r"load the state first, and call to_tf\(\) after it"):
        list(made)
