"""`shardkit verify`: list what is wrong with a dataset, as text or JSON; exit code 5 if anything is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.cli.engine import with_engine
from shardkit.cli.splits import of_splits
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

    SOURCE is a prefix, a manifest, a glob or list of shards, or a folder of several splits, which are all checked.
    Without a manifest there are no checksums, and only the tar structure, keys, labels and image headers are checked.
    A dataset in a bucket is compared with the sizes and checksums that the store keeps; --read fetches it and checks
    its contents too. The exit code is 0 if everything is sound, and 5 otherwise; with --quiet, only findings are
    printed.

    \b
    shardkit verify shards/train
    shardkit verify shards/train --decode
    shardkit verify 'shards/train-*.tar' --json
    shardkit verify s3://bucket/train --read
    """
    from shardkit.tools.verify.verify import verify

    asked = with_engine(options)
    result: Verification | dict[str, Verification]
    with console.progress() as progress:
        if len(source) > 1:
            result = verify(list(source), progress=progress, **asked)
        else:
            each = partial(verify, progress=progress, **asked)
            result = of_splits(each, source[0], options["storage_options"])
    parts = list(result.values()) if isinstance(result, dict) else [result]
    if as_json:
        console.write_json(result)
    else:
        for part in parts:
            (console.summary if part.sound else console.write)(result_text(part))
    if not all(part.sound for part in parts):
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
    how = ""
    if not result.checksums:
        has_manifest = result.source.endswith(".json")
        how = " (the index was made of headers alone, so has no checksums: 'shardkit index --whole' makes them)"
        how = how if has_manifest else " (there is no manifest, so no checksums: 'shardkit index' makes one)"
    if not result.read:
        how = " by the store's checksums"
    if result.unproven:
        how += f", which has none for {tables.plural(result.unproven, 'file')}: --read checks the bytes"
    return "\n".join([*lines, printable(f"{result.source}: {what}{decoded}: {verdict}{how}")])
