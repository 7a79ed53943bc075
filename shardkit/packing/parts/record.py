"""What parts leave for each other and for the merge: the plan, the same for all, and a record of each part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from shardkit.errors import DestinationError
from shardkit.packing.commit import Planned
from shardkit.packing.dest.shared import RECEIPT, SharedFolder
from shardkit.packing.parts import names
from shardkit.packing.parts.part import Part
from shardkit.packing.totals import Totals

SHOWN_PARTS = 8

DISCARD = "discard what they wrote with 'shardkit merge DEST --discard'"


class PartRecord(msgspec.Struct, frozen=True):
    """What a part has written. plan: the digest of the plan.json that it was packed with. totals: None until it is
    finished."""

    number: int
    count: int
    plan: str
    totals: Totals | None = None

    @property
    def part(self) -> Part:
        """Its part."""
        return Part(self.number, self.count)


def plan_mark(data: bytes) -> str:
    """The digest of a plan.json."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def read_plan(shared: SharedFolder) -> tuple[Planned, str] | None:
    """The plan of the parts, and its digest; None if there are no parts. DestinationError for a damaged one."""
    data = shared.read(names.PLAN)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=Planned), plan_mark(data)
    except msgspec.MsgspecError as exc:
        fact = f"the plan of the parts can't be read, or is of another version of shardkit ({exc})"
        raise DestinationError(shared.place(names.PLAN), fact, _discard(shared)) from exc


def records(shared: SharedFolder, known: Iterable[str] | None = None) -> list[PartRecord]:
    """The records of the parts, in order. known: the names in the folder. DestinationError for a damaged record."""
    found = []
    for name in shared.names() if known is None else known:
        if names.part_of_record(name) is not None and (data := shared.read(name)) is not None:
            try:
                record = msgspec.json.decode(data, type=PartRecord)
                if (record.number, record.count) != names.part_of_record(name):
                    raise ValueError(f"it is of part {record.number} of {record.count}")
            except ValueError as exc:  # msgspec's errors too
                fact = f"the record of a part can't be read ({exc})"
                raise DestinationError(shared.place(name), fact, "remove it, and run that part again") from exc
            found.append(record)
    return sorted(found, key=lambda record: record.part)


def begin_part(shared: SharedFolder, part: Part, what: Planned) -> None:
    """Record that a part was begun, and with it the plan. DestinationError if other parts are of another packing."""
    data = encoded_plan(what)
    if (
        shared.files.store.put_if(shared.name(names.PLAN), data, version=None) is None
        and shared.read(names.PLAN) != data
    ):
        if not _forget_unused(shared, part):
            require_same_plan(shared, what)
        shared.write(names.PLAN, data)
    plan = plan_mark(data)
    others = [record for record in records(shared) if record.part != part]
    if any(record.count != part.count for record in others) and not _forget_unused(shared, part):
        wrong = [record.part for record in others if record.count != part.count]
        fact = f"the parts {listed(wrong)} are there, and this is part {part}"
        cure = f"give the same number of parts; or run `pack` without `part`, which keeps their shards; or {DISCARD}"
        raise DestinationError(str(shared), fact, cure)
    others = [record for record in records(shared) if record.part != part]
    require_one_plan(shared, others, plan)
    if shared.read(names.record_name(part.name)) is None:
        write_record(shared, PartRecord(part.number, part.count, plan))


def encoded_plan(what: Planned) -> bytes:
    """The bytes of plan.json, equal for equal plans."""
    return msgspec.json.encode(what)


def write_record(shared: SharedFolder, record: PartRecord) -> None:
    """Write the record of a part."""
    shared.write(names.record_name(record.part.name), msgspec.json.encode(record))


def _forget_unused(shared: SharedFolder, part: Part) -> bool:
    """Forget the other parts if all of them ended before their first shard was finished, and whether that was so."""
    known = shared.names()
    others = [name for name in known if names.part_of_record(name) is not None and name != names.record_name(part.name)]
    if any(name.endswith(RECEIPT) for name in known) or any(record.totals is not None for record in records(shared)):
        return False
    if shared.running(part):
        return False
    shared.remove([*others, names.record_name(part.name)])
    return True


def require_one_plan(shared: SharedFolder, found: Sequence[PartRecord], plan: str) -> None:
    """DestinationError for parts that were packed with another plan than the one with this digest."""
    wrong = [record.part for record in found if record.plan != plan]
    if wrong:
        fact = f"parts of different packings are there: {listed(wrong)} had another source, other options or classes"
        raise DestinationError(str(shared), fact, f"run them again with the options of the others, or {DISCARD}")


def require_same_plan(shared: SharedFolder, what: Planned) -> None:
    """DestinationError if parts of another packing than this are there."""
    found = read_plan(shared)
    if found is None or encoded_plan(found[0]) == encoded_plan(what):
        return
    parts = [record.part for record in records(shared)]
    begun = f"of which {listed(parts)} {'was' if len(parts) == 1 else 'were'} begun, " if parts else ""
    fact = f"a packing in parts is unfinished here, {begun}{difference(found[0], what)}"
    raise DestinationError(str(shared), fact, f"give all parts the same source and options, or {DISCARD}")


def difference(theirs: Planned, mine: Planned) -> str:
    """How another plan differs from mine, in words."""
    if theirs.version != mine.version:
        return f"written by shardkit {theirs.version}, not {mine.version}"
    for name in {**theirs.options, **mine.options}:
        if theirs.options.get(name) != mine.options.get(name):
            return f"with the option {name} {theirs.options.get(name)!r}, not {mine.options.get(name)!r}"
    if theirs.shard_format != mine.shard_format:
        return f"of the format {theirs.shard_format}, not {mine.shard_format}"
    if theirs.classes != mine.classes:
        return f"with other classes: {_first_difference(theirs.classes, mine.classes)}"
    if theirs.base != mine.base:
        return f"whose files are named {theirs.base}, not {mine.base}: with or without `overwrite`"
    if theirs.columns != mine.columns:
        return f"with the further columns {theirs.columns}, not {mine.columns}"
    if theirs.addition != mine.addition:
        return "with or without `append`, or added to another dataset"
    return "of other files: names, sizes or labels in the source differ"


def _first_difference(theirs: Sequence[str], mine: Sequence[str]) -> str:
    for label in range(max(len(theirs), len(mine))):
        there, here = (each[label] if label < len(each) else None for each in (theirs, mine))
        if there != here:
            return f"label {label} is {there!r} there, and {here!r} here"
    return "none"


def listed(parts: Sequence[Part]) -> str:
    """The parts as text: `1/16, 3/16 …`."""
    shown = ", ".join(map(str, parts[:SHOWN_PARTS]))
    return f"{shown} and {len(parts) - SHOWN_PARTS} more" if len(parts) > SHOWN_PARTS else shown


def _discard(shared: SharedFolder) -> str:
    return f"use the shardkit that wrote it, or {DISCARD}"


def remove_leftover(shared: SharedFolder, plan: str) -> None:
    """Remove what parts left if the dataset with this plan is the one that they made: its merge was interrupted after
    the manifest was written."""
    known = shared.names()
    if names.PLAN not in known:
        return
    found = read_plan(shared)
    if found is not None and found[0].plan == plan:
        leases = {name for name in known if name == names.WHOLE_LEASE or names.part_of_lease(name) is not None}
        shared.remove([name for name in known if names.is_of_parts(name) and name not in leases])
        if not shared.files.store.root.is_local:
            shared.remove([name for name in known if name.endswith((RECEIPT, ".rows"))])
