"""`shardkit shuffle-quality`: how well a dataset is mixed, for several shuffle buffers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, Plot, options_from
from shardkit.cli.command import Command
from shardkit.tools.settings import ShuffleQualitySettings

if TYPE_CHECKING:
    from shardkit.tools.shuffle_quality import ShuffleQuality


@click.command(cls=Command, name="shuffle-quality", short_help="Show how well shuffle buffers mix a dataset.")
@click.argument("source")
@options_from(ShuffleQualitySettings, Plot, Json)
@console.output_options
def command(source: str, plot_file: Path | None, as_json: bool, **options: Any) -> None:
    """Show how well shuffle buffers mix the dataset SOURCE, compared with a full permutation. Only the index is read.

    \b
    shardkit shuffle-quality shards/train
    shardkit shuffle-quality shards/train --buffers 1000,5000 --batch 128 --plot mixing.png
    shardkit shuffle-quality shards/train --ranks 64
    """
    from shardkit.tools.pictures import PLOT_SUFFIXES, out_path, require_matplotlib
    from shardkit.tools.shuffle_quality import plot, shuffle_quality

    if plot_file:
        out_path(plot_file, PLOT_SUFFIXES, option="plot_file")  # before it takes its time
        require_matplotlib("plot")
    quality = shuffle_quality(source, **options)
    if plot_file:
        plot(quality, plot_file)
    if as_json:
        console.write_json(quality)
    else:
        console.write(quality_text(quality))


def quality_text(quality: ShuffleQuality) -> str:
    """Format the comparison as text."""
    from shardkit.tools.shuffle_quality import tables_of

    head = [
        "buffer",
        "run of a class",
        "entropy of a batch",
        "carried over",
        "moved from packed place",
        "between epochs",
    ]
    rows = [head]
    for way in quality.ways:
        name = f"{way.buffer:,}" if way.name.isdigit() else way.name
        entropy = f"{way.batch_entropy:.2f} bits ({way.mixed:.0%})"
        moves = [f"{way.displacement:.1%}", f"{way.epoch_change:.1%}"]
        rows.append([name, f"{way.run_length:.2f}", entropy, f"{way.carry_over:.0%}", *moves])
    where = f"{tables_of(quality)}, {quality.lanes} lanes"
    about = f"{quality.samples:,} samples, {quality.classes:,} classes, {where}; batches of {quality.batch}"
    return "\n".join([about, tables.table(rows), "", *COLUMNS, "", *ranks_text(quality), advice_text(quality)])


def ranks_text(quality: ShuffleQuality) -> list[str]:
    """Format what was measured over several ranks as lines; none if nothing was."""
    if not quality.over_ranks:
        return []
    one = quality.over_ranks[0]
    rows = [["buffer", "nodes", "meet again", "by chance", "fetched", "shards touched", "stay on the node"]]
    for way in quality.over_ranks:
        met = [f"{way.met:.3%}", f"{way.chance:.3%}"]
        nodes = "keep their part" if way.affinity else "exchange"
        rows.append([f"{way.buffer:,}", nodes, *met, f"{way.read:.2f}", f"{way.touched:.2f}", f"{way.kept:.1%}"])
    about = f"{one.ranks:,} ranks, {one.ranks_per_node:,} on each node"
    return [about, tables.table(rows), "", *RANK_COLUMNS, ""]


RANK_COLUMNS = (
    "nodes: exchange their parts of the shards in each epoch, or keep them with node_affinity=True",
    "meet again: pairs of samples in a batch of a rank that are in one batch again in the next epoch",
    "fetched: what a rank fetches from a store, as a multiple of its own samples",
    "shards touched: the shards of which a node reads a part, as a multiple of its own samples",
    "stay on the node: samples of a node that it also had in the epoch before",
)
"""What the columns of the table of ranks mean."""


COLUMNS = (
    "run of a class: consecutive samples of one class, on average",
    "entropy of a batch: of its classes, and as a part of a full permutation's; more is better",
    "carried over: how much the classes of a batch say about the next one's; 0 is best",
    "moved from packed place, between epochs: mean distance, as a part of the dataset; 33% for a full permutation",
)
"""What the columns of the table mean."""


def advice_text(quality: ShuffleQuality) -> str:
    """What to do, in a sentence or two; none for what the figures do not show."""
    from shardkit.tools.shuffle_quality import MOST_CHANCE

    if not quality.packed:
        advice = "a class directory has its files in runs of a class: pack it, which shuffles the whole dataset once"
        if quality.enough and quality.chance <= MOST_CHANCE:
            advice += f";\nread as it is, a buffer of {quality.enough:,} mixes them as well as a full permutation"
        return advice
    if quality.chance > MOST_CHANCE:
        batches = tables.plural(quality.samples // quality.batch, "batch", "batches")
        return f"{batches} are too few to tell how well a buffer mixes; choose a smaller --batch"
    if quality.enough is None:
        return (
            "no buffer here mixes like a full permutation, since the classes were packed in runs;\n"
            "pack again with --shuffle, which shuffles the whole dataset once"
        )
    if quality.enough == 0:
        return "well mixed as packed; a buffer of 1,000 or more gives each epoch batches of its own"
    return f"a buffer of {quality.enough:,} mixes the classes as well as a full permutation"
