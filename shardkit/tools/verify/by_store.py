"""A remote dataset held against what its store says of each object: size and CRC-32C. No shard is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shardkit.errors import NotFoundError, StorageError, UsageError
from shardkit.location import Location
from shardkit.shards.findings import Finding, finding, found_error
from shardkit.shards.manifest import IndexEntry, ShardEntry
from shardkit.shards.open import Opened
from shardkit.threads import in_threads

REQUESTS = 16
"""Objects that the store is asked about at a time."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a store said. bytes: of the shards. unproven: files of which it keeps no checksum."""

    findings: list[Finding]
    bytes: int
    unproven: int


def ask_store(opened: Opened, threads: int | None, progress: Callable[[int], None]) -> Told:
    """Ask for every shard and index file. progress: is told the files that are done. UsageError without a manifest."""
    files: list[tuple[Location, ShardEntry | IndexEntry | None]]
    files = [(shard.location, shard.entry) for shard in opened.shards] + list(opened.entries)
    if opened.manifest is None:
        fact = "there is no manifest that says which sizes and checksums the store should have"
        raise UsageError(str(opened.place), fact, "read all of it with `read=True`")

    def one(task: tuple[Location, ShardEntry | IndexEntry | None]) -> tuple[list[Finding], int, bool]:
        place, entry = task
        assert entry is not None
        return _held(opened, place, entry)

    told = Told([], 0, 0)
    for done, ((_, entry), (found, size, proven)) in enumerate(
        zip(files, in_threads(one, files, threads or REQUESTS), strict=True), 1
    ):
        shard_bytes = size if isinstance(entry, ShardEntry) else 0
        told = Told([*told.findings, *found], told.bytes + shard_bytes, told.unproven + (not proven and not found))
        progress(done)
    return told


def _held(opened: Opened, place: Location, entry: ShardEntry | IndexEntry) -> tuple[list[Finding], int, bool]:
    """(findings, bytes, whether the store keeps a checksum) of one object."""
    shard = isinstance(entry, ShardEntry)
    what = "shard" if shard else "index"
    try:
        info = opened.objects.info(place)
    except NotFoundError:
        return [finding(f"{what}-missing", str(place), f"the {what} is missing")], 0, False
    except StorageError as exc:
        return [found_error("shard-unreadable", exc)], 0, False
    if info.bytes != entry.bytes:
        fact = f"the {what} has {info.bytes} bytes, and its manifest says {entry.bytes}"
        return [finding("shard-size" if shard else "index-crc", str(place), fact)], info.bytes, True
    if info.crc32c is not None and info.crc32c != entry.crc32c:
        fact = f"the store says that the {what}'s CRC-32C is {info.crc32c}, and its manifest says {entry.crc32c}"
        return [finding(f"{what}-crc", str(place), fact)], info.bytes, True
    return [], info.bytes, info.crc32c is not None
