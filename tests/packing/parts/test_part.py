"""Which part a run writes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from storage.in_memory import refused

from shardkit.errors import UsageError
from shardkit.packing.parts.part import Part, part_of, scheduled


@pytest.mark.parametrize("given", ["3/16", " 3 / 16 ", (3, 16), [3, 16]])
def test_a_part_is_a_number_of_a_count(given: Any) -> None:
    part = part_of(given)
    assert part == Part(3, 16)
    assert str(part) == "3/16"


def test_no_part_is_no_part() -> None:
    assert part_of(None) is None


@pytest.mark.parametrize("given", ["", "3", "0/16", "17/16", "-1/3", "3/0", "a/b", "1/2/3", "1/100000", (0, 3), (1,),
                                   (1.0, 3), (True, 3), "1.5/3"])  # fmt: skip
def test_what_is_no_part_is_refused(given: Any) -> None:
    text = refused(UsageError, lambda: part_of(given))
    assert text.startswith("part: ")
    assert 'such as "3/16"' in text


@pytest.mark.parametrize(("shards", "count"), [(0, 1), (0, 5), (1, 5), (5, 5), (16, 3), (100_003, 16), (7, 2)])
def test_the_shares_are_equal_runs_that_cover_all(shards: int, count: int) -> None:
    shares = [Part(number, count).share(shards) for number in range(1, count + 1)]
    assert list(itertools.chain.from_iterable(shares)) == list(range(shards))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def slurm(task: int, first: int = 0, count: int = 16, step: int | None = None) -> dict[str, str]:
    found = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_MIN": first, "SLURM_ARRAY_TASK_COUNT": count}
    return {
        name: str(value) for name, value in (found | ({} if step is None else {"SLURM_ARRAY_TASK_STEP": step})).items()
    }


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        (slurm(0), Part(1, 16)),
        (slurm(16, 1), Part(16, 16)),
        (slurm(10, 2, 5, 4), Part(3, 5)),
        ({"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "4"}, Part(1, 4)),
        ({"JOB_COMPLETION_INDEX": "3", "JOB_COMPLETIONS": "4"}, Part(4, 4)),
    ],
)
def test_a_scheduler_names_the_part(environment: dict[str, str], part: Part) -> None:
    assert scheduled(environment) == part


@pytest.mark.parametrize(
    ("environment", "fact"),
    [
        ({}, "neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set"),
        ({"JOB_COMPLETION_INDEX": "0"}, "JOB_COMPLETIONS is not set"),
        ({"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "many"}, "JOB_COMPLETIONS is 'many'"),
        ({"JOB_COMPLETION_INDEX": "4", "JOB_COMPLETIONS": "4"}, "there is no part 5 of 4"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_MIN is not set"),
        (slurm(3, 0, 5, 2), "task 3 is not one of 5 tasks from 0 on in steps of 2"),
        (slurm(16), "task 16 is not one of 16 tasks from 0 on in steps of 1"),
    ],
)
def test_a_scheduler_that_names_no_part_is_told(environment: dict[str, str], fact: str) -> None:
    assert fact in refused(UsageError, lambda: scheduled(environment))


def test_auto_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    monkeypatch.setenv("JOB_COMPLETIONS", "3")
    assert part_of("auto") == Part(3, 3)
