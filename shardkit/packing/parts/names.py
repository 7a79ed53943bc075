"""The names of the files by which parts know of each other, in the folder `.STEM.packing/` at the destination.

    plan.json               what all parts together write (`Planned`)
    00003-of-00016.json     what part 3 of 16 has written (`PartRecord`); before it is finished, that it was begun
    00003-of-00016.lease    held while the part runs (shardkit.packing.dest.lease)
    whole.lease             held by a run that is not a part: a merge, and in a bucket any packing
    NAME.rows, NAME.receipt as in the work folder of any run: at a disk they are one folder

Shards wait here on a disk; in a bucket they have their final names.
"""

from __future__ import annotations

import re

from shardkit.shards.names import work_name

PLAN = "plan.json"
WHOLE_LEASE = "whole.lease"

_PART = r"(\d{5})-of-(\d{5})"


def shared_name(stem: str, name: str) -> str:
    """The name of a file in the shared folder, in the store of the dataset."""
    return f"{work_name(stem)}/{name}"


def lease_name(part: str) -> str:
    """The lease of a part with this name."""
    return f"{part}.lease"


def record_name(part: str) -> str:
    """The record of a part with this name."""
    return f"{part}.json"


def part_of_lease(name: str) -> tuple[int, int] | None:
    """(number, count) of the part whose lease this is; None for other names."""
    return _numbers(name, ".lease")


def part_of_record(name: str) -> tuple[int, int] | None:
    """(number, count) of the part whose record this is; None for other names."""
    return _numbers(name, ".json")


def is_of_parts(name: str) -> bool:
    """Whether a file belongs to parts and is not of a single shard."""
    return name in (PLAN, WHOLE_LEASE) or part_of_lease(name) is not None or part_of_record(name) is not None


def _numbers(name: str, ending: str) -> tuple[int, int] | None:
    found = re.fullmatch(_PART + re.escape(ending), name)
    return None if found is None else (int(found[1]), int(found[2]))
