"""`shards/train@3`: a version of a dataset that was corrected."""

from __future__ import annotations

import re

from msgspec.structs import replace

from shardkit.errors import NotFoundError
from shardkit.location import Location
from shardkit.shards.find.files import Files
from shardkit.shards.find.found import Found

_AT = re.compile(r"(?P<path>.*[^/])@(?P<number>[1-9][0-9]{0,8})/?")


def asked_version(place: Location) -> tuple[Location, int] | None:
    """(the dataset, the number of its version) for a name with a number; None for others."""
    found = None if place.query else _AT.fullmatch(place.path)
    return None if found is None else (replace(place, path=found["path"]), int(found["number"]))


def at_version(found: Found, number: int, files: Files) -> Found:
    """The dataset as it was in a version. NotFoundError if it has no such version; ManifestError for a damaged one."""
    assert found.manifest is not None and found.location is not None
    manifest, beside = found.manifest, found.location
    if number == manifest.number:
        return found
    log = () if manifest.corrections is None else manifest.corrections.log
    entry = next((each.manifest for each in log if each.version == number), None)
    if entry is None and any(each.version == number for each in log):
        fact = f"version {number} is gone: samples were purged since"
        raise NotFoundError(str(beside), fact, "see 'shardkit log'")
    if entry is None:
        whose = f"versions 1 to {manifest.number}" if log else "version 1 alone, since it was not corrected"
        raise NotFoundError(str(beside), f"there is no version {number}: it has {whose}", "see 'shardkit log'")
    return files.version(beside.sibling(entry.name), entry)
