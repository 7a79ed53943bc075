"""`shardkit demo`: draw, pack and stream a small dataset, and report the results."""

from __future__ import annotations

import shlex
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shardkit.cli import console, tables
from shardkit.errors import printable

if TYPE_CHECKING:
    from shardkit.tools.demo import DemoResult


@click.command(name="demo", short_help="Draw, pack and stream a small dataset, as a demonstration.")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@console.output_options
def command(folder: Path | None) -> None:
    """Draw a small tree of red and blue cars, pack it, stream it, and report the speed.

    The tree and the shards stay in DIR. Without DIR, everything is in a temporary folder, which is deleted.

    \b
    shardkit demo
    shardkit demo cars-demo
    """
    from shardkit.tools.demo import demo

    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shardkit-demo-")))
        console.write(demo_text(demo(place), kept=folder is not None))


def demo_text(result: DemoResult, *, kept: bool) -> str:
    """Format the steps, their speed, and commands to try next."""
    tree, shards = quote_path(result.tree), quote_path(result.shards)
    lines = [
        f"drew      {result.images:,} images of red and blue cars in {tree}  ({result.draw_seconds:.1f} s)",
        f"packed    them with: shardkit pack {tree} {shards}  ({result.pack_seconds:.1f} s)",
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
    return "\n".join([*lines, "", next_text(result, kept=kept)])


def next_text(result: DemoResult, *, kept: bool) -> str:
    """Commands to try next."""
    if not kept:
        return "\n".join(
            [
                "Next:",
                "  shardkit demo cars-demo                  the same, and keep the files",
                "  shardkit pack YOUR_TREE shards/mine      pack your own tree",
            ]
        )
    train = quote_path(result.shards / "train")
    return "\n".join(
        [
            "Next:",
            f"  shardkit info {train}",
            f"  tar tf {quote_path(result.shards / 'train-000000.tar')}",
            "  shardkit pack YOUR_TREE shards/mine",
            "or in Python:",
            f"  train = shardkit.dataset({str(result.shards / 'train')!r}, shuffle=True)",
            "  for images, labels in train.decode(size=96).batch(32): ...",
        ]
    )


def quote_path(path: Path) -> str:
    """Quote a path for a shell."""
    return shlex.quote(printable(str(path)))
