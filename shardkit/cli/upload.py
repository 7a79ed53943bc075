"""`shardkit upload`: copy a dataset from this machine to a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.errors import printable
from shardkit.tools.settings import UploadSettings
from shardkit.units import format_bytes

if TYPE_CHECKING:
    from shardkit.tools.transfer.copy import Transferred


@click.command(cls=Command, name="upload", short_help="Upload a dataset to a bucket.")
@click.argument("source", nargs=-1, required=True)
@click.argument("dest")
@options_from(UploadSettings, Json)
@console.output_options
@click.pass_context
def command(ctx: click.Context, /, source: tuple[str, ...], dest: str, as_json: bool, **options: Any) -> None:
    """Upload the dataset SOURCE, byte for byte, to DEST: s3://bucket/train, gs://, az://, or a folder.

    SOURCE is a prefix or manifest, a folder of datasets, or shards without a manifest. Shards go first, the manifest
    last, so that nobody reads half a dataset. Files that are there already, with the same size and checksum, are
    not sent again. To resume an interrupted upload, run the same command again.

    \b
    shardkit upload shards/train s3://bucket/train
    shardkit upload shards s3://bucket/cars/ --transfers 8 --export timm,huggingface
    shardkit upload shards/train s3://bucket/train --storage-option endpoint=http://127.0.0.1:9000
    """
    from shardkit.tools.transfer.upload import upload

    ctx.meta[console.ON_INTERRUPT] = "; run the same command again to resume"
    given = list(source) if len(source) > 1 else source[0]
    with console.progress() as progress:
        result = upload(given, dest, progress=progress, **options)
    if as_json:
        console.write_json(result)
    else:
        console.summary(result_text(result, "sent"))


def result_text(result: Transferred, done: str) -> str:
    """Format one line per dataset. done: "sent", "fetched"."""
    lines = []
    for one in result.datasets:
        samples = f"{tables.plural(one.samples, 'sample')} in " if one.samples else ""
        what = f"{samples}{tables.plural(one.shards, 'shard')}, {format_bytes(one.bytes)}"
        moved = f"{done} {tables.plural(one.sent, 'file')}, {format_bytes(one.sent_bytes)}"
        kept = f"; {one.kept:,} there already" if one.kept else ""
        lines.append(printable(f"{one.dataset.removesuffix('.json')}: {what}; {moved}{kept}"))
    return "\n".join(lines)
