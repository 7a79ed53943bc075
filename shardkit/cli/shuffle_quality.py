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
    """
    from shardkit.tools.pictures import PLOT_SUFFIXES, out_path
    from shardkit.tools.shuffle_quality import plot, shuffle_quality

    if plot_file:
        out_path(plot_file, PLOT_SUFFIXES, option="plot_file")  # before it takes its time
    quality = shuffle_quality(source, **options)
    if plot_file:
        plot(quality, plot_file)
    if as_json:
        console.write_json(quality)
    else:
        console.write(quality_text(quality))


def quality_text(quality: ShuffleQuality) -> str:
    """Format the comparison as text."""
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
    about = (
        f"{quality.samples:,} samples, {quality.classes:,} classes, {quality.shards:,} shards, {quality.lanes} lanes"
    )
    if quality.enough is None:
        advice = (
            "no buffer here mixes like a full permutation, since the classes were packed in runs;\n"
            "pack again with --shuffle, which shuffles the whole dataset once"
        )
    elif quality.enough == 0:
        advice = "well mixed as packed; a buffer of 1,000 or more gives each epoch batches of its own"
    else:
        advice = f"a buffer of {quality.enough:,} mixes the classes as well as a full permutation"
    return "\n".join([f"{about}; batches of {quality.batch}", tables.table(rows), advice])
