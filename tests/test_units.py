"""What results show of themselves: one short line."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

import shardkit
from shardkit.shards.manifest import ClassEntry, Manifest
from shardkit.units import SHOWN_TEXT, short_repr, short_value


@dataclass(frozen=True)
class Result:
    source: str
    samples: int
    findings: tuple[int, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)
    whole: bool = True
    note: str | None = None

    __repr__ = short_repr


def test_a_result_shows_its_numbers_and_omits_what_is_usual_or_empty() -> None:
    assert repr(Result("a", 3)) == "Result(source='a', samples=3)"
    assert repr(Result("a", 3, (1, 2), {"b": 1}, False, "n")) == (
        "Result(source='a', samples=3, findings=(1, 2), sizes=<1>, whole=False, note='n')"
    )


def test_long_lists_are_shown_as_their_number() -> None:
    assert repr(Result("a", 3, tuple(range(2000)))) == "Result(source='a', samples=3, findings=<2,000>)"
    assert short_value(["x" * SHOWN_TEXT]) == "<1>"
    assert len(short_value("x" * 1000)) <= SHOWN_TEXT


def test_a_manifest_is_one_line_however_many_classes_it_has() -> None:
    classes = tuple(ClassEntry(f"class {number}", 1) for number in range(1000))
    made = Manifest(
        shard_format="tar", samples=1000, bytes=9, classes=classes, fields=("cls", "jpg"), shards=(), index=(),
        options={}, plan="x",
    )  # fmt: skip
    assert "samples=1000" in repr(made) and "classes=<1,000>" in repr(made) and len(repr(made)) < 250


@pytest.mark.parametrize(
    "name", ["BenchResult", "ContactSheet", "DatasetInfo", "Exported", "PackPlan", "Repaired", "Report", "Verification"]
)
def test_results_are_short(name: str) -> None:
    assert getattr(shardkit, name).__repr__ is short_repr
