"""`shardkit delete`: leave samples out of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import click

from shardkit.cli import console
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.errors import UsageError
from shardkit.options.fields import Flag, Help, Takes
from shardkit.tools.settings import DeleteSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The option of the command alone."""

    keys: Annotated[
        tuple[str, ...], Takes.TEXTS, Flag("--key"), Help("A sample to delete, by key; repeatable.", "KEY")
    ] = ()


@click.command(cls=Command, name="delete", short_help="Leave samples out, in a new version of a dataset.")
@click.argument("dataset")
@click.argument("list", required=False, metavar="[LIST]")
@options_from(Named, DeleteSettings, Json)
@console.output_options
def command(dataset: str, list: str | None, keys: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Leave the samples in LIST out of DATASET: a new version of it, with the same shards.

    LIST is a CSV, TSV, JSON lines or Parquet file with a column key or path. The samples stay in the shards and in
    older versions, and programs that do not read the index, such as webdataset and tf.data, see them, until shardkit
    convert. With --purge, the shards that hold them are rewritten, and older versions are removed.

    \b
    shardkit delete shards/train unwanted.csv
    shardkit delete shards/train --key cat/0001 --key cat/0002 --message "blurred"
    shardkit delete shards/train --key cat/0003 --purge
    """
    from shardkit.cli.corrected import tell
    from shardkit.tools.corrections.delete import delete

    if (list is None) == (not keys):
        raise UsageError("shardkit delete", "it takes either LIST or --key", "give one of the two")
    tell(
        delete(dataset, keys if list is None else list, **options),
        "purged" if options["purge"] else "deleted",
        as_json=as_json,
    )
