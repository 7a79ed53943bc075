"""How far a Dataset has been read: the next epoch, the position in the current one, and both as a state to resume from.

A state counts delivered samples of the whole epoch, over all ranks, and has the layout of the order. Since the epoch's
order depends neither on the ranks that read it nor on workers, any number of them can resume it, in the same layout.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardkit.errors import StateError
from shardkit.reading.ops import Steps
from shardkit.reading.order.layout import MOST_SECTIONS

STATE_VERSION = 2

Placement = tuple[int, int]
"""(sections, ranks of a node that keep their part or 0): of order/layout.py, as far as ranks determine it."""

FIRST_PLACEMENT: Placement = (1, 0)
"""That of all states of version 1."""


@dataclass(slots=True)
class Cursor:
    """The position of one iteration.

    done: samples of the epoch, over all ranks, that were finished when it began. taken: samples of this rank since
    then. delivered: items of this rank in this epoch, including earlier ones. turn: the number of the epoch within
    repeat().
    """

    epoch: int
    done: int = 0
    taken: int = 0
    delivered: int = 0
    turn: int = 0


class ReadPosition:
    """How far a Dataset has been read: the next epoch, and the cursor of its latest iteration. Thread safe."""

    def __init__(self, following: int = 0) -> None:
        self._lock = threading.Lock()
        self.following = following
        self.placement: Placement | None = None
        """That of a loaded state, which the epochs after it keep."""
        self.resume: Cursor | None = None
        self.latest: Cursor | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.following, self.resume, self.placement)

    def begin(self) -> Cursor:
        """The cursor of a new iteration: from a loaded state, or at the beginning of the next epoch."""
        with self._lock:
            cursor = self.resume or Cursor(self.following)
            self.resume = None
            self.following = cursor.epoch + 1
            self.latest = cursor
            return cursor

    def next_epoch(self, before: Cursor) -> Cursor:
        """The cursor of the epoch after `before`, in the same iteration."""
        with self._lock:
            cursor = Cursor(before.epoch + 1, turn=before.turn + 1)
            self.following = max(self.following, cursor.epoch + 1)
            if self.latest is before:
                self.latest = cursor
            return cursor

    def end(self, cursor: Cursor) -> None:
        """Record that the iteration of `cursor` is complete."""
        with self._lock:
            if self.latest is cursor:
                self.latest = None

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the next one; a loaded cursor in this same epoch is kept."""
        with self._lock:
            resume = self.resume if self.resume is not None and self.resume.epoch == epoch else None
            self.following, self.resume, self.latest = epoch, resume, None

    def load(self, cursor: Cursor, placement: Placement) -> None:
        """Make the next iteration resume at `cursor`, and keep the layout."""
        with self._lock:
            self.following, self.resume, self.latest = cursor.epoch, cursor, None
            self.placement = placement

    def where(self) -> Cursor:
        """The position of the latest iteration; if none is running, the start of the next one."""
        with self._lock:
            return self.latest or self.resume or Cursor(self.following)

    def state_dict(
        self,
        at: Cursor | None = None,
        *,
        order: str,
        ranks: tuple[int, int],
        placement: Placement,
        steps: Steps,
        versions: Sequence[int] = (),
    ) -> dict[str, Any]:
        """The position of the latest iteration, or `at`, plain JSON. order: the text that determines the order.
        versions: of the datasets, if they were corrected."""
        rank, world_size = ranks
        state = make_state(
            at or self.where(), order=order, rank=rank, world_size=world_size, placement=placement,
            filtered=not steps.counted,
        )  # fmt: skip
        return state | ({"dataset_versions": list(versions)} if any(number > 1 for number in versions) else {})

    def load_state_dict(
        self,
        state: Mapping[str, Any],
        *,
        order: str,
        ranks: tuple[int, int],
        layout: int | None,
        affinity: bool,
        steps: Steps,
        versions: Sequence[int] = (),
    ) -> None:
        """Make the next iteration continue after `state`. StateError for one that does not match.

        versions: of the datasets. layout: what the state's has to be, None for any. affinity: whether it has to have
        nodes.
        """
        rank, world_size = ranks
        cursor = read_state(state, order=order, rank=rank, world_size=world_size, versions=versions)
        if steps.sized_batches and state["world_size"] != world_size:
            fact = (
                f"epoch_size() after batch() makes different epochs with {state['world_size']} ranks and {world_size}"
            )
            raise StateError("load_state_dict()", fact, "call epoch_size() before batch(): then it counts samples")
        placement = read_placement(state)
        if layout is not None and layout != placement[0]:
            ranks_of = f"{placement[0]} rank{'s' * (placement[0] > 1)}"
            fact = f"the state's order is laid out for {ranks_of}, and this dataset's for {layout}"
            raise StateError("load_state_dict()", fact, f"use layout={placement[0]}, or omit it")
        if affinity != bool(placement[1]):
            fact = f"the state belongs to an order with{'out' * affinity} `node_affinity`"
            raise StateError("load_state_dict()", fact, "open the dataset as it was when the state was saved")
        self.load(cursor, placement)


def _restore(following: int, resume: Cursor | None, placement: Placement | None) -> ReadPosition:
    position = ReadPosition(following)
    position.resume, position.placement = resume, placement
    return position


def read_placement(state: Mapping[str, Any]) -> Placement:
    """The layout of a state. StateError for a damaged one."""
    if state["version"] == 1:
        return FIRST_PLACEMENT
    sections, node = state.get("layout"), state.get("node")
    if isinstance(sections, int) and isinstance(node, int) and sections <= MOST_SECTIONS and 0 <= node <= sections >= 1:
        return sections, node
    raise StateError("load_state_dict()", "the state is damaged", "give the result of state_dict()")


def make_state(
    cursor: Cursor, *, order: str, rank: int, world_size: int, placement: Placement, filtered: bool
) -> dict[str, Any]:
    """The state, plain JSON. `order` is the text that determines the order of samples; its digest is stored."""
    return {
        "version": STATE_VERSION,
        "order": digest(order),
        "epoch": cursor.epoch,
        "samples": cursor.done + cursor.taken * world_size,
        "items": cursor.delivered,
        "turn": cursor.turn,
        "rank": rank,
        "world_size": world_size,
        "layout": placement[0],
        "node": placement[1],
        "filtered": filtered,
    }


def read_state(state: Any, *, order: str, rank: int, world_size: int, versions: Sequence[int] = ()) -> Cursor:
    """The cursor of a state. StateError for one of another version, dataset or order, or of another form."""
    cure = "load it into the dataset that it came from, with the same files, shuffle, seed and lanes"
    if not isinstance(state, dict) or "version" not in state:
        raise StateError(
            "load_state_dict()", "this is not a state of a shardkit Dataset", "give the result of state_dict()"
        )
    if state["version"] not in range(1, STATE_VERSION + 1):
        fact = f"the state has version {state['version']!r}, and this shardkit reads versions 1 to {STATE_VERSION}"
        raise StateError("load_state_dict()", fact, "use the version of shardkit that wrote it")
    numbers = [state.get(name) for name in ("epoch", "samples", "items", "turn", "rank", "world_size")]
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise StateError("load_state_dict()", "the state is damaged", "give the result of state_dict()")
    if state.get("order") != digest(order):
        _require_versions(state.get("dataset_versions"), versions)
        fact = "the state belongs to another dataset, or to another order of it"
        raise StateError("load_state_dict()", fact, cure)
    if state.get("filtered") and (state["rank"], state["world_size"]) != (rank, world_size):
        fact = f"with filter() ranks are at different positions, and this is the state of rank {state['rank']}"
        raise StateError(
            "load_state_dict()", f"{fact} of {state['world_size']}", "save and load a separate state for each rank"
        )
    return Cursor(state["epoch"], state["samples"], 0, state["items"] if state["samples"] else 0, state["turn"])


def _require_versions(theirs: Any, mine: Sequence[int]) -> None:
    """StateError if a state is of other versions of corrected datasets."""
    if not isinstance(theirs, list) or len(theirs) != len(mine):
        theirs = [1] * len(mine)
    for before, now in zip(theirs, mine, strict=True):
        if before != now:
            fact = f"the state belongs to version {before} of the dataset, and this is version {now}"
            cure = f"open that version, as dataset('NAME@{before}'), or begin a new epoch with this one"
            raise StateError("load_state_dict()", fact, cure)


def digest(text: str) -> str:
    """32 hex digits for a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
