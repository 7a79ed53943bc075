"""What a packing with `pack_to` leaves, and when it rests."""

from __future__ import annotations

import gc
import time
from pathlib import Path

from shardkit.adapters.pack_to import packer

COUNTS = {"blue": 33, "green": 38, "red": 49}
"""The images of the tree `photos`, by class."""

TOTAL = sum(COUNTS.values())

SMALL = {"max_count": 10}
"""The options of packings into 12 shards."""


def files_in(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of all files in a folder, hidden ones too; folders have no bytes."""
    return {path.name: path.read_bytes() if path.is_file() else b"" for path in folder.iterdir()}


def finished_shards(folder: Path) -> dict[str, int]:
    """The shards of an unfinished packing, each with its inode."""
    work = folder / ".train.packing"
    names = [path.name.removesuffix(".receipt") for path in work.glob("*.receipt")]
    return {name: (work / name).stat().st_ino for name in names}


def settle() -> None:
    """Wait for the packings that nobody reads any more."""
    gc.collect()
    end = time.monotonic() + 30
    while any(each._thread is not None for each in packer._PACKERS.values()):
        assert time.monotonic() < end
        time.sleep(0.01)
