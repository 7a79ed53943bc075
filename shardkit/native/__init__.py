"""The parts written in C, and the function that loads them. Each is optional: without it, Python code does the same, or
a clear error is raised.

    checksums   CRC-32C of buffers; without it, google_crc32c or NumPy computes it
    sums        CRC-32C of all parts of a shard in one pass; without it, each part is summed by itself
    samples     makes samples that are not decoded, and joins their images; without it, Python does
    lookup      finds the index rows of a block; without it, NumPy does
    framing     frames the samples that a program writes; without it, a loop in Python does
    gather      reads, checks and writes plain JPEGs to a shard, tar or TFRecord, and lists and reads a tree ahead of
                that; without it, a loop in Python does, and nothing is done ahead
    archives    reads the members of tar and zip files, and finds the folders in lists of names; without it, loops in
                Python do
    lists       looks at the files that a list names, and numbers and sorts its texts; without it, Python does
    tree        lists folders and makes keys; without it, `os.scandir` and a loop in Python do
    jpeg        decodes, crops and resizes JPEGs into a batch; without it, simplejpeg and Pillow do
    png         the same for PNGs; without it, Pillow does
    webp        the same for WebPs; without it, Pillow does
    augment     warps images for `decode(augment=)`; without it, NumPy does
    near        finds hashes that differ in few bits; without it, NumPy does
    jpegtran    rewrites JPEGs losslessly; without it, the options that need it are refused

checksums, sums, gather and framing need a processor with an instruction for CRC-32C, jpeg and jpegtran libjpeg-turbo,
webp libwebp. setup.py builds them. A part is loaded on first use, never when shardkit is imported, and not if it was
built from other sources than those beside it, as after an update of a checkout (native/sources.py).
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from typing import Any

BUILD = "python setup.py -q build_ext --inplace"

_FOLDER = os.path.dirname(os.path.abspath(__file__))


@cache
def load(name: str) -> tuple[Any, str]:
    """(the part, "") or (None, the reason): it was not built, it does not fit its sources, or this processor lacks what
    it needs."""
    try:
        part = importlib.import_module(f"shardkit.native.{name}")
    except ImportError as exc:
        return None, str(exc)
    if _is_old(part, name):
        _warn_once()
        return None, f"it was built from other sources; build it again with '{BUILD}'"
    if not getattr(part, "available", True):
        return None, "this processor has no instruction for CRC-32C"
    return part, ""


def _is_old(part: Any, name: str) -> bool:
    """Whether a part was built from other sources than those beside it, which only a checkout has."""
    if not os.path.exists(os.path.join(_FOLDER, f"{name}.c")):
        return False
    from shardkit.native.sources import is_older

    built = os.stat(part.__file__).st_mtime_ns
    return _newest() > built and is_older(built, part.__doc__, name, _FOLDER)


@cache
def _newest() -> int:
    from shardkit.native.sources import newest_in

    return newest_in(_FOLDER)


@cache
def _warn_once() -> None:
    import logging

    logging.getLogger("shardkit").warning(
        "the C parts in %s were built from other sources: what they do is done without them, slower; build them again "
        "with '%s' in the folder above shardkit", _FOLDER, BUILD,
    )  # fmt: skip
