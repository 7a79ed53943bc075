"""`shardkit convert`: options and final output."""

from __future__ import annotations

import os
from typing import Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.cli.engine import with_engine
from shardkit.errors import printable
from shardkit.tools.settings import ConvertSettings


@click.command(cls=Command, name="convert", short_help="Write a dataset in another format, or as other shards.")
@click.argument("source", nargs=-1, required=True)
@click.argument("dest")
@options_from(ConvertSettings, Json)
@console.output_options
@click.pass_context
def command(ctx: click.Context, /, source: tuple[str, ...], dest: str, as_json: bool, **options: Any) -> None:
    """Write the samples of SOURCE to new shards DEST-000000.tar ...

    SOURCE is a prefix, manifest or glob; the shards need no manifest. Without --max-bytes, --max-count or --shuffle,
    each shard becomes one shard. To resume an interrupted run, run the same command again.

    \b
    shardkit convert shards/train tf/train --format tfrecord
    shardkit convert shards/train s3://bucket/tf/train --format tfrecord
    shardkit convert shards/train large/train --max-bytes 1GB --shuffle --seed 1
    shardkit convert 'old/*.tar' new/train --rename png=mask.png --drop json
    """
    from shardkit.tools.convert.convert import convert

    ctx.meta[console.ON_INTERRUPT] = "; run the same command again to resume"
    given = list(source) if len(source) > 1 else source[0]
    with console.progress() as progress:
        manifest = convert(given, dest, progress=progress, **with_engine(options))
    if as_json:
        console.write_json(manifest)
        return
    what = tables.extent(manifest.samples, len(manifest.shards), manifest.bytes)
    fields = ", ".join(map(printable, manifest.fields))
    stem = os.path.splitext(manifest.index[0].name if manifest.index else manifest.shards[0].name)[0]
    prefix = os.path.join(dest if os.path.isdir(dest) else os.path.dirname(dest), stem)
    console.summary(f"{printable(prefix)}: {what} of {manifest.shard_format}; fields {fields}")
    if manifest.classes:
        console.summary(tables.class_table({"samples": manifest.classes}))
