"""The transform for given parameters, against Keras' own: with the warp in C, and with its twin in NumPy."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from shardkit.images.augment import warp
from shardkit.images.augment.augmenter import transform
from shardkit.images.augment.options import Augment
from shardkit.images.augment.plain import FILL_MODES
from shardkit.images.augment.standardize import standardize, statistics_of
from shardkit.images.augment.transform import Numpy, Transform

theirs: Any = None

ONE_LEVEL = 1.0
"""Of 255: what a value may differ by."""

PARAMETERS: dict[str, dict[str, Any]] = {
    "rotation": {"theta": -17.5},
    "half a turn": {"theta": 180.0},
    "shift down": {"tx": 4.25},
    "shift right": {"ty": -7.0},
    "shift out of sight": {"tx": 400.0},
    "shear": {"shear": 19.0},
    "zoom in": {"zx": 0.7, "zy": 0.9},
    "zoom out": {"zx": 1.4, "zy": 2.3},
    "flips": {"flip_horizontal": True, "flip_vertical": True},
    "channel shift": {"channel_shift_intensity": 40.5},
    "darker": {"brightness": 0.45},
    "brighter": {"brightness": 1.7},
    "nothing": {},
    "all together": {
        "theta": 13.0, "tx": 5.5, "ty": -3.25, "shear": -11.0, "zx": 0.8, "zy": 1.3, "flip_horizontal": True,
        "flip_vertical": False, "channel_shift_intensity": -21.0, "brightness": 1.3,
    },
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    """Not while tests are collected: some of them fork, and a process that has loaded TensorFlow should not."""
    global theirs
    pytest.importorskip("tensorflow")
    pytest.importorskip("keras")
    from keras.src.legacy.preprocessing import image

    theirs = image


@pytest.fixture(params=["C", "NumPy"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test with the warp in C, where it is built, and without it."""
    if request.param == "NumPy":
        monkeypatch.setattr(warp, "available", lambda: False)
    elif not warp.available():
        pytest.skip("shardkit was built without its warp")
    return str(request.param)


def photo(height: int, width: int, channels: int = 3, *, seed: int = 0) -> np.ndarray:
    """Smooth colours with hard edges, uint8."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (-(-height // 5), -(-width // 5), channels), np.uint8)
    image = small.repeat(5, axis=0).repeat(5, axis=1)[:height, :width]
    return np.ascontiguousarray(image + rng.integers(0, 9, image.shape, np.uint8) // 2)


def by_keras(image: np.ndarray, parameters: dict[str, Any], **options: Any) -> np.ndarray:
    """The image, float32, as `ImageDataGenerator.apply_transform` of Keras makes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Keras takes SciPy's function from where it was
        made: np.ndarray = theirs.ImageDataGenerator(**options).apply_transform(image.astype(np.float32), parameters)
    return made


def by_shardkit(image: np.ndarray, parameters: dict[str, Any], **options: Any) -> np.ndarray:
    return transform(image, Augment(**options), Transform.of(parameters))


@pytest.mark.parametrize("fill_mode", FILL_MODES)
@pytest.mark.parametrize("name", PARAMETERS)
def test_each_parameter_does_what_it_does_in_keras(name: str, fill_mode: Any) -> None:
    for shape in ((30, 30, 3), (31, 44, 3), (40, 23, 1), (17, 18, 4)):
        image = photo(*shape)
        made = by_shardkit(image, PARAMETERS[name], fill_mode=fill_mode, cval=77.0)
        wanted = by_keras(image, PARAMETERS[name], fill_mode=fill_mode, cval=77.0)
        assert made.dtype == wanted.dtype == np.float32
        assert np.abs(made - wanted).max() <= ONE_LEVEL, shape


@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize("fill_mode", FILL_MODES)
def test_each_order_of_interpolation_does_what_it_does_in_keras(order: int, fill_mode: Any) -> None:
    pytest.importorskip("scipy")
    parameters = {"theta": 33.0, "zx": 0.8, "zy": 1.2, "tx": 3.5, "flip_vertical": True}
    options = {"interpolation_order": order, "fill_mode": fill_mode}
    image = photo(20, 31)
    assert np.abs(by_shardkit(image, parameters, **options) - by_keras(image, parameters, **options)).max() <= ONE_LEVEL


@pytest.mark.parametrize("fill_mode", FILL_MODES)
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (9, 1, 3), (2, 2, 1), (1, 2, 3)])
def test_the_smallest_images_are_warped_as_by_keras(shape: tuple[int, int, int], fill_mode: Any) -> None:
    image = photo(*shape, seed=3)
    for parameters in PARAMETERS.values():
        wanted = by_keras(image, parameters, fill_mode=fill_mode)
        assert np.abs(by_shardkit(image, parameters, fill_mode=fill_mode) - wanted).max() <= ONE_LEVEL


def test_images_of_floats_and_a_constant_out_of_range_are_stretched_as_by_keras() -> None:
    image = photo(24, 25).astype(np.float32) * 1.7 - 90
    for parameters in PARAMETERS.values():
        options = {"fill_mode": "constant", "cval": -300.0}
        difference = np.abs(by_shardkit(image, parameters, **options) - by_keras(image, parameters, **options))
        assert difference.max() <= ONE_LEVEL * 2  # their range is about 2 x 255


RANGES: dict[str, Any] = {
    "rotation_range": 20, "width_shift_range": 0.2, "height_shift_range": 0.2, "shear_range": 0.2, "zoom_range": 0.2,
    "horizontal_flip": True, "fill_mode": "nearest",
}  # fmt: skip
"""Those of the tutorials."""


@pytest.mark.parametrize(
    "ranges",
    [
        RANGES,
        {"width_shift_range": 9, "height_shift_range": 7},
        {"width_shift_range": 9.5, "height_shift_range": [-3, 5, 8]},
        {"width_shift_range": [0.1, 0.2, -0.3], "vertical_flip": True},
        {"zoom_range": [0.5, 1.5], "brightness_range": (0.5, 1.2), "channel_shift_range": 30.0},
        {**RANGES, "vertical_flip": True, "brightness_range": [0.8, 1.2], "channel_shift_range": 20},
    ],
    ids=lambda ranges: ",".join(ranges),
)
def test_the_ranges_have_the_meaning_of_keras(ranges: dict[str, Any]) -> None:
    """From NumPy's generator with the same seed come Keras' own parameters, and so its image."""
    image = photo(33, 40)
    generator, augment = theirs.ImageDataGenerator(**ranges), Augment(**ranges)
    for seed in range(30):
        wanted = generator.get_random_transform(image.shape, seed)
        drawn = Transform.drawn(augment, 33, 40, Numpy(np.random.RandomState(seed)))
        for name, value in wanted.items():
            assert getattr(drawn, name) == pytest.approx(value), name
        difference = np.abs(transform(image, augment, drawn) - by_keras(image, wanted, fill_mode="nearest"))
        assert difference.max() <= ONE_LEVEL


VALUES: list[dict[str, Any]] = [
    {"rescale": 1 / 255},
    {"samplewise_center": True},
    {"samplewise_center": True, "samplewise_std_normalization": True},
    {"featurewise_center": True},
    {"featurewise_center": True, "featurewise_std_normalization": True, "rescale": 1 / 127.5},
    {"featurewise_center": True, "zca_whitening": True, "rescale": 1 / 255, "zca_epsilon": 1e-3},
    {"preprocessing_function": lambda image: image[:, :, ::-1] - 100, "rescale": 0.5},
]


@pytest.mark.parametrize("options", VALUES, ids=lambda options: ",".join(options))
def test_values_are_standardized_as_by_keras(options: dict[str, Any]) -> None:
    images = np.stack([photo(6, 7, seed=seed) for seed in range(20)]).astype(np.float32)
    generator = theirs.ImageDataGenerator(**options)
    generator.fit(images)
    augment = Augment(**options).fit(images)
    for image in images:
        made = standardize(image.copy(), augment)
        np.testing.assert_allclose(made, generator.standardize(image.copy()), rtol=1e-4, atol=1e-4)


def test_statistics_are_those_of_keras_in_the_other_layout_too() -> None:
    images = np.stack([photo(6, 7, seed=seed) for seed in range(9)]).astype(np.float32).transpose(0, 3, 1, 2)
    options = {"featurewise_center": True, "featurewise_std_normalization": True}
    generator = theirs.ImageDataGenerator(data_format="channels_first", **options)
    generator.fit(images)
    found = statistics_of(Augment(**options), images, channels_first=True)
    np.testing.assert_allclose(found["mean"], generator.mean)
    np.testing.assert_allclose(found["std"], generator.std)
