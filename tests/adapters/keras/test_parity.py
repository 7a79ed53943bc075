"""flow_from_shards and image_dataset_from_shards against Keras on the tree that was packed."""

from __future__ import annotations

import inspect
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.adapters.keras.arguments import two_sides
from shardkit.errors import UsageError

keras: Any = None
tf: Any = None


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    """Not while tests are collected: some of them fork, and a process that has loaded TensorFlow should not."""
    global keras, tf
    tf = pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, draw_image: Any) -> tuple[str, str]:
    """(a tree of three classes with folders in folders, photographs of several sizes and a few PNGs; its shards)."""
    root = tmp_path_factory.mktemp("parity")
    names = {
        "a": ["10.jpg", "2.jpg", "B.JPG", "a.jpeg", "é.jpg"], "b": ["1.jpg", "2.jpg", "z.png"],
        "b/x": ["0.jpg", "1.jpg"], "b/x-y": ["0.jpg"], "b/x/deep": ["0.jpg"], "c-d": ["l.png", "p.png", "t.jpg"],
    }  # fmt: skip
    seed = 0
    for folder, files in names.items():
        (root / "tree" / folder).mkdir(parents=True, exist_ok=True)
        for name in files:
            seed += 1
            kind = "PNG" if name.endswith("png") else "JPEG"
            mode = {"l.png": "L", "p.png": "RGBA"}.get(name, "RGB")
            data = draw_image(seed, size=(60 + seed, 90 - seed), format=kind, mode=mode)
            (root / "tree" / folder / name).write_bytes(data)
    shardkit.pack(root / "tree", root / "shards" / "all")
    return str(root / "tree"), str(root / "shards" / "all")


def generator(**options: Any) -> Any:
    """Keras' ImageDataGenerator, at the place where TensorFlow offers it."""
    return tf.keras.preprocessing.image.ImageDataGenerator(**options)


def in_order(flow: Any) -> list[Any]:
    return [flow[number] for number in range(len(flow))]


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal to the bit: shapes, types and values."""
    assert type(ours) is type(theirs)
    for one, other in zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]:
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


FLOWS: list[dict[str, Any]] = [
    {},
    {"class_mode": "sparse", "target_size": (40, 50), "interpolation": "bilinear"},
    {"class_mode": "binary", "classes": ["c-d", "a"], "batch_size": 3, "interpolation": "box"},
    {"class_mode": "input", "color_mode": "grayscale", "interpolation": "bicubic", "target_size": (30, 20)},
    {"class_mode": None, "color_mode": "rgba", "interpolation": "hamming", "target_size": (30, 20)},
    {"class_mode": "sparse", "keep_aspect_ratio": True, "interpolation": "lanczos", "target_size": (30, 50)},
    {"class_mode": "sparse", "data_format": "channels_first", "target_size": (30, 20)},
    {"class_mode": "sparse", "follow_links": True, "target_size": (30, 20)},
]


@pytest.mark.parametrize("options", FLOWS, ids=lambda options: ",".join(f"{k}={v}" for k, v in options.items()))
def test_a_flow_in_order_is_that_of_keras_to_the_bit(
    options: dict[str, Any], both: tuple[str, str], capsys: Any
) -> None:
    tree, shards = both
    options = {"batch_size": 4} | options
    of_the_generator = {name: value for name, value in options.items() if name == "data_format"}
    of_the_flow = {name: value for name, value in options.items() if name != "data_format"}
    theirs = generator(**of_the_generator).flow_from_directory(tree, shuffle=False, **of_the_flow)
    ours = shardkit.keras.flow_from_shards(shards, shuffle=False, exact=True, **options)
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert len(ours) == len(theirs)
    for one, other in zip(in_order(ours), in_order(theirs), strict=True):
        assert_same(one, other)
    for name in ("filenames", "class_indices", "samples", "num_classes", "batch_size", "n", "image_shape"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("classes", "labels"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype


def test_every_argument_of_keras_own_is_taken_with_its_default() -> None:
    for theirs, ours, others in (
        (type(generator()).flow_from_directory, shardkit.keras.flow_from_shards, {"self", "directory"}),
        (keras.utils.image_dataset_from_directory, shardkit.keras.image_dataset_from_shards, {"directory", "format"}),
    ):
        wanted = {name: one.default for name, one in inspect.signature(theirs).parameters.items()}
        taken = {name: one.default for name, one in inspect.signature(ours).parameters.items()}
        assert {name: taken[name] for name in wanted.keys() - others} == {
            name: wanted[name] for name in wanted.keys() - others
        }


@pytest.mark.parametrize("subset", ["training", "validation"])
def test_a_subset_has_the_files_of_keras_own(subset: Any, both: tuple[str, str]) -> None:
    tree, shards = both
    theirs = generator(validation_split=0.4).flow_from_directory(tree, shuffle=False, subset=subset)
    ours = shardkit.keras.flow_from_shards(shards, shuffle=False, subset=subset, validation_split=0.4)
    assert ours.filenames == theirs.filenames and ours.samples < 15
    shuffled = shardkit.keras.flow_from_shards(shards, subset=subset, validation_split=0.4)
    assert sorted(shuffled.filenames) == sorted(theirs.filenames)


def test_a_function_and_a_scale_are_applied_as_keras_applies_them(both: tuple[str, str]) -> None:
    tree, shards = both

    def function(image: Any) -> Any:
        return image - image.mean()

    options = {"rescale": 1 / 255, "preprocessing_function": function}
    theirs = generator(**options).flow_from_directory(tree, (30, 20), shuffle=False)
    for exact in (True, False):
        ours = shardkit.keras.flow_from_shards(shards, target_size=(30, 20), shuffle=False, exact=exact, **options)
        for one, other in zip(in_order(ours), in_order(theirs), strict=True):
            np.testing.assert_allclose(one[0], other[0], atol=0 if exact else 0.02)
            np.testing.assert_array_equal(one[1], other[1])


def test_without_exact_the_pixels_are_near_those_of_keras(both: tuple[str, str]) -> None:
    tree, shards = both
    theirs = generator().flow_from_directory(tree, (30, 20), shuffle=False, interpolation="bilinear")
    ours = shardkit.keras.flow_from_shards(shards, target_size=(30, 20), shuffle=False, interpolation="bilinear")
    assert np.abs(ours[0][0] - theirs[0][0]).mean() < 2
    np.testing.assert_array_equal(ours[0][1], theirs[0][1])


@pytest.mark.parametrize(
    "options",
    [{"interpolation": "hamming"}, {"keep_aspect_ratio": True}, {"color_mode": "rgba"}],
    ids=lambda options: next(iter(options)),
)
def test_what_only_keras_can_do_is_done_by_keras_without_exact_too(
    options: dict[str, Any], both: tuple[str, str]
) -> None:
    tree, shards = both
    theirs = generator().flow_from_directory(tree, (30, 20), shuffle=False, **options)
    ours = shardkit.keras.flow_from_shards(shards, target_size=(30, 20), shuffle=False, **options)
    assert_same(ours[0], theirs[0])


def test_what_is_saved_is_what_the_model_gets_and_named_as_by_keras(both: tuple[str, str], tmp_path: Path) -> None:
    from PIL import Image

    ours = shardkit.keras.flow_from_shards(
        both[1], target_size=(30, 20), classes=["a"], save_to_dir=tmp_path, save_prefix="seen", batch_size=8, seed=1
    )
    images, _ = next(ours)
    numbers = {name: number for number, name in enumerate(sorted(ours.filenames))}
    assert len(list(tmp_path.iterdir())) == 5
    for name, image in zip(ours.filenames, images, strict=True):
        [path] = tmp_path.glob(f"seen_{numbers[name]}_*.png")
        stretched = (image - image.min()) / (image - image.min()).max() * 255
        assert np.abs(np.asarray(Image.open(path), np.float32) - stretched).max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_mode": "binary"}, '"binary" needs two classes, but there are 3'),
        ({"class_mode": "multi"}, "is not one of 'binary'"),
        ({"classes": ["a", "q"]}, "there is no class 'q'"),
        ({"subset": "training"}, "validation_split"),
        ({"interpolation": "area"}, "interpolation"),
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any], message: str, both: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match=message):
        shardkit.keras.flow_from_shards(both[1], **options)


DATASETS: list[dict[str, Any]] = [
    {},
    {"label_mode": "categorical", "interpolation": "nearest", "batch_size": 4},
    {"label_mode": "binary", "class_names": ["c-d", "a"], "color_mode": "grayscale"},
    {"label_mode": None, "batch_size": None},
    {"labels": None},
    {"labels": list(range(15))},
    {"crop_to_aspect_ratio": True, "interpolation": "bicubic"},
    {"pad_to_aspect_ratio": True, "data_format": "channels_first"},
    {"validation_split": 0.3, "subset": "validation"},
]


@pytest.mark.parametrize("options", DATASETS, ids=lambda options: ",".join(f"{k}={v}" for k, v in options.items()))
def test_an_image_dataset_in_order_is_that_of_keras(
    options: dict[str, Any], both: tuple[str, str], capsys: Any
) -> None:
    tree, shards = both
    options = {"image_size": (30, 40), "batch_size": 4, "shuffle": False} | options
    theirs = keras.utils.image_dataset_from_directory(tree, **options)
    said = capsys.readouterr().out
    fast = {"crop_to_aspect_ratio", "pad_to_aspect_ratio"}.isdisjoint(options)
    for exact in (True, False) if fast else (True,):
        ours = shardkit.keras.image_dataset_from_shards(shards, exact=exact, **options)
        assert capsys.readouterr().out == said
        assert ours.element_spec == theirs.element_spec
        if options["batch_size"] or exact:
            assert ours.cardinality() == theirs.cardinality()
        assert ours.class_names == theirs.class_names
        assert [f"{tree}/{path}" for path in ours.file_paths] == [str(Path(path)) for path in theirs.file_paths]
        for one, other in zip(ours.as_numpy_iterator(), theirs.as_numpy_iterator(), strict=True):
            if exact:
                assert_same(one, other)
            elif isinstance(one, tuple):
                assert one[0].shape == other[0].shape
                assert_same(one[1], other[1])


def test_the_parts_of_a_shuffled_split_are_those_of_keras(both: tuple[str, str]) -> None:
    tree, shards = both
    options: dict[str, Any] = {"validation_split": 0.3, "subset": "both", "seed": 7, "image_size": 20, "verbose": False}
    theirs = keras.utils.image_dataset_from_directory(tree, **options)
    ours = shardkit.keras.image_dataset_from_shards(shards, **options)
    for one, other in zip(ours, theirs, strict=True):
        assert [f"{tree}/{path}" for path in one.file_paths] == other.file_paths
        labels = [np.sort(np.concatenate([y for _, y in made.as_numpy_iterator()])) for made in (one, other)]
        np.testing.assert_array_equal(*labels)


def test_a_shuffled_image_dataset_has_every_sample_once_in_each_epoch(both: tuple[str, str]) -> None:
    made = shardkit.keras.image_dataset_from_shards(both[1], image_size=20, seed=1, verbose=False)
    epochs = [np.concatenate([images for images, _ in made.as_numpy_iterator()]) for _ in range(2)]
    assert (epochs[0] != epochs[1]).any()
    assert sorted(image.tobytes() for image in epochs[0]) == sorted(image.tobytes() for image in epochs[1])


def test_damage_is_reported_with_its_place(tmp_path: Path, draw_image: Any) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    whole = bytearray(draw_image(1, size=(200, 200), format="PNG"))
    at = whole.index(b"IDAT") + 4
    whole[at : at + 300] = bytes(300)
    (tmp_path / "tree" / "a" / "cut.png").write_bytes(whole)
    shardkit.pack(tmp_path / "tree", tmp_path / "shards")
    flow = shardkit.keras.flow_from_shards(tmp_path / "shards", exact=True, shuffle=False)
    with pytest.raises(shardkit.DecodeError, match="sample a/cut: the image can't be decoded"):
        next(flow)


def test_pictures_in_memory_are_what_the_keras_loader_takes(draw_image: Any) -> None:
    assert keras.utils.load_img(io.BytesIO(draw_image(1))).size == (40, 30)


@pytest.mark.parametrize("labels", ["other", [0.5, 1.5], "Inferred"])
def test_labels_without_sense_are_refused(labels: Any, both: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="labels"):
        shardkit.keras.image_dataset_from_shards(both[1], labels=labels, image_size=(8, 8))


def test_pixels_are_keras_own_only_where_that_is_asked_for(both: tuple[str, str]) -> None:
    def pixels(**options: Any) -> Any:
        flow = shardkit.keras.flow_from_shards(
            both[1], target_size=(30, 20), shuffle=False, interpolation="bilinear", **options
        )
        return next(flow)[0]

    assert np.array_equal(pixels(), pixels(exact=False))
    assert not np.array_equal(pixels(), pixels(exact=True))


@pytest.mark.parametrize("size", [32, (32,), (1, 2, 3), (32, 0), (1.5, 2), "32"])
def test_a_target_size_that_is_not_height_and_width_is_refused(size: Any) -> None:
    with pytest.raises(UsageError, match="target_size"):
        two_sides(size)
    assert two_sides((np.int64(3), 4)) == (3, 4)
