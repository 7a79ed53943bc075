"""`shardkit demo`: draw, pack and stream a small dataset, and report the results."""

from __future__ import annotations

import shlex
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, options_from
from shardkit.cli.command import Command
from shardkit.errors import printable

if TYPE_CHECKING:
    from shardkit.tools.demo import DemoResult


@click.command(cls=Command, name="demo", short_help="Draw, pack and stream a small dataset, as a demonstration.")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@options_from(Json)
@console.output_options
def command(folder: Path | None, as_json: bool) -> None:
    """Draw a small tree of red and blue cars, pack it, stream it, and report the speed.

    DIR keeps the tree, for example to follow the documentation; the shards are temporary. Without DIR, the tree is
    temporary too.

    \b
    shardkit demo
    shardkit demo data
    """
    from shardkit.tools.demo import demo

    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shardkit-demo-")))
        result = demo(place)
        if as_json:
            console.write_json(result)
        else:
            console.summary(demo_text(result, kept=folder is not None))


def demo_text(result: DemoResult, *, kept: bool) -> str:
    """Format the steps, their speed, and commands to try next."""
    lines = [
        f"drew      {result.images:,} images of red and blue cars in {quote_path(result.tree)}"
        f"  ({result.draw_seconds:.1f} s)",
        f"packed    them into a temporary folder  ({result.pack_seconds:.1f} s)",
    ]
    for split, manifest in result.manifests.items():
        lines.append(f"            {split}: {tables.extent(manifest.samples, len(manifest.shards), manifest.bytes)}")
    columns = {split: manifest.classes for split, manifest in result.manifests.items()}
    lines.append(tables.class_table(columns, indent=" " * 12))
    batches = tables.plural(result.batches, "batch", "batches")
    lines.append(f"streamed  the train split, decoded, in {batches} of {result.batch_shape}")
    threads, times = tables.plural(result.threads, "thread"), result.shards_rate / result.files_rate
    rates = [
        ["a loop over the files, with Pillow, 1 thread", f"{result.files_rate:,.0f} images/s", ""],
        [f"the shards, with shardkit, {threads}", f"{result.shards_rate:,.0f} images/s", f"{times:.1f} times as fast"],
    ]
    lines.append(tables.table(rates, left=(0,), indent=" " * 12))
    return "\n".join([*lines, "", next_text(result.tree if kept else None)])


def next_text(tree: Path | None) -> str:
    """Commands to try next; tree: the one that was kept."""
    if tree is None:
        return "\n".join(
            [
                "Next:",
                "  shardkit demo data                       the same, and keep the images in data/",
                "  shardkit pack YOUR_TREE shards           pack your own tree",
            ]
        )
    return "\n".join(
        [
            "Next:",
            f"  shardkit pack {quote_path(tree)} shards",
            "  shardkit info shards/train",
            "or in Python:",
            "  train = shardkit.dataset('shards/train', shuffle=True)",
            "  for images, labels in train.decode(size=96).batch(32): ...",
        ]
    )


def quote_path(path: Path) -> str:
    """Quote a path for a shell."""
    return shlex.quote(printable(str(path)))
