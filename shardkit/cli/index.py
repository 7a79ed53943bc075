"""`shardkit index`: write a manifest and an index for shards that have none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.cli.engine import with_engine
from shardkit.errors import printable
from shardkit.options.fields import Help
from shardkit.shards.names import base_of_index, stems_of
from shardkit.tools.settings import IndexSettings

if TYPE_CHECKING:
    from shardkit.shards.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Dali:
    """The option of the command alone."""

    dali: Annotated[bool, Help("Also write NAME.idx for NVIDIA DALI beside each shard.")] = False


@click.command(cls=Command, name="index", short_help="Create the manifest and index of shards that have none.")
@click.argument("source", nargs=-1, required=True)
@options_from(IndexSettings, Dali, Json)
@console.output_options
def command(source: tuple[str, ...], dali: bool, as_json: bool, **options: Any) -> None:
    """Read the shards SOURCE once, check them, and write a manifest and an index beside them, or elsewhere.

    With these, a dataset knows its length, gives every rank equal work, and resumes in the middle of an epoch. The
    shards (tar, PAX, TFRecord; gzip too) stay as they are. --dali also writes an index file for each shard, as
    NVIDIA DALI needs; it keeps an existing manifest. Images are not decoded: 'shardkit verify --decode' finds those
    that can't be.

    Shards that you may only read, in a folder or at a URL, get their index in another folder with --out. That prefix
    or folder is then the dataset, for every command and for shardkit.dataset. Of those at a URL, only headers are read,
    and an interrupted run goes on where it stopped; --whole reads all of them, for an index with checksums.

    \b
    shardkit index 'shards/train-*.tar'
    shardkit index 'laion/{00000..00099}.tar' --out laion/all
    shardkit index shards/train --classes names.txt --overwrite
    shardkit index 's3://theirs/web-{000000..000099}.tar' --out indexes/web
    shardkit index shards/train --dali
    shardkit index shards/train --overwrite --seek-points --quality-columns
    shardkit index 'shards/train-*.tar' --columns age,city
    """
    from shardkit.tools.dali import write_dali_index
    from shardkit.tools.index_shards import index_shards

    given = list(source) if len(source) > 1 else source[0]
    looks = ("overwrite", "out", "classes", "seek_points", "quality_columns", "columns")
    kept = dali and not any(options[name] for name in looks)
    manifest = _manifest_of(given) if kept else None
    if manifest is None:
        with console.progress() as progress:
            manifest = index_shards(given, progress=progress, **with_engine(options))
    files = [place.path for place in write_dali_index(given, workers=options["workers"])] if dali else []
    if as_json:
        console.write_json({"manifest": manifest, "dali": list(map(printable, files))} if dali else manifest)
        return
    what = tables.extent(manifest.samples, len(manifest.shards), manifest.bytes)
    fields = ", ".join(map(printable, manifest.fields))
    name = printable(_name(manifest, options["out"]))
    console.summary(f"{name}: {what}; fields {fields}\n{tables.class_table({'samples': manifest.classes})}")
    for path in files:
        console.summary(printable(path))


def _name(manifest: Manifest, out: str | None) -> str:
    """The name of the dataset, without the generation that its index may have."""
    if out is not None and not (out.endswith("/") or os.path.isdir(out)):
        return os.path.basename(out)
    base = base_of_index(manifest.index[0].name) if manifest.index else None
    return "" if base is None else stems_of(base)[-1]


def _manifest_of(source: str | list[str]) -> Manifest | None:
    """The manifest of the shards, None where there is none yet."""
    from shardkit.shards.find.find import resolve

    return resolve(source).manifest
