"""Read the overlay of a dataset, wherever it is, and open its index files with it."""

from __future__ import annotations

from collections.abc import Iterator

from shardkit.errors import ManifestError
from shardkit.location import Location
from shardkit.shards.corrections.overlay import CURE, AppliedOverlay, Overlay, decode_overlay, require_fits
from shardkit.shards.index_file import IndexFile, index_entries, open_index_at
from shardkit.shards.manifest import Manifest
from shardkit.shards.objects import Objects


def read_overlay(objects: Objects, beside: Location, manifest: Manifest, *, keys: bool = False) -> Overlay | None:
    """The corrections of a dataset; None if there are none. beside: its manifest. keys: with the keys.

    Raises NotFoundError, StorageError; ManifestError if the file is not the one that the manifest names, damaged, or of
    a later version.
    """
    corrections = manifest.corrections
    if corrections is None or corrections.overlay is None:
        return None
    entry = corrections.overlay
    place = beside.sibling(entry.name)
    kept = None if place.is_local else objects.cache.load(str(place), entry.bytes, int(entry.crc32c, 16))
    for last in (False, True):  # bytes damaged in transit are fetched once more
        with objects.opened(place, "overlay", CURE):
            data = objects.read(place) if kept is None else bytes(kept)
        try:
            found = decode_overlay(data, entry, str(place), keys=keys)
        except ManifestError:
            if last or place.is_local:
                raise
            kept = None
            continue
        if not place.is_local and kept is None:
            objects.cache.save(str(place), data, int(entry.crc32c, 16))
        return require_fits(found, corrections, [shard.samples for shard in manifest.shards], str(place))
    raise AssertionError("two turns end in a return or a raise")


def corrected_index_files(
    objects: Objects, beside: Location, manifest: Manifest, overlay: Overlay | None
) -> Iterator[IndexFile]:
    """The index files of a dataset, whose rows are corrected. overlay: as read by `read_overlay`; None for the rows as
    packed. Raises ManifestError if a file is missing or damaged."""
    first = 0
    for entry, shards in index_entries(manifest):
        applied = None if overlay is None else AppliedOverlay(overlay, first)
        yield open_index_at(objects, beside.sibling(entry.name), entry, shards, overlay=applied)
        first += len(shards)
