"""What Keras' own tests ask of the generator, the directory datasets and PyDataset, asked of shardkit.

Each case is named like the test of Keras that it follows; those that do not apply are listed with their reason, and
docs/augmentation.md has the counts.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import shardkit

PAGE = Path(__file__).parents[3] / "docs/augmentation.md"
IMAGE, DATASET, PYDATASET = "image_test.py", "image_dataset_utils_test.py", "py_dataset_adapter_test.py"
EVERYTHING: dict[str, Any] = {
    "featurewise_center": True, "samplewise_center": True, "featurewise_std_normalization": True,
    "samplewise_std_normalization": True, "zca_whitening": True, "rotation_range": 90.0, "width_shift_range": 0.1,
    "height_shift_range": 0.1, "shear_range": 0.5, "zoom_range": 0.2, "channel_shift_range": 0.0,
    "brightness_range": (1, 5), "fill_mode": "nearest", "cval": 0.5, "horizontal_flip": True, "vertical_flip": True,
}  # fmt: skip
STATISTICS = dict(list(EVERYTHING.items())[:5])
SIDE = 20

keras: Any = None
tf: Any = None
pandas: Any = None
Generator: Any = None

Ask = Callable[[Path], None]
CASES: dict[tuple[str, str], Ask] = {}

_FUNCTIONS = "a function of Keras' module, not of the generator; shardkit has its transforms in the generator only"
_GRAIN = 'format="grain" is not offered: format="keras" works with every backend'
_ARRAYS = "it asks what Keras does with a user's tensors of this kind; shardkit's batches are NumPy arrays"
REASONS: dict[tuple[str, str], str] = {
    (IMAGE, "TestImage.test_iterator_empty_directory"): "the base class `Iterator` is internal; no images are refused",
    (IMAGE, "TestImage.test_img_transforms"): _FUNCTIONS,
    (IMAGE, "TestAffineTransformations.test_random_transforms"): _FUNCTIONS,
    **{(DATASET, f"test_image_dataset_from_directory_{name}[grain]"): _GRAIN for name in (
        "no_labels", "binary", "multiclass", "color_modes", "validation_split", "manual_labels", "follow_links",
        "no_images", "crop_to_aspect_ratio", "pad_to_aspect_ratio", "errors", "not_batched", "shuffle",
        "shuffle_with_split",
    )},
    (DATASET, "test_sample_count[grain]"): _GRAIN,
    **{(PYDATASET, f"test_basic_flow[single_{kind}-{'infinite' if infinite else 'finite'}-{order}]"): _ARRAYS
       for kind in ("tf", "jax", "torch") for infinite in (True, False) for order in ("shuffled", "in order")},
    (PYDATASET, "test_speedup"): "it times Keras' own workers; shardkit's threads work without them",
}  # fmt: skip


def case(file: str, name: str, *options: Any) -> Callable[[Any], Any]:
    """Register a function as the case; with options, one case for each, which the function gets."""

    def register(ask: Any) -> Any:
        for option in options:
            CASES[file, f"{name}[{option}]"] = lambda folder, option=option: ask(folder, option)
        if not options:
            CASES[file, name] = ask
        return ask

    return register


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    """Not while tests are collected: some of them fork, and a process that has loaded TensorFlow should not."""
    global keras, tf, pandas, Generator
    tf = pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    pandas = pytest.importorskip("pandas")
    Generator = shardkit.keras.ImageDataGenerator


# Pictures


def pictures(*modes: str) -> list[Image.Image]:
    """Eight of each mode, RGB and gray by default."""
    random = np.random.default_rng(len(modes))
    made = []
    for mode in modes or ("RGB", "L"):
        for _ in range(8):
            channels = {"RGB": (3,), "RGBA": (4,)}.get(mode, ())
            values = random.integers(0, 1 << (16 if mode == "I;16" else 8), (SIDE, SIDE, *channels))
            made.append(Image.fromarray(values.astype(np.uint16 if mode == "I;16" else np.uint8)))
    return made


def batches_of_pictures() -> list[np.ndarray]:
    """For each mode eight pictures as an array."""
    made = []
    for mode in ("RGB", "L", "RGBA"):
        values = [np.asarray(picture, np.float32).reshape(SIDE, SIDE, -1) for picture in pictures(mode)]
        made.append(np.stack(values))
    return made


def a_tree(folder: Path, *modes: str, ending: str = "png") -> list[str]:
    """Pictures of two classes in four folders each; their names relative to the folder."""
    names = []
    for number, picture in enumerate(pictures(*modes)):
        parts = ("", "subfolder-1/", "subfolder-2/", "subfolder-1/sub-subfolder/")
        name = f"class-{number % 2}/{parts[number % 4]}image-{number}.{ending}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / name)
        names.append(name)
    return names


def a_table(folder: Path, **columns: Any) -> Any:
    """A DataFrame of 24 pictures, with random classes unless columns are given."""
    names = [f"image-{number}.png" for number in range(24)]
    for name, picture in zip(names, pictures("RGB", "L", "RGBA"), strict=True):
        picture.save(folder / name)
    random = np.random.default_rng(3)
    columns = columns or {"class": [str(value) for value in random.permutation(24) % 2]}
    return pandas.DataFrame({"filename": names, **columns})


def classes_of(folder: Path, count: int, pictures_each: int, mode: str = "RGB") -> str:
    """A tree of `count` classes for the directory datasets."""
    random, at = np.random.default_rng(count), 0
    for _ in range(pictures_each):
        for label in range(count):
            (folder / f"class_{label}").mkdir(exist_ok=True)
            channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
            values = random.integers(0, 256, (24, 24, *channels), np.uint8)
            Image.fromarray(values).save(folder / f"class_{label}" / f"image_{at}.png")
            at += 1
    return str(folder)


def blank(expected: tuple[int, ...]) -> Callable[[Any], Any]:
    """A preprocessing_function that checks what it gets, and returns zeros."""

    def function(x: Any) -> Any:
        assert type(x) is np.ndarray and x.shape == expected
        return np.zeros_like(x)

    return function


def fitted(generator: Any, *arguments: Any, **options: Any) -> Any:
    """The generator, fitted, without the warnings that Keras gives too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        generator.fit(*arguments, **options)
    return generator


def made(**options: Any) -> Any:
    """A generator, without the warnings that Keras gives too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Generator(**options)


def flowing(generator: Any, *arguments: Any, **options: Any) -> Any:
    """A flow of arrays, without the warnings that Keras gives too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return generator.flow(*arguments, **options)


# ImageDataGenerator, alone


@case(IMAGE, "TestImage.test_image")
def _case_1(folder: Path) -> None:
    for images in batches_of_pictures()[:2]:
        generator = made(**EVERYTHING)
        flowing(generator, np.random.default_rng(0).random((32, 10, 10, 3)))
        fitted(generator, images, augment=True)
        x, _ = next(flowing(generator, images, np.arange(8), shuffle=True))
        assert x.shape == images.shape


@case(IMAGE, "TestImage.test_image_with_split_value_error")
@case(IMAGE, "TestImageDataGenerator.test_image_data_generator_with_split_value_error")
def _case_2(folder: Path) -> None:
    with pytest.raises(ValueError, match="validation_split"):
        Generator(validation_split=5)


@case(IMAGE, "TestImage.test_image_invalid_data")
@case(IMAGE, "TestImageDataGenerator.test_image_data_generator_invalid_data")
def _case_3(folder: Path) -> None:
    generator = made(**STATISTICS, data_format="channels_last")
    with pytest.raises(ValueError, match="x"):
        generator.fit(np.zeros((3, 10, 10)))
    with pytest.raises(ValueError, match="x"):
        flowing(generator, np.arange(5))
    assert len(flowing(generator, np.zeros((32, 10, 10, 5)))) == 1
    with pytest.raises(ValueError, match="data_format"):
        Generator(data_format="unknown")
    Generator(zoom_range=(2.0, 2.0))


@case(IMAGE, "TestImage.test_image_fit")
@case(IMAGE, "TestImageDataGenerator.test_image_data_generator_fit")
def _case_4(folder: Path) -> None:
    random = np.random.default_rng(0)
    for first in (False, True):
        options = {**EVERYTHING, "zoom_range": (0.2, 0.2), "interpolation_order": 1}
        generator = made(**options, data_format="channels_first" if first else "channels_last")
        for shape in ((32, 10, 10, 1), (32, 10, 10, 3), (32, 4, 4, 1)):
            x = random.random(shape)
            fitted(generator, x.transpose(0, 3, 1, 2) if first else x)
            size = shape[1] * shape[2] * shape[3]
            assert generator.zca_whitening_matrix.shape == (size, size)
        fitted(generator, random.random((32, 3, 10, 10) if first else (32, 10, 10, 3)), augment=True)


@case(IMAGE, "TestImage.test_batch_standardize")
@case(IMAGE, "TestImageDataGenerator.test_batch_standardize")
def _case_5(folder: Path) -> None:
    for images in batches_of_pictures():
        generator = fitted(made(**EVERYTHING), images, augment=True)
        changed = np.stack([generator.random_transform(image) for image in images])
        assert generator.standardize(changed).shape == images.shape


@case(IMAGE, "TestImageDataGenerator.test_image_data_generator")
def _case_6(folder: Path) -> None:
    made(**EVERYTHING, interpolation_order=1)


@case(IMAGE, "TestImageDataGenerator.test_valid_args")
@case(IMAGE, "TestAffineTransformations.test_random_brightness_error")
def _case_7(folder: Path) -> None:
    for value in (0.1, [0]):
        with pytest.raises(ValueError, match="brightness_range"):
            Generator(brightness_range=value)


@case(IMAGE, "TestAffineTransformations.test_random_zoom_error")
def _case_8(folder: Path) -> None:
    with pytest.raises(ValueError, match="zoom_range"):
        Generator(zoom_range=[0])


@case(IMAGE, "TestImageDataGenerator.test_deterministic_transform")
@case(IMAGE, "TestAffineTransformations.test_deterministic_transform")
def _case_9(folder: Path) -> None:
    generator = Generator(rotation_range=90, fill_mode="constant")
    x = np.random.default_rng(0).random((32, 32, 3))
    np.testing.assert_allclose(generator.apply_transform(x, {"flip_vertical": True}), x[::-1], rtol=1e-6)
    np.testing.assert_allclose(generator.apply_transform(x, {"flip_horizontal": True}), x[:, ::-1], rtol=1e-6)
    turned = generator.apply_transform(np.ones((3, 3, 3)), {"theta": 45})
    corners = np.array([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])
    np.testing.assert_allclose(turned, np.repeat(corners[:, :, None], 3, axis=2), atol=1e-6)


@case(IMAGE, "TestAffineTransformations.test_matrix_center")
def _case_10(folder: Path) -> None:
    x = np.array([[0, 1], [0, 0]])[:, :, None]
    assert Generator().apply_transform(x, {"theta": 90})[:, :, 0].tolist() == [[1, 0], [0, 0]]


@case(IMAGE, "TestAffineTransformations.test_translation")
def _case_11(folder: Path) -> None:
    x = np.zeros((3, 4), int)
    x[1, 1] = 1
    for first in (True, False):
        generator = Generator(data_format="channels_first" if first else "channels_last")
        image = x[None] if first else x[:, :, None]
        for parameters, (down, right) in (
            ({"tx": 1}, (0, -1)), ({"tx": -1}, (0, 1)), ({"ty": 1}, (-1, 0)), ({"ty": -1}, (1, 0)),
        ):  # fmt: skip
            moved = generator.apply_transform(image, parameters)
            np.testing.assert_array_equal(np.squeeze(moved), np.roll(x, (down, right), (0, 1)))


@case(IMAGE, "TestAffineTransformations.test_random_zoom")
def _case_12(folder: Path) -> None:
    x = np.random.default_rng(0).random((2, 28, 28))
    assert Generator(zoom_range=(5, 5), data_format="channels_first").random_transform(x).shape == x.shape
    same = Generator(zoom_range=(1, 1), data_format="channels_first").random_transform(x)
    np.testing.assert_allclose(same, x, rtol=1e-6)


@case(IMAGE, "TestAffineTransformations.test_random_brightness_scale")
@case(IMAGE, "TestAffineTransformations.test_random_brightness_scale_outside_range_positive")
@case(IMAGE, "TestAffineTransformations.test_random_brightness_scale_outside_range_negative")
def _case_13(folder: Path) -> None:
    for value in (128, 1024, -1024):
        image = np.full((1, 1, 3), value, float)
        np.testing.assert_array_equal(Generator(brightness_range=[1, 1]).random_transform(image), image)


@case(IMAGE, "TestImageDataGenerator.test_random_transforms")
def _case_14(folder: Path) -> None:
    generator = Generator(**{name: EVERYTHING[name] for name in list(EVERYTHING)[5:]} | {"channel_shift_range": 0.1})
    one, other = (generator.get_random_transform((2, 28, 28), seed) for seed in (1, 2))
    for name in ("theta", "tx", "ty", "shear", "zx", "zy", "channel_shift_intensity", "brightness"):
        assert one[name] != 0 and one[name] != other[name]
    plain = Generator().get_random_transform((2, 28, 28), 1)
    assert [plain[name] for name in ("theta", "tx", "ty", "shear", "zx", "zy")] == [0, 0, 0, 0, 1, 1]
    assert plain["channel_shift_intensity"] is plain["brightness"] is None


@case(IMAGE, "TestImageDataGenerator.test_fit_rescale")
def _case_15(folder: Path) -> None:
    for images in batches_of_pictures():
        options = {"rescale": 1 / 255, "featurewise_center": True, "dtype": "float64"}
        batch = next(flowing(fitted(made(**options), images), images, batch_size=8))
        assert abs(batch.mean()) < 1e-6
        generator = fitted(made(**options, featurewise_std_normalization=True), images)
        batch = next(flowing(generator, images, batch_size=8))
        assert abs(batch.mean()) < 1e-6 and abs(1 - batch.std()) < 1e-5
        white = next(flowing(fitted(made(**options, zca_whitening=True), images), images, batch_size=8)).reshape(8, -1)
        product = white @ white.T / 8
        assert (np.abs(product) - np.eye(8) < 1e-4).all()  # Keras computes this in float64, shardkit in float32


# Arrays


@case(IMAGE, "TestNumpyArrayIterator.test_numpy_array_iterator")
@case(IMAGE, "TestImageDataGenerator.test_image_data_generator_flow")
def _case_16(folder: Path) -> None:
    for images in batches_of_pictures():
        generator = fitted(made(**EVERYTHING), images)
        options = {"shuffle": False, "save_to_dir": folder, "batch_size": 3}
        x, y = next(flowing(generator, images, np.arange(8), **options))
        assert x.shape == images[:3].shape and y.tolist() == [0, 1, 2]
        x, y, w = flowing(generator, images, np.arange(8), sample_weight=np.arange(8) + 1, **options).next()
        assert w.tolist() == [1, 2, 3]
        flow = flowing(generator, images, np.arange(8), batch_size=3, seed=42)
        assert len(flow) == 3
        before = flow[0][1].tolist()
        flow.on_epoch_end()
        assert before != [0, 1, 2] and flow[0][1].tolist() != before
        one, two = np.random.default_rng(0).random(8), np.random.default_rng(1).random((8, 3, 3))
        for x, extra in (((images, one), [one]), ((images, [one, two]), [one, two])):
            (first, *others), y = flowing(generator, x, np.arange(8), shuffle=False, batch_size=2)[1]
            assert first.shape == images[:2].shape and y.tolist() == [2, 3]
            assert all((found == wanted[2:4]).all() for found, wanted in zip(others, extra, strict=True))
            assert isinstance(flowing(generator, x, None, shuffle=False, batch_size=3).next(), list)
        assert isinstance(flowing(Generator(validation_split=0.2), images, batch_size=3).next(), np.ndarray)
        for x, y in (((images, np.zeros((9, 3))), np.arange(8)), ((images, one), np.arange(9))):
            with pytest.raises(ValueError, match="there are 8 images"):
                flowing(generator, x, y, batch_size=3)
    labels = np.array([[2, 2, 0, 2, 2], [1, 3, 2, 3, 1], [2, 1, 0, 1, 2], [3, 1, 0, 2, 0], [3, 1, 3, 2, 1]])
    flow = Generator(rotation_range=90.0, interpolation_order=0).flow(labels[None, ..., None], None, seed=123)
    assert (np.unique(labels) == np.unique(next(flow))).all()


@case(IMAGE, "TestImageDataGenerator.test_image_data_generator_with_validation_split")
def _case_17(folder: Path) -> None:
    images, generator = batches_of_pictures()[0], Generator(validation_split=0.5)
    labels = np.repeat([0.0, 1.0], 4)
    with pytest.raises(ValueError, match="different classes after the split"):
        generator.flow(images, labels, subset="validation")
    generator.flow(images, labels, ignore_class_split=True, subset="validation")
    for subset in ("validation", "training"):
        flow = generator.flow(images, np.repeat([0, 1, 0, 1], 2), shuffle=False, batch_size=10, subset=subset)
        assert len(np.unique(flow[0][1])) == 2
    with pytest.raises(ValueError, match="subset"):
        generator.flow(images, np.arange(8), subset="foo")


# Directories


@case(IMAGE, "TestImage.test_directory_iterator")
@case(IMAGE, "TestDirectoryIterator.test_directory_iterator")
def _case_18(folder: Path) -> None:
    names = a_tree(folder, "RGB", "L", "RGBA", "I;16")
    flow = Generator().flow_from_directory(folder)
    assert len(flow.class_indices) == 2 and len(flow.classes) == 32 and set(flow.filenames) == set(names)
    for options in ({"color_mode": "cmyk"}, {"class_mode": "output"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            Generator().flow_from_directory(folder, **options)
    generator = Generator(preprocessing_function=blank((26, 26, 3)))
    flow = generator.flow_from_directory(str(folder), target_size=(26, 26), batch_size=3)
    assert len(flow) == 11
    x, y = flow[1]
    assert x.shape == (3, 26, 26, 3) and y.shape == (3, 2) and (flow[5][0] == 0).all()
    with pytest.raises(LookupError, match="no batch 14"):  # Keras raises ValueError
        flow[14]


@case(IMAGE, "TestDirectoryIterator.test_directory_iterator_class_mode_input")
def _case_19(folder: Path) -> None:
    a_tree(folder, "RGB", "L", "RGBA", "I;16")
    x, y = next(Generator().flow_from_directory(folder, class_mode="input"))
    assert x.shape == y.shape and not np.shares_memory(x, y)


def _split(folder: Path, fraction: float, modes: tuple[str, ...], train: int) -> Any:
    names, generator = a_tree(folder, *modes), Generator(validation_split=fraction)
    with pytest.raises(ValueError, match="subset"):
        generator.flow_from_directory(folder, subset="foo")
    training = generator.flow_from_directory(folder, subset="training")
    assert training.samples == len(training.classes) == len(set(training.filenames) & set(names)) == train
    assert generator.flow_from_directory(folder, subset="validation").samples == len(names) - train
    assert len(training.class_indices) == 2
    return training


@case(IMAGE, "TestImage.test_directory_iterator_with_validation_split", "25_percent", "40_percent", "50_percent")
def _case_20(folder: Path, percent: str) -> None:
    share = int(percent[:2])
    flow = _split(folder, share / 100, (), 16 - 16 * share // 100)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile(optimizer="sgd", loss="mse")
    assert len(model.fit(flow, epochs=1, verbose=0).history["loss"]) == 1


@case(IMAGE, "TestDirectoryIterator.test_directory_iterator_with_validation_split", 0.25, 0.5, 0.75)
def _case_21(folder: Path, fraction: float) -> None:
    _split(folder, fraction, ("RGB", "L", "RGBA", "I;16"), round(32 * (1 - fraction)))


# DataFrames


@case(IMAGE, "TestDataFrameIterator.test_dataframe_iterator")
def _case_22(folder: Path) -> None:
    table = a_table(folder)
    table["filepaths"] = [str(folder / name) for name in table["filename"]]
    x, y = next(Generator().flow_from_dataframe(table, folder))
    assert isinstance(x, np.ndarray) and isinstance(y, np.ndarray)
    absolute = Generator().flow_from_dataframe(table, x_col="filepaths")
    assert set(absolute.filenames) == set(table["filepaths"]) and len(absolute.classes) == 24
    flow = Generator().flow_from_dataframe(table, folder, class_mode="sparse", shuffle=False)
    assert flow[0][1].tolist() == table["class"].astype(float).tolist()
    for options in ({"color_mode": "cmyk"}, {"class_mode": "output"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            Generator().flow_from_dataframe(table, folder, **options)
    for value in (True, False):
        with pytest.warns(DeprecationWarning, match="has_ext"):
            Generator().flow_from_dataframe(table, folder, has_ext=value)
    generator = Generator(preprocessing_function=blank((26, 26, 3)))
    flow = generator.flow_from_dataframe(table, folder, target_size=(26, 26), batch_size=3)
    assert len(flow) == 8 and flow[1][0].shape == (3, 26, 26, 3) and flow[1][1].shape == (3, 2)
    assert (flow[5][0] == 0).all()
    with pytest.raises(LookupError, match="no batch 9"):  # Keras raises ValueError
        flow[9]


@case(IMAGE, "TestDataFrameIterator.test_dataframe_iterator_validate_filenames")
def _case_23(folder: Path) -> None:
    table = pandas.concat([a_table(folder), pandas.DataFrame({"filename": ["test.jpp", "test.jpg"]})])
    with pytest.warns(UserWarning, match="Found 2 invalid"):
        assert len(Generator().flow_from_dataframe(table, folder, class_mode="input").filenames) == 24
    flow = Generator().flow_from_dataframe(table, folder, class_mode="input", validate_filenames=False)
    assert len(flow.filenames) == 26


@case(IMAGE, "TestDataFrameIterator.test_dataframe_iterator_sample_weights")
def _case_24(folder: Path) -> None:
    table = a_table(folder, weight=[2, 5] * 12)
    options = {"y_col": None, "shuffle": False, "batch_size": 5, "weight_col": "weight", "class_mode": "input"}
    x, y, weights = next(Generator().flow_from_dataframe(table, folder, **options))
    np.testing.assert_array_equal(x, y)
    assert not np.shares_memory(x, y) and weights.tolist() == [2, 5, 2, 5, 2]
    table["weight"] = ["2", "5"] * 12
    with pytest.raises(ValueError, match="'weight' is not numeric"):  # Keras raises TypeError
        Generator().flow_from_dataframe(table, weight_col="weight", class_mode="input")


@case(IMAGE, "TestDataFrameIterator.test_dataframe_iterator_class_mode_input")
def _case_25(folder: Path) -> None:
    table = a_table(folder)[["filename"]]
    for column in (None, "class"):
        x, y = next(Generator().flow_from_dataframe(table, folder, y_col=column, class_mode="input"))
        np.testing.assert_array_equal(x, y)
        assert not np.shares_memory(x, y)


@case(IMAGE, "TestDataFrameIterator.test_dataframe_iterator_class_mode_categorical_multi_label")
def _case_26(folder: Path) -> None:
    table = a_table(folder, **{"class": [["b", "a"], "b", ["c"], *([["a"], ["b"], ["a", "b"]] * 7)]})
    flow = Generator().flow_from_dataframe(table, folder, shuffle=False)
    assert flow[0][1].shape == (24, 3) and set(np.unique(flow[0][1])) == {0, 1}
    assert flow[0][1][:3].tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


@case(IMAGE, "TestDataFrameIterator.test_dataframe_iterator_class_mode_multi_output")
def _case_27(folder: Path) -> None:
    random = np.random.default_rng(0)
    for second in (random.random(24), list(random.random((24, 4))), list(random.random((24, 2, 2, 1)))):
        table = a_table(folder, output_0=random.random(24), output_1=second)
        options = {"directory": folder, "batch_size": 3, "shuffle": False, "class_mode": "multi_output"}
        _, y = next(Generator().flow_from_dataframe(table, y_col=["output_0", "output_1"], **options))
        assert isinstance(y, list)
        for found, column in zip(y, ("output_0", "output_1"), strict=True):
            np.testing.assert_array_equal(found, np.array(table[column].tolist()[:3]))
        with pytest.raises(ValueError, match="needs a list of columns"):  # Keras raises TypeError
            Generator().flow_from_dataframe(table, y_col="output_0", **options)


@case(IMAGE, "TestDataFrameIterator.test_dataframe_iterator_class_mode_raw")
def _case_28(folder: Path) -> None:
    random = np.random.default_rng(0)
    table = a_table(folder, output_0=random.random(24), output_1=random.random(24))
    for column in ("output_0", ["output_0", "output_1"]):
        options = {"y_col": column, "batch_size": 3, "shuffle": False, "class_mode": "raw"}
        _, y = next(Generator().flow_from_dataframe(table, folder, **options))
        np.testing.assert_array_equal(y, table[column].values[:3])


@case(IMAGE, "TestDataFrameIterator.test_dataframe_iterator_with_validation_split", 0.25, 0.5, 0.75)
def _case_29(folder: Path, fraction: float) -> None:
    table, generator = a_table(folder), Generator(validation_split=fraction)
    assert not np.isnan(next(generator.flow_from_dataframe(table, folder, class_mode="sparse"))[1]).any()
    with pytest.raises(ValueError, match="subset"):
        generator.flow_from_dataframe(table, folder, subset="foo")
    train = round(24 * (1 - fraction))
    flow = generator.flow_from_dataframe(table, folder, subset="training")
    assert flow.samples == len(flow.classes) == train and len(flow.class_indices) == 2
    assert generator.flow_from_dataframe(table, folder, subset="validation").samples == 24 - train


@case(IMAGE, "TestDataFrameIterator.test_dataframe_iterator_with_custom_indexed_dataframe")
def _case_30(folder: Path) -> None:
    table = a_table(folder)
    tables = [table, table.set_index(np.arange(1, 25)), table.set_index(table["filename"].to_numpy())]
    flows = [Generator().flow_from_dataframe(each, folder, seed=1, batch_size=7) for each in tables]
    for _ in range(5):
        (x, y), *others = [next(flow) for flow in flows]
        for one, two in others:
            np.testing.assert_array_equal(one, x)
            np.testing.assert_array_equal(two, y)


@case(IMAGE, "TestDataFrameIterator.test_dataframe_iterator_n")
def _case_31(folder: Path) -> None:
    table = a_table(folder).iloc[2:]
    assert Generator().flow_from_dataframe(table[["filename"]], folder, class_mode=None).n == 22
    assert Generator().flow_from_dataframe(table, folder, class_mode="binary").n == 22


@case(IMAGE, "TestDataFrameIterator.test_dataframe_iterator_absolute_path")
def _case_32(folder: Path) -> None:
    paths = [str(folder / name) for name in a_table(folder)["filename"]]
    (folder / "image.fbd").write_bytes(Path(paths[0]).read_bytes())
    options: dict[str, Any] = {"directory": None, "class_mode": None, "shuffle": False, "batch_size": 1}
    flow = Generator().flow_from_dataframe(pandas.DataFrame({"filename": paths}), **options)
    for more in (["missing.png", *paths], [*paths, str(folder / "image.fbd")]):
        with pytest.warns(UserWarning, match="Found 1 invalid"):
            other = Generator().flow_from_dataframe(pandas.DataFrame({"filename": more}), **options)
        assert other.n == 24 and all((flow[number] == other[number]).all() for number in range(24))
    split = Generator(validation_split=0.2)
    counts = [
        split.flow_from_dataframe(pandas.DataFrame({"filename": paths}), **options, subset=subset).n
        for subset in ("validation", "training")
    ]
    assert counts == [4, 20]


@case(IMAGE, "TestDataFrameIterator.test_dataframe_iterator_with_subdirs")
def _case_33(folder: Path) -> None:
    names = a_tree(folder, "RGB", "L", "RGBA")
    table = pandas.DataFrame({"filename": names, "class": ["0", "1"] * 12})
    flow = Generator().flow_from_dataframe(table, folder, class_mode="binary")
    assert flow.n == 24 and set(flow.filenames) == set(names)


@case(IMAGE, "TestDataFrameIterator.test_dataframe_iterator_classes_indices_order")
def _case_34(folder: Path) -> None:
    forward = a_table(folder, **{"class": ["a", "b", ["a"], ["b"], ["a", "b"], ["b", "a"]] * 4})
    backward = a_table(folder, **{"class": ["b", "a", ["b"], ["a"], ["b", "a"], ["a", "b"]] * 4})
    flows = [Generator().flow_from_dataframe(table, folder) for table in (forward, backward)]
    assert flows[0].class_indices == flows[1].class_indices
    chosen = [Generator().flow_from_dataframe(forward, folder, classes=names) for names in (["a", "b"], ["b", "a"])]
    assert chosen[0].class_indices != chosen[1].class_indices


# image_dataset_from_directory


def dataset_of(directory: str, **options: Any) -> Any:
    """The dataset of a directory, as a tf.data.Dataset."""
    given = {"batch_size": 8, "image_size": (18, 18), "format": "tf", "verbose": False} | options
    return shardkit.keras.image_dataset_from_shards(directory, **given)


@case(DATASET, "test_image_dataset_from_directory_no_labels", "tf")
def _case_35(folder: Path, _: str) -> None:
    made = dataset_of(classes_of(folder, 2, 5), batch_size=5, labels=None)
    assert made.class_names is None
    sizes = [batch.shape for batch in made.as_numpy_iterator()]
    assert sizes == [(5, 18, 18, 3)] * 2 and made.element_spec.dtype == tf.float32


@case(DATASET, "test_image_dataset_from_directory_binary", "tf")
@case(DATASET, "test_image_dataset_from_directory_multiclass", "tf")
def _case_36(folder: Path, _: str) -> None:
    directory = classes_of(folder, 2, 8)
    for mode, shape, dtype in (
        ("int", (8,), "int32"),
        ("binary", (8, 1), "float32"),
        ("categorical", (8, 2), "float32"),
    ):
        x, y = next(dataset_of(directory, label_mode=mode).as_numpy_iterator())
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((8, 18, 18, 3), "float32", shape, dtype)
    assert sum(len(batch) for batch in dataset_of(directory, label_mode=None).as_numpy_iterator()) == 16


@case(DATASET, "test_static_shape_in_graph")
def _case_37(folder: Path) -> None:
    shapes = []

    @tf.function
    def symbolic(dataset: Any) -> None:
        for x, _ in dataset.take(1):
            shapes.append(x.shape.as_list())

    symbolic(dataset_of(classes_of(folder, 2, 8), label_mode="int"))
    assert shapes == [[None, 18, 18, 3]]


@case(DATASET, "test_sample_count", "tf")
def _case_38(folder: Path, _: str) -> None:
    made = dataset_of(classes_of(folder, 3, 5), label_mode=None)
    assert sum(len(batch) for batch in made.as_numpy_iterator()) == 15


@case(DATASET, "test_image_dataset_from_directory_color_modes", "tf")
def _case_39(folder: Path, _: str) -> None:
    for mode, color, channels in (("RGBA", "rgba", 4), ("L", "grayscale", 1)):
        (folder / mode).mkdir()
        x, _labels = next(dataset_of(classes_of(folder / mode, 4, 4, mode), color_mode=color).as_numpy_iterator())
        assert x.shape == (8, 18, 18, channels) and x.dtype == np.float32


@case(DATASET, "test_image_dataset_from_directory_validation_split", "tf")
def _case_40(folder: Path, _: str) -> None:
    directory = classes_of(folder, 2, 5)
    options = {"batch_size": 10, "validation_split": 0.2, "seed": 1337}
    parts = [dataset_of(directory, subset=subset, **options) for subset in ("training", "validation")]
    for found in (parts, dataset_of(directory, subset="both", **options)):
        assert [len(next(part.as_numpy_iterator())[0]) for part in found] == [8, 2]


@case(DATASET, "test_image_dataset_from_directory_manual_labels", "tf")
def _case_41(folder: Path, _: str) -> None:
    for count, each in ((1, 4), (3, 2)):
        (folder / str(count)).mkdir()
        directory, labels = classes_of(folder / str(count), count, each), [0, 1, 0, 1, 1, 1][: count * each]
        with pytest.raises(ValueError, match="labels"):
            dataset_of(directory, labels=[0, 1, 0], shuffle=False)
        made = dataset_of(directory, labels=labels, shuffle=False)
        x, y = next(made.as_numpy_iterator())
        assert made.class_names == ["0", "1"] and len(x) == len(labels) and y.tolist() == labels


@case(DATASET, "test_image_dataset_from_directory_follow_links", "tf")
def _case_42(folder: Path, _: str) -> None:
    directory = classes_of(folder, 2, 5)
    (folder / "elsewhere").mkdir()
    linked = classes_of(folder / "elsewhere", 1, 3)
    (folder / "class_0" / "linked").symlink_to(f"{linked}/class_0", target_is_directory=True)
    (folder / "elsewhere").rename(folder.parent / f"{folder.name}-elsewhere")
    (folder / "class_0" / "linked").unlink()
    (folder / "class_0" / "linked").symlink_to(f"{folder}-elsewhere/class_0", target_is_directory=True)
    made = dataset_of(directory, label_mode=None, follow_links=True)
    assert sum(len(batch) for batch in made.as_numpy_iterator()) == 13


@case(DATASET, "test_image_dataset_from_directory_no_images", "tf")
def _case_43(folder: Path, _: str) -> None:
    for name in ("class_0", "class_1"):
        (folder / name).mkdir()
    with pytest.raises(shardkit.ShardkitError, match=re.escape(str(folder))):
        dataset_of(str(folder))


@case(DATASET, "test_image_dataset_from_directory_crop_to_aspect_ratio", "tf")
@case(DATASET, "test_image_dataset_from_directory_pad_to_aspect_ratio", "tf")
def _case_44(folder: Path, _: str) -> None:
    directory = classes_of(folder, 1, 5)
    for name in ("crop_to_aspect_ratio", "pad_to_aspect_ratio"):
        x, _labels = next(dataset_of(directory, batch_size=5, **{name: True}).as_numpy_iterator())
        assert x.shape == (5, 18, 18, 3)


@case(DATASET, "test_image_dataset_from_directory_errors", "tf")
def _case_45(folder: Path, _: str) -> None:
    directory = classes_of(folder, 3, 2)
    for message, options in (
        ("labels", {"labels": "other"}), ("label_mode", {"label_mode": "other"}),
        ("color_mode", {"color_mode": "other"}),
        ("class_names", {"labels": [0, 0, 1, 1, 1, 0], "class_names": ["class_0", "class_1", "class_2"]}),
        ("labels", {"labels": [0, 0, 1, 1]}), ("class_names", {"class_names": ["class_0", "wrong_class"]}),
        ("needs two classes", {"label_mode": "binary"}), ("validation_split", {"validation_split": 2}),
        ("subset", {"validation_split": 0.2, "subset": "other"}),
        ("validation_split", {"validation_split": 0.0, "subset": "training"}),
        ("seed", {"validation_split": 0.2, "subset": "training"}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            dataset_of(directory, **options)


@case(DATASET, "test_image_dataset_from_directory_not_batched", "tf")
def _case_46(folder: Path, _: str) -> None:
    made = dataset_of(classes_of(folder, 2, 1), batch_size=None, label_mode=None, shuffle=False)
    assert next(made.as_numpy_iterator()).shape == (18, 18, 3)


def _images(made: Any) -> np.ndarray:
    return np.concatenate(list(made.as_numpy_iterator()))


@case(DATASET, "test_image_dataset_from_directory_shuffle", "tf")
def _case_47(folder: Path, _: str) -> None:
    directory = classes_of(folder, 2, 12)
    plain = _images(dataset_of(directory, label_mode=None, shuffle=False))
    made = dataset_of(directory, label_mode=None, seed=1337)
    first, second = _images(made), _images(made)
    assert (plain != first).any() and (first != second).any()
    np.testing.assert_array_equal(_images(dataset_of(directory, label_mode=None, seed=1337)), first)


@case(DATASET, "test_image_dataset_from_directory_shuffle_with_split", "tf")
def _case_48(folder: Path, _: str) -> None:
    directory = classes_of(folder, 2, 12)
    options = {"label_mode": None, "validation_split": 0.2, "subset": "both", "seed": 1337}
    plain, _held = dataset_of(directory, shuffle=False, **options)
    train, held = dataset_of(directory, **options)
    first, second = _images(train), _images(train)
    assert (_images(plain) != first).any() and (first != second).any()
    np.testing.assert_array_equal(_images(held), _images(held))
    again, held_again = dataset_of(directory, **options)
    np.testing.assert_array_equal(_images(again), first)
    np.testing.assert_array_equal(_images(held_again), _images(held))


# PyDataset


def adapter_of(data: Any, shuffle: bool = False, **attributes: Any) -> Any:
    """Keras' own adapter of a PyDataset, as `fit` makes it."""
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    for name, value in attributes.items():
        setattr(data, name, value)
    return PyDatasetAdapter(data, shuffle=shuffle)


@case(
    PYDATASET, "test_basic_flow",
    *(f"{kind}-{length}-{order}" for kind in ("multithreading", "single_np") for length in ("infinite", "finite")
      for order in ("shuffled", "in order")), "multiprocessing-finite-in order",
)  # fmt: skip
def _case_49(folder: Path, option: str) -> None:
    kind, length, order = option.split("-")
    data = shardkit.dataset(classes_of(folder, 4, 4), shuffle=order == "shuffled", seed=1)
    batches = data.decode(size=8, dtype="float32").batch(4)
    batches = batches.repeat() if length == "infinite" else batches
    workers = {} if kind == "single_np" else {"workers": 2, "use_multiprocessing": kind == "multiprocessing"}
    labels: list[int] = []
    for x, y in adapter_of(batches.to_keras(), **workers).get_tf_dataset():
        assert x.shape == (4, 8, 8, 3) and x.dtype == tf.float32
        labels += y.numpy().tolist()
        if len(labels) >= 32:
            break
    assert Counter(labels) == dict.fromkeys(range(4), 8 if length == "infinite" else 4)
    assert (labels == sorted(labels)) == (order == "in order" and length == "finite")


@case(PYDATASET, "test_dict_inputs")
def _case_50(folder: Path) -> None:
    batches = shardkit.dataset(classes_of(folder, 2, 8)).decode(size=8).batch(4)
    data = batches.map(lambda batch: {"x": batch.images, "y": batch.labels}).to_keras()
    found = [(batch["x"].shape, batch["y"].shape) for batch in adapter_of(data).get_tf_dataset()]
    assert found == [((4, 8, 8, 3), (4,))] * 4


@case(PYDATASET, "test_with_different_shapes")
def _case_51(folder: Path) -> None:
    batches = shardkit.dataset(classes_of(folder, 2, 6)).decode(size=8, dtype="float32").batch(4)
    sizes = iter((8, 7, 6) * 9)

    def cut(batch: Any) -> Any:
        side = next(sizes)
        return batch.images[:, :side], batch.labels

    found = {tuple(x.shape[1:]) for x, _ in adapter_of(batches.map(cut).to_keras()).get_tf_dataset()}
    assert found == {(8, 8, 3), (7, 8, 3), (6, 8, 3)}


@case(PYDATASET, "test_exception_reported", "multiprocessing", "multithreading", "single")
def _case_52(folder: Path, kind: str) -> None:
    def failing(batch: Any) -> Any:
        if "image_9" in batch.keys[-1]:  # in the last batch
            raise ValueError("Expected exception")
        return batch.images, batch.labels

    data = shardkit.dataset(classes_of(folder, 1, 16)).decode(size=8).batch(4).map(failing).to_keras()
    workers = {} if kind == "single" else {"workers": 2, "use_multiprocessing": kind == "multiprocessing"}
    with pytest.raises(tf.errors.InvalidArgumentError, match="Expected exception"):
        list(adapter_of(data, **workers).get_tf_dataset())


# All of them


@pytest.mark.parametrize(("file", "name"), CASES, ids=[name for _, name in CASES])
def test_a_case_of_keras_own_tests(file: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    CASES[file, name](folder)


def test_the_page_has_the_counts_and_a_reason_for_each_case_that_does_not_apply() -> None:
    assert not CASES.keys() & REASONS.keys()
    text = PAGE.read_text("utf-8")
    rows = re.findall(r"^\| `(\w+\.py)` \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    counts = {file: (int(every), int(good), int(absent)) for file, every, good, absent in rows}
    for file in (IMAGE, DATASET, PYDATASET):
        good, absent = (sum(of == file for of, _ in cases) for cases in (CASES, REASONS))
        assert counts[file] == (good + absent, good, absent)
    plain = " ".join(text.split())
    for reason in set(REASONS.values()):
        assert reason in plain, reason
