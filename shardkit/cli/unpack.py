"""`shardkit unpack`: a dataset's files, as the class tree that they came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from shardkit.cli import console, tables
from shardkit.errors import printable
from shardkit.units import format_bytes

if TYPE_CHECKING:
    from shardkit.tools.unpack.unpack import Unpacked


@click.command(name="unpack", short_help="Extract a dataset into a tree of class directories.")
@click.argument("source")
@click.argument("dest")
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Only this class; repeatable.")
@click.option("--key", "keys", multiple=True, metavar="PATTERN", help="Only these keys, such as 'cat/00*'; repeatable.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Number of threads.  [default: one per core]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@console.output_options
def command(
    source: str, dest: str, classes: tuple[str, ...], keys: tuple[str, ...], workers: int | None, as_json: bool
) -> None:
    """Write the samples of SOURCE as files below the new folder DEST.

    A packed class tree is restored byte for byte, names included. Shards from other sources are extracted as
    CLASS/KEY.FIELD. DEST appears when it is complete. No link, device or path outside DEST is ever created.

    \b
    shardkit unpack shards/train data/again
    shardkit unpack shards/train some --class cat --class dog
    shardkit unpack 'shards/train-*.tar' one --key 'cat/0001*'
    """
    from shardkit.tools.unpack.unpack import unpack

    with console.progress() as progress:
        result = unpack(source, dest, classes=classes or None, keys=keys or None, workers=workers, progress=progress)
    if as_json:
        console.write_json(result)
    else:
        console.write(result_text(result))


def result_text(result: Unpacked) -> str:
    """What was written, for a reader."""
    samples, files = tables.plural(result.samples, "sample"), tables.plural(result.files, "file")
    return f"{printable(result.folder)}: {samples} in {files}, {format_bytes(result.bytes)}"
