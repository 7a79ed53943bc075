"""Shuffled training batches. Each contestant yields arrays or tensors of shape (batch, size, size, 3).

Variants: `plain` (small images at their original size), `center` (shorter side to size * 256 / 224, centre crop),
`random` (the crop of torchvision's RandomResizedCrop, scale .08 to 1, ratio 3/4 to 4/3, and a flip). A contestant that
does not support the variant says in its name what it does instead.
"""

from __future__ import annotations

import io
import math
import os
import random
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from harness import THREADS, Case, Epoch, contestant, read_file

from contestants.raw import BUFFER, OUR_BUFFER, Slices

CROP = ("simplejpeg", "opencv-python-headless")
MODES = ("batches", "start", "memory batches")
Box = tuple[int, int, int, int]  # left, top, width, height
Array = np.ndarray[Any, Any]


def crop_box(variant: str, width: int, height: int, rng: random.Random) -> Box:
    """The part of a width x height image that is resized to the square of the batch."""
    if variant == "center":
        side = min(width, height) * 224 // 256
        return (width - side) // 2, (height - side) // 2, side, side
    for _ in range(10):  # torchvision.transforms.RandomResizedCrop.get_params, with its fallback
        area = width * height * rng.uniform(0.08, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(0, width - w), rng.randint(0, height - h), w, h
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return (width - w) // 2, (height - h) // 2, w, h


@contestant("shardkit", *MODES, needs=("shardkit",), reads="tar")
def shardkit_batches(case: Case) -> Epoch:
    import shardkit

    data = shardkit.dataset(os.path.join(case.prepared, "tar", "train-*.tar"), shuffle=OUR_BUFFER, seed=0)
    if case.variant == "plain":
        data = data.decode(size=case.size)
    else:
        data = data.decode(size=case.size, crop=case.variant, flip=case.variant == "random")
    data = data.batch(case.batch)
    return lambda: (images for images, _labels in data)


def two_threads(case: Case, fill: Callable[[memoryview, Array, random.Random], None]) -> Epoch:
    """Two threads, each filling whole batches; `fill` decodes one image in place."""
    slices = Slices(case)

    def make(rows: list[tuple[int, ...]], seed: int) -> Array:
        rng = random.Random(seed)
        images = np.empty((len(rows), case.size, case.size, 3), np.uint8)
        for place, (shard, offset, size, _label) in zip(images, rows, strict=True):
            fill(slices.views[shard][offset : offset + size], place, rng)
        return images

    def epoch() -> Iterator[Array]:
        rows = slices.rows.copy()
        random.Random(0).shuffle(rows)
        waiting: deque[Future[Array]] = deque()
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(rows), case.batch):
                waiting.append(pool.submit(make, rows[start : start + case.batch], start))
                if len(waiting) > THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    return epoch


@contestant("bare loop, 2 threads", "batches", needs=("simplejpeg",), reads="tar", variants=("plain",))
def bare_plain(case: Case) -> Epoch:
    import simplejpeg

    return two_threads(case, lambda data, place, rng: simplejpeg.decode_jpeg(data, buffer=place))


def bare_crop(case: Case, least_factor: int | None) -> Epoch:
    """Decode, crop and resize.

    With a factor, libjpeg-turbo's DCT scaling shrinks the image by at least that, provided that the crop remains at
    least as large as the target; 1 allows steps of 1/8, which are slower to decode than their pixels are worth, 2 only
    1/2 and less.
    """
    import cv2
    import simplejpeg

    cv2.setNumThreads(1)
    size = case.size

    def fill(data: memoryview, place: Array, rng: random.Random) -> None:
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
        left, top, w, h = crop_box(case.variant, width, height, rng)
        scale: dict[str, int] = {}
        if least_factor:
            least = math.ceil(height * size / h), math.ceil(width * size / w)
            scale = {"min_height": least[0], "min_width": least[1], "min_factor": least_factor}
        image = simplejpeg.decode_jpeg(data, **scale)
        y, x = image.shape[0] / height, image.shape[1] / width
        part = image[round(top * y) : round((top + h) * y), round(left * x) : round((left + w) * x)]
        cv2.resize(part, (size, size), dst=place, interpolation=cv2.INTER_LINEAR)
        if case.variant == "random" and rng.random() < 0.5:
            cv2.flip(place, 1, dst=place)

    return two_threads(case, fill)


@contestant("bare loop, 2 threads, DCT scaling", "batches", needs=CROP, reads="tar", variants=("center", "random"))
def bare_scaled(case: Case) -> Epoch:
    return bare_crop(case, 1)


@contestant(
    "bare loop, 2 threads, DCT scaling by 2 or more", "batches", needs=CROP, reads="tar", variants=("center", "random")
)
def bare_halved(case: Case) -> Epoch:
    return bare_crop(case, 2)


@contestant("bare loop, 2 threads, whole image", "batches", needs=CROP, reads="tar", variants=("center", "random"))
def bare_whole(case: Case) -> Epoch:
    return bare_crop(case, None)


def pil_transform(case: Case) -> Callable[[Any], Array]:
    """Convert a PIL image to an array, by torchvision's rule for the variant; no normalization."""
    from PIL import Image

    rng = random.Random(os.getpid())
    size = case.size

    def transform(image: Any) -> Array:
        if case.variant == "plain":
            return np.asarray(image)
        left, top, w, h = crop_box(case.variant, image.width, image.height, rng)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))
        if case.variant == "random" and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(image)

    return transform


@contestant("webdataset, DataLoader of 2 workers", *MODES, needs=("webdataset", "torch"), reads="tar")
def webdataset_batches(case: Case) -> Epoch:
    import webdataset

    urls = case.form("tar")
    data = webdataset.WebDataset(urls, shardshuffle=len(urls)).shuffle(BUFFER).decode("pilrgb")
    data = data.to_tuple("jpg", "cls").map_tuple(pil_transform(case), int).batched(case.batch)
    loader = webdataset.WebLoader(data, batch_size=None, num_workers=THREADS)
    return lambda: (images for images, _labels in loader)


def pil_collate(case: Case) -> Callable[[list[dict[str, Any]]], Array]:
    """Decodes and stacks samples that have the bytes of their image as "jpg"."""
    from PIL import Image

    transform = pil_transform(case)

    def collate(samples: list[dict[str, Any]]) -> Array:
        return np.stack([transform(Image.open(io.BytesIO(sample["jpg"])).convert("RGB")) for sample in samples])

    return collate


@contestant("MosaicML StreamingDataset, DataLoader of 2 workers", *MODES, needs=("mosaicml-streaming",), reads="mds")
def mds_batches(case: Case) -> Epoch:
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    data = StreamingDataset(local=case.form("mds")[0], shuffle=True, batch_size=case.batch)
    loader: Any = DataLoader(data, case.batch, num_workers=THREADS, collate_fn=pil_collate(case))
    return lambda: loader


@contestant("LitData StreamingDataset, DataLoader of 2 workers", *MODES, needs=("litdata",), reads="litdata")
def litdata_batches(case: Case) -> Epoch:
    import litdata

    data = litdata.StreamingDataset(case.form("litdata")[0], shuffle=True)
    loader = litdata.StreamingDataLoader(data, batch_size=case.batch, num_workers=THREADS, collate_fn=pil_collate(case))
    return lambda: loader


@contestant("NVIDIA DALI, 2 threads, CPU", *MODES, needs=("nvidia-dali-cuda120",), reads="tar")
def dali_batches(case: Case) -> Epoch:
    from nvidia.dali import fn, pipeline_def, types

    shards = case.form("tar")
    if not os.path.exists(f"{os.path.splitext(shards[0])[0]}.idx"):
        from shardkit.tools.dali import write_dali_index

        write_dali_index(shards)
    random_crop = case.variant == "random"

    @pipeline_def(batch_size=case.batch, num_threads=THREADS, device_id=None, seed=0)  # type: ignore[untyped-decorator]
    def pipeline() -> Any:
        data, _label = fn.readers.webdataset(
            paths=shards,
            index_paths=[f"{os.path.splitext(path)[0]}.idx" for path in shards],
            ext=["jpg", "cls"],
            random_shuffle=True,
            initial_fill=BUFFER,
            name="reader",
        )
        if random_crop:
            images = fn.decoders.image_random_crop(data, random_area=(0.08, 1.0), random_aspect_ratio=(3 / 4, 4 / 3))
            images = fn.resize(images, size=(case.size, case.size), interp_type=types.INTERP_LINEAR, antialias=False)
            return fn.flip(images, horizontal=fn.random.coin_flip())
        images = fn.decoders.image(data)
        if case.variant == "center":
            images = fn.resize(images, resize_shorter=case.size * 256 // 224, interp_type=types.INTERP_LINEAR)
            return fn.crop(images, crop=(case.size, case.size))
        return images

    made = pipeline()
    made.build()
    count = made.epoch_size("reader")

    def epoch() -> Iterator[Array]:
        for _ in range(-(-count // case.batch)):
            (images,) = made.run()
            yield images.as_array()

    return epoch


@contestant("torch ImageFolder-style, DataLoader of 2 workers", *MODES, needs=("torch", "pillow"))
def torch_image_folder(case: Case) -> Epoch:
    import torch
    from PIL import Image

    files = case.files()
    transform = pil_transform(case)

    class ImageFolder(torch.utils.data.Dataset[tuple[Array, int]]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, i: int) -> tuple[Array, int]:
            path, _, label = files[i]
            with Image.open(io.BytesIO(read_file(path))) as image:
                return transform(image.convert("RGB")), label

    loader = torch.utils.data.DataLoader(ImageFolder(), case.batch, shuffle=True, num_workers=THREADS)
    return lambda: (images for images, _labels in loader)


@contestant("Keras image_dataset_from_directory (squash)", *MODES, needs=("keras", "tensorflow"))
def keras_directory(case: Case) -> Epoch:
    import keras

    size = (case.size, case.size)
    data = keras.utils.image_dataset_from_directory(
        case.source, image_size=size, batch_size=case.batch, shuffle=True, seed=0, verbose=False
    )
    return lambda: (images for images, _labels in data)


@contestant("tf.data TFRecord", *MODES, needs=("tensorflow",), reads="tfrecord")
def tfrecord_batches(case: Case) -> Epoch:
    import tensorflow as tf

    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }

    def center(data: Any) -> Any:
        image = tf.io.decode_jpeg(data, channels=3)
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        side = tf.minimum(height, width) * 224 // 256
        top, left = (height - side) // 2, (width - side) // 2
        return tf.image.resize(image[top : top + side, left : left + side], (case.size, case.size))

    def random_crop(data: Any) -> Any:
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(data),
            tf.zeros([0, 0, 4]),
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], extent[:2]], axis=0)
        image = tf.image.decode_and_crop_jpeg(data, window, channels=3)
        return tf.image.random_flip_left_right(tf.image.resize(image, (case.size, case.size)))

    def plain(data: Any) -> Any:
        return tf.ensure_shape(tf.io.decode_jpeg(data, channels=3), (case.size, case.size, 3))

    transform = {"center": center, "random": random_crop, "plain": plain}[case.variant]

    def sample(record: Any) -> tuple[Any, Any]:
        fields = tf.io.parse_single_example(record, features)
        return tf.cast(transform(fields["image/encoded"]), tf.uint8), fields["image/class/label"]

    data = tf.data.TFRecordDataset(case.form("tfrecord")).shuffle(BUFFER)
    data = data.map(sample, tf.data.AUTOTUNE).batch(case.batch).prefetch(tf.data.AUTOTUNE)
    return lambda: (images for images, _labels in data)
