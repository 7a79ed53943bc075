"""`shardkit index`: a manifest and an index for shards that have none."""

from __future__ import annotations

import os
from pathlib import Path

import click

from shardkit.cli import console, tables
from shardkit.errors import printable


@click.command(name="index", short_help="Write manifest and index for shards that have none.")
@click.argument("source", nargs=-1, required=True)
@click.option("--out", metavar="PREFIX", help="What the files are called.  [default: as the shards' names begin]")
@click.option("--classes", type=click.Path(path_type=Path), metavar="FILE", help="Class names, one in a line.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Threads.  [default: the cores]")
@click.option("--overwrite", is_flag=True, help="Replace a manifest and index that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
@console.output_options
def command(
    source: tuple[str, ...],
    out: str | None,
    classes: Path | None,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Read the tar shards SOURCE once, check them, and write a manifest and an index beside them.

    With these, a dataset knows its length, gives every rank equal work, and resumes in the middle of an epoch. The
    shards (tar, PAX, gzip) stay as they are.

    \b
    shardkit index 'shards/train-*.tar'
    shardkit index 'laion/{00000..00099}.tar' --out laion/all
    shardkit index shards/train --classes names.txt --overwrite
    """
    from shardkit.tools.indexing import index_shards

    given = list(source) if len(source) > 1 else source[0]
    with console.progress() as progress:
        manifest = index_shards(
            given, out=out, classes=classes, workers=workers, overwrite=overwrite, progress=progress
        )
    if as_json:
        console.write_json(manifest)
        return
    what = tables.extent(manifest.samples, len(manifest.shards), manifest.bytes)
    fields = ", ".join(map(printable, manifest.fields))
    name = os.path.splitext(manifest.index[0].name)[0] if manifest.index else ""
    console.write(f"{printable(name)}: {what}; fields {fields}\n{tables.class_table({'samples': manifest.classes})}")
