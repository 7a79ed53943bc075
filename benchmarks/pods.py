"""What many ranks read, and how well they shuffle: `python benchmarks/pods.py [--ranks 1 8 64 …] [--samples N]
[--streaming PYTHON]`.

Computed with the code that orders an epoch, for datasets that exist as numbers only: shards of 128 MB of images of 1,
10 and 100 kB. Batches of 64, 8 ranks on a node, shuffle=True.

before     the order of layout=1, of which rank r takes each W-th place: one line of 16 lanes and one buffer for all
now        the default: a section with 16 lanes and a buffer of its own for each rank
affinity   the same with node_affinity=True
py1e, py1br  MosaicML streaming's shuffles on the same shards, computed with its own functions (get_partitions and
           get_shuffle with its defaults, and the seed of epoch 0 and 1) by PYTHON, which has mosaicml-streaming

fetched    what a rank fetches from a store, as a multiple of its own samples; "whole": its node fetches whole shards
shards     the shards that a node touches, as a multiple of its own samples: what a cache of whole shards fetches
met again  the pairs of samples in a rank's batch that are in one batch again in the next epoch; in brackets, by chance
stays      the samples of a node that it also had in the epoch before
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from dataclasses import replace

import numpy as np

from shardkit.reading.blocks.fetch_ahead import GAP_BYTES
from shardkit.reading.options import DEFAULT_BUFFER
from shardkit.reading.order.epoch_order import EpochOrder, default_lanes
from shardkit.reading.order.layout import Layout
from shardkit.reading.order.share import Share
from shardkit.tools.shuffle_ranks import fetched, kept, met_again, touched

SHARD_BYTES = 128_000_000
BATCH = 64
NODE = 8
LANES = default_lanes(True)


def measured(counts: np.ndarray, image_bytes: int, ranks: int, kind: str) -> str:
    """A row of the table."""
    node = min(NODE, ranks)
    layout = Layout(LANES) if kind == "before" else Layout(LANES, ranks, node if kind == "affinity" else 0)
    samples, epochs = int(counts.sum()), list[list[np.ndarray]]()
    share = Share(0, samples, 0, ranks, "drop", 0, 1 if kind == "before" else BATCH, layout)
    for epoch in range(2):
        order = EpochOrder(counts, DEFAULT_BUFFER, 0, epoch, layout.lanes, layout.sections, layout.node)
        shares = [replace(share, rank=rank) for rank in range(ranks)]
        epochs.append([each.rows(order, np.arange(len(each)))[0] for each in shares])
    asked = f"{fetched(epochs[0], counts, GAP_BYTES // image_bytes):.2f}"
    return row(image_bytes, ranks, kind, asked, epochs, counts)


def row(image_bytes: int, ranks: int, kind: str, asked: str, epochs: list[list[np.ndarray]], counts: np.ndarray) -> str:
    """A row of the table, for the rows of each rank in two epochs."""
    node, samples = min(NODE, ranks), int(counts.sum())
    nodes = [[np.concatenate(rows[low : low + node]) for low in range(0, ranks, node)] for rows in epochs]
    met, chance = met_again(*epochs, samples, BATCH), (BATCH - 1) / (samples - 1)
    return (
        f"| {image_bytes // 1000} kB | {ranks:,} | {kind} | {asked} "
        f"| {touched(nodes[0], counts):.2f} | {met:.3%} ({chance:.3%}) | {kept(*nodes, samples):.1%} |"
    )


STREAMING = """
import sys
import numpy as np
from streaming.base.partition import get_partitions
from streaming.base.shuffle import get_shuffle
counts, found, algorithm = np.load(sys.argv[1]), sys.argv[2], sys.argv[3]
ranks, node, batch = map(int, sys.argv[4:])
nodes = ranks // node
for epoch in range(2):
    ids = get_partitions("relaxed", int(counts.sum()), nodes, nodes, node, 1, batch)
    shuffle = get_shuffle(algorithm, counts, nodes, 9176, epoch, max(4_000_000 // nodes, 1 << 18))
    np.save(f"{found}-{epoch}.npy", np.where(ids >= 0, shuffle[ids], -1).reshape(ranks, -1))
"""
"""Writes the rows of each rank in two epochs, -1 at the end of ranks with fewer, with StreamingDataset's defaults."""


def measured_streaming(python: str, counts: np.ndarray, image_bytes: int, ranks: int, algorithm: str) -> str:
    """A row of the table for MosaicML streaming."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/counts.npy", counts)
        given = [f"{folder}/counts.npy", f"{folder}/rows", algorithm, ranks, min(NODE, ranks), BATCH]
        subprocess.run([python, "-W", "ignore", "-c", STREAMING, *map(str, given)], check=True)
        epochs = [[own[own >= 0] for own in np.load(f"{folder}/rows-{epoch}.npy")] for epoch in range(2)]
    return row(image_bytes, ranks, algorithm, "whole", epochs, counts)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 64, 512, 1000])
    parser.add_argument("--samples", type=int, default=1_281_167)
    parser.add_argument("--image-bytes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--streaming", help="an interpreter with mosaicml-streaming")
    options = parser.parse_args()
    print(
        "| images | ranks | order | fetched | shards | met again (by chance) | stays |\n|---|---|---|---|---|---|---|"
    )
    for size in options.image_bytes:
        shards = -(-options.samples * size // SHARD_BYTES)
        bounds = np.arange(shards + 1) * options.samples // shards
        for ranks in options.ranks:
            for kind in ("before", "now", "affinity") if ranks > 1 else ("now",):
                print(measured(np.diff(bounds), size, ranks, kind), flush=True)
            for kind in ("py1e", "py1br") if options.streaming else ():
                print(measured_streaming(options.streaming, np.diff(bounds), size, ranks, kind), flush=True)


if __name__ == "__main__":
    main()
