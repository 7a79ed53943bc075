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
webp libwebp. setup.py builds them. A part is loaded on first use, never when shardkit is imported.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any


@cache
def load(name: str) -> tuple[Any, str]:
    """(the part, "") or (None, the reason): it was not built, or this processor lacks what it needs."""
    try:
        part = importlib.import_module(f"shardkit.native.{name}")
    except ImportError as exc:
        return None, str(exc)
    if not getattr(part, "available", True):
        return None, "this processor has no instruction for CRC-32C"
    return part, ""
