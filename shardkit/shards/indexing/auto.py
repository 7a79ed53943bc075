"""Indexes that are made when they are needed, in the user's cache.

    ~/.cache/shardkit/indexes/DIGEST/    lock, index.json, index.parquet …; while it is made, shards.read

DIGEST is of the URLs, sizes and versions (ETags) of all shards, so an index never changes: other shards, or changed
ones, have another. One process makes it, under the lock; others wait for it. What a killed one has read is kept.
Indexes that were not used for UNUSED_SECONDS are removed when another one is made.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence

from shardkit.errors import BusyError, DestinationError, ManifestError, NotFoundError, ShardkitError, StorageError
from shardkit.events import Progress, ProgressFn
from shardkit.location import Location
from shardkit.sample import fs_text
from shardkit.shards.find.found import Found
from shardkit.shards.indexing.facts import facts_of, tell_unversioned
from shardkit.shards.indexing.kept import keep_read, kept_file, take_kept
from shardkit.shards.indexing.make import (
    collect,
    folder_elsewhere,
    make_index,
    reader_into,
    require_one_folder,
    write_made,
)
from shardkit.shards.indexing.shard import ShardTask
from shardkit.shards.indexing.spool import SPOOL, Spool
from shardkit.shards.manifest import Manifest
from shardkit.shards.names import manifest_name
from shardkit.shards.objects import Objects
from shardkit.storage.access import Remote
from shardkit.storage.files import FolderLock
from shardkit.storage.ranged import REQUESTS
from shardkit.storage.store import ObjectInfo
from shardkit.system import cache_home
from shardkit.threads import in_threads
from shardkit.units import cores

log = logging.getLogger(__name__)

VERSION = 1
"""Of what an index holds: one of another version is made again."""

STEM = "index"

UNUSED_SECONDS = 90 * 86400.0

WAIT_SECONDS = 0.2
"""Between two looks at the index that another process makes."""

SHOWN_SECONDS = 0.5
"""Between two lines of progress on a terminal."""


def automatic_index(shards: Sequence[Location], remote: Remote) -> Found:
    """The shards, all in one folder, as a dataset with an index in the user's cache, which is made if there is none.

    Raises DatasetError for a defect in a shard, UsageError for shards that can't have one index or a URL with a secret
    in it, DestinationError if the cache can't be written to, StorageError.
    """
    require_one_folder(shards)
    elsewhere = folder_elsewhere(shards)
    infos = facts_of(shards, Objects(remote))
    folder = os.path.join(_indexes(), _digest(elsewhere, infos))
    place = Location("", os.path.join(folder, manifest_name(STEM)))
    manifest = _known(place)
    if manifest is None:
        with _cure_of_cache(), _alone(folder, place) as mine:
            manifest = _made(folder, shards, infos, remote, elsewhere) if mine else _known(place)
    if manifest is None:
        raise StorageError(str(place), "the index was removed while it was made", "open the dataset again")
    return Found(manifest, place)


def _indexes() -> str:
    """The folder of all indexes, wherever the process goes."""
    return os.path.join(os.path.abspath(cache_home()), "shardkit", "indexes")


def _digest(elsewhere: str, infos: Sequence[ObjectInfo]) -> str:
    text = json.dumps([VERSION, elsewhere, *((info.name, info.bytes, info.version) for info in infos)])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _known(place: Location) -> Manifest | None:
    """The manifest of an index that is complete; None if there is none, or it is damaged."""
    try:
        manifest = Objects().manifest(place)
        there = [os.path.getsize(place.sibling(entry.name).path) == entry.bytes for entry in manifest.index]
    except (NotFoundError, ManifestError, OSError):
        return None
    if not all(there):
        return None
    with contextlib.suppress(OSError):  # a cache that may only be read
        os.utime(place.path)
    return manifest


@contextlib.contextmanager
def _alone(folder: str, place: Location) -> Iterator[bool]:
    """A context in which no other process makes this index. False if another one has made it."""
    told = False
    while _known(place) is None:
        try:
            lock = FolderLock(folder)
        except BusyError:
            if not told:
                log.info("%s: waiting for the index, which another process makes", fs_text(folder))
            told = True
            time.sleep(WAIT_SECONDS)
            continue
        try:
            yield _known(place) is None
        finally:
            lock.release()
        return
    yield False


def _made(
    folder: str,
    shards: Sequence[Location],
    infos: Sequence[ObjectInfo],
    remote: Remote,
    elsewhere: str,
) -> Manifest:
    _remove_unused(folder)
    tell_unversioned(shards, infos)
    threads = cores() if shards[0].is_local else REQUESTS
    parts = max(1, threads // len(shards))
    tasks = [ShardTask(shard, remote, info, parts=parts) for shard, info in zip(shards, infos, strict=True)]
    kept = kept_file(elsewhere, shards[0].name)
    take_kept(kept, os.path.join(folder, SPOOL))
    spool = Spool(folder, name=SPOOL)
    with _shown(len(shards), elsewhere, sum(info.bytes for info in infos)) as progress:
        numbers = collect(in_threads(reader_into(spool), tasks, threads), tasks, spool, progress)
    made = make_index(spool, numbers, None, prefix=os.path.join(folder, STEM), elsewhere=elsewhere)
    write_made(folder, STEM, made)
    keep_read(spool, numbers, kept)
    spool.remove()
    return made.manifest


@contextlib.contextmanager
def _shown(shards: int, where: str, total: int) -> Iterator[ProgressFn]:
    """Progress as one line on a terminal, and in the log."""
    what = f"index of {shards:,} shards in {fs_text(where)}"
    log.info("%s: making it, once", what)
    terminal = sys.stderr is not None and sys.stderr.isatty()
    shown = 0.0

    def show(now: Progress, end: str = "") -> None:
        nonlocal shown
        if terminal and (end or time.monotonic() - shown >= SHOWN_SECONDS):
            shown = time.monotonic()
            percent = 100 * now.bytes_done // max(1, total)
            print(f"\r{what}: {now.done:,} samples, {percent} %{end}", end="", file=sys.stderr, flush=True)

    last = Progress("index", 0)

    def progress(now: Progress) -> None:
        nonlocal last
        last = now
        show(now)

    try:
        yield progress
    finally:
        show(last, "\n")
    log.info("%s: %s samples", what, f"{last.done:,}")


@contextlib.contextmanager
def _cure_of_cache() -> Iterator[None]:
    """Say in errors of the cache's disk what a user can do about it."""
    try:
        yield
    except (DestinationError, StorageError) as exc:
        if not exc.place.startswith(fs_text(_indexes())):
            raise
        fact = f"the index of the shards can't be kept here: {exc.fact}"
        cure = "write it elsewhere with 'shardkit index --out DIR' and give `index=DIR`, or set XDG_CACHE_HOME"
        raise type(exc)(exc.place, fact, cure) from exc


def _remove_unused(own: str) -> None:
    with contextlib.suppress(OSError, ShardkitError):
        for name in os.listdir(_indexes()):
            folder = os.path.join(_indexes(), name)
            if folder != own and time.time() - _used(folder) > UNUSED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _used(folder: str) -> float:
    """When an index was last used, or what is there of it was last written."""
    return max(os.path.getmtime(os.path.join(folder, name)) for name in [*os.listdir(folder), "."])
