"""Writers of samples, one sample at a time from one thread: `ShardWriter` and `shardkit.write` against MosaicML's
MDSWriter, TensorFlow's TFRecordWriter and webdataset's writers.

    python benchmarks/writer.py data/cifar10/train --repeat 9     # the images are in memory
    python benchmarks/writer.py data/cifar10/train --files        # each file is read within the loop
    python benchmarks/writer.py data/photos/train

Each writer has a process of its own, and all take turns, each into an empty folder after a sync of the disk. `first` is
the wall time of a turn that does not count, with the imports of what the writer needs. The table has medians: wall
time, processor time of the process and of the thread that calls the writer, and MDSWriter's time over that of the
writer in the same round. Only shardkit checks images, stores checksums that cover everything, writes an index, and
flushes its files to the disk; "not flushed" is shardkit without its flushes, to compare with the others. On a busy
machine only processor time means something. A peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from harness import class_tree, read_file

Samples = Callable[[], Iterator[tuple[bytes, int]]]
REFERENCE = "MosaicML MDSWriter"


def shard_writer(samples: Samples, dest: str, form: str) -> None:
    """Write with ShardWriter."""
    import shardkit

    with shardkit.ShardWriter(f"{dest}/train", format=form) as writer:  # type: ignore[arg-type]
        for image, label in samples():
            writer.write({"jpg": image, "cls": label})


def write(samples: Samples, dest: str) -> None:
    """Write with shardkit.write, from an iterable."""
    import shardkit

    shardkit.write(({"jpg": image, "cls": label} for image, label in samples()), f"{dest}/train")


def not_flushed(samples: Samples, dest: str) -> None:
    """Write with ShardWriter, whose flushes do nothing."""
    flush, os.fsync = os.fsync, lambda fd: None
    try:
        shard_writer(samples, dest, "tar")
    finally:
        os.fsync = flush


def mds_writer(samples: Samples, dest: str) -> None:
    """Write with MosaicML's MDSWriter."""
    from streaming import MDSWriter

    with MDSWriter(out=f"{dest}/mds", columns={"jpg": "bytes", "cls": "int"}) as writer:
        for image, label in samples():
            writer.write({"jpg": image, "cls": label})


def tfrecord_writer(samples: Samples, dest: str) -> None:
    """Write Examples with tf.io.TFRecordWriter."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(f"{dest}/theirs.tfrecord") as writer:
        for image, label in samples():
            feature = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def tar_writer(samples: Samples, dest: str) -> None:
    """Write with webdataset.TarWriter."""
    import webdataset

    with webdataset.TarWriter(f"{dest}/theirs.tar") as writer:
        for number, (image, label) in enumerate(samples()):
            writer.write({"__key__": f"{number:09d}", "jpg": image, "cls": label})


def webdataset_shards(samples: Samples, dest: str) -> None:
    """Write with webdataset.ShardWriter."""
    import webdataset

    with webdataset.ShardWriter(f"{dest}/%06d.tar", maxcount=1 << 30, maxsize=256_000_000, verbose=0) as writer:
        for number, (image, label) in enumerate(samples()):
            writer.write({"__key__": f"{number:09d}", "jpg": image, "cls": label})


def plain_file(samples: Samples, dest: str) -> None:
    """Write the images one behind the other to one file, and flush it: the limit of the disk."""
    with open(f"{dest}/plain", "wb") as file:
        file.writelines(image for image, _ in samples())
        file.flush()
        os.fsync(file.fileno())


WRITERS: dict[str, Callable[[Samples, str], None]] = {
    REFERENCE: mds_writer,
    "ShardWriter": lambda samples, dest: shard_writer(samples, dest, "tar"),
    "ShardWriter, not flushed": not_flushed,
    "ShardWriter, tfrecord": lambda samples, dest: shard_writer(samples, dest, "tfrecord"),
    "shardkit.write": write,
    "tf.io.TFRecordWriter": tfrecord_writer,
    "webdataset.TarWriter": tar_writer,
    "webdataset.ShardWriter": webdataset_shards,
    "write and fsync": plain_file,
}


def samples_of(options: argparse.Namespace) -> Samples:
    """What every writer gets: the files of a tree and their labels."""
    files = [(path, label) for path, _, label in class_tree(options.tree)]
    if options.files:
        return lambda: ((read_file(path), label) for path, label in files)
    loaded = [(read_file(path), label) for path, label in files]
    return lambda: iter(loaded)


def serve(name: str, options: argparse.Namespace) -> None:
    """In the process of a writer: for each folder that comes in, write there and answer with the seconds."""
    samples, run = samples_of(options), WRITERS[name]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    for line in sys.stdin:
        thread, process, wall = time.thread_time(), time.process_time(), time.perf_counter()
        run(samples, line.strip())
        ends = time.perf_counter(), time.process_time(), time.thread_time()
        print(json.dumps([ends[0] - wall, ends[1] - process, ends[2] - thread]), file=answers, flush=True)


def turn(process: subprocess.Popen[str], scratch: str | None) -> tuple[float, ...] | None:
    """The seconds of one turn of a writer; None if its process ended."""
    dest = tempfile.mkdtemp(dir=scratch)
    os.sync()
    answer = ""
    with contextlib.suppress(BrokenPipeError):
        print(dest, file=process.stdin, flush=True)
        answer = process.stdout.readline() if process.stdout else ""
    shutil.rmtree(dest)
    return tuple(json.loads(answer)) if answer else None


def measured(names: list[str], options: argparse.Namespace, log: IO[str]) -> dict[str, list[tuple[float, ...]]]:
    """The seconds of each turn of each writer, the untimed one first."""
    command = [sys.executable, __file__, *sys.argv[1:], "--serve"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log, "text": True}
    running = {name: subprocess.Popen([*command, name], **pipes) for name in names}
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    for _ in range(options.repeat + 1):
        for name in names:
            if name in running and (seconds := turn(running[name], options.scratch)) is None:
                print(f"{name} is left out: its process ended", file=sys.stderr)
                del running[name], found[name]
            elif name in running:
                found[name].append(seconds)
    for process in running.values():
        process.communicate()
    return found


def print_table(found: dict[str, list[tuple[float, ...]]]) -> None:
    """The table in Markdown."""
    print("| writer | first | wall | x | processor time | x | of the caller | x |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (first, *turns) in found.items():
        cells = [f"{first[0]:.3f} s"]
        for part in range(3):
            pairs = zip(turns, found.get(REFERENCE, found[name])[1:], strict=True)
            ratio = statistics.median(his[part] / mine[part] for mine, his in pairs)
            cells += [f"{statistics.median(each[part] for each in turns):.3f} s", f"{ratio:.2f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree")
    parser.add_argument("--files", action="store_true", help="read each file within the loop")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--only", nargs="+", choices=WRITERS, help="these writers, besides MDSWriter")
    parser.add_argument("--scratch", help="a folder on the disk to measure (default: that of temporary files)")
    parser.add_argument("--serve", choices=WRITERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options)
        return
    wanted = [REFERENCE, *(name for name in WRITERS if name in (options.only or WRITERS) and name != REFERENCE)]
    with tempfile.TemporaryFile("w+") as log:
        found = measured(wanted, options, log)
    print(f"load average {os.getloadavg()[0]:.1f}")
    print_table(found)


if __name__ == "__main__":
    main()
