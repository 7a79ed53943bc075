"""`shardkit relabel`: other labels for some samples of a dataset."""

from __future__ import annotations

from typing import Any

import click

from shardkit.cli import console
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.tools.settings import RelabelSettings


@click.command(cls=Command, name="relabel", short_help="Correct labels, in a new version of a dataset.")
@click.argument("dataset")
@click.argument("labels")
@options_from(RelabelSettings, Json)
@console.output_options
def command(dataset: str, labels: str, as_json: bool, **options: Any) -> None:
    """Give the samples in the list LABELS other labels: a new version of DATASET, with the same shards.

    LABELS is a CSV, TSV, JSON lines or Parquet file with a column key or path, and a column label. A small file beside
    the index and a new manifest are written. Older versions stay: DATASET@1 is the dataset as packed. Programs that do
    not read the index, such as webdataset and tf.data, see the labels as packed, until shardkit convert.

    \b
    shardkit relabel shards/train corrections.csv
    shardkit relabel shards/train corrections.jsonl --new-classes --message "second look"
    shardkit relabel s3://bucket/train corrections.parquet --by path
    """
    from shardkit.cli.corrected import tell
    from shardkit.tools.corrections.relabel import relabel

    tell(relabel(dataset, labels, **options), "relabelled", as_json=as_json)
