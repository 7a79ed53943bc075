"""Commits to a repository of the Hugging Face Hub: many files in one step, where `Store.put` makes one for each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from shardkit.errors import MissingExtraError, UsageError, installs
from shardkit.location import Location
from shardkit.storage.store import StorageOptions, harmless
from shardkit.storage.stores.fsspec import translated_error

SCHEME = "hf"

_PLACE = re.compile(
    r"(?:(?P<kind>datasets|spaces)/)?(?P<repo>(?!datasets/|spaces/)[^/@]+/[^/@]+)"
    r"(?:@(?P<revision>[^/]+))?(?:/(?P<folder>.*))?"
)


class HubFolder(msgspec.Struct, frozen=True):
    """A folder of a repository. folder: below its root, "" for the root. revision: None for the default branch."""

    kind: str
    repo: str
    revision: str | None
    folder: str

    def path(self, name: str) -> str:
        """A file of the folder, from the root of the repository."""
        return f"{self.folder}/{name}" if self.folder else name


def hub_folder(place: Location) -> HubFolder:
    """The folder that `hf://datasets/USER/NAME[@REVISION]/FOLDER` names. UsageError for anything else."""
    found = _PLACE.fullmatch(place.path.rstrip("/"))
    if place.scheme != SCHEME or found is None:
        fact = "this is not a folder of a repository on the Hub"
        raise UsageError(str(place), fact, "write it as hf://datasets/USER/NAME/, with a slash at the end")
    kind = {"datasets": "dataset", "spaces": "space"}.get(found["kind"] or "", "model")
    revision = found["revision"] and found["revision"].replace("%2F", "/")
    return HubFolder(kind, found["repo"], revision, found["folder"] or "")


def commit(
    place: Location,
    add: Mapping[str, bytes | Path],
    delete: Iterable[str],
    *,
    message: str,
    options: StorageOptions | None = None,
) -> None:
    """Add files (name -> content, or the file that has it), and delete others, in one commit: all of it or nothing.

    options: `token` and `endpoint`; the others are for reading. Files that the Hub has already are not sent again.
    Raises UsageError, MissingExtraError, StorageError (TransientError if another attempt may succeed).
    """
    where = hub_folder(place)
    try:
        import huggingface_hub as hub
    except ImportError as exc:
        fact = f"hf:// needs the package huggingface_hub ({exc})"
        raise MissingExtraError(str(place), fact, installs("huggingface")) from exc
    known: dict[str, Any] = {name: value for name, value in (options or {}).items() if name in ("token", "endpoint")}
    steps: list[Any] = [
        hub.CommitOperationAdd(path_in_repo=where.path(name), path_or_fileobj=data) for name, data in add.items()
    ]
    steps += [hub.CommitOperationDelete(path_in_repo=where.path(name)) for name in delete]
    try:
        hub.HfApi(**known).create_commit(
            where.repo, steps, commit_message=message, repo_type=where.kind, revision=where.revision
        )
        hub.HfFileSystem(**known).invalidate_cache()  # which reads in this process share
    except Exception as exc:  # of the client, of the network
        failure, cause = translated_error(exc, str(place)), harmless(exc)
    else:
        return
    raise failure from cause  # outside the block, so that the unredacted text is not its context
