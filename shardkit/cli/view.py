"""`shardkit view`: a contact sheet of random samples, by class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, options_from
from shardkit.errors import printable
from shardkit.options.fields import AtLeast, Help
from shardkit.tools.settings import ViewSettings

if TYPE_CHECKING:
    from shardkit.tools.view import ContactSheet


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmented:
    """The options of the command alone."""

    augmented: Annotated[bool, Help("Show random crops and flips, as in training.")] = False
    size: Annotated[
        int | None,
        AtLeast(1),
        Help("With --augmented: side of the crop, in pixels.", "N", unset="at most 224"),
    ] = None


@click.command(name="view", short_help="Draw random samples of each class in one picture.")
@click.argument("source")
@options_from(ViewSettings, Augmented, Json)
@console.output_options
def command(source: str, augmented: bool, size: int | None, as_json: bool, **options: Any) -> None:
    """Draw random samples of each class of SOURCE to a PNG file: a row for each class, a key below each picture.

    SOURCE is a prefix, a manifest, a glob of the shards, or a class directory.

    \b
    shardkit view shards/train
    shardkit view shards/train --classes blue,red --count 5 --seed 1 --out cars.png
    shardkit view shards/train --augmented --size 32 --out augmented.png
    """
    from shardkit.tools.view import view

    asked = {"size": size} if size is not None else True
    with console.progress() as progress:
        wanted = asked if augmented or size is not None else False
        sheet = view(source, augmented=wanted, progress=progress, **options)
    if as_json:
        console.write_json(sheet)
    else:
        console.write(sheet_text(sheet))


def sheet_text(sheet: ContactSheet) -> str:
    """What was drawn, and where it is."""
    samples = tables.plural(sum(len(part.keys) for part in sheet.classes), "sample")
    classes = tables.plural(len(sheet.classes), "class", "classes")
    lines = [f"{printable(sheet.path)}: {samples} of {classes}, {sheet.width} x {sheet.height} pixels"]
    if sheet.undecodable:
        broken = ", ".join(map(printable, sheet.undecodable[:3])) + (" …" if len(sheet.undecodable) > 3 else "")
        lines.append(f"  {tables.plural(len(sheet.undecodable), 'image')} can't be decoded: {broken}")
    return "\n".join(lines)
