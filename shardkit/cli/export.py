"""`shardkit export`: files by which other libraries read the shards of a dataset."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import click

from shardkit.cli import console
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.errors import UsageError, printable
from shardkit.options.fields import Help
from shardkit.tools.settings import ExportSettings
from shardkit.units import format_bytes

if TYPE_CHECKING:
    from shardkit.tools.export.export import Exported


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinds:
    """The formats, which the command names one by one."""

    timm: Annotated[bool, Help("_info.json, for timm's wds/ reader.")] = False
    huggingface: Annotated[bool, Help("README.md, a dataset card for Hugging Face; completes an existing one.")] = False
    croissant: Annotated[bool, Help("croissant.json: Croissant 1.1 metadata, with SHA-256 of the shards.")] = False
    tfds: Annotated[bool, Help("dataset_info.json and features.json, for TensorFlow Datasets.")] = False
    class_names: Annotated[bool, Help("classnames.txt: the class names, one per line.")] = False


@click.command(cls=Command, name="export", short_help="Write the files by which other libraries read a dataset.")
@click.argument("dataset", nargs=-1, required=True)
@options_from(Kinds, ExportSettings, Json)
@console.output_options
def command(dataset: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Write files beside the shards of DATASET, by which other libraries read them as they are.

    DATASET is a prefix or manifest, or a folder, whose datasets (train, validation) are then the splits. Files of an
    earlier export are replaced.

    \b
    shardkit export shards --timm --huggingface --croissant
    shardkit export tf --tfds
    shardkit export shards/train --class-names
    shardkit export s3://bucket/cars/ --timm --class-names
    """
    from shardkit.tools.export.export import export

    given = list(dataset) if len(dataset) > 1 else dataset[0]
    kinds = [each.name.replace("_", "-") for each in fields(Kinds) if options.pop(each.name)]
    if not kinds:
        flags = ", ".join("--" + each.name.replace("_", "-") for each in fields(Kinds))
        raise UsageError("shardkit export", "no format is named", f"give at least one of {flags}")
    with console.progress() as progress:
        result = export(given, kinds, progress=progress, **options)  # type: ignore[arg-type]
    if as_json:
        console.write_json(result)
    else:
        console.summary(result_text(result))


def result_text(result: Exported) -> str:
    """Format one line per file."""
    lines = []
    for file in result.files:
        what = format_bytes(file.bytes) if file.written else "there already"
        lines.append(f"{printable(file.file)}: {what}")
    return "\n".join(lines)
