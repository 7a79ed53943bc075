"""`shardkit diff`: what differs between two versions of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.errors import printable
from shardkit.tools.settings import DiffSettings

if TYPE_CHECKING:
    from shardkit.tools.corrections.diff import Difference

SHOWN = 20


@click.command(cls=Command, name="diff", short_help="Show what differs between two versions of a dataset.")
@click.argument("a")
@click.argument("b")
@options_from(DiffSettings, Json)
@console.output_options
def command(a: str, b: str, as_json: bool, **options: Any) -> None:
    """Show what differs between versions A and B of a dataset: samples that were deleted, restored or relabelled, or
    have other fields.

    \b
    shardkit diff shards/train@1 shards/train
    shardkit diff shards/train@1 shards/train --json > changes.json
    """
    from shardkit.tools.corrections.diff import diff

    found = diff(a, b, **options)
    if as_json:
        counts = (
            "before", "after", "deleted", "restored", "relabelled", "other_fields", "added", "removed", "classes",
            "fields",
        )  # fmt: skip
        console.write_json({name: getattr(found, name) for name in counts} | {"samples": found.table.to_pylist()})
        return
    console.write(text_of(found))


def text_of(found: Difference) -> str:
    """The difference as text, with the first samples."""
    counts = [(name, getattr(found, name)) for name in ("deleted", "restored", "relabelled", "added", "removed")]
    said = [f"{count:,} {name}" for name, count in counts if count]
    if found.other_fields:
        said.append(f"{found.other_fields:,} with other fields ({', '.join(map(printable, found.fields))})")
    if found.classes:
        said.append(f"new classes: {', '.join(map(printable, found.classes))}")
    lines = [f"version {found.before} to {found.after}: {', '.join(said) or 'no difference'}"]
    samples = found.table.slice(0, SHOWN).to_pylist()
    rows = [[printable(each["key"]), each["change"], _labels(each["before"], each["after"])] for each in samples]
    lines += [tables.table(rows, left=(0, 1, 2))] if rows else []
    more = found.table.num_rows - len(rows)
    return "\n".join([*lines, *([f"  … and {tables.plural(more, 'more sample')}"] if more > 0 else [])])


def _labels(before: str | None, after: str | None) -> str:
    return " -> ".join(printable(label) for label in (before, after) if label is not None)
