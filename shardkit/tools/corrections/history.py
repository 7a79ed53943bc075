"""`shardkit log` and `shardkit revert`: the versions of a dataset, and the way back to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from shardkit.errors import BusyError, NotFoundError, UsageError
from shardkit.options.fields import checked_by
from shardkit.options.numbers import is_whole
from shardkit.shards.corrections.block import VersionEntry
from shardkit.shards.find.find import resolve
from shardkit.shards.find.shards import SourceLike
from shardkit.shards.manifest import Manifest
from shardkit.storage.access import Remote
from shardkit.tools.corrections.commit import Corrected, different, write_version
from shardkit.tools.corrections.place import Base, CorrectedPlace, find_dataset, place_of
from shardkit.tools.corrections.values import other_values
from shardkit.tools.settings import LogSettings, RevertSettings


@checked_by(LogSettings)
def log(source: SourceLike, *, storage_options: Mapping[str, Any] | None = None) -> tuple[VersionEntry, ...]:
    """The versions of a dataset, from the first on: number, what made it, samples, and the message of its author.

    source, storage_options: as for `relabel`. A dataset that was not corrected has version 1 alone. Raises
    NotFoundError without a manifest, ManifestError, StorageError.
    """
    manifest = find_dataset(source, storage_options).manifest
    assert manifest is not None
    corrections = manifest.corrections
    if corrections is None:
        return (VersionEntry(version=1, kind="pack", samples=manifest.samples),)
    return corrections.log


@checked_by(RevertSettings)
def revert(
    source: SourceLike, version: int, *, message: str = "", storage_options: Mapping[str, Any] | None = None
) -> Corrected:
    """Go back to an older version of a dataset: a new version that equals it.

    source, message, storage_options: as for `relabel`. Nothing is removed: the versions between stay, and shards that
    were added since are left out.

    Returns the new version; the current one if it equals the older one already. Raises NotFoundError if there is no
    such version, BusyError if another run corrects the dataset at the same time, DestinationError, DatasetError,
    StorageError.
    """
    if not is_whole(version):
        raise UsageError("version", f"{version!r} is not a whole number", "see the versions with `shardkit.log`")
    place = place_of(source, storage_options)
    base = place.current()
    older = _version(place, base, version)
    entry = VersionEntry(version=0, kind="revert", samples=0, of=version, message=message)
    before = Base(base.place, older, b"", None, base.remote)
    changed = len(np.union1d(different(base.overlay, before.overlay), other_values(base, before).places))
    if _same(base.manifest, older):
        return Corrected(str(base.place), base.manifest.number, "revert", 0, changed, 0, base.manifest)
    with place.locked():
        now = place.current()
        if now.data != base.data:
            fact = f"another run made version {now.manifest.number} meanwhile"
            raise BusyError(str(base.place), fact, "run the command again if it is still wanted")
        return write_version(place.files, now, older, entry, changed)


def _version(place: CorrectedPlace, base: Base, version: int) -> Manifest:
    """The manifest of a version. NotFoundError if there is none."""
    if version < 1:
        raise NotFoundError(str(base.place), f"there is no version {version}", "versions are numbered from 1 on")
    text = str(place.files.location(place.files.stem))
    found = resolve(f"{text}@{version}", Remote(place.options)).manifest
    assert found is not None
    return found


def _same(one: Manifest, other: Manifest) -> bool:
    """Whether two versions have the same content."""
    found = [(None, ()) if each is None else (each.overlay, each.fields)
             for each in (one.corrections, other.corrections)]  # fmt: skip
    return (
        found[0] == found[1] and one.columns == other.columns and one.plan == other.plan
        and one.shards == other.shards and one.index == other.index and one.classes == other.classes
    )  # fmt: skip
