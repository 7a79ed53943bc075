"""`shardkit repair`: recover an intact dataset from a damaged one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.errors import printable
from shardkit.tools.settings import RepairSettings

if TYPE_CHECKING:
    from shardkit.tools.repair.repair import Repaired

SHOWN = 50


@click.command(cls=Command, name="repair", short_help="Recover a sound dataset from a damaged one.")
@click.argument("source", nargs=-1, required=True)
@click.argument("dest")
@options_from(RepairSettings, Json)
@console.output_options
def command(source: tuple[str, ...], dest: str, as_json: bool, **options: Any) -> None:
    """Write the intact samples of the dataset SOURCE to the new dataset DEST. SOURCE is never changed.

    Bad samples are skipped and listed, the members of a sample are put side by side, duplicate keys are renamed, and
    index and manifest are new. If there is an index, a damaged header costs no sample.

    \b
    shardkit repair shards/train repaired/train
    shardkit repair 'shards/train-*.tar' repaired/train --decode
    """
    from shardkit.tools.repair.repair import repair

    given = list(source) if len(source) > 1 else source[0]
    with console.progress() as progress:
        result = repair(given, dest, progress=progress, **options)
    if as_json:
        console.write_json(result)
    else:
        console.summary(result_text(result))


def result_text(result: Repaired) -> str:
    """Format the repair's actions, one line each, and the resulting dataset."""
    from shardkit.tools.repair.repair import lines_of

    lines = [printable(line) for line in lines_of(result)]
    more = len(lines) - SHOWN
    lines = [*lines[:SHOWN], f"… and {more:,} more; --json prints all"] if more > 0 else lines
    manifest = result.manifest
    what = tables.extent(manifest.samples, len(manifest.shards), manifest.bytes)
    lost = tables.plural(len(result.left_out), "sample")
    return "\n".join([*lines, f"{what}; {lost} skipped"])
