"""`shardkit download`: a dataset of a bucket to this machine."""

from __future__ import annotations

from typing import Any

import click

from shardkit.cli import console
from shardkit.cli.storage import storage_options
from shardkit.cli.upload import result_text


@click.command(name="download", short_help="Bring a dataset from a bucket.")
@click.argument("source")
@click.argument("dest")
@click.option("--overwrite", is_flag=True, help="Replace another dataset at DEST.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Files on their way at a time.  [default: 4]")
@storage_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@console.output_options
@click.pass_context
def command(ctx: click.Context, /, source: str, dest: str, as_json: bool, **options: Any) -> None:
    """Bring the dataset SOURCE (s3://bucket/train, gs://, az://, http://), byte for byte, to DEST.

    Each file is held against its checksum in the manifest, and appears when it is whole; the manifest comes last. Run
    again, an interrupted download keeps the files that are finished. A folder (s3://bucket/cars/) brings all its
    datasets.

    \b
    shardkit download s3://bucket/train shards/train
    shardkit download s3://bucket/cars/ shards/
    """
    from shardkit.tools.transfer.download import download

    ctx.meta[console.ON_INTERRUPT] = "; the same command goes on from here"
    with console.progress() as progress:
        result = download(source, dest, progress=progress, **options)
    if as_json:
        console.write_json(result)
    else:
        console.write(result_text(result, "fetched"))
