"""`shardkit convert`: the options, and what is printed at the end."""

from __future__ import annotations

import os
from typing import Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import FILE, size, words
from shardkit.cli.engine import engine_options, with_engine
from shardkit.cli.storage import storage_options
from shardkit.errors import UsageError, printable


def pairs(_: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    """The option's callback for `old=new`, with commas between several, given any number of times."""
    found: dict[str, str] = {}
    for text in (each for given in value for each in given.split(",")):
        old, equals, new = (part.strip() for part in text.partition("="))
        if not (old and equals and new) or "=" in new or old in found:
            cure = "write it as png=mask.png, with commas between several"
            raise UsageError(param.opts[0], f"{text!r} is not OLD=NEW, or occurs twice", cure)
        found[old] = new
    return found


def listed(_: click.Context, param: click.Parameter, value: tuple[str, ...]) -> list[str]:
    """The option's callback for words with commas between them, given any number of times."""
    return [word.strip() for text in value for word in text.split(",") if word.strip()]


@click.command(name="convert", short_help="Write a dataset in another format, or as other shards.")
@click.argument("source", nargs=-1, required=True)
@click.argument("dest")
@click.option(
    "--format", type=click.Choice(["tar", "tfrecord"]), help="Format of the new shards.  [default: that of the source]"
)
@click.option("--max-bytes", callback=size, metavar="SIZE", help="Maximum size of a new shard: 64MiB, 1GB, ...")
@click.option("--max-count", type=click.IntRange(1), metavar="N", help="Maximum number of samples in a new shard.")
@click.option("--shuffle/--no-shuffle", default=False, show_default=True, help="Shuffle all samples.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed for shuffling.")
@click.option("--rename", multiple=True, callback=pairs, metavar="OLD=NEW,...", help="Fields to rename.")
@click.option("--drop", multiple=True, callback=listed, metavar="FIELD,...", help="Fields to omit.")
@click.option("--fields", callback=words, metavar="FIELD,...", help="Fields to keep; all others are omitted.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Number of processes.  [default: one per core]")
@engine_options
@click.option("--overwrite", is_flag=True, help="Replace an existing dataset at DEST.")
@click.option(
    "--work", type=FILE, metavar="DIR", help="Folder for shards that await upload.  [default: the user's cache]"
)
@storage_options
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
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
    name = manifest.shards[0].name
    fields = ", ".join(map(printable, manifest.fields))
    stem = os.path.splitext(manifest.index[0].name)[0] if manifest.index else name
    console.write(f"{printable(stem)}: {what} of {manifest.shard_format}; fields {fields}")
    if manifest.classes:
        console.write(tables.class_table({"samples": manifest.classes}))
