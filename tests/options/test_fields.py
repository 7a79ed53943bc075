"""What the fields of a dataclass say of options, and the check of their limits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from shardkit.errors import UsageError
from shardkit.options.fields import AtLeast, AtMost, Help, Takes, Words, checked_by, options_of, require_limits


@dataclass(frozen=True)
class Drawing:
    count: Annotated[int | None, AtLeast(1), Help("How many.")] = None
    side: Annotated[int, AtLeast(16), AtMost(1024), Help("How large.")] = 64
    depth: Annotated[int, AtMost(3), Help("How deep.")] = 1
    share: Annotated[float, AtLeast(0), AtMost(1), Help("Which part.")] = 0.5
    sizes: Annotated[Sequence[int] | None, Takes.NUMBERS, AtLeast(1), Help("Which sizes.")] = None
    kind: Annotated[Literal["a", "b"] | None, Help("Which kind.")] = None
    where: Annotated[Literal["here"] | Drawing, Words(("here", "there")), Help("Where.")] = "here"


@checked_by(Drawing)
def draw(name: str, *, count: int | None = None, side: int = 64, other: object = None) -> tuple[Any, ...]:
    """Draws."""
    return name, count, side, other


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 0}, "count: 0 is too small; give at least 1"),
        ({"count": "3"}, "count: '3' is not a whole number; give at least 1"),
        ({"count": 1.0}, "count: 1.0 is not a whole number"),
        ({"count": True}, "count: True is not a whole number"),
        ({"side": None}, "side: None is not a whole number"),
        ({"side": 15}, "side: 15 is out of range; give 16 to 1,024"),
        ({"side": 1025}, "side: 1025 is out of range; give 16 to 1,024"),
        ({"depth": 4}, "depth: 4 is out of range; give at most 3"),
        ({"share": float("nan")}, "share: nan is out of range; give 0 to 1"),
        ({"share": "half"}, "share: 'half' is not a number"),
        ({"sizes": [2, 0]}, "sizes: 0 is too small; give at least 1"),
        ({"sizes": 3}, "sizes: 3 is not a list of numbers"),
        ({"sizes": "3"}, "sizes: '3' is not a list of numbers"),
        ({"kind": "c"}, "kind: 'c' is not one of a, b; choose one of these"),
        ({"side": 16, "count": -1}, "count: -1 is too small"),
    ],
)
def test_a_value_outside_its_limits_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        require_limits(Drawing, given)


def test_values_within_their_limits_pass() -> None:
    for side in (16, 1024, np.int64(20)):
        require_limits(Drawing, {"side": side, "count": 1, "share": 1, "sizes": (1, 2), "kind": "b", "other": object()})
    require_limits(Drawing, {"count": None, "sizes": None, "kind": None, "depth": -(10**9), "where": Drawing()})


def test_the_arguments_of_a_call_are_checked_and_the_function_stays_what_it_is() -> None:
    assert draw("a", count=2, other="x") == ("a", 2, 64, "x")
    assert draw.__doc__ == "Draws."
    with pytest.raises(UsageError, match="side: 8 is out of range"):
        draw("a", side=8)


def test_limits_are_told_in_words() -> None:
    limits = {option.name: option.limits for option in options_of(Drawing)}
    assert limits == {
        "count": "at least 1", "side": "16 to 1,024", "depth": "at most 3", "share": "0 to 1", "sizes": "at least 1",
        "kind": "", "where": "",
    }  # fmt: skip


def test_words_of_the_command_line_are_not_the_choices_of_the_function() -> None:
    where = options_of(Drawing)[-1]
    assert (where.choices, where.words) == ((), ("here", "there"))
