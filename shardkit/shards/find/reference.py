"""A found dataset by reference, for pickles: where its manifest is and what is in it, in place of the manifest."""

from __future__ import annotations

import hashlib

import msgspec

from shardkit.errors import ManifestError, NotFoundError, ReplacedError
from shardkit.location import Location
from shardkit.shards.find.found import Found
from shardkit.shards.manifest import Manifest, decode_manifest, encode_manifest
from shardkit.shards.objects import Objects
from shardkit.storage import node_files
from shardkit.storage.access import Remote

INLINE_BYTES = 4096
"""A manifest up to this size is pickled itself."""


class FoundReference(msgspec.Struct, frozen=True):
    """A manifest by its location and digest, and the runs (first, last) of the shards that were chosen; None for all.

    The processes of this machine read a copy of the manifest, so that they go on with it when the dataset is replaced.
    """

    location: Location
    digest: str
    runs: tuple[tuple[int, int], ...] | None

    def found(self, remote: Remote) -> Found:
        """The dataset. ReplacedError if the manifest is another one now; NotFoundError, StorageError."""
        numbers = None
        if self.runs is not None:
            numbers = tuple(number for first, last in self.runs for number in range(first, last + 1))
        return Found(self._manifest(remote), self.location, numbers)

    def _manifest(self, remote: Remote) -> Manifest:
        copy = node_files.load(_name(self.digest))
        if copy is not None:
            return decode_manifest(bytes(copy), place=str(self.location))
        fact, cure = "the dataset was replaced by another one since it was opened", "open the dataset again"
        try:
            manifest = Objects(remote).manifest(self.location)
        except (ManifestError, NotFoundError) as exc:
            raise ReplacedError(str(self.location), f"{fact} ({exc.fact})", cure) from exc
        if _digest(encode_manifest(manifest)) != self.digest:
            raise ReplacedError(str(self.location), fact, cure)
        return manifest


def reference_to(found: Found) -> FoundReference | None:
    """The reference; None for what is small, or has no manifest."""
    if found.manifest is None or found.location is None:
        return None
    data = encode_manifest(found.manifest)
    if len(data) <= INLINE_BYTES:
        return None
    digest = _digest(data)
    name = _name(digest)
    if node_files.load(name) is None:
        node_files.save(name, data)
    return FoundReference(found.location, digest, None if found.numbers is None else _runs(found.numbers))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _name(digest: str) -> str:
    return f"manifest-{digest}.json"


def _runs(numbers: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return tuple(runs)
