"""Detect unfinished datasets, whose shards may be only half of them."""

from __future__ import annotations

from shardkit.errors import NotFoundError
from shardkit.location import Location
from shardkit.shards import names
from shardkit.shards.find.files import Files


def require_finished(folder: Location, base: str, files: Files) -> None:
    """NotFoundError if there are signs that shards whose names begin with `base` belong to an unfinished dataset, whose
    manifest is still to come."""
    for stem in names.stems_of(base):
        found = files.sign(folder, stem)
        if found is not None:
            fact = f"there is no manifest yet, and {found} shows that it is still to come: shards may be missing"
            cure = "wait, or run the same pack, upload or download again to finish it"
            raise NotFoundError(str(folder.child(names.manifest_name(stem))), fact, cure)


def nothing_there(place: Location, files: Files) -> NotFoundError:
    """The error for a name under which there is nothing; it mentions a dataset of that name that was begun."""
    if not files.lists(place):
        return NotFoundError(str(place), "there is no manifest of this name", "name the manifest")
    what = "no manifest, no shards and no class directory" if files.trees else "no manifest and no shards"
    cure = files.check if files.trees else f"{files.check}; a class directory is packed first: shardkit pack"
    if place.name and files.begun(place):
        cure = "a packing was interrupted there, or an upload or download: run it again to finish it"
    return NotFoundError(str(place), f"there is no dataset here: {what} of this name", cure)
