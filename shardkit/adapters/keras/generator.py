"""`ImageDataGenerator`, with the arguments and the meaning of Keras' own: fitted, and flowing from shards, a class
directory, a DataFrame or arrays."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shardkit.adapters.keras.arguments import class_list, flags, folder_of, fraction, one_of
from shardkit.adapters.keras.array_flow import flow_of_arrays
from shardkit.adapters.keras.dataframe import Columns, listed_columns
from shardkit.adapters.keras.file_flow import flow_of_files
from shardkit.adapters.keras.flow import ColorMode, Subset, flow_from_shards
from shardkit.adapters.keras.indexed import FlowOptions, IndexedFlow
from shardkit.adapters.keras.pydataset import KerasDataset, keras
from shardkit.errors import UsageError
from shardkit.images.augment import checks
from shardkit.images.augment.augmenter import transform
from shardkit.images.augment.options import Augment, ImageFunction, ShiftRange
from shardkit.images.augment.plain import FillMode
from shardkit.images.augment.standardize import standardize, statistics_of
from shardkit.images.augment.transform import Chance, Numpy, Transform
from shardkit.images.augment.warp import round_to_bytes
from shardkit.options.keywords import named_options
from shardkit.reading.dataset import Dataset
from shardkit.reading.options import at_least
from shardkit.shards.find.shards import SourceLike

DataFormat = Literal["channels_first", "channels_last"]
ClassMode = Literal["binary", "categorical", "sparse", "input"] | None
FrameMode = Literal["binary", "categorical", "sparse", "input", "raw", "other", "multi_output"] | None
Path = str | os.PathLike[str]

_FITTED = {
    "featurewise_center": "mean",
    "featurewise_std_normalization": "std",
    "zca_whitening": "zca_whitening_matrix",
}
HWC = "(n, height, width, channels)"


class Deprecated(TypedDict, total=False):
    """Arguments of Keras' `flow_from_dataframe` that have no effect there either."""

    has_ext: bool
    sort: bool
    drop_duplicates: bool


class ImageDataGenerator:
    """Keras' `ImageDataGenerator`: the same arguments, attributes and results (within 1 of 255), several times as fast.

    `shardkit.Augment` describes the arguments. In flows, batches depend only on the seed, the epoch and the samples.
    `random_transform` and `get_random_transform` draw the same parameters as Keras' own for the same seed; without a
    seed they draw from NumPy's global generator, as Keras does.
    Raises UsageError, which is a ValueError, for what Keras refuses.
    """

    @named_options
    def __init__(
        self,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        zca_whitening: bool = False,
        zca_epsilon: float = 1e-6,
        rotation_range: float = 0,
        width_shift_range: ShiftRange = 0.0,
        height_shift_range: ShiftRange = 0.0,
        brightness_range: Sequence[float] | None = None,
        shear_range: float = 0.0,
        zoom_range: float | Sequence[float] = 0.0,
        channel_shift_range: float = 0.0,
        fill_mode: FillMode = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: ImageFunction | None = None,
        data_format: DataFormat | None = None,
        validation_split: float = 0.0,
        interpolation_order: int = 1,
        dtype: str | None = None,
    ) -> None:
        self.featurewise_center, self.samplewise_center = featurewise_center, samplewise_center
        self.featurewise_std_normalization = featurewise_std_normalization
        self.samplewise_std_normalization = samplewise_std_normalization
        self.zca_whitening, self.zca_epsilon = zca_whitening, zca_epsilon
        self.rotation_range, self.shear_range, self.zoom_range = rotation_range, shear_range, zoom_range
        self.width_shift_range, self.height_shift_range = width_shift_range, height_shift_range
        self.brightness_range, self.channel_shift_range = brightness_range, channel_shift_range
        self.fill_mode, self.cval, self.interpolation_order = fill_mode, cval, interpolation_order
        self.horizontal_flip, self.vertical_flip = horizontal_flip, vertical_flip
        self.rescale, self.preprocessing_function = rescale, preprocessing_function
        self.data_format: DataFormat = keras.config.image_data_format() if data_format is None else data_format
        self.dtype = checks.dtype("dtype", dtype or keras.config.floatx())
        self.mean: ArrayLike | None = None
        self.std: ArrayLike | None = None
        self.zca_whitening_matrix: ArrayLike | None = None
        one_of("data_format", self.data_format, ("channels_first", "channels_last"))
        self.channel_axis, self.row_axis, self.col_axis = (1, 2, 3) if self._channels_first else (3, 1, 2)
        self._validation_split = fraction(validation_split)
        self.zoom_range = list(self.augment.zoom)
        self._imply()

    def _imply(self) -> None:
        """Switch on what others imply, with Keras' warnings."""
        if self.zca_whitening:
            self._overridden("zca_whitening", "featurewise_center", True)
            self._overridden("zca_whitening", "featurewise_std_normalization", False)
        if self.featurewise_std_normalization:
            self._overridden("featurewise_std_normalization", "featurewise_center", True)
        if self.samplewise_std_normalization:
            self._overridden("samplewise_std_normalization", "samplewise_center", True)

    def _overridden(self, by: str, name: str, value: bool) -> None:
        if bool(getattr(self, name)) != value:
            text = f"This ImageDataGenerator specifies `{by}`, which overrides setting of `{name}`."
            warnings.warn(text, stacklevel=5)
            setattr(self, name, value)

    @property
    def _channels_first(self) -> bool:
        return self.data_format == "channels_first"

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        shown = {name: getattr(self, name) for name in defaults if hasattr(self, name)}
        shown["validation_split"] = self._validation_split
        told = [f"{name}={value!r}" for name, value in shown.items() if _is_told(value, defaults[name].default)]
        return f"{type(self).__name__}({', '.join(told)})"

    @property
    def augment(self) -> Augment:
        """The same settings as a value for `Dataset.decode(augment=)`, from the current attributes."""
        return replace(self._changes, mean=self.mean, std=self.std, zca_matrix=self.zca_whitening_matrix)

    @property
    def _changes(self) -> Augment:
        """`augment` without statistics, which need not be checked for each image."""
        return Augment(
            featurewise_center=bool(self.featurewise_center),
            samplewise_center=bool(self.samplewise_center),
            featurewise_std_normalization=bool(self.featurewise_std_normalization),
            samplewise_std_normalization=bool(self.samplewise_std_normalization),
            zca_whitening=bool(self.zca_whitening),
            zca_epsilon=self.zca_epsilon,
            rotation_range=_or_none(self.rotation_range),
            width_shift_range=_or_none(self.width_shift_range),
            height_shift_range=_or_none(self.height_shift_range),
            brightness_range=self.brightness_range,
            shear_range=_or_none(self.shear_range),
            zoom_range=self.zoom_range,
            channel_shift_range=self.channel_shift_range,
            fill_mode=self.fill_mode,
            cval=self.cval,
            horizontal_flip=bool(self.horizontal_flip),
            vertical_flip=bool(self.vertical_flip),
            rescale=self.rescale,
            preprocessing_function=self.preprocessing_function,
            interpolation_order=self.interpolation_order,
        )

    def _fitted(self) -> Augment:
        """Return `augment` without the steps that were not fitted, with Keras' warning."""
        augment, off = self.augment, {}
        for switch, statistic in _FITTED.items():
            if getattr(self, switch) and getattr(self, statistic) is None:
                off[switch] = False
                text = (
                    f"This ImageDataGenerator specifies `{switch}`, but it hasn't been fit on any training data. "
                    "Fit it first by calling `.fit(numpy_data)`."
                )
                warnings.warn(text, stacklevel=3)
        return replace(augment, **off)  # type: ignore[arg-type]

    # One image

    def get_random_transform(self, img_shape: Sequence[int], seed: int | None = None) -> dict[str, Any]:
        """Draw the parameters of a transform for an image of this shape: a dict with Keras' names."""
        return asdict(self._drawn(img_shape, _chance(seed)))

    def _drawn(self, img_shape: Sequence[int], chance: Chance) -> Transform:
        return Transform.drawn(self._changes, img_shape[self.row_axis - 1], img_shape[self.col_axis - 1], chance)

    def apply_transform(self, x: ArrayLike, transform_parameters: Mapping[str, Any]) -> NDArray[Any]:
        """Return the image (three axes, in the data format) transformed by parameters; missing ones have no effect."""
        return self._applied(x, Transform.of(transform_parameters))

    def _applied(self, x: ArrayLike, change: Transform) -> NDArray[Any]:
        image = _image(x)
        laid = image.transpose(1, 2, 0) if self._channels_first else image
        whole = laid.dtype.kind in "iub"
        made = transform(np.ascontiguousarray(laid, np.float32), self._changes, change)
        made = made.transpose(2, 0, 1) if self._channels_first else made
        if change.brightness is not None:
            return made
        return np.asarray(round_to_bytes(made) if whole else made).astype(image.dtype)

    def random_transform(self, x: ArrayLike, seed: int | None = None) -> NDArray[Any]:
        """Return the image (three axes, in the data format) transformed at random."""
        image = _image(x)
        return self.apply_transform(image, self.get_random_transform(image.shape, seed))

    def standardize(self, x: NDArray[Any]) -> NDArray[Any]:
        """Normalize an image, or a batch of them, in place where it is float32, and return it."""
        given = checks.require_real("x", x, "give an image, or a batch of them")
        return standardize(np.asarray(given, np.float32), self._fitted())

    def fit(self, x: ArrayLike, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Compute mean, std and zca_whitening_matrix, if needed, from images (four axes).

        augment: use each image `rounds` times, transformed at random.
        """
        at_least("rounds", rounds, 1)
        images = checks.images("x", x, "(n, channels, height, width)" if self._channels_first else HWC)
        channels = images.shape[self.channel_axis]
        if channels not in (1, 3, 4):
            text = f"Expected 1, 3 or 4 channels on axis {self.channel_axis} ({self.data_format!r}), not {channels}."
            warnings.warn(text, stacklevel=2)
        if self.rescale:
            images *= np.float32(self.rescale)
        if augment:
            chance = _chance(seed)
            images = np.stack(
                [self._applied(one, self._drawn(one.shape, chance)) for _ in range(rounds) for one in images]
            )
        found = statistics_of(self._changes, images, channels_first=self._channels_first)
        self.mean, self.std = found.get("mean", self.mean), found.get("std", self.std)
        self.zca_whitening_matrix = found.get("zca_matrix", self.zca_whitening_matrix)

    # Flows

    @named_options
    def flow_from_shards(
        self,
        source: SourceLike | Dataset,
        target_size: tuple[int, int] = (256, 256),
        color_mode: ColorMode = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: ClassMode = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: Path | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: Subset | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        weight_col: str | None = None,
        exact: bool = False,
        verbose: bool = True,
    ) -> KerasDataset:
        """Batches of a packed tree, with the arguments of Keras' `flow_from_directory`; see `flow_from_shards`."""
        made = flow_from_shards(
            source, target_size=target_size, color_mode=color_mode, classes=classes, class_mode=class_mode,
            batch_size=batch_size, shuffle=shuffle, seed=seed, data_format=self.data_format, save_to_dir=save_to_dir,
            save_prefix=save_prefix, save_format=save_format, follow_links=follow_links, subset=subset,
            interpolation=interpolation, keep_aspect_ratio=keep_aspect_ratio, dtype=self.dtype,
            validation_split=self._validation_split, augment=self._fitted(), weight_col=weight_col, exact=exact,
            verbose=verbose,
        )  # fmt: skip
        made.image_data_generator = self
        return made

    @named_options
    def flow_from_directory(
        self,
        directory: Path,
        target_size: tuple[int, int] = (256, 256),
        color_mode: ColorMode = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: ClassMode = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: Path | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: Subset | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
    ) -> KerasDataset:
        """Batches of a class directory that was not packed, with Keras' arguments."""
        return self.flow_from_shards(
            directory, target_size, color_mode, classes, class_mode, batch_size, shuffle, seed, save_to_dir,
            save_prefix, save_format, follow_links, subset, interpolation, keep_aspect_ratio,
        )  # fmt: skip

    @named_options
    def flow_from_dataframe(
        self,
        dataframe: Any,
        directory: Path | None = None,
        x_col: str = "filename",
        y_col: str | Sequence[str] = "class",
        weight_col: str | None = None,
        target_size: tuple[int, int] = (256, 256),
        color_mode: ColorMode = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: FrameMode = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: Path | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: Subset | None = None,
        interpolation: str = "nearest",
        validate_filenames: bool = True,
        **kwargs: Unpack[Deprecated],
    ) -> IndexedFlow:
        """Batches of the files that a pandas or polars DataFrame names, with Keras' arguments.

        UsageError for missing columns, NaN labels, and if none of the files exists; if only some are missing, a warning
        names them.
        """
        for name in kwargs:
            warnings.warn(f"{name} is deprecated and has no effect", DeprecationWarning, stacklevel=3)
        if isinstance(class_mode, str) and class_mode == "other":
            warnings.warn('class_mode="other" is now class_mode="raw"', DeprecationWarning, stacklevel=3)
            class_mode = "raw"
        folder = folder_of("directory", directory) or ""
        (validate_filenames,) = flags(validate_filenames=validate_filenames)
        names = class_list("classes", classes)
        columns = Columns(x_col, listed_columns(y_col), weight_col, class_mode, names, folder, validate_filenames)
        options = FlowOptions(
            self.data_format, self.dtype, batch_size, shuffle, seed, save_to_dir, save_prefix, save_format, subset,
            self._validation_split,
        )  # fmt: skip
        made = flow_of_files(
            dataframe, columns, self._fitted(), options, target_size=target_size, color_mode=color_mode,
            interpolation=interpolation,
        )  # fmt: skip
        made.image_data_generator = self
        return made

    @named_options
    def flow(
        self,
        x: Any,
        y: ArrayLike | None = None,
        batch_size: int = 32,
        shuffle: bool = True,
        sample_weight: ArrayLike | None = None,
        seed: int | None = None,
        save_to_dir: Path | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        ignore_class_split: bool = False,
        subset: Subset | None = None,
    ) -> IndexedFlow:
        """Batches of images in memory, with Keras' arguments: x (four axes, or a tuple of that and other arrays), y,
        sample_weight."""
        options = FlowOptions(
            self.data_format, self.dtype, batch_size, shuffle, seed, save_to_dir, save_prefix, save_format, subset,
            self._validation_split,
        )  # fmt: skip
        made = flow_of_arrays(x, y, sample_weight, self._fitted(), options, ignore_class_split=ignore_class_split)
        made.image_data_generator = self
        return made


def _chance(seed: int | None) -> Chance:
    """Where Keras draws from: a generator of this seed, or NumPy's global one."""
    seed = checks.seed(seed)
    return Numpy(np.random if seed is None else np.random.RandomState(seed))


def _image(x: ArrayLike) -> NDArray[Any]:
    """One image. UsageError for anything but an array of real numbers with three axes."""
    cure = "give an array of three axes"
    image = checks.require_real("x", x, cure)
    if image.ndim != 3 or not image.size:
        raise UsageError("x", f"{image.shape} is not the shape of one image", cure)
    return image


def _or_none(value: Any) -> Any:
    """The value, or 0 for None, which Keras takes for the ranges that may be absent."""
    return 0 if value is None else value


def _is_told(value: Any, default: Any) -> bool:
    """Whether the value of an attribute belongs in the repr, as it is not the default of its argument."""
    if default is None:  # resolved when the generator was made
        return value not in (None, keras.config.image_data_format(), keras.config.floatx())
    return not np.array_equal(value, [1 - default, 1 + default] if isinstance(value, list) else default)
