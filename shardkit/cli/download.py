"""`shardkit download`: copy a dataset from a bucket to this machine."""

from __future__ import annotations

from typing import Any

import click

from shardkit.cli import console
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.cli.upload import result_text
from shardkit.tools.settings import DownloadSettings


@click.command(cls=Command, name="download", short_help="Download a dataset from a bucket.")
@click.argument("source")
@click.argument("dest")
@options_from(DownloadSettings, Json)
@console.output_options
@click.pass_context
def command(ctx: click.Context, /, source: str, dest: str, as_json: bool, **options: Any) -> None:
    """Download the dataset SOURCE (s3://bucket/train, gs://, az://, http://), byte for byte, to DEST.

    Each file is checked against its checksum in the manifest, and appears when it is complete; the manifest comes
    last. To resume an interrupted download, run the same command again. A folder (s3://bucket/cars/) downloads all of
    its datasets.

    \b
    shardkit download s3://bucket/train shards/train
    shardkit download s3://bucket/cars/ shards/
    """
    from shardkit.tools.transfer.download import download

    ctx.meta[console.ON_INTERRUPT] = "; run the same command again to resume"
    with console.progress() as progress:
        result = download(source, dest, progress=progress, **options)
    if as_json:
        console.write_json(result)
    else:
        console.summary(result_text(result, "fetched"))
