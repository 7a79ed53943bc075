"""What the commands print that make a new version of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardkit.cli import console, tables
from shardkit.errors import printable

if TYPE_CHECKING:
    from shardkit.tools.corrections.commit import Corrected


def tell(result: Corrected, what: str, *, as_json: bool) -> None:
    """Print the result of a correction. what: "relabelled", for example."""
    from shardkit.tools.corrections.commit import NOTE, NOTE_FIELDS

    if as_json:
        console.write_json(
            {
                "dataset": result.dataset, "version": result.version, "kind": result.kind, "changed": result.changed,
                "unchanged": result.unchanged, "bytes": result.bytes,
            }
        )  # fmt: skip
        return
    place = printable(result.dataset.removesuffix(".json"))
    if not result.bytes:
        console.summary(f"{place}: nothing to change; this is still version {result.version}")
        return
    samples = tables.plural(result.changed, "sample")
    more = f", {result.unchanged:,} already {'was' if result.unchanged == 1 else 'were'}" if result.unchanged else ""
    console.summary(f"{place}: {samples} {what}{more}; this is version {result.version}")
    purged = "copies, caches, and versions that a bucket keeps of its objects may still have the samples"
    console.summary(f"note: {({'purge': purged, 'add-fields': NOTE_FIELDS}).get(result.kind, NOTE)}")
