"""Further columns as other frameworks get them: a dict of images and columns in the place of the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import shardkit
from shardkit.errors import DatasetError, UsageError

SAMPLES = 24


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> Path:
    """24 photos with columns; the number tells the others."""
    folder = tmp_path_factory.mktemp("photos")
    draw_tree(folder / "tree", {"blue": SAMPLES // 2, "red": SAMPLES // 2})
    paths = sorted(map(str, (folder / "tree").rglob("*.*")))
    numbers = list(range(SAMPLES))
    table = pa.table({
        "path": paths, "label": [Path(path).parent.name for path in paths], "number": numbers,
        "box": [[n, n / 2] for n in numbers], "city": [f"Zürich {n}" if n % 6 else None for n in numbers],
        "day": pa.array(numbers, pa.date32()), "weight": [n + 1.0 for n in numbers],
    })  # fmt: skip
    root = shardkit.TableColumns(root="/")
    shardkit.pack(table, folder / "out" / "train", max_count=7, workers=1, columns=root, format="tfrecord")
    return folder / "out" / "train"


def data_of(prefix: Path, columns: Any, **options: Any) -> Any:
    return shardkit.dataset(prefix, shuffle=8).decode(size=8, columns=columns, **options).batch(4)


def test_tensorflow_gets_a_dict_with_known_shapes(prefix: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    made = data_of(prefix, {"number": None, "box": None, "city": "nowhere"}).to_tf()
    inputs, labels = made.element_spec
    assert labels == tf.TensorSpec((4,), tf.int64)
    assert inputs == {
        "images": tf.TensorSpec((4, 8, 8, 3), tf.uint8), "number": tf.TensorSpec((4,), tf.int64),
        "box": tf.TensorSpec((4, 2), tf.float64), "city": tf.TensorSpec((4,), tf.string),
    }  # fmt: skip
    seen = []
    for given, _ in made.as_numpy_iterator():
        numbers = given["number"].tolist()
        assert given["box"].tolist() == [[n, n / 2] for n in numbers]
        assert given["city"].tolist() == [f"Zürich {n}".encode() if n % 6 else b"nowhere" for n in numbers]
        seen += numbers
    assert sorted(seen) == list(range(SAMPLES))


def test_tensorflow_gets_views_and_weights_too(prefix: Path) -> None:
    pytest.importorskip("tensorflow")
    views: Any = {"global": (2, 8), "local": (1, 4)}
    data = shardkit.dataset(prefix).decode(views=views, columns=["number"]).batch(4)
    inputs, _ = data.to_tf().element_spec
    assert sorted(inputs) == ["global", "local", "number"]
    for given, _, weights in data_of(prefix, ["number"]).to_tf(sample_weight="weight").as_numpy_iterator():
        assert weights.tolist() == (given["number"] + 1).tolist()


def test_a_text_without_a_value_is_told(prefix: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    with pytest.raises((DatasetError, tf.errors.OpError), match="has no value in the column 'city'"):
        list(data_of(prefix, ["city"]).to_tf())


def test_dates_are_refused_with_a_way_out(prefix: Path) -> None:
    pytest.importorskip("tensorflow")
    data = data_of(prefix, ["day", "number"])
    with pytest.raises(UsageError, match=r"to_tf\(\): the column 'day' is date, .*make numbers of it with map\(\)"):
        data.to_tf()

    def numbered(batch: shardkit.Batch) -> tuple[Any, Any]:
        return {"images": batch.images, "day": batch["day"].astype(np.int64)}, batch.labels

    inputs, _ = next(iter(data.map(numbered).to_tf().as_numpy_iterator()))
    assert inputs["day"].dtype == np.int64


def test_a_graph_refuses_them(prefix: Path) -> None:
    pytest.importorskip("tensorflow")
    with pytest.raises(UsageError, match=r"to_tf\(graph=True\): decode\(columns=…\) reads the index"):
        data_of(prefix, ["number"]).to_tf(graph=True)


def test_keras_fits_a_model_with_two_inputs(prefix: Path) -> None:
    keras = pytest.importorskip("keras")
    image, box = keras.Input((8, 8, 3), name="images"), keras.Input((2,), name="box")
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(image), box])
    model = keras.Model({"images": image, "box": box}, keras.layers.Dense(2, "softmax")(joined))
    model.compile("sgd", "sparse_categorical_crossentropy")
    for made in (data_of(prefix, ["box"], rescale=1 / 255).to_keras(), data_of(prefix, ["box"]).to_tf()):
        assert len(model.fit(made, verbose=0, shuffle=False).history["loss"]) == 1
    weighed = data_of(prefix, ["box"]).to_keras(sample_weight="weight")
    inputs, _, weights = weighed[0]
    assert sorted(inputs) == ["box", "images"]
    assert weights.tolist() == (inputs["box"][:, 0] + 1).tolist()
    with pytest.raises(UsageError, match=r"to_keras\(\): the column 'city' is string, and models are not given text"):
        data_of(prefix, ["city"]).to_keras()


def test_webdataset_gets_them_as_fields(prefix: Path) -> None:
    pytest.importorskip("webdataset")
    data = shardkit.dataset(prefix).decode(size=8, columns=["number", "box"])
    for sample in data.to_webdataset():
        assert sample["box"].tolist() == [sample["number"], sample["number"] / 2]
