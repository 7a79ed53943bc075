"""`shardkit add-fields`: values of further columns for the samples of a dataset."""

from __future__ import annotations

from typing import Any

import click

from shardkit.cli import console
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.tools.settings import AddFieldsSettings


@click.command(cls=Command, name="add-fields", short_help="Add columns, in a new version of a dataset.")
@click.argument("dataset")
@click.argument("fields")
@options_from(AddFieldsSettings, Json)
@console.output_options
def command(dataset: str, fields: str, as_json: bool, **options: Any) -> None:
    """Give samples the values in the list FIELDS: a new version of DATASET, with the same shards.

    FIELDS is a CSV, TSV, JSON lines or Parquet file with a column key or path; its other columns are the fields, which
    become typed columns meta.NAME. A file beside the index and a new manifest are written. Older versions stay:
    DATASET@1 is the dataset as packed. Samples that have another value already are an error without --overwrite.

    \b
    shardkit add-fields shards/train ages.csv
    shardkit add-fields shards/train predictions.parquet --columns score,model --overwrite --message "model 7"
    shardkit add-fields s3://bucket/train ages.jsonl --by path
    """
    from shardkit.cli.corrected import tell
    from shardkit.errors import printable
    from shardkit.tools.corrections.add_fields import add_fields

    result = add_fields(dataset, fields, **options)
    corrections, types = result.manifest.corrections, result.manifest.columns
    names = corrections.log[-1].columns if result.bytes and corrections is not None else ()
    shown = ", ".join(f"{printable(name)} ({types[name]})" for name in names)
    tell(result, f"given {shown}", as_json=as_json)
