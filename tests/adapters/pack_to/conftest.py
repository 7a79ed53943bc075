"""A class tree, and what a packing with `pack_to` leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapters.pack_to.packings import COUNTS, SMALL, files_in

import shardkit


@pytest.fixture
def photos(tmp_path: Path, draw_tree: Callable[..., Path]) -> Path:
    """A tree of 3 classes, 120 images."""
    return draw_tree(tmp_path / "photos", COUNTS)


@pytest.fixture
def packed(photos: Path, tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """A function: the files that `pack` makes of the tree, as `train`, with some options."""

    def make(**options: Any) -> dict[str, bytes]:
        folder = tmp_path / "reference"
        shardkit.pack(photos, folder / "train", **SMALL | options)
        return files_in(folder)

    return make


@pytest.fixture
def close_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packing may not run ahead of the reader, nor blocks be large."""
    from shardkit.adapters.pack_to import packer
    from shardkit.reading.blocks import source

    monkeypatch.setattr(packer, "AHEAD_BYTES", 0)
    monkeypatch.setattr(source, "BLOCK_SAMPLES", 8)
