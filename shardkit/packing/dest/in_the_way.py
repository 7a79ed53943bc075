"""Files in the way at a destination, and the generation to write there."""

from __future__ import annotations

import contextlib

from shardkit.errors import DestinationError, ManifestError
from shardkit.packing.dest.dataset_files import MOVE, OVERWRITE, DatasetFiles
from shardkit.packing.dest.destination import Destination
from shardkit.packing.dest.shared import SharedFolder
from shardkit.packing.parts.record import DISCARD, remove_leftover
from shardkit.shards import names
from shardkit.shards.manifest import Manifest, all_names, decode_manifest, is_ours


def check_free(destination: Destination, *, overwrite: bool, parts: bool = False) -> Destination:
    """The destination with the generation to write: the next one if a dataset is replaced, that of an existing dataset
    otherwise, and the first if there is none.

    Raises DestinationError if somebody else's files are in the way: a folder; a file that no manifest names and that no
    earlier run wrote; or, even with `overwrite`, a file named like ours that is not a manifest or an index. And if an
    unfinished packing in parts is there, unless it may go on (`parts`).
    """
    files = destination.files
    _refuse_names_of_another_dataset(files)
    destination.clear()
    data = files.manifest_bytes()
    manifest = None if data is None else readable_manifest(files, data)
    if manifest is not None:
        remove_leftover(destination.shared, manifest.plan)
    if not parts:
        require_no_plan(destination.shared)
    known = files.replaced() if manifest is None else set(all_names(manifest, files.stem))
    if data is None:
        generation = 1
    else:
        generation = files.next_generation(manifest) if overwrite else names.generation_of(known, files.stem)
    if overwrite or data is None:
        unknown = {name: size for name, size in files.sizes().items() if name not in known}
        others = files.named_by_others(unknown)  # which stay, and are in the way only if their names are needed
        files.require_unnamed([name for name in others if names.file_generation(name, files.stem) == generation])
        for name in sorted(unknown.keys() - others.keys() - destination.wrote(unknown)) if unknown else ():
            refuse_file(files, name, "was not written by this run", overwrite=overwrite)
    return destination.in_generation(generation)


def require_no_plan(shared: SharedFolder) -> None:
    """DestinationError if there is a packing in parts that is not merged."""
    if shared.planned():
        fact = "an unfinished packing in parts is there"
        raise DestinationError(str(shared), fact, f"finish it with 'shardkit merge', or {DISCARD}")


def readable_manifest(files: DatasetFiles, data: bytes) -> Manifest | None:
    """The manifest with these bytes; None for a damaged one, or one of a later version. DestinationError for somebody
    else's file."""
    if not is_ours(data):
        fact = "this file already exists, and is not a shardkit manifest"
        raise DestinationError(files.place(files.manifest), fact, MOVE)
    with contextlib.suppress(ManifestError):
        return decode_manifest(data, place=files.place(files.manifest))
    return None


def refuse_file(files: DatasetFiles, name: str, why: str, *, overwrite: bool) -> None:
    """DestinationError for a file that no manifest names, unless it may be replaced.

    why: the rest of the message. A user's table is never replaced.
    """
    if name.endswith(".parquet") and not files.is_index(name):
        raise DestinationError(files.place(name), "this file already exists, and is not a shardkit index", MOVE)
    if not overwrite:
        fact = f"this file already exists, belongs to no manifest, and {why}"
        raise DestinationError(files.place(name), fact, OVERWRITE)


def _refuse_names_of_another_dataset(files: DatasetFiles) -> None:
    """DestinationError if files named like ours belong to a generation of another dataset."""
    other = names.without_generation(files.stem)
    if other is None or files.manifest_bytes() is not None:
        return
    try:
        manifest = DatasetFiles(files.store, other[0]).read_manifest()
    except DestinationError:
        return
    if manifest is not None and names.generation_of(all_names(manifest, other[0]), other[0]) == other[1]:
        fact = f"the files of the dataset {other[0]} have names that begin in the same way"
        raise DestinationError(files.place(files.stem), fact, "choose another destination")
