"""`shardkit.Augment`: its arguments, and `decode(augment=)` on a dataset."""

from __future__ import annotations

import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import shardkit
from shardkit.errors import UsageError
from shardkit.images.augment import warp
from shardkit.images.augment.augmenter import Augmenter
from shardkit.images.augment.checks import LARGEST
from shardkit.images.augment.transform import DRAWS, Transform
from shardkit.images.options import STATISTICS

TUTORIAL: dict[str, Any] = {
    "rotation_range": 20, "width_shift_range": 0.2, "height_shift_range": 0.2, "shear_range": 0.2, "zoom_range": 0.2,
    "horizontal_flip": True, "fill_mode": "nearest", "rescale": 1 / 255,
}  # fmt: skip


@pytest.fixture
def shards(tree: Path, tmp_path: Path) -> str:
    shardkit.pack(tree, tmp_path / "shards" / "all")
    return str(tmp_path / "shards" / "all")


def images_of(shards: str, *, epoch: int = 0, threads: int = 1, **options: Any) -> np.ndarray:
    data = shardkit.dataset(shards, shuffle=6, seed=3, threads=threads).decode(**{"size": 12} | options).batch(5)
    data.set_epoch(epoch)
    return np.concatenate([batch.images for batch in data])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rotation_range": "20"}, "rotation_range: '20' is not a number"),
        ({"rotation_range": float("nan")}, "rotation_range: nan is not a number"),
        ({"shear_range": True}, "shear_range: True is not a number"),
        ({"zoom_range": (0.5, 1, 2)}, "zoom_range: .* is not a number or"),
        ({"zoom_range": "big"}, "zoom_range"),
        ({"brightness_range": 0.5}, "brightness_range: 0.5 is not"),
        ({"brightness_range": (0.5, "1")}, "brightness_range"),
        ({"width_shift_range": "0.2"}, "width_shift_range: '0.2' is neither a number nor a list"),
        ({"height_shift_range": [1, None]}, "height_shift_range"),
        ({"fill_mode": "mirror"}, "fill_mode: 'mirror' is not one of 'nearest'"),
        ({"cval": None}, "cval: None is not a number"),
        ({"horizontal_flip": 1}, "horizontal_flip: 1 is not True or False"),
        ({"featurewise_center": "yes"}, "featurewise_center"),
        ({"interpolation_order": 6}, "interpolation_order: 6 is not a whole number from 0 to 5"),
        ({"interpolation_order": 1.0}, "interpolation_order"),
        ({"rescale": "1/255"}, "rescale: '1/255' is not a number"),
        ({"preprocessing_function": 3}, "preprocessing_function: 3 can't be called"),
        ({"rotation_range": 1e308}, r"rotation_range: 1e\+308 is beyond"),
        ({"shear_range": 10**400}, "shear_range: it is beyond"),
        ({"rotation_range": np.array([20])}, "rotation_range: .* is not a number"),
        ({"width_shift_range": -float("inf")}, "width_shift_range: -inf is beyond"),
        ({"width_shift_range": [[1, 2]]}, "width_shift_range: .* is neither a number nor a list"),
        ({"width_shift_range": np.array([[1, 2]])}, "width_shift_range"),
        ({"zoom_range": (1, 2 * LARGEST)}, "zoom_range: .* is beyond"),
        ({"zoom_range": np.ones(3)}, "zoom_range"),
        ({"brightness_range": (1, 1e300)}, r"brightness_range: 1e\+300 is beyond"),
        ({"brightness_range": np.array([0.5, 1.5])}, "brightness_range: .* is not"),
        ({"channel_shift_range": 1e300}, "channel_shift_range"),
        ({"cval": 1e300}, "cval"),
        ({"rescale": 1e300}, r"rescale: 1e\+300 is beyond"),
        ({"rescale": 1e-300}, "rescale: 1e-300 is so small that every value becomes 0"),
        ({"zca_epsilon": -1}, "zca_epsilon: -1 is negative"),
        ({"mean": "zero"}, "mean: an array of <U4 does not hold real numbers"),
        ({"mean": [1, [2]]}, "mean: it is not an array of numbers"),
        ({"mean": float("nan")}, "mean: it holds NaN"),
        ({"mean": 1j}, "mean: an array of complex128"),
        ({"std": [1.0, -1.0, 1.0]}, "std: it holds a negative deviation"),
        ({"zca_matrix": np.full((3, 3), np.inf)}, "zca_matrix: it holds NaN or infinity"),
    ],
)
def test_arguments_without_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        shardkit.Augment(**arguments)
    assert isinstance(caught.value, UsageError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": {"rotation_range": 20}}, "is not a shardkit.Augment"),
        ({"augment": shardkit.Augment(featurewise_center=True)}, "augment: it needs mean, which it does not have"),
        (
            {"augment": shardkit.Augment(samplewise_center=True), "mean": 0.5},
            "mean: the augmentation has its own mean and deviation; omit its",
        ),
        ({"augment": shardkit.Augment(zca_whitening=True)}, "it needs mean, zca_matrix"),
        ({"augment": shardkit.Augment(**TUTORIAL), "rescale": 1 / 255}, "give one of the two"),
        ({"augment": shardkit.Augment(**TUTORIAL), "dtype": "uint8"}, "no room"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any], message: str, shards: str) -> None:
    with pytest.raises(UsageError, match=message):
        shardkit.dataset(shards).decode(size=8, **options)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((3, 4, 5)), r"images: \(3, 4, 5\) is not \(n, height, width, channels\)"),
        (np.zeros((0, 4, 4, 3)), "images: .* none of them empty"),
        ("pictures", "images: an array of <U8 does not hold real numbers"),
        ([[1], [1, 2]], "images: it is not an array of numbers"),
        ([None], "images: an array of object"),
        (np.full((1, 2, 2, 3), np.nan), "images: its values are not all finite"),
        (5, r"images: \(\) is not"),
    ],
)
def test_fit_refuses_what_is_no_batch_of_images(images: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        shardkit.Augment(featurewise_center=True).fit(images)


def test_numbers_and_pairs_of_numpy_are_taken_as_those_of_python() -> None:
    given = shardkit.Augment(
        rotation_range=np.array(20), width_shift_range=np.array(0.2), zoom_range=np.array([0.8, 1.2]),
        rescale=np.float32(0.5), shear_range=np.longdouble(2), interpolation_order=np.array(1),
    )  # fmt: skip
    plain = shardkit.Augment(
        rotation_range=20, width_shift_range=0.2, zoom_range=(0.8, 1.2), rescale=0.5, shear_range=2.0
    )
    assert [getattr(given, each.name) for each in fields(given)] == [
        getattr(plain, each.name) for each in fields(plain)
    ]


@pytest.mark.parametrize("factor", [LARGEST, -LARGEST, 0])
def test_the_largest_numbers_change_an_image_without_a_warning(factor: float) -> None:
    augment = shardkit.Augment(
        rotation_range=factor, width_shift_range=factor, height_shift_range=factor, shear_range=factor,
        zoom_range=(factor, factor), brightness_range=(factor, factor), fill_mode="reflect",
    )  # fmt: skip
    augmenter, made = Augmenter(augment), np.empty((6, 7, 3), np.float32)
    augmenter.into(np.full((6, 7, 3), 9, np.uint8), made, augmenter.draws(1, np.arange(1))[0])
    assert made.min() >= 0 and made.max() <= 255


def test_parameters_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(UsageError, match="theta: nan is not a number"):
        Transform.of({"theta": float("nan")})


def test_statistics_and_functions_that_do_not_fit_an_image_are_refused(shards: str) -> None:
    for wrong, message in (
        ({"featurewise_center": True, "mean": np.zeros(5)}, r"mean: \(5,\) does not fit an image of \(12, 12, 3\)"),
        ({"zca_whitening": True, "mean": 0, "zca_matrix": np.eye(4)}, r"zca_matrix: \(4, 4\) does not fit"),
        ({"preprocessing_function": lambda image: image[:3]}, "preprocessing_function: it returned an array"),
        ({"preprocessing_function": lambda image: None}, "preprocessing_function: an array of object"),
    ):
        with pytest.raises(UsageError, match=message):
            images_of(shards, augment=shardkit.Augment(**wrong))


def test_an_image_is_changed_anew_in_each_epoch_and_each_sample_in_its_own_way(shards: str) -> None:
    augment = shardkit.Augment(**TUTORIAL)
    first, again, next_one = (images_of(shards, augment=augment, epoch=epoch) for epoch in (0, 0, 1))
    assert first.dtype == np.float32 and first.shape == (12, 12, 12, 3) and 0.3 < first.max() <= 1
    np.testing.assert_array_equal(first, again)
    assert sorted(image.tobytes() for image in first) != sorted(image.tobytes() for image in next_one)
    rows = Augmenter(augment).draws(7, np.arange(1000))
    assert rows.shape == (1000, DRAWS) and len(np.unique(rows)) == rows.size


@pytest.mark.parametrize("native", [True, False])
def test_batches_are_the_same_for_any_threads_and_after_a_resume(
    native: bool, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr(warp, "available", lambda: False)
    augment = shardkit.Augment(brightness_range=(0.5, 1.5), channel_shift_range=20, **TUTORIAL)
    one, many = (images_of(shards, augment=augment, threads=threads) for threads in (1, 3))
    np.testing.assert_array_equal(one, many)
    data = shardkit.dataset(shards, shuffle=6, seed=3).decode(size=12, augment=augment).batch(5)
    batches = iter(data)
    next(batches)
    state = data.state_dict()
    rest = [batch.images for batch in batches]
    resumed = shardkit.dataset(shards, shuffle=6, seed=3).decode(size=12, augment=augment).batch(5)
    resumed.load_state_dict(state)
    for one, other in zip(resumed, rest, strict=True):
        np.testing.assert_array_equal(one.images, other)


def test_samples_are_the_same_whichever_rank_or_worker_reads_them(shards: str) -> None:
    def samples(rank: int, world_size: int, worker: int, workers: int) -> dict[str, bytes]:
        data = shardkit.dataset(shards, shuffle=6, seed=3, rank=rank, world_size=world_size)
        data = data.decode(size=12, augment=shardkit.Augment(**TUTORIAL))
        run = data.run(2, worker=worker, workers=workers)
        return {sample["__key__"]: sample["jpg"].tobytes() for _, sample in run}

    alone = samples(0, 1, 0, 1)
    assert len(alone) == 12
    for world_size, workers in ((2, 1), (1, 3), (2, 2)):
        parts = [samples(r, world_size, w, workers) for r in range(world_size) for w in range(workers)]
        assert {key: image for part in parts for key, image in part.items()} == alone


def test_the_draws_of_a_crop_and_a_flip_stay_what_they_are(shards: str) -> None:
    """And those of the augmentation do not depend on them."""
    still = shardkit.Augment()
    for options in ({"crop": "random", "flip": True}, {"flip": True}, {}):
        plain = images_of(shards, **options)
        np.testing.assert_array_equal(images_of(shards, augment=still, **options), plain)
    drawn = [
        Augmenter(shardkit.Augment(**more)).draws(7, np.arange(9))
        for more in ({}, {"rotation_range": 20}, {"zoom_range": 0.1})
    ]
    assert (drawn[0] == drawn[1]).all() and (drawn[0] == drawn[2]).all()


def test_layouts_and_types_hold_the_same_values(shards: str) -> None:
    augment = shardkit.Augment(rotation_range=30, channel_shift_range=9, zoom_range=0.3)
    floats = images_of(shards, augment=augment, dtype="float32")
    np.testing.assert_array_equal(images_of(shards, augment=augment), np.rint(floats))
    np.testing.assert_array_equal(images_of(shards, augment=augment, dtype="float16"), floats.astype(np.float16))
    turned = images_of(shards, augment=augment, dtype="float32", layout="chw")
    np.testing.assert_array_equal(turned.transpose(0, 2, 3, 1), floats)
    scaled = images_of(shards, augment=augment, rescale=0.5)
    np.testing.assert_allclose(scaled, floats * 0.5, rtol=1e-6)
    gray = images_of(shards, augment=augment, color="gray")
    assert gray.shape == (12, 12, 12, 1) and gray.dtype == np.uint8


@pytest.mark.parametrize("layout", ["hwc", "chw"])
def test_mean_and_std_of_decode_come_after_the_augmentation(shards: str, layout: str) -> None:
    augment = shardkit.Augment(horizontal_flip=True, brightness_range=(0.5, 1.5))
    plain = images_of(shards, augment=augment, layout=layout)
    shape = (3, 1, 1) if layout == "chw" else (3,)
    mean, std = (np.array(numbers, np.float32).reshape(shape) for numbers in STATISTICS["imagenet"])
    found = images_of(shards, augment=augment, layout=layout, mean="imagenet", std="imagenet")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, (plain.astype(np.float32) / np.float32(255) - mean) / std)
    scaled = images_of(shards, augment=augment, layout=layout, rescale=0.5, mean=2.0)
    np.testing.assert_array_equal(scaled, plain.astype(np.float32) * np.float32(0.5) - np.float32(2))


def test_mean_and_std_alone_are_those_without_an_augmentation(shards: str) -> None:
    expected = images_of(shards, mean="imagenet", std="imagenet")
    np.testing.assert_array_equal(
        images_of(shards, augment=shardkit.Augment(), mean="imagenet", std="imagenet"), expected
    )


def test_the_function_sees_the_image_in_the_layout_of_the_batch(shards: str) -> None:
    shapes = []

    def function(image: Any) -> Any:
        shapes.append((image.shape, image.dtype))
        return image - 3

    augment = shardkit.Augment(preprocessing_function=function)
    made = images_of(shards, augment=augment, layout="chw", size=(6, 8))
    assert set(shapes) == {((3, 6, 8), np.dtype(np.float32))}
    np.testing.assert_array_equal(made, images_of(shards, layout="chw", size=(6, 8), dtype="float32") - 3)


def test_the_function_sees_each_image_once_whatever_its_format(tmp_path: Path) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    colors = {"0.jpg": 10, "1.png": 90, "2.jpg": 170, "3.png": 250}
    for name, value in colors.items():
        Image.new("RGB", (12, 12), (value,) * 3).save(tmp_path / "tree" / "a" / name)
    shardkit.pack(tmp_path / "tree", tmp_path / "all", workers=1)
    seen = []

    def function(image: Any) -> Any:
        seen.append(round(float(image.mean())))
        return image

    images_of(str(tmp_path / "all"), augment=shardkit.Augment(preprocessing_function=function))
    assert sorted(seen) == sorted(colors.values())


def test_images_of_their_own_size_are_changed_too(shards: str) -> None:
    data = shardkit.dataset(shards).decode(augment=shardkit.Augment(vertical_flip=True, horizontal_flip=True))
    plain = shardkit.dataset(shards).decode()
    turned = [(one["jpg"] == other["jpg"]).all() for one, other in zip(data, plain, strict=True)]
    assert 0 < sum(turned) < 12


def test_statistics_that_were_fitted_center_the_values(shards: str) -> None:
    images = images_of(shards)
    fitted = shardkit.Augment(featurewise_center=True, featurewise_std_normalization=True, rescale=1 / 255).fit(images)
    made = images_of(shards, augment=fitted)
    np.testing.assert_allclose(made.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(made.std((0, 1, 2)), 1, atol=1e-3)


def test_each_sample_has_a_mean_and_a_deviation_of_its_own(shards: str) -> None:
    made = images_of(shards, augment=shardkit.Augment(samplewise_std_normalization=True))
    np.testing.assert_allclose(made.mean((1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(made.std((1, 2, 3)), 1, atol=1e-3)


def test_a_dataset_with_an_augmentation_can_be_pickled(shards: str) -> None:
    data = shardkit.dataset(shards).decode(size=8, augment=shardkit.Augment(**TUTORIAL)).batch(12)
    [one], [other] = pickle.loads(pickle.dumps(data)), data
    np.testing.assert_array_equal(one.images, other.images)


def test_a_graph_of_tensorflow_refuses_an_augmentation(shards: str) -> None:
    pytest.importorskip("tensorflow")
    data = shardkit.dataset(shards).decode(size=8, augment=shardkit.Augment(rotation_range=3)).batch(4)
    with pytest.raises(UsageError, match="augment"):
        data.to_tf(graph=True)


def test_a_loader_that_asks_by_number_refuses_an_augmentation(shards: str) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    data = shardkit.dataset(shards).decode(size=8, augment=shardkit.Augment(rotation_range=3))
    with pytest.raises(UsageError, match="would be the same in each epoch"):
        next(iter(torch_data.DataLoader(data)))
