"""`shardkit unpack`: extract a dataset's files into the class tree they came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.errors import printable
from shardkit.tools.settings import UnpackSettings
from shardkit.units import format_bytes

if TYPE_CHECKING:
    from shardkit.tools.unpack.unpack import Unpacked


@click.command(cls=Command, name="unpack", short_help="Extract a dataset into a tree of class directories.")
@click.argument("source")
@click.argument("dest")
@options_from(UnpackSettings, Json)
@console.output_options
def command(source: str, dest: str, as_json: bool, **options: Any) -> None:
    """Write the samples of SOURCE as files below the new folder DEST.

    A packed class tree is restored byte for byte, names included. Shards from other sources are extracted as
    CLASS/KEY.FIELD. DEST appears when it is complete. No link, device or path outside DEST is ever created.

    \b
    shardkit unpack shards/train data/again
    shardkit unpack shards/train some --class cat --class dog
    shardkit unpack 'shards/train-*.tar' one --key 'cat/0001*'
    shardkit unpack shards/listed photos --metadata
    """
    from shardkit.tools.unpack.unpack import unpack

    with console.progress() as progress:
        result = unpack(source, dest, progress=progress, **options)
    if as_json:
        console.write_json(result)
    else:
        console.summary(result_text(result))


def result_text(result: Unpacked) -> str:
    """Format the result as text."""
    samples, files = tables.plural(result.samples, "sample"), tables.plural(result.files, "file")
    return f"{printable(result.folder)}: {samples} in {files}, {format_bytes(result.bytes)}"
