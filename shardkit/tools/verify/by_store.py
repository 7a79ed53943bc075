"""Check a remote dataset against the size and CRC-32C that its store reports for each object. No shard is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shardkit.errors import NotFoundError, StorageError, UsageError
from shardkit.location import Location
from shardkit.shards.corrections.block import FieldsEntry, FileEntry
from shardkit.shards.findings import Finding, finding, found_error
from shardkit.shards.manifest import IndexEntry, ShardEntry
from shardkit.shards.open import Opened
from shardkit.threads import in_threads

Entry = ShardEntry | IndexEntry | FieldsEntry | FileEntry
"""A shard, an index file, added fields, or a file of another version."""

REQUESTS = 16
"""Concurrent requests to the store."""


@dataclass(frozen=True, slots=True)
class Reported:
    """The store's answers. bytes: total of the shards. unproven: files for which it has no checksum."""

    findings: list[Finding]
    bytes: int
    unproven: int


def ask_store(opened: Opened, threads: int | None, progress: Callable[[int], None]) -> Reported:
    """Query every shard and index file. progress: called with the number of finished files. UsageError without a
    manifest.
    """
    files: list[tuple[Location, Entry | None]]
    files = [(shard.location, shard.entry) for shard in opened.shards] + list(opened.entries)
    if opened.manifest is None:
        fact = "there is no manifest with the sizes and checksums to compare with the store's"
        raise UsageError(str(opened.place), fact, "read the whole dataset with `read=True`")

    names = [entry.name for entry in opened.manifest.shards]
    versions = dict(zip(names, opened.manifest.shard_versions, strict=True)) if opened.manifest.elsewhere else {}

    def one(task: tuple[Location, Entry | None]) -> tuple[list[Finding], int, bool]:
        place, entry = task
        assert entry is not None
        return _held(opened, place, entry, versions.get(entry.name))

    reported = Reported([], 0, 0)
    for done, ((_, entry), (found, size, proven)) in enumerate(
        zip(files, in_threads(one, files, threads or REQUESTS), strict=True), 1
    ):
        shard_bytes = size if isinstance(entry, ShardEntry) else 0
        reported = Reported(
            [*reported.findings, *found], reported.bytes + shard_bytes, reported.unproven + (not proven and not found)
        )
        progress(done)
    return reported


def _held(opened: Opened, place: Location, entry: Entry, version: str | None) -> tuple[list[Finding], int, bool]:
    """Return (findings, bytes, whether the store has a checksum) for one object. version: when it was indexed."""
    shard = isinstance(entry, ShardEntry)
    kind = _kind(entry)
    what = "file of added fields" if kind == "fields" else kind
    try:
        info = opened.objects.info(place)
    except NotFoundError:
        return [finding(f"{kind}-missing", str(place), f"the {what} is missing")], 0, False
    except StorageError as exc:
        return [found_error("shard-unreadable", exc)], 0, False
    if info.bytes != entry.bytes:
        fact = f"the {what} has {info.bytes} bytes, but its manifest says {entry.bytes}"
        return [finding("shard-size" if shard else f"{kind}-crc", str(place), fact)], info.bytes, True
    if info.crc32c is not None and entry.crc32c and info.crc32c != entry.crc32c:
        fact = f"the store reports CRC-32C {info.crc32c} for the {what}, but its manifest says {entry.crc32c}"
        return [finding(f"{kind}-crc", str(place), fact)], info.bytes, True
    if version is not None and info.version not in (None, version):
        fact = f"the shard was replaced since it was indexed: its version was {version}, and is {info.version}"
        return [finding("shard-version", str(place), fact)], info.bytes, True
    return [], info.bytes, info.crc32c is not None and entry.crc32c != ""


def _kind(entry: Entry) -> str:
    """The first word of the kinds of findings about a file."""
    if isinstance(entry, ShardEntry):
        return "shard"
    if isinstance(entry, FieldsEntry):
        return "fields"
    return "version" if isinstance(entry, FileEntry) else "index"
