"""Keyword arguments that have moved."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import pytest

from shardkit.errors import UsageError
from shardkit.options.old_keywords import Moved, accept_old_keywords, moved_into, spell


@dataclass(frozen=True)
class Size:
    width: int = 1
    height: int = 1


@accept_old_keywords(moved_into("size", Size))
def drawn(name: str, *, size: Size | None = None, color: str = "red") -> tuple[str, Size | None, str]:
    """Draws."""
    return name, size, color


old: Any = drawn  # a type checker knows the new spelling alone


def test_the_old_spelling_works_and_the_warning_gives_the_new_one() -> None:
    with pytest.warns(DeprecationWarning) as caught:
        assert old("a", width=3, color="blue") == ("a", Size(3, 1), "blue")
    assert str(caught[0].message) == "drawn(): width=3 is deprecated, write size=shardkit.Size(width=3)"


def test_the_warning_is_for_the_line_that_calls() -> None:
    with pytest.warns(DeprecationWarning) as caught:
        old("a", height=2, width=3)
    assert caught[0].filename == __file__
    assert "write size=shardkit.Size(width=3, height=2)" in str(caught[0].message)


def test_the_new_spelling_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn("a", size=Size(2)) == ("a", Size(2), "red")
    assert drawn.__doc__ == "Draws."


def test_both_spellings_together_are_refused() -> None:
    with pytest.raises(UsageError, match="width: given together with size"):
        old("a", width=3, size=Size())


def test_a_keyword_that_never_was_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="depth"):
        old("a", depth=3)


def test_a_move_may_name_another_function() -> None:
    @accept_old_keywords(lambda kwargs: Moved(spell({"dry": kwargs.pop("dry")}), "plan()", lambda: "planned"))
    def done() -> str:
        return "done"

    again: Any = done
    with pytest.warns(DeprecationWarning, match=r"done\(\): dry=True is deprecated, write plan\(\)"):
        assert again(dry=True) == "planned"
