"""`shardkit view`: a contact sheet of random samples, by class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, arguments, options_from
from shardkit.cli.command import Command
from shardkit.errors import printable
from shardkit.tools.settings import ViewSettings

if TYPE_CHECKING:
    from shardkit.tools.view import ContactSheet


@click.command(cls=Command, name="view", short_help="Draw random samples of each class in one picture.")
@click.argument("source")
@options_from(ViewSettings, Json)
@console.output_options
def command(source: str, as_json: bool, **options: Any) -> None:
    """Draw random samples of each class of SOURCE to a PNG file: a row for each class, a key below each picture.

    SOURCE is a prefix, a manifest, a glob of the shards, or a class directory.

    \b
    shardkit view shards/train
    shardkit view shards/train --class blue --class red --count 5 --seed 1 --out cars.png
    shardkit view shards/train --augmented --size 32 --out augmented.png
    """
    from shardkit.tools.view import view

    with console.progress() as progress:
        sheet = view(source, progress=progress, **arguments(ViewSettings, options))
    if as_json:
        console.write_json(sheet)
    else:
        console.summary(sheet_text(sheet))


def sheet_text(sheet: ContactSheet) -> str:
    """Format the result as text: what was drawn, and where it is."""
    samples = tables.plural(sum(len(part.keys) for part in sheet.classes), "sample")
    classes = tables.plural(len(sheet.classes), "class", "classes")
    lines = [f"{printable(sheet.path)}: {samples} of {classes}, {sheet.width} x {sheet.height} pixels"]
    if sheet.undecodable:
        broken = ", ".join(map(printable, sheet.undecodable[:3])) + (" …" if len(sheet.undecodable) > 3 else "")
        lines.append(f"  {tables.plural(len(sheet.undecodable), 'image')} can't be decoded: {broken}")
    return "\n".join(lines)
