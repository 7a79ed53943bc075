"""`shardkit merge`: one dataset of the parts that several machines packed, or of several datasets."""

from __future__ import annotations

from typing import Any

import click

from shardkit.cli import console
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.tools.settings import MergeSettings


@click.command(cls=Command, name="merge", short_help="Make one dataset of the parts of a packing, or of datasets.")
@click.argument("source", nargs=-1)
@click.argument("dest")
@options_from(MergeSettings, Json)
@console.output_options
@click.pass_context
def command(ctx: click.Context, /, source: tuple[str, ...], dest: str, as_json: bool, **options: Any) -> None:
    """Make one dataset of the parts at DEST that were written by pack --part, or of the datasets SOURCE.

    Without SOURCE, DEST is that of the parts; in a folder, all packings in parts are merged. The bytes equal those of a
    packing on one machine. Parts that are missing, or that differ in source, options, classes or version, are named,
    and nothing is written.

    With two or more datasets of one folder as SOURCE, DEST is a new dataset in that folder, whose manifest names their
    shards. Nothing is copied, and they stay.

    \b
    shardkit merge shards/train
    shardkit merge s3://bucket/train --storage-option region=eu-west-1
    shardkit merge shards/train --discard
    shardkit merge shards/monday shards/tuesday shards/week
    """
    from shardkit.cli.pack import result_text
    from shardkit.tools.merge.merge import merge

    ctx.meta[console.ON_INTERRUPT] = "; run the same command again to resume"
    merged = merge(list(source), dest, **options) if source else merge(dest, **options)
    if as_json:
        console.write_json(merged.manifests if merged.splits else merged.manifest)
    elif options["discard"]:
        console.summary("the parts are discarded")
    else:
        console.summary(result_text({each.location: each.manifest for each in merged.values()}))
