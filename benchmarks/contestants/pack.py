"""Class tree to shards. The clock runs from opening the tree to the last close, file listing included."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from harness import THREADS, Case, Run, contestant, read_file


def shares(case: Case) -> Iterator[tuple[str, list[tuple[str, str, int]]]]:
    """Divide the files into equal shards: (shard name without its ending, its files)."""
    files = case.files()
    total = sum(os.path.getsize(path) for path, _, _ in files)
    shards = max(1, -(-total // case.max_bytes))
    for i in range(shards):
        part = files[len(files) * i // shards : len(files) * (i + 1) // shards]
        yield os.path.join(case.dest, f"train-{i:06d}"), part


def command(*words: str) -> Run:
    """Run a program."""

    def run() -> None:
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

    return run


@contestant("shardkit", "pack", "memory pack", needs=("shardkit",))
def shardkit_pack(case: Case) -> Run:
    import shardkit

    pack = shardkit.pack  # loads it: imports are not timed, for all contestants

    def run() -> None:
        pack(case.source, os.path.join(case.dest, "train"), workers=THREADS, max_bytes=case.max_bytes)

    return run


@contestant("shardkit, whole command", "pack", needs=("shardkit",))
def shardkit_command(case: Case) -> Run:
    dest = os.path.join(case.dest, "train")
    return command(sys.executable, "-m", "shardkit", "pack", case.source, dest, "--workers", str(THREADS))


@contestant("GNU tar + sync", "pack", program="tar")
def gnu_tar_synced(case: Case) -> Run:
    """One tar of the whole tree, in the order of its directories, on the disk."""
    dest = os.path.join(case.dest, "train.tar")
    tar, sync = command("tar", "cf", dest, "-C", case.source, "."), command("sync", dest)
    return lambda: tar() or sync()


@contestant("GNU tar", "pack", program="tar")
def gnu_tar(case: Case) -> Run:
    return command("tar", "cf", os.path.join(case.dest, "train.tar"), "-C", case.source, ".")


@contestant("cp -r", "pack", program="cp")
def copy_tree(case: Case) -> Run:
    return command("cp", "-r", case.source, case.dest)


@contestant("Python tarfile", "pack")
def python_tarfile(case: Case) -> Run:
    """The WebDataset layout with the standard library: compact ustar, two members per sample."""

    def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, BytesIO(data))

    def run() -> int:
        samples = 0
        for name, files in shares(case):
            with tarfile.open(f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
                for path, key, label in files:
                    add(tar, f"{key}.jpg", read_file(path))
                    add(tar, f"{key}.cls", b"%d" % label)
                    tar.members.clear()  # type: ignore[attr-defined]
                samples += len(files)
        return samples

    return run


@contestant("webdataset.ShardWriter", "pack", "memory pack", needs=("webdataset",))
def webdataset_writer(case: Case) -> Run:
    import webdataset

    def run() -> int:
        files = case.files()
        pattern = os.path.join(case.dest, "train-%06d.tar")
        with webdataset.ShardWriter(pattern, maxsize=case.max_bytes, verbose=0) as sink:
            for path, key, label in files:
                sink.write({"__key__": key, "jpg": read_file(path), "cls": label})
        return len(files)

    return run


@contestant("tf.io.TFRecordWriter", "pack", "memory pack", needs=("tensorflow",))
def tfrecord_writer(case: Case) -> Run:
    import tensorflow as tf

    def example(data: bytes, key: str, label: int) -> bytes:
        feature = {
            "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[data])),
            "image/key": tf.train.Feature(bytes_list=tf.train.BytesList(value=[key.encode()])),
            "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        }
        return bytes(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())

    def run() -> int:
        samples = 0
        for name, files in shares(case):
            with tf.io.TFRecordWriter(f"{name}.tfrecord") as writer:
                for path, key, label in files:
                    writer.write(example(read_file(path), key, label))
                samples += len(files)
        return samples

    return run


@contestant("Grain ArrayRecordWriter", "pack", needs=("grain", "array-record"))
def array_record_writer(case: Case) -> Run:
    from array_record.python.array_record_module import ArrayRecordWriter

    def run() -> int:
        samples = 0
        for name, files in shares(case):
            writer = ArrayRecordWriter(f"{name}.array_record", "group_size:1")
            for path, _, label in files:
                writer.write(label.to_bytes(8, "little") + read_file(path))
            writer.close()
            samples += len(files)
        return samples

    return run


@contestant("MosaicML MDSWriter", "pack", needs=("mosaicml-streaming",))
def mds_writer(case: Case) -> Run:
    from streaming import MDSWriter

    def run() -> int:
        files = case.files()
        columns = {"jpg": "bytes", "cls": "int"}
        with MDSWriter(out=os.path.join(case.dest, "train-mds"), columns=columns, size_limit=case.max_bytes) as out:
            for path, _, label in files:
                out.write({"jpg": read_file(path), "cls": label})
        return len(files)

    return run


def litdata_sample(item: tuple[str, str, int]) -> dict[str, Any]:
    """What LitData stores for a file. At module level, since its workers unpickle it."""
    path, _, label = item
    return {"jpg": read_file(path), "cls": label}


@contestant("LitData optimize", "pack", needs=("litdata",))
def litdata_optimize(case: Case) -> Run:
    import litdata

    def run() -> int:
        files = case.files()
        dest = os.path.join(case.dest, "train-litdata")
        options = {"chunk_bytes": case.max_bytes, "num_workers": THREADS, "verbose": False}
        litdata.optimize(litdata_sample, inputs=files, output_dir=dest, **options)
        return len(files)

    return run
