"""What ranks fetch from a store, counted there: `python benchmarks/amplification.py [--ranks 1 8 64] [--samples N]`.

Each rank of a world reads an epoch, shuffled, from a web server that counts, and that answers after a latency.
Ranks do not share what they fetch; 8 of them read at a time. `pods.py` computes the same for larger worlds.

fetched    the bytes that the ranks were sent, without manifest and index, as a multiple of the dataset's
requests   for a rank, on average, and its samples
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from shared import counted, counting_store

import shardkit

AT_ONCE = 8


def draw(folder: Path, samples: int, image_bytes: int, shards: int) -> None:
    """Write a dataset of random bytes under names of images."""
    data = np.random.default_rng(0).bytes(image_bytes)
    with shardkit.ShardWriter(folder / "train", max_count=-(-samples // shards), check="none") as writer:
        for number in range(samples):
            writer.write({"__key__": f"{number:07}", "jpg": data, "cls": number % 10})


def read(url: str, rank: int, world: int, batch: int) -> int:
    """Read the samples of a rank; returns how many there were."""
    data = shardkit.dataset(f"{url}/train", shuffle=True, seed=1, rank=rank, world_size=world, threads=2, shared=False)
    return sum(len(each.keys) for each in data.batch(batch, encoded=True))


def measured(url: str, world: int, batch: int, size: int) -> str:
    """A row of the table."""
    shardkit.dataset(f"{url}/train").class_counts  # noqa: B018  (manifest and index, once for all of this process)
    read(url, 0, world, batch)
    counted(url)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda rank: read(url, rank, world, batch), range(world)))
    counts = counted(url)
    return f"| {world} | {counts['bytes'] / size:.3f} | {counts['GET'] / world:.1f} | {sum(found) / world:.0f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--samples", type=int, default=25_600)
    parser.add_argument("--image-bytes", type=int, default=10_000)
    parser.add_argument("--shards", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.03)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), options.samples, options.image_bytes, options.shards)
        size = sum(path.stat().st_size for path in Path(folder).glob("*.tar"))
        print("| ranks | fetched | requests | samples |\n|---|---|---|---|")
        for world in options.ranks:
            with counting_store(Path(folder), options.latency) as url:
                print(measured(url, world, options.batch, size), flush=True)


if __name__ == "__main__":
    main()
