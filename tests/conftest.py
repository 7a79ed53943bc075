"""What many tests share: small drawn images, class trees of them, and the profile of the property tests."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import shardkit

settings.register_profile("shardkit", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("shardkit")


def draw_image(seed: int = 0, *, size: tuple[int, int] = (40, 30), format: str = "JPEG", mode: str = "RGB") -> bytes:
    """An image file of smooth random colours. size is (width, height), as in Pillow; format and mode are Pillow's."""
    from PIL import Image

    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode)
    sink = io.BytesIO()
    image.save(sink, format)
    return sink.getvalue()


def draw_tree(root: Path, counts: Mapping[str, int], *, size: tuple[int, int] = (40, 30), seed: int = 0) -> Path:
    """A class tree below `root`: for each `{"cat": 3}` or `{"train/cat": 3}` that many JPEGs 0000.jpg, 0001.jpg …"""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            seed += 1
            (root / folder / f"{n:04}.jpg").write_bytes(draw_image(seed, size=size))
    return root


@pytest.fixture(name="draw_image", scope="session")
def fixture_draw_image() -> Callable[..., bytes]:
    """The function `draw_image`."""
    return draw_image


@pytest.fixture(name="draw_tree", scope="session")
def fixture_draw_tree() -> Callable[..., Path]:
    """The function `draw_tree`."""
    return draw_tree


def run_python(*arguments: str, cwd: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """A new interpreter with `arguments`, in `cwd`, that has this shardkit. stdin is empty; output comes as text."""
    home = str(Path(shardkit.__file__).parent.parent)
    return subprocess.run(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=check,
        cwd=cwd,
        timeout=120,
        env=os.environ | {"PYTHONPATH": home} | environment,
    )


@pytest.fixture(name="run_python", scope="session")
def fixture_run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The function `run_python`."""
    return run_python


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of 2 classes, 12 images: blue (5) and red (7)."""
    return draw_tree(tmp_path / "tree", {"blue": 5, "red": 7})


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """A tree of splits: train (red 6, blue 4), validation (2, 2), test (1, 1)."""
    counts = {"train/red": 6, "train/blue": 4, "validation/red": 2, "validation/blue": 2, "test/red": 1, "test/blue": 1}
    return draw_tree(tmp_path / "splits", counts)
