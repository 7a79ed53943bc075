"""`shardkit verify`: list what is wrong with a dataset, as text or JSON; exit code 5 if anything is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.cli.engine import with_engine
from shardkit.errors import DatasetError, printable
from shardkit.tools.settings import VerifySettings

if TYPE_CHECKING:
    from shardkit.tools.verify.verify import Verification

SHOWN = 50


@click.command(cls=Command, name="verify", short_help="Check shards, index and manifest.")
@click.argument("source", nargs=-1, required=True)
@options_from(VerifySettings, Json)
@console.output_options
@click.pass_context
def command(ctx: click.Context, /, source: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Check the dataset SOURCE: manifest, index, the CRC of each shard and sample, keys, labels, counts.

    SOURCE is a prefix, a manifest, or a glob or list of shards. Without a manifest there are no checksums,
    and only the tar structure, keys, labels and image headers are checked. A dataset in a bucket is compared with the
    sizes and checksums that the store keeps; --read fetches it and checks its contents too. The exit code is 0 if
    everything is sound, and 5 otherwise; with --quiet, only findings are printed.

    \b
    shardkit verify shards/train
    shardkit verify shards/train --decode
    shardkit verify 'shards/train-*.tar' --json
    shardkit verify s3://bucket/train --read
    """
    from shardkit.tools.verify.verify import verify

    with console.progress() as progress:
        result = verify(list(source) if len(source) > 1 else source[0], progress=progress, **with_engine(options))
    if as_json:
        console.write_json(result)
    elif result.sound:
        console.summary(result_text(result))
    else:
        console.write(result_text(result))
    if not result.sound:
        console.flush()
        ctx.exit(DatasetError.exit_code)


def result_text(result: Verification) -> str:
    """Format the findings, one line each, and the verdict."""
    lines = [str(item) for item in result.findings[:SHOWN]]
    more = len(result.findings) - SHOWN
    lines += [f"… and {more:,} more; --json prints all"] if more > 0 else []
    what = tables.extent(result.samples, result.shards, result.bytes)
    decoded = f", {tables.plural(result.decoded, 'image')} decoded" if result.decoded else ""
    verdict = "sound" if result.sound else tables.plural(len(result.findings), "finding")
    how = "" if result.checksums else " (there is no manifest, so no checksums: 'shardkit index' makes one)"
    if not result.read:
        how = " by the store's checksums"
    if result.unproven:
        how += f", which has none for {tables.plural(result.unproven, 'file')}: --read checks the bytes"
    return "\n".join([*lines, printable(f"{result.source}: {what}{decoded}: {verdict}{how}")])
