"""`shardkit log`: the versions of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.errors import printable
from shardkit.tools.settings import LogSettings

if TYPE_CHECKING:
    from shardkit.shards.corrections.block import VersionEntry


@click.command(cls=Command, name="log", short_help="List the versions of a dataset.")
@click.argument("dataset")
@options_from(LogSettings, Json)
@console.output_options
def command(dataset: str, as_json: bool, **options: Any) -> None:
    """List the versions of DATASET: what made each, and how many samples it has. DATASET@N is version N.

    \b
    shardkit log shards/train
    shardkit log s3://bucket/train --json
    """
    from shardkit.tools.corrections.history import log

    versions = log(dataset, **options)
    if as_json:
        console.write_json(versions)
        return
    rows = [["version", "what", "samples", "message"]]
    rows += [[str(each.version), what_of(each), f"{each.samples:,}", printable(each.message)] for each in versions]
    console.write(tables.table(rows, left=(1, 3), indent=""))


def what_of(entry: VersionEntry) -> str:
    """What made a version, in a few words."""
    if entry.kind == "relabel":
        new = f", {tables.plural(len(entry.classes), 'new class', 'new classes')}" if entry.classes else ""
        return f"{entry.relabelled:,} relabelled{new}"
    if entry.kind == "add-fields":
        return f"{', '.join(map(printable, entry.columns))} of {entry.filled:,}"
    return {
        "pack": "packed",
        "delete": f"{entry.deleted:,} deleted",
        "purge": f"{entry.deleted:,} purged",
        "append": f"{entry.added:,} added",
        "merge": "corrections of what was merged",
        "revert": f"as version {entry.of}",
    }.get(entry.kind, printable(entry.kind))
