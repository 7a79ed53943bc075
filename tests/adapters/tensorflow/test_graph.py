"""`to_tf(graph=True)`: the same samples by TensorFlow's own operations."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.errors import UsageError

tf: Any = None


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    """Not while tests are collected: see test_tensorflow.py."""
    global tf
    tf = pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def folder(draw_tree: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth photographs of 300 x 200 in four TFRecord shards, and in tar."""
    root = tmp_path_factory.mktemp("graph")
    tree = draw_tree(root / "tree", {"blue": 9, "red": 14}, size=(300, 200))
    shardkit.pack(tree, root / "all", format="tfrecord", max_count=6)
    shardkit.pack(tree, root / "tar")
    return root


@pytest.fixture
def shards(folder: Path) -> str:
    return str(folder / "all")


def both(data: shardkit.Dataset) -> tuple[list[Any], list[Any]]:
    """(our batches, those of the graph), as NumPy arrays."""
    return [tuple(batch) for batch in data], list(data.to_tf(graph=True).as_numpy_iterator())


def pairs(batches: Any) -> tuple[list[bytes], list[int]]:
    """(each image's bytes, each label) of some batches."""
    found = [(image.tobytes(), int(label)) for batch in batches for image, label in zip(*batch, strict=True)]
    return [image for image, _ in found], [label for _, label in found]


@pytest.mark.parametrize(
    "options",
    [
        {"size": 64},
        {"size": (48, 96)},
        {"size": 350},
        {"size": 64, "crop": "center"},
        {"size": (30, 50), "crop": "cover"},
        {"size": (30, 60), "crop": "center", "color": "gray"},
        {"size": 64, "interpolation": "bicubic"},
        {"size": 64, "interpolation": "lanczos"},
        {"size": 64, "interpolation": "area"},
        {"size": 64, "rescale": 1 / 255, "layout": "chw"},
        {"size": 64, "dtype": "float16", "label": "onehot"},
        {"size": 64, "label": "binary"},
    ],
    ids=str,
)
def test_in_order_the_batches_are_those_of_the_dataset_up_to_the_resizing(options: Any, shards: str) -> None:
    ours, theirs = both(shardkit.dataset(shards).decode(**options).batch(5))
    assert len(ours) == len(theirs) == 5
    for (images, labels), (images_there, labels_there) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(labels, labels_there)
        assert (images.dtype, labels.dtype) == (images_there.dtype, labels_there.dtype)
        assert images.shape == images_there.shape
        apart = np.abs(images.astype(np.float32) - images_there.astype(np.float32)) / (options.get("rescale") or 1)
        assert apart.mean() < 1.5


def test_the_nearest_pixel_of_a_whole_image_is_pillows(shards: str) -> None:
    ours, theirs = both(shardkit.dataset(shards).decode(size=(100, 150), interpolation="nearest").batch(23))
    assert np.abs(ours[0][0].astype(int) - theirs[0][0].astype(int)).mean() < 3  # of another neighbour at most


def test_shapes_types_length_and_names_are_those_of_the_hand_over(shards: str) -> None:
    data = shardkit.dataset(shards, shuffle=8)
    for made in (
        data.decode(size=8).batch(5),
        data.decode(size=(8, 9), color="gray", label="onehot", rescale=1 / 255).batch(23),
        data.decode(size=8, layout="chw", dtype="float16", label="binary").batch(5, drop_last=True),
        data.decode(size=8).batch(5).repeat(3),
        data.decode(size=8).batch(5).repeat(),
        data.take(12).decode(size=8).batch(4),
        data.skip(3).decode(size=8).batch(4).take(2),
    ):
        graph, handed = made.to_tf(graph=True), made.to_tf()
        assert graph.element_spec == handed.element_spec
        assert graph.cardinality() == handed.cardinality()
        assert graph.class_names == ["blue", "red"]
        count = len(list(graph.take(20)))
        assert count == 20 if made.reading.turns is None else graph.cardinality()


def test_each_epoch_has_every_sample_once_with_its_label_in_an_order_of_its_own(shards: str) -> None:
    in_order = shardkit.dataset(shards).decode(size=12).batch(4)
    (ours, theirs) = both(in_order)  # of which another test says that the samples are the same
    assert np.concatenate([labels for _, labels in ours]).tolist() == pairs(theirs)[1]
    made = shardkit.dataset(shards).shuffle(6, seed=3).decode(size=12).batch(4).to_tf(graph=True)
    epochs = [pairs(made.as_numpy_iterator()) for _ in range(2)]
    for images, labels in epochs:
        assert sorted(zip(images, labels, strict=True)) == sorted(zip(*pairs(theirs), strict=True))
    assert epochs[0] != epochs[1]


def test_without_shuffling_takes_and_skips_are_those_of_the_dataset(shards: str) -> None:
    ours, theirs = both(shardkit.dataset(shards).skip(2).take(13).decode(size=8).batch(3).skip(1).take(2))
    assert [labels.tolist() for _, labels in ours] == [labels.tolist() for _, labels in theirs]


def test_a_corrected_dataset_is_read_as_it_is_corrected(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("all*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    prefix = str(tmp_path / "all")
    keys = shardkit.dataset(prefix).keys.tolist()
    shardkit.relabel(prefix, {keys[0]: "red", keys[1]: "blue", keys[2]: "green"}, new_classes=True)
    shardkit.delete(prefix, [keys[3], keys[10]])
    data = shardkit.dataset(prefix)
    ours, theirs = both(data.decode(size=12).batch(4))
    assert [labels.tolist() for _, labels in ours] == [labels.tolist() for _, labels in theirs]
    assert len(theirs) == len(data.decode(size=12).batch(4).to_tf(graph=True))
    taken = both(data.skip(2).take(9).decode(size=12, label="onehot").batch(4))
    assert [labels.tolist() for _, labels in taken[0]] == [labels.tolist() for _, labels in taken[1]]
    shuffled = shardkit.dataset(prefix, shuffle=8).decode(size=12).batch(4).to_tf(graph=True)
    assert sorted(pairs(shuffled.as_numpy_iterator())[1]) == sorted(data.labels.tolist())
    first = shardkit.dataset(f"{prefix}@1").decode(size=12).batch(4)
    assert pairs(first.to_tf(graph=True).as_numpy_iterator())[1] == pairs(first)[1]


def test_random_crops_and_flips_are_others_in_each_epoch_and_the_same_for_the_same_seed(shards: str) -> None:
    data = shardkit.dataset(shards, seed=1).decode(size=16, crop="random", flip=True).batch(23)
    made = data.to_tf(graph=True)
    first, second = (next(made.as_numpy_iterator())[0] for _ in range(2))
    assert (first != second).any(axis=(1, 2, 3)).sum() > 20
    whole = next(iter(shardkit.dataset(shards).decode(size=16).batch(23)))[0]
    assert np.abs(first.mean((1, 2, 3)) - whole.mean((1, 2, 3))).mean() < 20  # they are crops of these images
    shuffled = shardkit.dataset(shards, shuffle=8, seed=1).decode(size=16, crop="random").batch(23)
    runs = [next(shuffled.to_tf(graph=True).as_numpy_iterator())[0] for _ in range(2)]
    np.testing.assert_array_equal(*runs)


def test_boxes_are_as_large_and_as_wide_as_those_of_shardkit(shards: str) -> None:
    from shardkit.adapters.tensorflow.graph import DRAWS, _random_box
    from shardkit.images.crops import random_box

    rng = np.random.default_rng(5)
    for height, width in ((200, 300), (40, 400), (400, 40), (1, 7)):
        for row in rng.random((30, DRAWS - 1)):
            theirs = _random_box(tf.constant([height, width], tf.float32), tf.constant(row, tf.float32)).numpy()
            np.testing.assert_allclose(theirs, random_box(height, width, row.tolist()), atol=1)


def test_flips_mirror_about_half_of_the_images(shards: str) -> None:
    data = shardkit.dataset(shards)
    whole = next(iter(data.decode(size=16).batch(23).to_tf(graph=True).as_numpy_iterator()))[0].astype(int)
    flipped = next(iter(data.decode(size=16, flip=True).batch(23).to_tf(graph=True).as_numpy_iterator()))[0].astype(int)
    same = (whole == flipped).all((1, 2, 3))
    mirrored = (whole[:, :, ::-1] == flipped).all((1, 2, 3))
    assert (same | mirrored).all() and 3 < mirrored.sum() < 20


def test_png_images_are_read_too(folder: Path, draw_image: Any, tmp_path: Path) -> None:
    for n, name in enumerate(("blue", "red")):
        (tmp_path / "tree" / name).mkdir(parents=True)
        (tmp_path / "tree" / name / "a.png").write_bytes(draw_image(n, size=(90, 60), format="PNG"))
        (tmp_path / "tree" / name / "b.jpg").write_bytes(draw_image(n + 5, size=(90, 60)))
    shardkit.pack(tmp_path / "tree", tmp_path / "out", format="tfrecord")
    for crop in ("resize", "center"):
        ours, theirs = both(shardkit.dataset(tmp_path / "out").decode(size=30, crop=crop).batch(4))
        assert np.abs(ours[0][0].astype(int) - theirs[0][0].astype(int)).mean() < 1.5


def test_shards_without_a_manifest_are_read_without_a_length(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("all-*.tfrecord"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    made = shardkit.dataset(tmp_path / "all-*.tfrecord").decode(size=8).batch(5).to_tf(graph=True)
    assert made.cardinality() == tf.data.UNKNOWN_CARDINALITY and made.class_names == []
    assert sum(len(labels) for _, labels in made) == 23


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda data: data.decode(size=8), r"\.decode\(size=224\)\.batch"),
        (lambda data: data.decode().batch(4), r"\.decode\(size=224\)\.batch"),
        (lambda data: data.decode(size=8).map(len).batch(4), "call Python"),
        (lambda data: data.decode(size=8).batch(4).map(len), "call Python"),
        (lambda data: data.decode(size=8).filter(len).batch(4), "call Python"),
        (lambda data: data.select("red").decode(size=8).batch(4), "views"),
        (lambda data: data.balance().decode(size=8).batch(4), "weights"),
        (lambda data: shardkit.concat([data, data]).decode(size=8).batch(4), "concat"),
        (lambda data: data.decode(size=8).batch(4).epoch_size(2), r"take\(\)"),
        (lambda data: data.decode(size=8, exact=True).batch(4), "exact=True"),
        (lambda data: data.decode(views={"two": (2, 8)}).batch(4), r"views=….* omit graph=True"),
        (lambda data: data.decode(size=8, orientation=True).batch(4), "orientation"),
        (lambda data: data.decode(size=8, on_error="skip").batch(4), "on_error"),
    ],
)
def test_what_tensorflow_can_not_do_is_refused(make: Any, match: str, shards: str) -> None:
    with pytest.raises(UsageError, match=match):
        make(shardkit.dataset(shards)).to_tf(graph=True)


def test_other_shards_name_the_command_that_makes_tfrecord(folder: Path) -> None:
    for source, command in (("tar", "shardkit.convert"), ("tree", "shardkit.pack")):
        with pytest.raises(UsageError, match=rf'{command}\(.*format="tfrecord"'):
            shardkit.dataset(folder / source).decode(size=8).batch(4).to_tf(graph=True)
    with pytest.raises(UsageError, match="rank 1 of 2"):
        shardkit.dataset(folder / "all", rank=1, world_size=2).decode(size=8).batch(4).to_tf(graph=True)


def test_a_damaged_shard_is_an_error_of_tensorflow(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("all-*.tfrecord"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 255
        (tmp_path / path.name).write_bytes(data)
    with pytest.raises(tf.errors.DataLossError):
        list(shardkit.dataset(tmp_path / "all-*.tfrecord").decode(size=8).batch(5).to_tf(graph=True))


def test_a_strategy_deals_it_by_file_and_fits_a_model(shards: str, run_python: Any, tmp_path: Path) -> None:
    """Two workers' parts are made by the rewrite that a multi-worker strategy applies; two replicas are real."""
    code = """
import sys
import tensorflow as tf, keras, shardkit
from tensorflow.python.data.experimental.ops.distribute import _AutoShardDataset
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
data = shardkit.dataset(sys.argv[1], shuffle=6).decode(size=8, crop="random", flip=True).batch(4)
made = data.to_tf(graph=True)
seen = [
    [len(part) for part in strategy.experimental_local_results(labels)]
    for _, labels in strategy.experimental_distribute_dataset(made)
]
print(seen)
with strategy.scope():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
print(len(model.fit(made, epochs=2, verbose=0).history["loss"]))
whole = shardkit.dataset(sys.argv[1], shuffle=6).decode(size=8).batch(1)
means = sorted(float(tf.reduce_mean(tf.cast(images, tf.float32))) for images, _ in whole.to_tf(graph=True))
parts = [_AutoShardDataset(whole.to_tf(graph=True), 2, number) for number in range(2)]
dealt = [[float(tf.reduce_mean(tf.cast(images, tf.float32))) for images, _ in part] for part in parts]
print(sorted(map(len, dealt)), sorted(sum(dealt, [])) == means)
"""
    run = run_python("-c", code, shards, cwd=tmp_path, TF_CPP_MIN_LOG_LEVEL="3")
    assert run.stdout.splitlines() == ["[[2, 2], [2, 2], [2, 2], [2, 2], [2, 2], [2, 1]]", "2", "[11, 12] True"]


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("packing", ["gzip", "zlib"])
@pytest.mark.parametrize("name", ["z-{}.tfrecord", "z-{}.tfrecord.packed", "z-{}-of-00004"])
def test_compressed_shards_are_read_as_what_they_are(
    folder: Path, tmp_path: Path, name: str, packing: str, indexed: bool
) -> None:
    for number, shard in enumerate(sorted(folder.glob("all-*.tfrecord"))):
        pack = gzip.compress if packing == "gzip" else zlib.compress
        ending = name.format(f"{number:05}").replace("packed", {"gzip": "gz"}.get(packing, packing))
        (tmp_path / ending).write_bytes(pack(shard.read_bytes()))
    source = str(tmp_path / "z-*")
    if indexed:
        shardkit.index_shards(source)
        source = str(tmp_path / "z.json")
    ours, theirs = both(shardkit.dataset(source).decode(size=64, interpolation="nearest").batch(23))
    assert theirs[0][1].tolist() == ours[0][1].tolist()


def test_shards_that_are_compressed_in_two_ways_are_refused(folder: Path, tmp_path: Path) -> None:
    first, second, *_ = sorted(folder.glob("all-*.tfrecord"))
    (tmp_path / "z-0.tfrecord").write_bytes(gzip.compress(first.read_bytes()))
    (tmp_path / "z-1.tfrecord").write_bytes(zlib.compress(second.read_bytes()))
    with pytest.raises(UsageError, match=r"compressed in more than one way \(GZIP, ZLIB\)"):
        shardkit.dataset(str(tmp_path / "z-*")).decode(size=64).batch(23).to_tf(graph=True)


@pytest.mark.parametrize("kind", ["onehot", "binary"])
def test_a_label_that_is_no_class_stops_the_graph(kind: Any) -> None:
    from shardkit.adapters.tensorflow.graph import _Decoder
    from shardkit.images.decoder import DecodeOptions

    decoder = _Decoder(DecodeOptions(size=8, label=kind), (8, 8), "image/encoded", "image/class/label", 2)

    def encoded(label: int) -> list[float] | float:
        return decoder._encoded(tf.constant(label, tf.int64)).numpy().tolist()  # type: ignore[no-any-return]

    assert [encoded(label) for label in (0, 1)] == ([[1, 0], [0, 1]] if kind == "onehot" else [0, 1])
    for label in (-1, 2):
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected a label from 0 to 1, but found"):
            encoded(label)
