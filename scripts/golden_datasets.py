#!/usr/bin/env python3
"""Write the small datasets of the current version, which every later version must read (docs/compatibility.md).

    python scripts/golden_datasets.py

Run it once for each release, and commit tests/fixtures/datasets/VERSION. What is there already is never changed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import shardkit

FOLDER = Path(__file__).parents[1] / "tests" / "fixtures" / "datasets" / shardkit.__version__


def draw(tree: Path) -> None:
    """Draw two classes of three images of 8 x 8 pixels, each with a JSON file beside it."""
    rng = np.random.default_rng(0)
    for name in ("blue", "red"):
        for number in range(3):
            path = tree / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path, quality=50)
            path.with_suffix(".json").write_text(json.dumps({"number": number}))


def main() -> int:
    if FOLDER.exists():
        print(f"{FOLDER} is there already, and is never changed", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as work:
        draw(Path(work) / "tree")
        for format in ("tar", "tfrecord"):
            shardkit.pack(
                Path(work) / "tree", FOLDER / format / "train",
                format=format, max_count=4, fields=["jpg", "json"], seed=1,
            )  # fmt: skip
    print(FOLDER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
