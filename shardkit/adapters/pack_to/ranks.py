"""The packings of several ranks: each is a part, and the last one to end makes the dataset of all."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from shardkit.adapters.pack_to.plan import PackingPlan
from shardkit.errors import BusyError, NotFoundError
from shardkit.packing.commit import planned
from shardkit.packing.dest.lease import holders
from shardkit.packing.parts import names
from shardkit.packing.parts.merge import merge_parts
from shardkit.packing.parts.part import Part
from shardkit.packing.parts.record import encoded_plan, read_plan, records

log = logging.getLogger(__name__)

MERGE_SECONDS = 10.0
"""How long the last rank tries to merge while the others release their locks."""

LOOK_SECONDS = 0.1


def forget_other_division(plan: PackingPlan, part: Part) -> None:
    """Forget the parts of another number of ranks, if they are of this plan and none of them runs. Their shards stay,
    and are kept by their receipts."""
    shared = plan.destination.shared
    found = read_plan(shared)
    if found is None or encoded_plan(found[0]) != encoded_plan(
        planned(plan.content, plan.destination.base, plan.options)
    ):
        return  # `begin_part` says what is wrong
    others = [record.part for record in records(shared) if record.count != part.count]
    leases = [shared.name(names.lease_name(other.name)) for other in others]
    known = set(shared.names())
    alive = holders(shared.files.store, [lease for lease in leases if lease.rpartition("/")[2] in known])
    if alive:
        who = next(iter(alive.values()))
        raise BusyError(str(shared), f"another number of ranks is packing here ({who})", "wait until they end")
    shared.remove([names.record_name(other.name) for other in others])


def merge_if_last(plan: PackingPlan, part: Part) -> None:
    """Make the dataset of all parts, if all are finished. Another rank may be doing it."""
    end = time.monotonic() + MERGE_SECONDS
    while _all_finished(plan, part) and time.monotonic() < end:
        with suppress(BusyError, NotFoundError):
            merge_parts(plan.location, work=plan.asked.settings.work, options=plan.storage_options)
            return
        time.sleep(LOOK_SECONDS)


def _all_finished(plan: PackingPlan, part: Part) -> bool:
    """Whether the records of all parts are there and finished. After the merge there are none."""
    done = {record.part for record in records(plan.destination.shared) if record.totals is not None}
    return done == {part, *part.others()}


def await_merge(plan: PackingPlan, part: Part, seconds: float) -> None:
    """Wait until the other ranks have finished, too, and one of them has made the dataset; at most for some seconds."""
    end = time.monotonic() + seconds
    while plan.destination.files.manifest_bytes() is None:
        merge_if_last(plan, part)
        if time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
            continue
        if seconds:
            done = sorted(record.part for record in records(plan.destination.shared) if record.totals is not None)
            text = "%s: of the parts of all ranks, only %s are there yet: the epoch reads the class tree"
            log.warning(text, plan.location, ", ".join(map(str, done)) or "none")
        return
