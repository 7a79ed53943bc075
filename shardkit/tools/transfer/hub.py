"""Upload datasets to a repository of the Hugging Face Hub in one commit, which is there as a whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shardkit.errors import DamagedError
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.shards.manifest import all_names, decode_manifest
from shardkit.storage.store import ObjectInfo, StorageOptions
from shardkit.storage.stores.hub import commit, hub_folder
from shardkit.storage.transfer import crc_of, file_pieces
from shardkit.threads import TransferPool
from shardkit.tools.transfer.copy import (
    Copied,
    DatasetCopy,
    TransferProgress,
    Transferred,
    fit_copy,
    kept_files,
)
from shardkit.tools.transfer.exports import Exports


@dataclass(frozen=True, slots=True)
class _Part:
    """What one dataset adds to the commit and deletes in it. same: whether it is there already."""

    copy: DatasetCopy
    target: DatasetFiles
    delete: frozenset[str]
    same: bool


def upload_to_hub(
    copies: Sequence[DatasetCopy],
    targets: Sequence[DatasetFiles],
    pool: TransferPool,
    *,
    overwrite: bool,
    exports: Exports | None,
    options: StorageOptions | None,
    progress: TransferProgress,
) -> Transferred:
    """Commit datasets, with the files of `exports`, to the folder of their targets. Raises like `copy_dataset`."""
    place = targets[0].store.root
    hub_folder(place)
    parts = [_part(copy, target, pool, overwrite) for copy, target in zip(copies, targets, strict=True)]
    add: dict[str, bytes | Path] = {}
    for part in parts:
        add |= _content(part, pool, progress)
    if exports is not None:
        add |= exports.made([part.copy for part in parts])
    delete = sorted(set().union(*(part.delete for part in parts)) - set(add))
    if add or delete:
        stems = ", ".join(part.copy.source.stem for part in parts)
        commit(place, add, delete, message=f"Upload {stems} with shardkit", options=options)
    return Transferred(tuple(map(_copied, parts)))


def _part(copy: DatasetCopy, target: DatasetFiles, pool: TransferPool, overwrite: bool) -> _Part:
    found = target.manifest_bytes()
    copy = fit_copy(copy, target, found, overwrite=overwrite)
    same = found is not None and found == copy.manifest
    if same:
        return _Part(copy, target, frozenset(), same)
    kept_files(copy, target, pool, found, check="none", overwrite=overwrite)  # refuses what is in the way
    before = frozenset[str]()
    if found is not None and overwrite:
        manifest = decode_manifest(found, place=target.place(target.manifest))
        before = frozenset(all_names(manifest, target.stem)) - {file.name for file in copy.files}
    return _Part(copy, target, before, same)


def _content(part: _Part, pool: TransferPool, progress: TransferProgress) -> dict[str, bytes | Path]:
    """Name -> content of the files of a dataset. DamagedError for one that is not as its manifest says."""
    copy = part.copy
    found: dict[str, bytes | Path] = {}

    def checked(file: ObjectInfo) -> None:
        if file.name not in copy.made:
            place = copy.source.location(copy.origin.get(file.name, file.name))
            if file.crc32c not in (None, crc_of(file_pieces(place))):
                fact = "its CRC-32C is not the one in the manifest: it is damaged"
                raise DamagedError(str(place), fact, "check the dataset with 'shardkit verify'")
            found[file.name] = Path(place.path)
        progress.kept(file)

    for _ in pool.map(checked, [] if part.same else copy.files):
        pass
    found |= {name: data for name, data in copy.made.items() if not part.same}
    if copy.manifest is not None and not part.same:
        found[part.target.manifest] = copy.manifest
    return dict(sorted(found.items()))


def _copied(part: _Part) -> Copied:
    copy, target, sent = part.copy, part.target, () if part.same else part.copy.files
    there = target.store.root if copy.manifest is None else target.location(target.manifest)
    moved = sum(file.bytes for file in sent)
    return Copied(
        dataset=str(there), samples=copy.samples, shards=len(copy.shards),
        bytes=sum(file.bytes for file in copy.shards), sent=len(sent), sent_bytes=moved,
        kept=len(copy.files) - len(sent), kept_bytes=copy.bytes - moved,
    )  # fmt: skip
