"""`shardkit.keras.ImageDataGenerator` against Keras' own: one image, fit, and flows of trees, tables and arrays."""

from __future__ import annotations

import inspect
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.errors import UsageError

keras: Any = None
Theirs: Any = None
Ours: Any = None

TUTORIAL: dict[str, Any] = {
    "rotation_range": 20, "width_shift_range": 0.2, "height_shift_range": 0.2, "shear_range": 0.2, "zoom_range": 0.2,
    "horizontal_flip": True, "fill_mode": "nearest",
}  # fmt: skip

EVERYTHING = {**TUTORIAL, "vertical_flip": True, "brightness_range": [0.7, 1.3], "channel_shift_range": 20.0}


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    """Not while tests are collected: some of them fork, and a process that has loaded TensorFlow should not."""
    global keras, Theirs, Ours
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    Theirs, Ours = ImageDataGenerator, shardkit.keras.ImageDataGenerator


@pytest.fixture(autouse=True)
def _old_place_of_scipy() -> Any:
    """Keras takes SciPy's function from where it was."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*scipy.ndimage", category=DeprecationWarning)
        yield


@pytest.fixture
def images() -> np.ndarray:
    """12 images of 18 x 20, float32 of whole values."""
    small = np.random.default_rng(1).integers(0, 256, (12, 6, 5, 3))
    return small.repeat(3, axis=1).repeat(4, axis=2).astype(np.float32)


@pytest.fixture
def frame(tree: Path) -> Any:
    pandas = pytest.importorskip("pandas")
    paths = sorted(path.relative_to(tree) for path in tree.rglob("*.jpg"))
    rows = [(str(path), path.parent.name, n, n / 2, 1 + n % 3) for n, path in enumerate(paths)]
    return pandas.DataFrame(rows, columns=["filename", "class", "age", "size", "weight"])


def in_order(flow: Any) -> list[Any]:
    return [flow[number] for number in range(len(flow))]


# One image


@pytest.mark.parametrize(
    "method", ["__init__", "fit", "flow", "flow_from_directory", "flow_from_dataframe", "get_random_transform"]
)
def test_every_argument_of_keras_own_is_taken_in_its_order_with_its_default(method: str) -> None:
    theirs, ours = (inspect.signature(getattr(cls, method)).parameters for cls in (Theirs, Ours))
    assert [(one.name, one.default) for one in ours.values()] == [(one.name, one.default) for one in theirs.values()]


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_random_transform_of_a_seed_is_that_of_keras(images: np.ndarray, data_format: Any) -> None:
    ours, theirs = (cls(data_format=data_format, **EVERYTHING) for cls in (Ours, Theirs))
    for seed, image in enumerate(images):
        x = image.transpose(2, 0, 1) if data_format == "channels_first" else image
        assert ours.get_random_transform(x.shape, seed) == pytest.approx(theirs.get_random_transform(x.shape, seed))
        made = ours.random_transform(x, seed)
        without_brightness = {"brightness": None}  # Keras' own brightness knows the global data format only
        parameters = theirs.get_random_transform(x.shape, seed) | without_brightness
        assert np.abs(ours.apply_transform(x, parameters) - theirs.apply_transform(x, parameters)).max() <= 1
        assert made.shape == x.shape and made.dtype == np.float32


def test_without_a_seed_the_parameters_are_drawn_from_numpys_global_generator(images: np.ndarray) -> None:
    np.random.seed(5)
    one = Ours(**EVERYTHING).get_random_transform(images[0].shape)
    np.random.seed(5)
    other = Theirs(**EVERYTHING).get_random_transform(images[0].shape)
    assert one == pytest.approx(other)


def test_an_image_of_bytes_stays_one(images: np.ndarray) -> None:
    made = Ours(**TUTORIAL).random_transform(images[0].astype(np.uint8), seed=3)
    assert made.dtype == np.uint8
    exact = Ours(**TUTORIAL).random_transform(images[0], seed=3)
    assert np.abs(made - exact).max() <= 0.5


@pytest.mark.parametrize("augment", [False, True])
def test_fit_finds_what_keras_finds(augment: bool, images: np.ndarray) -> None:
    options = {**TUTORIAL, "featurewise_center": True, "featurewise_std_normalization": True, "rescale": 1 / 255}
    ours, theirs = Ours(**options), Theirs(**options)
    for generator in (ours, theirs):
        generator.fit(images, augment=augment, rounds=2, seed=4)
    np.testing.assert_allclose(ours.mean, theirs.mean, atol=1e-5)
    np.testing.assert_allclose(ours.std, theirs.std, atol=1e-5)
    np.testing.assert_allclose(ours.standardize(images.copy()), theirs.standardize(images.copy()), atol=1e-4)


def test_standardize_changes_an_array_in_place_as_keras_own_does(images: np.ndarray) -> None:
    before = images.copy()
    assert Ours(rescale=1 / 2).standardize(images) is images
    np.testing.assert_allclose(images, before / 2)


@pytest.mark.parametrize(
    ("switch", "implied"),
    [
        ("zca_whitening", {"featurewise_center": True}),
        ("featurewise_std_normalization", {"featurewise_center": True}),
        ("samplewise_std_normalization", {"samplewise_center": True}),
    ],
)
def test_what_an_argument_implies_is_switched_on_with_a_warning(switch: str, implied: dict[str, bool]) -> None:
    for cls in (Ours, Theirs):
        with pytest.warns(UserWarning, match=f"specifies.*`{switch}`"):
            made = cls(**{switch: True})
        assert {name: getattr(made, name) for name in implied} == implied


def test_a_statistic_that_was_not_fitted_is_warned_of_and_left_out(images: np.ndarray) -> None:
    for cls in (Ours, Theirs):
        with pytest.warns(UserWarning, match="hasn't.*been fit"):
            np.testing.assert_array_equal(cls(featurewise_center=True).standardize(images.copy()), images)
    with pytest.warns(UserWarning, match="hasn't been fit"):
        Ours(featurewise_center=True).flow(images)


@pytest.mark.parametrize(
    "options",
    [
        {"data_format": "channels"}, {"validation_split": 1.5}, {"zoom_range": [1]}, {"zoom_range": (1, 2, 3)},
        {"brightness_range": 0.5}, {"brightness_range": [1]}, {"data_format": ""}, {"validation_split": "0.2"},
        {"validation_split": 1.0}, {"validation_split": float("nan")}, {"zoom_range": "big"}, {"zoom_range": None},
    ],
    ids=str,
)  # fmt: skip
def test_what_keras_refuses_is_refused(options: dict[str, Any]) -> None:
    for cls in (Ours, Theirs):
        with pytest.raises((ValueError, TypeError)):
            cls(**options)
    with pytest.raises(UsageError, match=next(iter(options))):
        Ours(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"rotation_range": None, "shear_range": None, "width_shift_range": None, "height_shift_range": None},
        {"validation_split": None}, {"rotation_range": np.array(20)}, {"zoom_range": np.array([0.8, 1.2])},
        {"zoom_range": (0, 0)}, {"zoom_range": (1.2, 0.8)}, {"zoom_range": 1}, {"width_shift_range": range(3)},
        {"rotation_range": -20}, {"brightness_range": (1.5, 0.5)},
    ],
    ids=str,
)  # fmt: skip
def test_what_keras_takes_is_taken_and_means_the_same(options: dict[str, Any], images: np.ndarray) -> None:
    ours, theirs = Ours(**options), Theirs(**options)
    made = [generator.random_transform(images[0], seed=4) for generator in (ours, theirs)]
    assert np.abs(made[0] - made[1]).max() <= 1
    assert next(ours.flow(images)).shape == images.shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Ours(dtype="bogus"), "dtype: 'bogus' is not a dtype"),
        (lambda: Ours(dtype="str"), "dtype: str can't hold an image"),
        (lambda: Ours().fit("pictures"), "x: an array of <U8"),
        (lambda: Ours().fit([[1], [1, 2]]), "x: it is not an array of numbers"),
        (lambda: Ours().fit(np.zeros((2, 4, 4, 3)), augment=True, rounds=0), "rounds: 0"),
        (lambda: Ours().fit(np.zeros((2, 4, 4, 3)), augment=True, seed="a"), "seed: 'a'"),
        (lambda: Ours().get_random_transform((4, 4, 3), seed=-1), "seed: -1 is not a whole number"),
        (lambda: Ours().random_transform("picture"), "x: an array of <U7"),
        (lambda: Ours().standardize([[1], [1, 2]]), "x: it is not an array"),
        (lambda: Ours().flow(np.zeros((2, 4, 4, 3)), seed="a"), "seed: 'a'"),
    ],
)  # fmt: skip
def test_calls_without_sense_name_the_argument(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_an_attribute_that_was_set_to_nonsense_is_named(images: np.ndarray) -> None:
    generator = Ours(featurewise_center=True)
    for mean in ("zero", float("nan")):
        generator.mean = mean
        with pytest.raises(UsageError, match="mean: "):
            generator.flow(images)


def test_the_repr_has_what_was_asked_for(images: np.ndarray, tree: Path) -> None:
    assert repr(Ours()) == "ImageDataGenerator()"
    generator = Ours(rotation_range=20, zoom_range=0.5, rescale=0.5)
    assert repr(generator) == "ImageDataGenerator(rotation_range=20, zoom_range=[0.5, 1.5], rescale=0.5)"
    flow = repr(generator.flow(images, batch_size=5))
    assert flow == "<ArrayFlow: n=12, image_shape=(18, 20, 3), batch_size=5, shuffle=True, seed=None>"
    assert "batches=3, batch_size=5" in repr(generator.flow_from_directory(tree, batch_size=5))


def test_images_with_other_axes_are_refused(images: np.ndarray) -> None:
    for call in (Ours().fit, Ours().flow):
        with pytest.raises(UsageError, match="four axes"):
            call(images[0])
    with pytest.raises(UsageError, match="three axes"):
        Ours().random_transform(images)


# Trees and shards


def test_a_flow_of_a_tree_without_changes_is_that_of_keras(tree: Path) -> None:
    options = {"target_size": (20, 24), "batch_size": 5, "shuffle": False}
    ours, theirs = (cls(rescale=1 / 255).flow_from_directory(tree, **options) for cls in (Ours, Theirs))
    assert (ours.filenames, ours.class_indices, len(ours)) == (theirs.filenames, theirs.class_indices, len(theirs))
    for (x, y), (their_x, their_y) in zip(in_order(ours), in_order(theirs), strict=True):
        assert x.dtype == their_x.dtype and np.abs(x - their_x).max() <= 2 / 255  # another JPEG decoder
        np.testing.assert_array_equal(y, their_y)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_flow_of_shards_changes_images_anew_in_each_epoch(
    exact: bool, data_format: Any, tree: Path, tmp_path: Path
) -> None:
    shardkit.pack(tree, tmp_path / "shards" / "all")
    generator = Ours(rescale=1 / 255, data_format=data_format, **EVERYTHING)
    options = {"target_size": (16, 16), "batch_size": 5, "seed": 3, "exact": exact, "verbose": False}

    def epochs() -> list[np.ndarray]:
        flow = generator.flow_from_shards(tmp_path / "shards" / "all", **options)
        return [np.concatenate([x for x, _ in flow]) for _ in range(2)]

    first, second = epochs()
    shape = (12, 16, 16, 3) if data_format == "channels_last" else (12, 3, 16, 16)
    assert first.shape == shape and first.dtype == np.float32 and 0.5 < first.max() <= 1
    assert sorted(image.tobytes() for image in first) != sorted(image.tobytes() for image in second)
    for one, other in zip(epochs(), (first, second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_only_keras_can_load_is_changed_too(tree: Path) -> None:
    flow = Ours(**EVERYTHING).flow_from_directory(tree, (16, 16), color_mode="rgba", interpolation="hamming")
    x, y = next(flow)
    assert x.shape == (12, 16, 16, 4) and y.shape == (12, 2)
    plain = Ours().flow_from_directory(tree, (16, 16), color_mode="rgba", interpolation="hamming")
    assert np.abs(x - next(plain)[0]).max() > 10


def test_a_subset_of_a_tree_is_that_of_keras(tree: Path) -> None:
    for subset in ("training", "validation"):
        flows = [
            cls(validation_split=0.4).flow_from_directory(tree, (8, 8), shuffle=False, subset=subset)
            for cls in (Ours, Theirs)
        ]
        assert flows[0].filenames == flows[1].filenames


def test_an_augmentation_has_its_own_rescale(tree: Path) -> None:
    with pytest.raises(UsageError, match="augment has a rescale"):
        shardkit.keras.flow_from_shards(str(tree), rescale=0.5, augment=shardkit.Augment())


def test_a_model_is_trained_from_each_kind_of_flow(tree: Path, frame: Any, images: np.ndarray) -> None:
    layers = [keras.Input((18, 20, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    generator = Ours(rescale=1 / 255, **TUTORIAL)
    size = {"target_size": (18, 20), "class_mode": "sparse", "batch_size": 5}
    for flow in (
        generator.flow_from_directory(tree, **size),
        generator.flow_from_dataframe(frame, tree, **size),
        generator.flow(images, np.arange(12) % 2, batch_size=5),
    ):
        model = keras.Sequential(layers)
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        assert len(model.fit(flow, epochs=2, verbose=0).history["loss"]) == 2


# DataFrames

FRAMES: list[dict[str, Any]] = [
    {},
    {"class_mode": "sparse"},
    {"class_mode": "binary", "weight_col": "weight"},
    {"class_mode": "categorical", "classes": ["red"]},
    {"class_mode": "raw", "y_col": "age"},
    {"class_mode": "raw", "y_col": ["age", "size"], "weight_col": "weight"},
    {"class_mode": "multi_output", "y_col": ["age", "size"]},
    {"class_mode": "input"},
    {"class_mode": None},
]


@pytest.mark.parametrize("subset", [None, "training", "validation"])
@pytest.mark.parametrize("options", FRAMES, ids=str)
def test_a_flow_of_a_dataframe_is_that_of_keras(
    options: dict[str, Any], subset: Any, frame: Any, tree: Path, capsys: Any
) -> None:
    given = {"target_size": (10, 12), "batch_size": 5, "shuffle": False, "subset": subset} | options
    flows = []
    for cls in (Ours, Theirs):
        flows.append(cls(validation_split=0.3).flow_from_dataframe(frame, str(tree), **given))
        said = capsys.readouterr().out
    ours, theirs = flows
    assert f"Found {ours.samples} validated image filenames" in said
    for name in ("filenames", "filepaths", "samples", "n", "class_mode", "image_shape"):
        assert getattr(ours, name) == getattr(theirs, name), name
    if options.get("class_mode", "categorical") in ("binary", "sparse", "categorical"):
        assert (ours.class_indices, ours.classes) == (theirs.class_indices, theirs.classes)
    for one, other in zip(in_order(ours), in_order(theirs), strict=True):
        assert_alike(one, other)


def assert_alike(one: Any, other: Any) -> None:
    """The same structure of arrays of the same types, within two levels of 255."""
    assert type(one) is type(other)
    if isinstance(one, (tuple, list)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_alike(a, b)
        return
    assert one.dtype == other.dtype and one.shape == other.shape
    assert np.abs(one - other).max() <= 2


def test_rows_with_several_labels_are_multi_hot(tree: Path) -> None:
    pandas = pytest.importorskip("pandas")
    rows = {"filename": ["red/0000.jpg", "blue/0000.jpg"], "class": [["warm", "red"], ["cold"]]}
    flows = [
        cls().flow_from_dataframe(pandas.DataFrame(rows), str(tree), target_size=(8, 8), shuffle=False)
        for cls in (Ours, Theirs)
    ]
    np.testing.assert_array_equal(flows[0][0][1], flows[1][0][1])
    np.testing.assert_array_equal(flows[0][0][1], [[0, 1, 1], [1, 0, 0]])
    assert flows[0].labels == flows[1].labels


def test_files_that_are_missing_are_named_together_and_left_out(frame: Any, tree: Path) -> None:
    frame.loc[[1, 4, 5], "filename"] = ["gone.jpg", "red/none.png", "notes.txt"]
    with pytest.warns(UserWarning, match=r"Found 3 invalid image filename.*gone.jpg, red/none.png, notes.txt"):
        assert Ours().flow_from_dataframe(frame, tree, target_size=(8, 8)).samples == 9
    with pytest.raises(UsageError, match=r"Found 12 invalid image filename.* and 7 more"):
        Ours().flow_from_dataframe(frame, tree / "nowhere", target_size=(8, 8))
    flow = Ours().flow_from_dataframe(frame, tree, target_size=(8, 8), validate_filenames=False)
    with pytest.raises(shardkit.NotFoundError, match="there is no such file"):
        in_order(flow)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x_col": "path"}, "x_col: there is no column 'path'; its columns are filename, class"),
        ({"y_col": "label"}, "y_col: there is no column 'label'"),
        ({"weight_col": "w"}, "weight_col: there is no column 'w'"),
        ({"weight_col": "class"}, "weight_col: column 'class' is not numeric"),
        ({"x_col": "age"}, "x_col: all values of column 'age' must be strings"),
        ({"class_mode": "sparse", "y_col": "age"}, "y_col: with class_mode='sparse' the values of"),
        ({"class_mode": "categorical", "y_col": "age"}, "must be strings, or lists of strings"),
        ({"class_mode": "multi_output", "y_col": "age"}, "y_col: .* needs a list of columns"),
        ({"class_mode": "binary", "classes": ["red"]}, "class_mode: \"binary\" needs two classes, but there are 1"),
        ({"class_mode": "several"}, "class_mode: 'several' is not one of"),
        ({"classes": ["green"]}, "dataframe: no rows are left"),
        ({"subset": "training"}, "validation_split"),
        ({"batch_size": 0}, "batch_size"),
        ({"color_mode": "bgr"}, "color_mode"),
        ({"has_extension": True}, "unexpected keyword argument 'has_extension'"),
    ],
    ids=str,
)  # fmt: skip
def test_columns_and_options_without_sense_are_refused(
    options: dict[str, Any], message: str, frame: Any, tree: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        Ours().flow_from_dataframe(frame, tree, **options)


def test_labels_that_are_missing_are_refused_with_their_rows(frame: Any, tree: Path) -> None:
    frame.loc[[2, 7], ["class", "size"]] = None
    with pytest.raises(UsageError, match=r"y_col: column 'class' has no value in 2 of 12 rows: 2, 7"):
        Ours().flow_from_dataframe(frame, tree)
    with pytest.raises(UsageError, match=r"y_col: column 'size' has no value in 2 of 12 rows"):
        Ours().flow_from_dataframe(frame, tree, class_mode="raw", y_col="size")
    with pytest.raises(UsageError, match="list is not a DataFrame"):
        Ours().flow_from_dataframe([1, 2], tree)


def test_targets_of_several_lengths_are_refused(frame: Any, tree: Path) -> None:
    frame["boxes"] = [[1, 2]] * 11 + [[1]]
    with pytest.raises(UsageError, match="'boxes' are not of one kind and shape"):
        Ours().flow_from_dataframe(frame, tree, class_mode="raw", y_col="boxes")


def test_the_old_spellings_are_taken_with_a_warning(frame: Any, tree: Path) -> None:
    options = {"target_size": (8, 8), "y_col": "age"}
    with pytest.warns(DeprecationWarning, match='now class_mode="raw"'):
        flow = Ours().flow_from_dataframe(frame, tree, class_mode="other", **options)
    assert flow.class_mode == "raw"
    with pytest.warns(DeprecationWarning, match="has_ext is deprecated"):
        Ours().flow_from_dataframe(frame, tree, class_mode="raw", has_ext=True, **options)


def test_a_damaged_file_is_reported_by_its_name(frame: Any, tree: Path) -> None:
    (tree / "red/0003.jpg").write_bytes(b"\xff\xd8\xff")
    for options in ({}, {"color_mode": "rgba"}):
        with pytest.raises(shardkit.DecodeError, match=r"red/0003.jpg: .*"):
            in_order(Ours().flow_from_dataframe(frame, tree, target_size=(8, 8), **options))


# Arrays


def test_a_flow_of_arrays_is_that_of_keras(images: np.ndarray) -> None:
    y, weight, more = np.arange(12), np.linspace(0, 1, 12), np.arange(24).reshape(12, 2)
    for arguments in ((images,), (images, y), (images, y), ((images, more), y), ((images, [more, more]), y)):
        for weights in (None, weight) if len(arguments) > 1 else (None,):
            flows = [
                cls(rescale=0.5).flow(*arguments, batch_size=5, shuffle=False, sample_weight=weights)
                for cls in (Ours, Theirs)
            ]
            for one, other in zip(*map(in_order, flows), strict=True):
                assert_alike(one, other)


def test_a_shuffled_flow_has_each_image_once_in_each_epoch_and_no_end(images: np.ndarray) -> None:
    flow = Ours().flow(images, np.arange(12), batch_size=5, seed=1)
    epochs = [np.concatenate([next(flow)[1] for _ in range(3)]) for _ in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 3
    assert epochs[0].tolist() != epochs[1].tolist()
    again = Ours().flow(images, np.arange(12), batch_size=5, seed=1)
    again.set_epoch(1)
    np.testing.assert_array_equal(np.concatenate([y for _, y in in_order(again)]), epochs[1])


def test_a_batch_depends_on_seed_epoch_and_number_only(images: np.ndarray) -> None:
    flow = Ours(**EVERYTHING).flow(images, batch_size=5, seed=1)
    wanted = in_order(flow)
    copy = pickle.loads(pickle.dumps(flow))
    for number in (2, 0, 1):
        np.testing.assert_array_equal(copy[number], wanted[number])
    flow.on_epoch_end()
    assert not np.array_equal(flow[0], wanted[0])
    with pytest.raises(IndexError, match="no batch 3 among 3"):
        flow[3]


def test_one_image_gives_as_many_pictures_as_are_asked_for(images: np.ndarray, tmp_path: Path) -> None:
    """As in the tutorial that draws a preview of the changes."""
    flow = Ours(**TUTORIAL).flow(images[:1], save_to_dir=tmp_path, save_prefix="cat", save_format="jpeg")
    for seen, batch in enumerate(flow):
        assert batch.shape == (1, 18, 20, 3)
        if seen == 7:
            break
    assert len(list(tmp_path.glob("cat_0_*.jpeg"))) == 8


@pytest.mark.parametrize("kind", ["flow", "flow_from_directory"])
def test_what_cannot_be_saved_is_reported_with_the_argument(
    kind: str, images: np.ndarray, tree: Path, tmp_path: Path
) -> None:
    def first(**options: Any) -> Any:
        return next(getattr(Ours(), kind)(images if kind == "flow" else tree, **options))

    with pytest.raises(shardkit.MissingFileError, match=r"save_to_dir: there is no folder '.*gone'; create it"):
        first(save_to_dir=tmp_path / "gone")
    for name in ("bogus", ""):
        with pytest.raises(UsageError, match="save_format: Pillow can't save such an image as"):
            first(save_to_dir=tmp_path, save_format=name)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(shardkit.ShardkitError, match="file"):
        first(save_to_dir=tmp_path / "file")


def test_the_parts_of_arrays_are_those_of_keras(images: np.ndarray) -> None:
    y = np.arange(12) % 2
    for subset in ("training", "validation"):
        flows = [
            cls(validation_split=0.4).flow(images, y, shuffle=False, subset=subset, batch_size=4)
            for cls in (Ours, Theirs)
        ]
        for one, other in zip(*map(in_order, flows), strict=True):
            assert_alike(one, other)
    with pytest.raises(UsageError, match="different classes after the split"):
        Ours(validation_split=0.4).flow(images, np.sort(y), subset="training")
    assert Ours(validation_split=0.4).flow(images, np.sort(y), subset="training", ignore_class_split=True).n == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": np.arange(11)}, "y: there are 12 images in `x`, and 11 values here"),
        ({"y": np.arange(12), "sample_weight": np.ones(3)}, "sample_weight: there are 12 images"),
        ({"y": np.array([object()] * 12)}, "y: an array of object"),
        ({"y": [[1], [1, 2]]}, "y: "),
        ({"x": np.array([None] * 12)}, "x: an array of object"),
        ({"x": (np.zeros((12, 4, 4, 3)), np.zeros(5))}, "x: there are 12 images"),
        ({"subset": "test"}, "subset: 'test' is not one of"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Ours().flow(**{"x": np.zeros((12, 4, 4, 3))} | arguments)


# Attributes

KINDS = ("tree", "shards", "dataframe", "arrays")


def a_flow(kind: str, cls: Any, tree: Path, tmp_path: Path, frame: Any, images: np.ndarray) -> Any:
    generator, options = cls(validation_split=0.25), {"batch_size": 4, "shuffle": False, "subset": "training"}
    if kind == "arrays":
        return generator.flow(images, np.arange(12) % 2, **options)
    if kind == "dataframe":
        return generator.flow_from_dataframe(frame, str(tree), target_size=(8, 9), **options)
    if kind == "shards" and cls is Ours:
        shardkit.pack(tree, tmp_path / "shards" / "all")
        return generator.flow_from_shards(str(tmp_path / "shards" / "all"), target_size=(8, 9), **options)
    return generator.flow_from_directory(str(tree), target_size=(8, 9), **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_has_the_attributes_of_keras_own_or_says_what_to_use(
    kind: str, tree: Path, tmp_path: Path, frame: Any, images: np.ndarray
) -> None:
    ours, theirs = (a_flow(kind, cls, tree, tmp_path, frame, images) for cls in (Ours, Theirs))
    places = {"shards": {"directory"}}  # where they differ, as they should
    absent = {
        "lock", "index_generator", "white_list_formats", "allowed_class_modes", "set_processing_attrs", "get_classes",
    }  # fmt: skip
    if kind == "shards":
        absent.add("filepaths")
    for name in sorted(name for name in dir(theirs) if not name.startswith("_")):
        if name in absent:
            with pytest.raises(AttributeError, match=f"no attribute '{name}'; .+"):
                getattr(ours, name)
            continue
        given, wanted = getattr(ours, name), getattr(theirs, name)
        if name in places.get(kind, ()) or callable(wanted) or isinstance(wanted, Theirs) or name == "index_array":
            continue
        if name not in ("max_queue_size", "workers", "num_batches"):
            np.testing.assert_array_equal(given, wanted, err_msg=name)
    assert ours.image_data_generator.__class__ is Ours


@pytest.mark.parametrize("kind", KINDS)
def test_the_counters_of_a_flow_are_those_of_keras(
    kind: str, tree: Path, tmp_path: Path, frame: Any, images: np.ndarray
) -> None:
    flows = [a_flow(kind, cls, tree, tmp_path, frame, images) for cls in (Ours, Theirs)]
    for _ in range(4):
        for flow in flows:
            next(flow)
        assert len({(flow.batch_index, flow.total_batches_seen) for flow in flows}) == 1
    for flow in flows:
        flow.reset()
    assert [flow.batch_index for flow in flows] == [0, 0]
    np.testing.assert_array_equal(*(flow.index_array for flow in flows))


def test_the_samples_of_a_shuffled_batch_are_found_by_index_array(tree: Path, frame: Any, images: np.ndarray) -> None:
    flow = Ours().flow_from_directory(tree, (8, 8), batch_size=5, class_mode="sparse", seed=3)
    for _ in range(2):
        labels = np.concatenate([flow[number][1] for number in range(len(flow))])
        names = [flow.filenames[number] for number in flow.index_array]
        assert [flow.class_indices[name.partition("/")[0]] for name in names] == labels.tolist()
        assert all(
            Path(path).is_file() and path.endswith(name) for path, name in zip(flow.filepaths, names, strict=True)
        )
    rows = Ours().flow_from_dataframe(frame, tree, target_size=(8, 8), class_mode="raw", y_col="age", batch_size=12)
    np.testing.assert_array_equal(rows[0][1], np.asarray(rows.labels)[rows.index_array])


def test_what_a_class_mode_does_not_have_is_said(tree: Path, frame: Any, images: np.ndarray) -> None:
    flow = Ours().flow_from_dataframe(frame, tree, class_mode=None)
    for name in ("labels", "classes", "class_indices", "num_classes"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'; the samples have no"):
            getattr(flow, name)
    assert not hasattr(Ours().flow(images), "filenames")
    with pytest.raises(AttributeError, match="did you mean 'filenames'"):
        _ = Ours().flow_from_directory(tree).file_names


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("class_mode", ["sparse", "categorical", "input"])
def test_weights_of_a_packed_dataframe_are_the_third_member_of_a_batch(
    exact: bool, class_mode: Any, tree: Path, tmp_path: Path, frame: Any
) -> None:
    columns = shardkit.TableColumns(root=tree)
    shardkit.pack(frame, tmp_path / "shards", columns=columns, shuffle=False, workers=1)
    options = {"target_size": (8, 8), "class_mode": class_mode, "weight_col": "weight", "shuffle": False}
    ours = Ours().flow_from_shards(tmp_path / "shards", exact=exact, **options)
    theirs = Theirs().flow_from_dataframe(frame, str(tree), **options)
    weights = dict(zip(theirs.filenames, theirs.sample_weight, strict=True))
    x, y, found = ours[0]
    assert found.dtype == np.float32 and x.shape == (12, 8, 8, 3) and len(y) == 12
    assert found.tolist() == [weights[name] for name in ours.filenames]
    with pytest.raises(AttributeError, match="'sample_weight'; the weights of shards are read with the batches"):
        _ = ours.sample_weight
    images = Ours().flow_from_shards(tmp_path / "shards", target_size=(8, 8), class_mode=None, weight_col="weight")[0]
    assert images.shape == x.shape


def test_a_weight_that_is_missing_is_reported_with_its_sample(tree: Path) -> None:
    flow = Ours().flow_from_shards(tree, target_size=(8, 8), weight_col="weight")
    with pytest.raises(shardkit.DatasetError, match=r"weight_col: sample '.*' has no value 'weight' in a field json"):
        next(flow)


# Arguments

NONSENSE: list[Any] = [
    0, -1, 1.5, b"x", np.array(1), np.array([1, 2]), np.array(["a"]), float("nan"), float("inf"), object(), len, int,
    {1}, np.datetime64("2020-01-01"), [[1], [1, 2]], [None] * 6, [1j] * 6, np.zeros((6, 0)), [],
]  # fmt: skip


def calls(tree: Path, frame: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Each way to make a flow, and arguments that it takes."""
    generator = Ours(validation_split=0.4)
    size = {"target_size": (8, 8)}
    return {
        "flow": (generator.flow, {"x": np.zeros((12, 4, 4, 3)), "y": np.arange(12)}),
        "flow_from_dataframe": (generator.flow_from_dataframe, {"dataframe": frame, "directory": str(tree), **size}),
        "flow_from_shards": (generator.flow_from_shards, {"source": str(tree), **size, "verbose": False}),
        "image_dataset_from_shards": (
            shardkit.keras.image_dataset_from_shards,
            {"source": str(tree), "image_size": 8, "validation_split": 0.4, "subset": "training", "seed": 1,
             "format": "keras", "verbose": False},
        ),
    }  # fmt: skip


@pytest.mark.parametrize("call", ["flow", "flow_from_dataframe", "flow_from_shards", "image_dataset_from_shards"])
def test_nonsense_for_any_argument_is_an_error_of_shardkit(
    call: str, tree: Path, frame: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    function, good = calls(tree, frame)[call]
    next(iter(function(**good)))
    for name in inspect.signature(function).parameters:
        if name in ("source", "dataframe", "kwargs"):
            continue
        for value in NONSENSE:
            try:
                next(iter(function(**good | {name: value})))
            except shardkit.ShardkitError:
                pass
            except Exception as exc:
                raise AssertionError(f"{name}={value!r}: {exc!r}") from exc
    assert [path.name for path in tmp_path.iterdir()] == [tree.name]


def test_names_in_arrays_are_taken_as_lists(tree: Path, frame: Any) -> None:
    names = np.array(["red", "blue"])
    flow = Ours().flow_from_dataframe(frame, tree, target_size=(8, 8), classes=names)
    assert flow.class_indices == {"red": 0, "blue": 1}
    assert Ours().flow_from_directory(tree, (8, 8), classes=names).class_indices == {"red": 0, "blue": 1}
    several = Ours().flow_from_dataframe(frame, tree, y_col=frame.columns[2:4], class_mode="multi_output")
    assert len(several.labels) == 2
    with pytest.raises(UsageError, match="classes: str is not a list of class names"):
        Ours().flow_from_directory(tree, (8, 8), classes="red")
    assert Ours().flow_from_directory(tree, (8, 8), classes=[]).num_classes == 2


def test_an_empty_folder_name_saves_nothing_as_in_keras(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    next(Ours().flow(images, save_to_dir=""))
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_refused(images: np.ndarray) -> None:
    for weights in ([np.nan] * 12, ["a"] * 12):
        with pytest.raises(UsageError, match="sample_weight: it holds NaN, infinity, or no numbers"):
            Ours().flow(images, np.arange(12), sample_weight=weights)


@pytest.mark.parametrize("name", ["shuffle", "keep_aspect_ratio", "exact", "verbose"])
@pytest.mark.parametrize("value", ["x", "False", 0.5, [True]])
def test_a_flag_that_is_neither_true_nor_false_is_refused(name: str, value: Any, tree: Path) -> None:
    with pytest.raises(shardkit.UsageError, match=f"^{name}: .* is neither true nor false; give True or False"):
        Ours().flow_from_shards(tree, target_size=(8, 8), **{name: value})


@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_a_batch_size_that_is_no_positive_number_is_refused_by_its_name(value: Any, tree: Path) -> None:
    with pytest.raises(shardkit.UsageError, match=r"^batch_size: "):
        Ours().flow_from_shards(tree, target_size=(8, 8), batch_size=value)
    with pytest.raises(shardkit.UsageError, match=r"^batch_size: "):
        shardkit.keras.image_dataset_from_shards(tree, image_size=(8, 8), batch_size=value)
