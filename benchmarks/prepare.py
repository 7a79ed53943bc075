"""Preparation before any timing: cases, the shards for readers, warm or cold pages."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from harness import Case, Contestant, class_tree, find, tree_bytes
from process import ContestantError, ask

SMALL_IMAGE_BYTES = 8_000  # a tree of smaller files than this (CIFAR) gives batches of 128 x 32², else 64 x 224²
READ_SHARD_BYTES = 32_000_000  # several shards per tree, so that the peers' workers can share them
FORMS = {  # each form that is read -> its packers; the first one that works is used
    "tar": ("shardkit", "Python tarfile"),
    "tfrecord": ("tf.io.TFRecordWriter",),
    "array_record": ("Grain ArrayRecordWriter",),
    "mds": ("MosaicML MDSWriter",),
    "litdata": ("LitData optimize",),
}


@dataclass(frozen=True, slots=True)
class Tree:
    """A class tree, and what every reading of it must yield."""

    case: Case
    samples: int
    bytes: int
    variants: tuple[str, ...]  # of a batch


def trees(data: Path, scratch: Path, only: str | None) -> Iterator[Tree]:
    """Every `NAME/train` in the data folder."""
    for source in sorted(data.glob("*/train")):
        name = source.parent.name
        if only not in (None, name):
            continue
        paths = [path for path, _, _ in class_tree(str(source))]
        total = tree_bytes(paths)
        small = total < SMALL_IMAGE_BYTES * len(paths)
        prepared, dest = scratch / name / "prepared", scratch / name / "dest"
        prepared.mkdir(parents=True, exist_ok=True)
        case = Case(name, str(source), str(prepared), str(dest), "", *((32, 128) if small else (224, 64)))
        yield Tree(case, len(paths), total, ("plain",) if small else ("center", "random"))


def fresh_dest(case: Case) -> None:
    """Empty the folder that a run may fill, and wait until the disk has finished writing."""
    shutil.rmtree(case.dest, ignore_errors=True)
    os.makedirs(case.dest)
    os.sync()


def prepare(case: Case, form: str, shard_bytes: int = READ_SHARD_BYTES) -> bool:
    """Pack the tree in the form, once; False if no packer of it works."""
    folder = os.path.join(case.prepared, form)
    if os.path.isdir(folder):
        return True
    making = replace(case, dest=f"{folder}.part", max_bytes=shard_bytes)
    for name in FORMS[form]:
        if find("pack", name).version() is None:
            continue
        fresh_dest(making)
        try:
            ask("pack", name, making)
        except ContestantError as error:
            print(f"{case.tree}: {name} could not pack the {form} shards: {error}", file=sys.stderr)
            continue
        if form == "tar":
            np.save(os.path.join(making.dest, "offsets.npy"), tar_offsets(making))
        os.rename(making.dest, folder)
        return True
    return False


def tar_offsets(case: Case) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """One row (shard, offset, size, label) for each image of the tars in `case.dest`."""
    rows, labels = [], {}
    names = sorted(name for name in os.listdir(case.dest) if name.endswith(".tar"))
    for shard, name in enumerate(names):
        with tarfile.open(os.path.join(case.dest, name)) as tar:
            for member in tar:
                key, _, field = member.name.rpartition(".")
                if field == "cls":
                    file = tar.extractfile(member)
                    labels[key] = int(file.read()) if file else -1
                else:
                    rows.append((key, shard, member.offset_data, member.size))
    return np.array([(shard, offset, size, labels[key]) for key, shard, offset, size in rows], np.int64)


def input_files(case: Case, contestant: Contestant) -> list[str]:
    """The files that a reader reads."""
    top = os.path.join(case.prepared, contestant.reads) if contestant.reads else case.source
    return [os.path.join(folder, name) for folder, _, names in os.walk(top) for name in names]


def drop_pages(paths: list[str]) -> None:
    """Evict the files from the page cache. Names and inodes stay cached: dropping them requires root."""
    os.sync()
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
