"""TFRecord: packing, reading and converting, against TensorFlow's own writer and reader, interleaved.

    python benchmarks/tfrecord.py data/cifar10/train /fast/scratch --rounds 5

Each step first runs once untimed. Results are medians over the rounds, in samples per second. TensorFlow's writer gets
images that are already in memory, so that only encoding and writing records count; ours also reads the files of the
tree.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

from harness import THREADS, class_tree, read_file

import shardkit
from shardkit.formats.tfrecord.samples import encode_sample, read_samples
from shardkit.tools.convert.convert import convert

Step = Callable[[], int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tree", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    work = arguments.scratch / "tfrecord-benchmark"
    shutil.rmtree(work, ignore_errors=True)
    steps = {**ours(arguments.tree, work), **tensorflows(arguments.tree, work)}
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(arguments.rounds + 1):
        for name, step in steps.items():
            start = perf_counter()
            count = step()
            if turn:
                rates[name].append(count / (perf_counter() - start))
    for name, found in rates.items():
        print(f"{name:44s} {median(found):12,.0f} samples/s   ({min(found):,.0f} to {max(found):,.0f})")
    shutil.rmtree(work)


def ours(tree: Path, work: Path) -> dict[str, Step]:
    """shardkit's steps."""

    def pack(format: str) -> int:
        manifest = shardkit.pack(tree, work / format / "train", format=format, workers=THREADS, overwrite=True)  # type: ignore[arg-type]
        return manifest.samples

    def read(source: Path) -> int:
        return sum(1 for _ in shardkit.dataset(source))

    def change(format: str, other: str) -> int:
        dest = work / f"{other}-from-{format}" / "train"
        manifest = convert(work / format / "train", dest, format=other, workers=THREADS, overwrite=True)  # type: ignore[arg-type]
        return manifest.samples

    def encode() -> int:
        for number, image in enumerate(images):
            encode_sample(f"class/{number}", [("jpg", image), ("cls", b"7")], path="class/x.jpg", text="class")
        return len(images)

    def parse() -> int:
        shards = sorted((work / "tfrecord").glob("*.tfrecord"))
        return sum(1 for shard in shards for _ in read_samples(shard.read_bytes(), place=str(shard)))

    images = [read_file(path) for path, _, _ in class_tree(str(tree))[:20_000]]
    return {
        "pack to tar": lambda: pack("tar"),
        "pack to TFRecord": lambda: pack("tfrecord"),
        "encode records, in memory, one core": encode,
        "read tar by its index": lambda: read(work / "tar" / "train"),
        "read TFRecord by its index": lambda: read(work / "tfrecord" / "train"),
        "check and parse every record, one core": parse,
        "convert tar to TFRecord": lambda: change("tar", "tfrecord"),
        "convert TFRecord to tar": lambda: change("tfrecord", "tar"),
    }


def tensorflows(tree: Path, work: Path) -> dict[str, Step]:
    """TensorFlow's steps, if it is installed."""
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        import tensorflow as tf
    except ImportError:
        return {}

    def of(*values: bytes | int) -> tf.train.Feature:
        if isinstance(values[0], int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    def write() -> int:
        files = class_tree(str(tree))[: len(images)]
        with tf.io.TFRecordWriter(str(work / "theirs.tfrecord")) as writer:
            for image, (_, key, label) in zip(images, files, strict=True):
                features = {
                    "image/encoded": of(image), "image/format": of(b"jpeg"), "image/key": of(key.encode()),
                    "image/filename": of(key.encode()), "image/class/label": of(label), "image/class/text": of(b"cat"),
                }  # fmt: skip
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
        return len(images)

    def read() -> int:
        shards = [str(path) for path in sorted((work / "tfrecord").glob("*.tfrecord"))]
        return sum(1 for _ in tf.data.TFRecordDataset(shards).prefetch(100).as_numpy_iterator())

    images = [read_file(path) for path, _, _ in class_tree(str(tree))[:20_000]]
    return {
        "tf.io.TFRecordWriter, images in memory": write,
        "tf.data.TFRecordDataset, records not parsed": read,
    }


if __name__ == "__main__":
    main()
