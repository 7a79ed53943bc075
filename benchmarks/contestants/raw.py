"""Undecoded samples, shuffled, in one process. Each contestant yields the number of bytes of each image."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import tarfile
from collections.abc import Iterator

import numpy as np
from harness import Case, Epoch, contestant, read_file

BUFFER = 1_000  # samples in the peers' shuffle buffer, as in webdataset's documentation
BLOCK = 256  # records per call, if that is a peer's fastest way
OUR_BUFFER = 10_000  # as in shardkit's README; costs more than the peers'


class Slices:
    """The images of the tar shards as slices of mapped files, at offsets found before timing starts."""

    def __init__(self, case: Case) -> None:
        table = np.load(os.path.join(case.prepared, "tar", "offsets.npy"))
        self.rows = [tuple(row) for row in table.tolist()]  # (shard, offset, size, label)
        self.maps = [map_file(path) for path in case.form("tar")]
        self.views = [memoryview(m) for m in self.maps]


def map_file(path: str) -> mmap.mmap:
    """Map a file for reading."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@contestant("shardkit", "raw", "cold", "memory raw", needs=("shardkit",), reads="tar")
def shardkit_samples(case: Case) -> Epoch:
    import shardkit

    data = shardkit.dataset(os.path.join(case.prepared, "tar", "train-*.tar"), shuffle=OUR_BUFFER, seed=0)
    return lambda: (len(sample["jpg"]) for sample in data)


@contestant("shardkit, class tree", "cold", needs=("shardkit",))
def shardkit_tree(case: Case) -> Epoch:
    import shardkit

    data = shardkit.dataset(case.source, shuffle=OUR_BUFFER, seed=0)
    return lambda: (len(next(v for k, v in sample.items() if isinstance(v, bytes))) for sample in data)


@contestant("cat", "raw", "cold", program="cat", reads="tar", counts=False)
def cat(case: Case) -> Epoch:
    def epoch() -> Iterator[int]:
        for path in case.form("tar"):
            with open(os.devnull, "wb") as null:
                subprocess.run(["cat", path], check=True, stdout=null)
            yield os.path.getsize(path)

    return epoch


@contestant("bare loop (mapped, offsets known)", "raw", "cold", reads="tar")
def bare_loop(case: Case) -> Epoch:
    """The limit of one Python thread that copies each image from the page cache; the order is computed beforehand."""
    slices = Slices(case)
    maps, rows = slices.maps, slices.rows
    random.Random(0).shuffle(rows)
    return lambda: (len(maps[shard][offset : offset + size]) for shard, offset, size, _label in rows)


@contestant("class tree, file by file", "raw", "cold")
def file_by_file(case: Case) -> Epoch:
    """Open and read each file in random order, in one thread. The list of files is made beforehand."""
    files = case.files()
    return lambda: (len(read_file(path)) for path, _, _ in files)


@contestant("Python tarfile (not shuffled)", "raw", reads="tar")
def python_tarfile(case: Case) -> Epoch:
    def epoch() -> Iterator[int]:
        for path in case.form("tar"):
            with tarfile.open(path, "r|") as tar:
                for member in tar:
                    file = tar.extractfile(member)
                    if file is not None and member.name.endswith(".jpg"):
                        yield len(file.read())
                    tar.members.clear()  # type: ignore[attr-defined]

    return epoch


@contestant("webdataset", "raw", "cold", "memory raw", needs=("webdataset",), reads="tar")
def webdataset_samples(case: Case) -> Epoch:
    import webdataset

    urls = case.form("tar")
    data = webdataset.WebDataset(urls, shardshuffle=len(urls)).shuffle(BUFFER)
    return lambda: (len(sample["jpg"]) for sample in data)


@contestant("tf.data TFRecord", "raw", "cold", "memory raw", needs=("tensorflow",), reads="tfrecord")
def tfrecord_samples(case: Case) -> Epoch:
    """Parsed in blocks, without parallel calls: on 2 cores many times faster than sample by sample."""
    import tensorflow as tf

    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }
    data = tf.data.TFRecordDataset(case.form("tfrecord")).shuffle(BUFFER).batch(BLOCK)
    data = data.map(lambda records: tf.io.parse_example(records, features)).prefetch(tf.data.AUTOTUNE)
    return lambda: (len(image) for block in data.as_numpy_iterator() for image in block["image/encoded"])


@contestant("Grain ArrayRecord", "raw", "cold", needs=("grain", "array-record"), reads="array_record")
def grain_samples(case: Case) -> Epoch:
    """Request blocks of records from its source; one by one through `MapDataset` it is at least four times slower."""
    import grain

    source = grain.sources.ArrayRecordDataSource(case.form("array_record"))
    order = list(range(len(source)))
    random.Random(0).shuffle(order)
    blocks = [order[i : i + BLOCK] for i in range(0, len(order), BLOCK)]
    return lambda: (len(record) - 8 for block in blocks for record in source.__getitems__(block))


@contestant("MosaicML StreamingDataset", "raw", needs=("mosaicml-streaming",), reads="mds")
def mds_samples(case: Case) -> Epoch:
    from streaming import StreamingDataset

    data = StreamingDataset(local=case.form("mds")[0], shuffle=True, batch_size=1)
    return lambda: (len(sample["jpg"]) for sample in data)


@contestant("LitData StreamingDataset", "raw", needs=("litdata",), reads="litdata")
def litdata_samples(case: Case) -> Epoch:
    import litdata

    data = litdata.StreamingDataset(case.form("litdata")[0], shuffle=True)
    return lambda: (len(sample["jpg"]) for sample in data)
