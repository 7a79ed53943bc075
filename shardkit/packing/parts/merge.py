"""Make datasets of packings whose parts are finished: index and manifest, from records and index rows alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec

from shardkit.errors import DestinationError, NotFoundError
from shardkit.location import Location
from shardkit.packing.commit import Planned, commit, require_same
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.packing.dest.destination import Destination
from shardkit.packing.dest.disk import DiskDestination
from shardkit.packing.dest.in_the_way import readable_manifest
from shardkit.packing.dest.shared import RECEIPT
from shardkit.packing.dest.work_folder import keep_only, write_index_of_parts
from shardkit.packing.parts import names
from shardkit.packing.parts.part import Part
from shardkit.packing.parts.record import PartRecord, listed, read_plan, records, require_one_plan
from shardkit.packing.totals import Totals
from shardkit.shards.corrections.version import index_files_taken
from shardkit.shards.manifest import Manifest
from shardkit.shards.names import LOCK, generation_of, marker_name, work_name
from shardkit.storage.patient import Patient, open_patient
from shardkit.storage.store import content_of

log = logging.getLogger(__name__)

RERUN = "run them again: shardkit pack SOURCE DEST --part"


class _Parts(msgspec.Struct, frozen=True):
    """The parts of a dataset, complete: what was planned, and what all of them wrote."""

    destination: Destination
    what: Planned
    totals: Totals
    before: Manifest | None


def merge_parts(
    dest: Location, *, work: str | os.PathLike[str] | None = None, options: Mapping[str, Any] | None = None
) -> dict[str, Manifest]:
    """Commit the packings in parts at DEST: the dataset with this prefix, or all in this folder. Stem -> manifest.

    A dataset that was merged already is returned as it is. Raises DestinationError unless all parts of all of them are
    finished and belong together; then nothing is written. NotFoundError if there is none, BusyError while parts run.
    """
    found = _found(dest, options)
    done: dict[str, Manifest] = {}
    with ExitStack() as stack:
        ready = []
        for files in found:
            destination = destination_of_files(files, work, options)
            stack.enter_context(destination.locked())  # which finishes an interrupted commit
            parts = _complete(destination)
            if parts is None:
                done[files.stem] = _merged_before(destination)
            else:
                require_same(destination, parts.what, parts.before)
                ready.append(parts)
        for each in ready:
            index = write_index_of_parts(
                each.destination, each.totals.entries, () if each.before is None else index_files_taken(each.before),
                rows=each.totals.rows, seek=each.what.seek_points, columns=each.what.columns,
                quality=each.what.quality_columns,
            )  # fmt: skip
            manifest = commit(each.destination, each.what, each.totals, index, each.before)
            done[each.destination.stem] = manifest
    return {files.stem: done[files.stem] for files in found}


def discard_parts(
    dest: Location, *, work: str | os.PathLike[str] | None = None, options: Mapping[str, Any] | None = None
) -> list[str]:
    """Remove what parts wrote at DEST; returns the datasets. Their destinations are then as before the first part.

    NotFoundError if there are no parts, BusyError while they run.
    """
    found = _found(dest, options, merged=False)
    for files in found:
        destination = destination_of_files(files, work, options)
        with destination.locked():
            if names.PLAN not in destination.shared.names():
                log.info("%s: an interrupted merge was finished: there is nothing to discard", destination)
            _discard(destination)
    return [str(files) for files in found]


def _found(dest: Location, options: Mapping[str, Any] | None, *, merged: bool = True) -> list[DatasetFiles]:
    """The datasets at DEST of which there are parts, or, if asked for, which are already merged."""
    beside = open_patient(dest.parent, options) if dest.name else None
    if beside is not None and _has_plan(beside, dest.name):
        return [DatasetFiles(beside, dest.name)]
    inside = open_patient(Location(dest.scheme, dest.path.rstrip("/") or "/"), options)
    found = [DatasetFiles(inside, stem) for stem in _stems(inside)]
    if merged and not found and beside is not None and DatasetFiles(beside, dest.name).manifest_bytes() is not None:
        return [DatasetFiles(beside, dest.name)]
    if not found:
        fact = "there are no parts of a packing here"
        cure = "give the DEST of the parts: shardkit pack SOURCE DEST --part 1/16"
        raise NotFoundError(str(dest), fact, cure)
    return found


def _has_plan(store: Patient, stem: str) -> bool:
    return content_of(store, names.shared_name(stem, names.PLAN)) is not None


def _stems(folder: Patient) -> list[str]:
    """The datasets in a folder that have parts."""
    before, after = work_name("\0").split("\0")
    if folder.root.is_local:
        try:
            there: Iterable[str] = os.listdir(folder.root.path)
        except (FileNotFoundError, NotADirectoryError):
            return []
    else:
        there = {info.name.partition("/")[0] for info in folder.list(before)}
    stems = sorted(
        name[len(before) : -len(after)] for name in there if name.startswith(before) and name.endswith(after)
    )
    return [stem for stem in stems if stem and _has_plan(folder, stem)]


def destination_of_files(
    files: DatasetFiles, work: str | os.PathLike[str] | None, options: Mapping[str, Any] | None
) -> Destination:
    """The destination for the files of a dataset. work, options: for a bucket."""
    if files.store.root.is_local:
        return DiskDestination(files)
    from shardkit.packing.dest.bucket import bucket_destination

    return bucket_destination(files, work, options)


def _merged_before(destination: Destination) -> Manifest:
    manifest = destination.files.read_manifest()
    if manifest is None:
        raise NotFoundError(str(destination), "there are no parts of a packing here", "pack them first")
    log.info("%s: already merged and complete; nothing was written", destination)
    return manifest


def _complete(destination: Destination) -> _Parts | None:
    """The parts, if they are all finished; None if they were merged already. DestinationError."""
    shared = destination.shared
    found = read_plan(shared)
    if found is None:
        return None
    what, plan = found
    mine = records(shared)
    if not mine:
        raise DestinationError(
            str(shared), "no part is finished", "run the parts first: shardkit pack SOURCE DEST --part 1/16"
        )
    counts = sorted({record.count for record in mine})
    if len(counts) > 1:
        some = [next(record.part for record in mine if record.count == count) for count in counts]
        fact = f"there are parts of different divisions, which overlap: {listed(some)}"
        raise DestinationError(str(shared), fact, "run `pack` without `part`, which keeps their shards")
    require_one_plan(shared, mine, plan)
    _require_all(destination, mine, counts[0])
    totals = Totals()
    for record in mine:
        _add(destination, record, what, totals)
    return _Parts(destination.in_generation(generation_of(what.shards, destination.stem)), what, totals,
                  _before(destination, what))  # fmt: skip


def _require_all(destination: Destination, mine: Sequence[PartRecord], count: int) -> None:
    """DestinationError unless there is a finished record of each part."""
    begun = [record.part for record in mine if record.totals is None]
    there = {record.number for record in mine}
    missing = [Part(number, count) for number in range(1, count + 1) if number not in there]
    facts = [f"missing are the parts {listed(missing)}"] * bool(missing)
    facts += [f"not finished are the parts {listed(begun)}"] * bool(begun)
    if facts:
        first = min([*missing, *begun])
        raise DestinationError(str(destination.shared), "; ".join(facts), f"{RERUN} {first}")


def _add(destination: Destination, record: PartRecord, what: Planned, totals: Totals) -> None:
    """Add what a part wrote. DestinationError unless it wrote just its own shards."""
    assert record.totals is not None
    share = [what.shards[number] for number in record.part.share(len(what.shards))]
    there = record.totals.shards
    if double := sorted(there.keys() & totals.shards.keys()):
        fact = f"{double[0]} was written by part {record.part} and by another"
        raise DestinationError(str(destination.shared), fact, f"{RERUN} {record.part}")
    if sorted(there) != sorted(share):
        wrong = min(there.keys() ^ set(share))
        fact = f"part {record.part} has not written just its own shards: {wrong}"
        raise DestinationError(str(destination.shared), fact, f"{RERUN} {record.part}")
    totals.update(record.totals)


def _before(destination: Destination, what: Planned) -> Manifest | None:
    """The dataset that is added to. DestinationError if another dataset is in the place of the new one."""
    files = destination.files
    data = files.manifest_bytes()
    manifest = None if data is None else readable_manifest(files, data)
    if what.addition is not None:
        return manifest
    new = generation_of(what.shards, destination.stem)
    if manifest is not None and generation_of([entry.name for entry in manifest.shards], destination.stem) >= new:
        fact = "a dataset was written here after the parts were begun"
        raise DestinationError(str(destination), fact, "discard the parts: shardkit merge DEST --discard")
    return None


def _discard(destination: Destination) -> None:
    shared, files = destination.shared, destination.files
    shards, known = shared.planned(), shared.names()
    destination.withdraw(shards)
    own = {LOCK, names.WHOLE_LEASE}
    ours = {shard + ending for shard in shards for ending in ("", ".rows", RECEIPT)}
    shared.remove([name for name in known if name not in own and (names.is_of_parts(name) or name in ours)])
    keep_only(destination, ())  # what a merge that ended early left
    if not files.store.root.is_local and files.manifest_bytes() is None:
        files.remove([marker_name(files.stem)])
