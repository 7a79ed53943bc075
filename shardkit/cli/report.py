"""`shardkit report`: write a page about a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.errors import printable
from shardkit.tools.settings import ReportSettings
from shardkit.units import format_bytes

if TYPE_CHECKING:
    from shardkit.tools.report.report import ChangeFindings, DatasetFindings, Report


@click.command(cls=Command, name="report", short_help="Write an HTML report: classes, sizes, duplicates, leakage.")
@click.argument("source")
@options_from(ReportSettings, Json)
@console.output_options
def command(source: str, out: Path, as_json: bool, **options: Any) -> None:
    """Write an HTML report on the dataset SOURCE: one page, without network access or scripts.

    It shows the class balance, image sizes, sizes of shards and files, samples of each class, duplicate images (also
    between splits in the same folder), near-duplicates and odd images if the index has quality columns, suspicious
    images, and how well the samples are mixed. SOURCE is a prefix, a manifest, a glob of the shards, or a class
    directory. Needs matplotlib: pip install "shardkit[report]".

    \b
    shardkit report shards/train
    shardkit report shards/train --compare shards/validation --out splits.html
    shardkit report shards/train --json
    """
    from shardkit.tools.report.report import report

    with console.progress() as progress:
        result = report(source, out, progress=progress, **options)
    if as_json:
        console.write_json(result)
    else:
        console.summary(report_text(result))


def report_text(result: Report) -> str:
    """Format the findings, and the location of the page."""
    from shardkit.tools.progressive import JpegKinds, looks_at_all

    lines = [f"{printable(result.path)}: {format_bytes(result.bytes)}"]
    for leak in result.leaks:
        if leak.images:
            images = tables.plural(len(leak.images), "image")
            lines.append(f"  {images} in both {printable(leak.name)} and {printable(leak.other)}")
        if leak.near:
            images = tables.plural(len(leak.near), "image")
            lines.append(f"  {images} of {printable(leak.name)} nearly equal to one of {printable(leak.other)}")
    if result.changes is not None:
        lines.append(f"  {_changes_text(result.changes)}")
    for found in result.datasets:
        facts = ", ".join(_facts(found)) or "nothing stands out"
        lines.append(f"  {printable(found.name)}: {tables.plural(found.samples, 'sample')}, {facts}")
        if advice := JpegKinds(found.jpegs, found.progressive, looks_at_all(found.samples, found.jpegs)).advice:
            lines.append(f"    {advice}")
    return "\n".join(lines)


def _changes_text(found: ChangeFindings) -> str:
    counts = [(len(found.added), "added"), (len(found.gone), "gone"), (len(found.relabelled), "relabelled")]
    counts.append((len(found.changed), "changed"))
    said = ", ".join(f"{count:,} {words}" for count, words in counts if count) or "nothing changed"
    common = tables.plural(found.same, "common key")
    return f"from {printable(found.name)} to {printable(found.other)}: {common}, {said}"


def _facts(found: DatasetFindings) -> list[str]:
    groups = "group" if found.near_mislabelled == 1 else "groups"
    counts = [
        (sum(len(group) - 1 for group in found.duplicates), "identical to another one"),
        (found.mislabelled, "identical with different labels"),
        (sum(len(group) - 1 for group in found.near_duplicates or ()), "nearly equal to another one"),
        (
            found.near_mislabelled,
            f"{groups} of near-duplicates with different labels",
        ),
        (len(found.label_hints), "whose label may be wrong"),
        (len(found.undecodable), "can't be decoded"),
        (len(found.dark), "dark"),
        (len(found.bright), "bright"),
        (len(found.blurred), "blurred"),
        (len(found.flat), "flat"),
        (len(found.single_colour), "of a single colour"),
        (len(found.tiny), "tiny"),
        (len(found.extreme_aspect), "far from square"),
    ]
    return [f"{count:,} {words}" for count, words in counts if count]
