"""What many ranks read, and how well they shuffle: `python benchmarks/pods.py [--ranks 1 8 64 …] [--samples N]`.

Computed with the code that orders an epoch, for datasets that exist as numbers only: shards of 128 MB of images of 1,
10 and 100 kB. Batches of 64, 8 ranks on a node, shuffle=True.

before     the order of layout=1, of which rank r takes each W-th place: one line of 16 lanes and one buffer for all
now        the default: a section with 16 lanes and a buffer of its own for each rank
affinity   the same with node_affinity=True

fetched    what a rank fetches from a store, as a multiple of its own samples
shards     the shards that a node touches, as a multiple of its own samples: what a cache of whole shards fetches
met again  the pairs of samples in a rank's batch that are in one batch again in the next epoch; in brackets, by chance
stays      the samples of a node that it also had in the epoch before
"""

from __future__ import annotations

import argparse
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
    samples, epochs = int(counts.sum()), []
    share = Share(0, samples, 0, ranks, "drop", 0, 1 if kind == "before" else BATCH, layout)
    for epoch in range(2):
        order = EpochOrder(counts, DEFAULT_BUFFER, 0, epoch, layout.lanes, layout.sections, layout.node)
        shares = [replace(share, rank=rank) for rank in range(ranks)]
        epochs.append([each.rows(order, np.arange(len(each)))[0] for each in shares])
    nodes = [[np.concatenate(rows[low : low + node]) for low in range(0, ranks, node)] for rows in epochs]
    met, chance = met_again(*epochs, samples, BATCH), (BATCH - 1) / (samples - 1)
    return (
        f"| {image_bytes // 1000} kB | {ranks:,} | {kind} | {fetched(epochs[0], counts, GAP_BYTES // image_bytes):.2f} "
        f"| {touched(nodes[0], counts):.2f} | {met:.3%} ({chance:.3%}) | {kept(*nodes, samples):.1%} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 64, 512, 1000])
    parser.add_argument("--samples", type=int, default=1_281_167)
    parser.add_argument("--image-bytes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
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


if __name__ == "__main__":
    main()
