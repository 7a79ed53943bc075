"""`shardkit pack`: options, configuration file, and final output."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import FieldOption, Json, arguments, groups, options_from, pairs
from shardkit.cli.command import Command
from shardkit.cli.config_file import Setting, load_config
from shardkit.cli.engine import with_engine
from shardkit.cli.flags import Flags
from shardkit.errors import printable
from shardkit.options.fields import About, Help, OptionField, Takes
from shardkit.packing.settings import Images, PackSettings
from shardkit.sources.lists.tables import is_list
from shardkit.sources.options import TableColumns
from shardkit.sources.tree.early import listing_early
from shardkit.units import format_bytes

if TYPE_CHECKING:
    from shardkit.packing.pack import DatasetPlan, PackPlan
    from shardkit.packing.packed import Packed
    from shardkit.shards.manifest import Manifest


SHOWN_SHARDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The options of the command alone."""

    dry_run: Annotated[bool, Help("Print the plan; write nothing."), About("Print the plan and write nothing.")] = False
    config: Annotated[
        Path | None, Takes.FILE, Help("Read options from a file; the command line wins.", "FILE.yaml")
    ] = None


@click.command(cls=Command, name="pack", short_help="Pack a tree of class directories into shards.")
@click.argument("source")
@click.argument("dest")
@options_from(PackSettings, Run, Json)
@console.output_options
@click.pass_context
def command(ctx: click.Context, /, source: str, dest: str, config: Path | None, as_json: bool, **options: Any) -> None:
    """Pack the images below SOURCE into shards DEST-000000.tar, DEST-000001.tar ...

    SOURCE is a tree of class directories (red/ blue/), or of splits that hold them (train/ validation/ test/).
    In the second case each split is packed as DEST/train-000000.tar ..., with one class map for all; with --split
    the splits of one tree are made. An archive of such a tree (zip, tar, tar.gz, tar.zst, 7z), a list of files with
    labels (csv, tsv, jsonl, parquet), a folder of images with metadata.csv, and a bucket's prefix do as well.
    An interrupted run resumes where it was when it is run again.

    \b
    shardkit pack data/train shards/train
    shardkit pack data/train shards/train --max-bytes 64MiB --workers 8
    shardkit pack data shards --on-error skip
    shardkit pack data/all shards/all --split train=0.8,validation=0.1,test=0.1
    shardkit pack /mnt/train /mnt/shards/train --engine ray --address head:6379
    shardkit pack data/train shards/train --config pack.yaml --dry-run
    shardkit pack photos.zip shards/photos
    shardkit pack list.csv shards/train --label-column breed --root photos
    shardkit pack data/train s3://bucket/train --storage-option region=eu-west-1
    shardkit pack data/train /mnt/shards/train --part 3/16     (on the third of 16 machines; then: shardkit merge)
    """
    ctx.meta[console.ON_INTERRUPT] = "; run the same command again to resume"
    if (flags := ctx.find_object(Flags)) and flags.alone:  # Arrow's own fills huge pages, for an index of a few MB
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    options = with_config(ctx, options, config)
    dry_run = options.pop("dry_run")
    reading = not dry_run and _copies(options, dest)
    with console.progress() as progress, listing_early(source, reading=reading), ExitStack() as early:
        asked = arguments(PackSettings, with_engine(options))
        if is_list(source):
            from shardkit.sources.lists.early import reading_early

            early.enter_context(reading_early(source, asked["columns"] or TableColumns(), reading=reading))
        from shardkit.packing.pack import pack, plan_pack  # takes as long as the listing

        if dry_run:
            plan = plan_pack(source, dest, progress=progress, **asked)
        else:
            packed = pack(source, dest, progress=progress, **asked)
    if dry_run and as_json:
        console.write_json(plan)
    elif dry_run:
        console.write(plan_text(plan))
    elif as_json:
        console.write_json(packed.manifests if packed.splits else packed.manifest)
    elif asked["part"] is not None and not packed_before(packed):
        console.summary(part_text({each.location: each.manifest for each in packed.values()}, dest))
    else:
        console.summary(result_text({each.location: each.manifest for each in packed.values()}))
        if advice := _progressive({each.location: each.manifest for each in packed.values()}):
            console.summary(advice)


def _copies(options: Mapping[str, Any], dest: str) -> bool:
    """Whether this process copies images unchanged to where no dataset is yet, so that they may be read early."""
    changed = (
        each.name for each in fields(Images) if each.name != "seek_points" and options[each.name] != each.default
    )
    plain = options["check"] == "header" and options["engine"] == "local" and not options["fields"]
    return plain and not any(changed) and not os.path.exists(f"{dest}.json")


NOT_SETTINGS = ("config", "as_json")


def settings(command: click.Command) -> dict[str, Setting]:
    """Valid keys of a configuration file: the command's options, under the names of `pack()`'s keywords."""
    return {
        option.name: Setting(
            _KINDS.get(option.kind, option.kind), option.choices or option.words, None if option.words else option
        )
        for option in config_options(command)
    }


def config_options(command: click.Command) -> list[OptionField]:
    """The options of a command that a configuration file may hold, in their order."""
    found = [param.field for param in command.params if isinstance(param, FieldOption)]
    return [option for option in found if option.name not in NOT_SETTINGS]


_KINDS = {"pairs": "list", "groups": "list"}
"""What an option is in a configuration file, where it is another kind there."""


def with_config(ctx: click.Context, options: dict[str, Any], config: Path | None) -> dict[str, Any]:
    """Fill options that were not given on the command line from the file `config`."""
    if config is None:
        return options
    given = {name for name in options if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT}
    loaded = load_config(config, settings(ctx.command))
    values = loaded.values
    for name, read in (("storage_options", pairs), ("merge", groups)):
        if name in values:
            values[name] = read(values[name], loaded.places[name])
    taken = {name: value for name, value in values.items() if name not in given}
    if flags := ctx.find_object(Flags):
        flags.origins |= {name: loaded.places[name] for name in taken}
    return options | taken


def result_text(manifests: Mapping[str, Manifest]) -> str:
    """Format the summary of a packing: prefix -> manifest."""
    lines = []
    for prefix, manifest in manifests.items():
        what = tables.extent(manifest.samples, len(manifest.shards), manifest.bytes)
        left = f"; {manifest.skipped:,} skipped, see {_skipped_list(prefix, manifest)}" if manifest.skipped else ""
        lines.append(printable(f"{prefix}: {what}{left}"))
    counts = {os.path.basename(prefix): manifest.classes for prefix, manifest in manifests.items()}
    return "\n".join([*lines, tables.class_table(counts)])


def packed_before(packed: Packed) -> bool:
    """Whether the parts were merged already: the manifest of a part has no index."""
    return all(each.manifest.index for each in packed.values())


def part_text(manifests: Mapping[str, Manifest], dest: str) -> str:
    """Format the summary of a part of a packing: prefix -> manifest of the part."""
    lines = []
    for prefix, manifest in manifests.items():
        what = tables.extent(manifest.samples, len(manifest.shards), manifest.bytes)
        left = f"; {manifest.skipped:,} skipped" if manifest.skipped else ""
        lines.append(printable(f"{prefix}: this part has {what}{left}"))
    return "\n".join([*lines, printable(f"when all parts are finished: shardkit merge {dest}")])


def _progressive(manifests: Mapping[str, Manifest]) -> str:
    """What to do about progressive JPEGs of the first of these datasets that has any; "" for datasets in a store."""
    from shardkit.tools.progressive import packed_jpeg_kinds

    local = (each for each in manifests.items() if "://" not in each[0])
    return next((advice for prefix, manifest in local if (advice := packed_jpeg_kinds(prefix, manifest).advice)), "")


def _skipped_list(prefix: str, manifest: Manifest) -> str:
    """The list of skipped files, for the generation that was written."""
    from shardkit.shards.manifest import file_names
    from shardkit.shards.names import skipped_beside

    folder, stem = os.path.split(prefix)
    return os.path.join(folder, skipped_beside(file_names(manifest), stem))


def plan_text(plan: PackPlan) -> str:
    """Format the output of `--dry-run`."""
    lines = [line for dataset in plan.datasets for line in _dataset_lines(dataset)]
    classes = tables.class_table({dataset.name: dataset.classes for dataset in plan.datasets})
    return "\n".join([*lines, classes, "nothing was written"])


def _dataset_lines(dataset: DatasetPlan) -> list[str]:
    what = tables.extent(dataset.samples, len(dataset.shards), sum(size for _, _, size in dataset.shards))
    lines = [printable(f"{dataset.manifest}: {what}, of which images {format_bytes(dataset.image_bytes)}")]
    shown = dataset.shards[:SHOWN_SHARDS]
    rows = [[printable(name), f"{samples:,}", format_bytes(size)] for name, samples, size in shown]
    lines.append(tables.table([["shard", "samples", "bytes"], *rows], left=(0,)))
    more = len(dataset.shards) - len(shown)
    lines += [f"  … and {tables.plural(more, 'more shard')}"] if more else []
    for reason, (count, examples) in dataset.left_out.items():
        lines.append(printable(f"  left out: {count:,} {reason} ({', '.join(examples)})"))
    lines += [f"  changed since: {dataset.changed}"] if dataset.changed.count else []
    lines += [f"  gone from the source: {dataset.gone}"] if dataset.gone.count else []
    return lines
