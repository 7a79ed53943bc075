"""Compare several views of one decode with as many decodes, over a folder of JPEGs, in one thread.

    python benchmarks/views.py FOLDER [--count 160] [--rounds 9]

Processor time, with the contestants in turns; the figures are medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from decode_accuracy import read_images

from shardkit.images.decoder import DecodeOptions
from shardkit.images.views.decoder import ViewDecoder
from shardkit.images.views.options import View

LARGE, SMALL = {"scale": (0.4, 1.0)}, {"scale": (0.05, 0.4)}
VIEWS = {
    "one": {"a": View(1, 224)},
    "two": {"a": View(2, 224)},
    "DINO": {"global": View(2, 224, **LARGE), "local": View(8, 96, **SMALL)},
    "global": {"a": View(1, 224, **LARGE)},
    "local": {"a": View(1, 96, **SMALL)},
}


def contestant(datas: list[bytes], views: dict[str, View]) -> Callable[[int], float]:
    """A function that decodes all images with the random numbers of a round, and returns the seconds."""
    decoder = ViewDecoder(DecodeOptions(views=views, flip=True))
    outs: dict[str, Any] = {
        name: np.empty((len(datas), *shape), decoder.dtype) for name, shape in decoder.shapes.items()
    }

    def seconds(key: int) -> float:
        draws = decoder.draws(key, np.arange(len(datas)))
        began = time.process_time()
        decoder.batch_into(datas, outs, draws)
        return time.process_time() - began

    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    datas = read_images(options.folder, options.count)
    timed = {name: contestant(datas, views) for name, views in VIEWS.items()}
    rounds = [{name: run(key) for name, run in timed.items()} for key in range(options.rounds)]
    two = statistics.median(each["two"] / each["one"] for each in rounds)
    ten = statistics.median((2 * each["global"] + 8 * each["local"]) / each["DINO"] for each in rounds)
    print(f"{len(datas)} images; two views take {two:.2f} times as long as one")
    print(f"DINO's 2 + 8 views are {ten:.2f} times as fast as ten decodes")


if __name__ == "__main__":
    main()
