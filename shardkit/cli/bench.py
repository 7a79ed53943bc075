"""`shardkit bench`: compare a class directory with shards, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, Plot, options_from
from shardkit.cli.command import Command
from shardkit.errors import printable
from shardkit.tools.settings import BenchSettings
from shardkit.units import format_bytes

if TYPE_CHECKING:
    from shardkit.tools.bench.bench import BenchResult


@click.command(cls=Command, name="bench", short_help="Compare a class directory with shards on this machine.")
@click.argument("source")
@options_from(BenchSettings, Plot, Json)
@console.output_options
def command(source: str, plot_file: Path | None, as_json: bool, **options: Any) -> None:
    """Measure how fast training can read SOURCE as a class directory and as shards, and recommend options.

    SOURCE is a class directory, of which a sample is packed into a temporary folder, or a dataset, of which a sample is
    unpacked. Both are read cold and warm, as bytes and as decoded batches, with one thread up to one per core. The
    result shows the bottleneck, whether packing pays off, and the recommended shard size, threads, shuffle buffer and
    image size. A dataset in a bucket is compared with a copy of a sample on this machine.

    \b
    shardkit bench data/train
    shardkit bench shards/train --seconds 60 --plot bench.png
    shardkit bench s3://bucket/train
    shardkit bench data/train --threads 1,8 --folder /mnt/fast --json
    """
    from shardkit.tools.bench.bench import bench, plot
    from shardkit.tools.pictures import PLOT_SUFFIXES, out_path, require_matplotlib

    if plot_file:
        out_path(plot_file, PLOT_SUFFIXES, option="plot_file")  # before it takes its time
        require_matplotlib("plot")
    with console.progress() as progress:
        result = bench(source, progress=progress, **options)
    if plot_file:
        plot(result, plot_file)
    if as_json:
        console.write_json(result)
    else:
        console.write(bench_text(result))


def bench_text(result: BenchResult) -> str:
    """Format the measurements and the advice as text."""
    from shardkit.tools.bench.advice import measured_table

    sample = "" if result.sampled == result.samples else f"; measured on {result.sampled:,} of them"
    head = (
        f"{printable(result.source)}: a {result.kind}"
        if result.kind == "class directory"
        else f"{printable(result.source)}: {result.kind}"
    )
    lines = [f"{head}, {tables.plural(result.samples, 'image')}, {format_bytes(result.bytes)}{sample}"]
    lines.append(f"decoded: random crops of {result.size} x {result.size} pixels, in batches")
    lines.append(tables.table(measured_table(result.measurements), left=(0, 1)))
    if any(each.cache == "cold" for each in result.measurements):
        lines.append("cold: not in the page cache; the names of files stay known, which favors the directory")
    return "\n".join([*lines, "", *result.advice.lines])
