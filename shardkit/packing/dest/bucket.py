"""Packing to a bucket: shards are written in a folder of this machine, and go up one by one as they are finished.

CACHE/shardkit/packing/DIGEST/.train.packing/    as the work folder of a local packing; a shard leaves it when it is in
                                                 the bucket, its receipt and its index rows stay until the commit
CACHE/shardkit/packing/DIGEST/train.packed       the CRC-32C of the manifest that was written last, and when

DIGEST names the bucket's folder. The lock in the work folder keeps other runs of this machine away, not of others.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from shardkit.checksums import crc32c
from shardkit.errors import UsageError
from shardkit.location import Location
from shardkit.packing.dest.dataset_files import DatasetFiles, dataset_files_at, demand_stem
from shardkit.packing.dest.destination import Destination, destination_of, files_of, split_destinations
from shardkit.packing.dest.destination import check_free as check_free_here
from shardkit.packing.write.shard import Receipt, receipt_path
from shardkit.sample import fs_text
from shardkit.shards.manifest import Manifest, all_names, encode_manifest
from shardkit.storage.files import size_of, translated, whole_file
from shardkit.storage.patient import open_patient
from shardkit.storage.store import ObjectInfo, StorageOptions
from shardkit.storage.transfer import crc_of, file_pieces, send
from shardkit.threads import TransferPool

SENDERS = 4


def destinations_of(
    dest: Location,
    source: str,
    parts: Sequence[str] | None,
    *,
    work: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Destination]:
    """The destination of each part (split); of "" where there are none. dest: a path, or the URL of a bucket.

    work: where shards wait until they are in the bucket. Raises DestinationError, UsageError, and what the store does.
    """
    if dest.is_local:
        if work is not None or options:
            name = "storage_options" if options else "work"
            raise UsageError(name, f"given for {dest}, which is on this machine", "leave it away")
        return (
            {"": destination_of(dest.path, source)} if parts is None else split_destinations(dest.path, source, parts)
        )
    own = os.path.basename(os.path.abspath(source))
    if parts is None:
        place = dataset_files_at(dest, own, options=options)
        return {"": _staged(place, work, options)}
    for part in parts:
        demand_stem(part, dest)
    store = open_patient(Location(dest.scheme, dest.path.rstrip("/")), options)
    return {part: _staged(DatasetFiles(store, part), work, options) for part in parts}


def _staged(place: DatasetFiles, work: str | os.PathLike[str] | None, options: StorageOptions | None) -> Destination:
    """The folder of this machine for what goes to `place`: another one for each bucket, folder and endpoint."""
    endpoints = sorted((key, str(value)) for key, value in (options or {}).items() if "endpoint" in key.lower())
    digest = hashlib.blake2b(repr((str(place.store.root), endpoints)).encode(), digest_size=10).hexdigest()
    base = os.path.join(_cache_home(), "shardkit", "packing") if work is None else os.path.abspath(os.fspath(work))
    return Destination(os.path.join(base, digest), place.stem, place)


def _cache_home() -> str:
    """Where programs keep what they can make again: XDG_CACHE_HOME, and the like of other systems."""
    if os.name == "nt":
        return os.environ.get("LOCALAPPDATA") or os.path.expanduser("~")
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Caches")
    return os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")


def check_free(destination: Destination, *, overwrite: bool) -> Destination:
    """The destination with the generation to write. DestinationError where files of somebody else are in the way.

    In a bucket these are objects that no manifest names, and no receipt of ours either.
    """
    place = destination.place
    if place is None:
        return check_free_here(destination, overwrite=overwrite)
    ours = partial(_is_ours, destination)
    return replace(destination, generation=place.check_free(overwrite=overwrite, known=ours))


def _is_ours(destination: Destination, name: str, size: int) -> bool:
    return _size_of_ours(destination, name) == size


def _size_of_ours(destination: Destination, name: str) -> int | None:
    """The bytes of a file that an earlier run of ours has written, as its work folder tells."""
    receipt = receipt_path(os.fsencode(destination.work), name)
    with contextlib.suppress(OSError, msgspec.MsgspecError), open(receipt, "rb") as file:
        return msgspec.msgpack.decode(file.read(), type=Receipt).entry.bytes
    with contextlib.suppress(OSError):
        return os.path.getsize(os.path.join(destination.work, name))
    return None


def remove_there(destination: Destination, place: DatasetFiles, unwanted: Callable[[str], bool]) -> None:
    """Remove from the bucket what an earlier run of ours has put there and this one does not want.

    unwanted: tells whether a file of the work folder is to go.
    """
    with translated(destination.work):
        names = [name for name in os.listdir(destination.work) if unwanted(name)]
    if names:
        ours = {name.removesuffix(".receipt") for name in names}
        manifest = place.read_manifest()  # which another machine may have written meanwhile
        ours -= set() if manifest is None else set(all_names(manifest, place.stem))
        place.remove(sorted(ours & place.files().keys()))


def commit_there(destination: Destination, place: DatasetFiles, manifest: Manifest) -> None:
    """Send the index and the list of what was left out, and then the manifest; all shards are there."""
    others = [name for name in all_names(manifest, place.stem) if name not in {e.name for e in manifest.shards}]
    sizes = dict(files_of(manifest))
    with TransferPool(SENDERS) as pool:

        def one(name: str) -> ObjectInfo:
            here = Location("", os.path.join(destination.work, name))
            wanted = ObjectInfo(name, size_of(here.path) or 0, crc_of(file_pieces(here)))
            send(file_pieces(here), here, place.store, wanted, check="store", stop=pool.stop,
                 told=lambda _: None)  # fmt: skip
            return wanted

        sizes.update((info.name, info.bytes) for info in pool.map(one, others))
    data = encode_manifest(manifest)
    place.finish(data, sizes, sweep=True)  # `check_free` and `keep_only` have seen to it that it is ours, or to go
    with whole_file(_seal(destination)) as file:
        file.write(b"%08x\n" % crc32c(data))


def _seal(destination: Destination) -> str:
    return os.path.join(destination.folder, f"{destination.stem}.packed")


def committed_at(destination: Destination, manifest: Manifest) -> int | None:
    """When this machine wrote the manifest that is there (nanoseconds, as file times); None where it was another."""
    if destination.place is None:
        return os.stat(destination.manifest).st_mtime_ns
    try:
        with open(_seal(destination), "rb") as file:
            ours = file.read() == b"%08x\n" % crc32c(encode_manifest(manifest))
            return os.fstat(file.fileno()).st_mtime_ns if ours else None
    except FileNotFoundError:
        return None


def missing_file(destination: Destination, manifest: Manifest) -> str | None:
    """The name of a file of the dataset that is not there, or has another size."""
    if destination.place is not None:
        there = destination.place.files()
        return next((name for name, size in files_of(manifest) if there.get(name) != size), None)
    for name, size in files_of(manifest):
        path = os.path.join(destination.folder, name)
        if not os.path.isfile(path) or os.path.getsize(path) != size:
            return name
    return None


def shown(destination: Destination) -> str:
    """Where the manifest is to be, for a reader."""
    place = destination.place
    return fs_text(destination.manifest) if place is None else str(place.location(place.manifest))
