"""Which part of a packing a run writes: number 3 of 16."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from shardkit.errors import UsageError

PartLike = str | tuple[int, int]

MOST_PARTS = 99_999

_CURE = 'give the number and the count, such as "3/16"; the first part is 1'


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """Part `number` of `count`, from 1 on. UsageError for other numbers."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count <= MOST_PARTS:
            raise UsageError("part", f"there is no part {self.number} of {self.count}", _CURE)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def name(self) -> str:
        """The beginning of the names of its files: `00003-of-00016`."""
        return f"{self.number:05d}-of-{self.count:05d}"

    def share(self, shards: int) -> range:
        """The numbers of its shards: a run of them. The runs of all parts differ by at most one shard in length."""
        return range((self.number - 1) * shards // self.count, self.number * shards // self.count)

    def others(self) -> list[Part]:
        """The other parts."""
        return [Part(number, self.count) for number in range(1, self.count + 1) if number != self.number]


def part_of(given: PartLike | None) -> Part | None:
    """The part for what a user gave: "3/16", (3, 16), or "auto" for the part that the scheduler names. UsageError."""
    if given is None:
        return None
    if given == "auto":
        return scheduled(os.environ)
    if isinstance(given, str):
        found = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", given)
        if found is None:
            raise UsageError("part", f"{given!r} is not the number of a part", _CURE)
        return Part(int(found[1]), int(found[2]))
    numbers = tuple(given)
    if len(numbers) != 2 or not all(type(number) is int for number in numbers):
        raise UsageError("part", f"{given!r} is not the number of a part", _CURE)
    return Part(*numbers)


def scheduled(environment: Mapping[str, str]) -> Part:
    """The part of a task of a SLURM array or of an indexed job of Kubernetes. UsageError for anything else.

    SLURM_ARRAY_TASK_ID counts from SLURM_ARRAY_TASK_MIN to _MAX in steps of _STEP. Kubernetes sets JOB_COMPLETION_INDEX
    alone; JOB_COMPLETIONS is for the manifest of the job to set.
    """
    slurm = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT")
    if slurm[0] in environment:
        task, first, count = (_number(environment, name) for name in slurm)
        step = _number(environment, "SLURM_ARRAY_TASK_STEP") if "SLURM_ARRAY_TASK_STEP" in environment else 1
        number, rest = divmod(task - first, max(1, step))
        if rest or not 0 <= number < count:
            fact = f"task {task} is not one of {count} tasks from {first} on in steps of {step}"
            raise UsageError("part", fact, "make an array without gaps, such as --array=1-16")
        return Part(number + 1, count)
    if "JOB_COMPLETION_INDEX" in environment:
        count = _number(environment, "JOB_COMPLETIONS")
        return Part(_number(environment, "JOB_COMPLETION_INDEX") + 1, count)
    fact = "it is auto, and neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set"
    raise UsageError("part", fact, "run it as a task of an array, or " + _CURE)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not re.fullmatch("[0-9]{1,9}", text):
        fact = f"it is auto, and {name} is {text!r}" if text else f"it is auto, and {name} is not set"
        raise UsageError("part", fact, f"set {name}, or " + _CURE)
    return int(text)
