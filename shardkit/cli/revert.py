"""`shardkit revert`: go back to an older version of a dataset."""

from __future__ import annotations

from typing import Any

import click

from shardkit.cli import console
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.tools.settings import RevertSettings


@click.command(cls=Command, name="revert", short_help="Go back to an older version of a dataset.")
@click.argument("dataset")
@click.argument("version", type=int)
@options_from(RevertSettings, Json)
@console.output_options
def command(dataset: str, version: int, as_json: bool, **options: Any) -> None:
    """Make a new version of DATASET that equals VERSION. Nothing is removed; shardkit log lists all versions.

    \b
    shardkit revert shards/train 1
    shardkit revert shards/train 3 --message "before the second look"
    """
    from shardkit.cli.corrected import tell
    from shardkit.tools.corrections.history import revert

    tell(revert(dataset, version, **options), f"as in version {version} again", as_json=as_json)
