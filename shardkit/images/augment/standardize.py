"""Values brought to the form that a model wants, and the statistics for it: `ImageDataGenerator.standardize`, `fit`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shardkit.errors import UsageError
from shardkit.images.augment.checks import real_array
from shardkit.images.augment.options import Augment

SMALLEST = 1e-6
"""Added to a deviation before it divides."""


def standardize(image: NDArray[np.float32], augment: Augment) -> NDArray[np.float32]:
    """An image, or a batch of them, with its values as `augment` says, in Keras' order. It may be changed in place."""
    if augment.preprocessing_function is not None:
        image = _given(augment.preprocessing_function(image), image)
    if augment.rescale:
        image *= np.float32(augment.rescale)
    if augment.samplewise_center or augment.samplewise_std_normalization:
        image -= np.mean(image, keepdims=True)
    if augment.samplewise_std_normalization:
        image /= np.std(image, keepdims=True) + np.float32(SMALLEST)
    if augment.mean is not None and (
        augment.featurewise_center or augment.featurewise_std_normalization or augment.zca_whitening
    ):
        image -= _fitting("mean", augment.mean, image)
    if augment.std is not None and augment.featurewise_std_normalization and not augment.zca_whitening:
        image /= _fitting("std", augment.std, image) + np.float32(SMALLEST)
    if augment.zca_matrix is not None and augment.zca_whitening:
        matrix, size = np.asarray(augment.zca_matrix, np.float32), math.prod(image.shape[-3:])
        if matrix.shape != (size, size):
            fact = f"{matrix.shape} does not fit an image of {image.shape}"
            raise UsageError("zca_matrix", fact, "fit it to images of the size and layout of these")
        image = (image.reshape(-1, size) @ matrix).reshape(image.shape)
    return image


def _given(made: Any, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """What preprocessing_function returned, as an array of its own."""
    array = real_array("preprocessing_function", made, "let it return an image of the same shape")
    if array.shape != image.shape:
        fact = f"it returned an array of {array.shape} for an image of {image.shape}"
        raise UsageError("preprocessing_function", fact, "let it return an image of the same shape")
    return array


def _fitting(name: str, value: ArrayLike, image: NDArray[np.float32]) -> NDArray[np.float32]:
    array = np.asarray(value, np.float32)
    try:
        fits = np.broadcast_shapes(array.shape, image.shape) == image.shape
    except ValueError:
        fits = False
    if not fits:
        fact = f"{array.shape} does not fit an image of {image.shape}"
        raise UsageError(name, fact, "give a number, or an array of the shape of an image or of its channels")
    return array


def statistics_of(
    augment: Augment, images: NDArray[np.floating[Any]], *, channels_first: bool = False
) -> dict[str, Any]:
    """The mean, std and zca_matrix that `augment` needs, of images (n, …) of values after rescale: Keras' `fit`."""
    found: dict[str, Any] = {}
    axes = (0, 2, 3) if channels_first else (0, 1, 2)
    shape = (-1, 1, 1) if channels_first else (1, 1, -1)
    if augment.featurewise_center or augment.featurewise_std_normalization or augment.zca_whitening:
        found["mean"] = np.mean(images, axis=axes).reshape(shape)
        images = images - found["mean"]
    if augment.featurewise_std_normalization and not augment.zca_whitening:
        found["std"] = np.std(images, axis=axes).reshape(shape)
    if augment.zca_whitening:
        flat = images.reshape(len(images), -1)
        u, s, _ = np.linalg.svd(flat.T, full_matrices=False)
        found["zca_matrix"] = (u * (np.sqrt(len(flat)) / (s + augment.zca_epsilon))).dot(u.T)
    return found
