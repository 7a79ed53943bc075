"""`shardkit info`: describe a dataset, as text or JSON."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.cli.splits import of_splits
from shardkit.errors import UsageError, printable
from shardkit.options.fields import Help
from shardkit.tools.settings import InfoSettings
from shardkit.units import format_bytes

if TYPE_CHECKING:
    from shardkit.tools.info import DatasetInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """The option of the command alone."""

    build: Annotated[bool, Help("Show which of the optional C extensions are in use.")] = False


@click.command(cls=Command, name="info", short_help="Show the contents of a packed dataset.")
@click.argument("dest", required=False)
@options_from(Build, InfoSettings, Json)
@console.output_options
def command(dest: str | None, build: bool, as_json: bool, **options: Any) -> None:
    """Show what is in the dataset DEST: shards, samples, bytes, classes, fields and image sizes.

    DEST is a prefix, a manifest, or a glob of the shards; a folder of several splits shows each. The manifest, the
    index and some images are read. A class directory shows what would be packed.

    \b
    shardkit info shards/train
    shardkit info 'shards/train-*.tar'
    shardkit info shards/train.json --json
    shardkit info s3://bucket/train --storage-option region=eu-west-1
    shardkit info --build
    """
    from shardkit.tools.info import build_info, info

    if build == (dest is not None):
        raise UsageError("shardkit info", "it takes either DEST or --build", "give one of the two")
    if dest is None:
        facts = build_info()
        if as_json:
            console.write_json(facts)
        else:
            console.write(tables.facts([*facts.items()]))
        return
    result = of_splits(lambda source: info(source, **options), dest, options["storage_options"])
    if as_json:
        console.write_json(result)
        return
    parts = result if isinstance(result, dict) else {"": result}
    texts = [info_text(part) for part in parts.values()]
    if not all(part.shard_format for part in parts.values()):
        to = "shards" if isinstance(result, dict) else f"shards/{os.path.basename(os.path.abspath(dest))}"
        texts.append(f"pack it with: shardkit pack {shlex.quote(printable(dest))} {shlex.quote(printable(to))}")
    console.write("\n\n".join(texts))


def info_text(info: DatasetInfo) -> str:
    """Format the description as text."""
    if not info.shard_format:
        return tree_text(info)
    rows = [
        ("samples", f"{info.samples:,}"),
        ("shards", f"{info.shards:,} {info.shard_format}{_shard_sizes(info)}"),
        ("bytes", f"{format_bytes(info.bytes)}, of which images {format_bytes(info.image_bytes)}"),
        ("fields", ", ".join(map(printable, info.fields)) or "none"),
        ("classes", f"{len(info.classes):,}"),
        ("image sizes", _image_sizes(info)),
        ("seek points", "yes" if info.options.get("seek_points") is True else "no"),
        ("quality columns", "yes" if info.options.get("quality_columns") is True else "no"),
        *(
            [("columns", ", ".join(f"{printable(name)} ({text})" for name, text in info.columns.items()))]
            if info.columns
            else []
        ),
        *_progressive(info),
    ]
    if info.version > 1:
        rows.insert(0, ("version", f"{info.version}, with corrections: see 'shardkit log'"))
    lines = [printable(info.source), tables.facts(rows)]
    if info.classes:
        lines.append(tables.class_table({"samples": info.classes}))
    return "\n".join(lines)


def tree_text(info: DatasetInfo) -> str:
    """Format the description of a class directory as text."""
    rows = [
        ("images", f"{info.samples:,}"),
        ("bytes", format_bytes(info.bytes)),
        ("classes", f"{len(info.classes):,}"),
        *_progressive(info),
    ]
    head = f"{printable(info.source)}: a class directory, not packed"
    return "\n".join([head, tables.facts(rows), tables.class_table({"images": info.classes})])


def _progressive(info: DatasetInfo) -> list[tuple[str, str]]:
    from shardkit.tools.progressive import JpegKinds, looks_at_all

    advice = JpegKinds(info.jpegs, info.progressive, looks_at_all(info.samples, info.jpegs)).advice
    return [("progressive", advice)] if advice else []


def _shard_sizes(info: DatasetInfo) -> str:
    if info.shard_bytes is None:
        return ""
    low, high = format_bytes(info.shard_bytes.min), format_bytes(info.shard_bytes.max)
    return f", {low} each" if low == high else f", {low} to {high} each"


def _image_sizes(info: DatasetInfo) -> str:
    if info.width is None or info.height is None:
        return "not known"
    w, h = info.width, info.height
    unknown = f"; {info.unknown_sizes:,} not known" if info.unknown_sizes else ""
    if (w.min, h.min) == (w.max, h.max):
        return f"all {w.min}x{h.min}{unknown}"
    common = ", ".join(f"{width}x{height} ({count:,})" for width, height, count in info.common_sizes)
    return f"width {w.min} / {w.median} / {w.max}, height {h.min} / {h.median} / {h.max}; most: {common}{unknown}"
