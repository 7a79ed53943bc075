from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

import shardkit
from shardkit.errors import UsageError
from shardkit.reading.ranks import LAUNCHERS, find_rank


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in LAUNCHERS:
        for name in names:
            monkeypatch.delenv(name, raising=False)
    for module in ("torch.distributed", "jax"):
        monkeypatch.delitem(sys.modules, module, raising=False)


def torch_distributed(initialized: bool) -> Any:
    return SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: initialized, get_rank=lambda: 3, get_world_size=lambda: 8
    )


def test_nobody_says_anything() -> None:
    assert find_rank(None, None, {}) == (0, 1)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RANK": "1", "WORLD_SIZE": "4"}, (1, 4)),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}, (2, 3)),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, (0, 2)),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "6"}, (5, 6)),
        ({"RANK": "1", "WORLD_SIZE": "4", "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "6"}, (1, 4)),
        ({"RANK": "1"}, (0, 1)),
        ({"RANK": "", "WORLD_SIZE": ""}, (0, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "6"}, (0, 1)),
    ],
)
def test_a_launcher_says_it_in_the_environment(environment: dict[str, str], expected: tuple[int, int]) -> None:
    assert find_rank(None, None, environment) == expected


def test_arguments_come_before_torch_and_torch_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.distributed", torch_distributed(True))
    environment = {"RANK": "1", "WORLD_SIZE": "4"}
    assert find_rank(0, 2, environment) == (0, 2)
    assert find_rank(None, None, environment) == (3, 8)
    monkeypatch.setitem(sys.modules, "torch.distributed", torch_distributed(False))
    assert find_rank(None, None, environment) == (1, 4)


def test_jax_says_it_where_it_is_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    def jax(initialized: bool) -> Any:
        distributed = SimpleNamespace(is_initialized=lambda: initialized)
        return SimpleNamespace(distributed=distributed, process_index=lambda: 1, process_count=lambda: 2)

    monkeypatch.setitem(sys.modules, "jax", jax(True))
    assert find_rank(None, None, {}) == (1, 2)
    monkeypatch.setitem(sys.modules, "jax", jax(False))
    assert find_rank(None, None, {}) == (0, 1)


@pytest.mark.parametrize(
    ("rank", "world_size"), [(0, None), (None, 2), (2, 2), (-1, 2), (0, 0), (True, 2), (0, 2.0), ("0", "2")]
)
def test_values_without_sense_are_refused(rank: Any, world_size: Any) -> None:
    with pytest.raises(UsageError, match="rank"):
        find_rank(rank, world_size, {})


@pytest.mark.parametrize("environment", [{"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}])
def test_an_environment_without_sense_is_named(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"\$RANK, \$WORLD_SIZE"):
        find_rank(None, None, environment)


def test_a_dataset_asks_when_it_is_read(cars: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = shardkit.dataset(cars, remainder="uneven")
    assert len(dataset) == 97
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert len(dataset) == 48
    assert len(list(dataset)) == 48
