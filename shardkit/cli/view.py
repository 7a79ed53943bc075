"""`shardkit view`: a contact sheet of random samples, by class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardkit.cli import console, tables
from shardkit.cli.storage import storage_options
from shardkit.errors import printable

if TYPE_CHECKING:
    from shardkit.tools.view import ContactSheet


@click.command(name="view", short_help="Draw random samples of each class in one picture.")
@click.argument("source")
@click.option(
    "--out", default="view.png", show_default=True, type=click.Path(), metavar="FILE", help="PNG file to write."
)
@click.option("--classes", metavar="A,B", help="Only these classes, by name or label.  [default: all, at most 20]")
@click.option(
    "--count", default=8, show_default=True, type=click.IntRange(1, 100), help="Number of samples of each class."
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Random seed for choosing the samples."
)
@click.option("--augmented", is_flag=True, help="Show random crops and flips, as in training.")
@click.option(
    "--size",
    type=click.IntRange(1),
    metavar="N",
    help="With --augmented: side of the crop, in pixels.  [default: at most 224]",
)
@click.option(
    "--side", default=128, show_default=True, type=click.IntRange(16, 1024), help="Side of each picture, in pixels."
)
@storage_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@console.output_options
def command(
    source: str, out: str, classes: str | None, size: int | None, as_json: bool, augmented: bool, **options: Any
) -> None:
    """Draw random samples of each class of SOURCE to a PNG file: a row for each class, a key below each picture.

    SOURCE is a prefix, a manifest, a glob of the shards, or a class directory.

    \b
    shardkit view shards/train
    shardkit view shards/train --classes blue,red --count 5 --seed 1 --out cars.png
    shardkit view shards/train --augmented --size 32 --out augmented.png
    """
    from shardkit.tools.view import view

    asked = {"size": size} if size is not None else True
    named = None if classes is None else [part.strip() for part in classes.split(",") if part.strip()]
    with console.progress() as progress:
        sheet = view(
            source, out, classes=named, augmented=asked if augmented or size is not None else False,
            progress=progress, **options,
        )  # fmt: skip
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
