from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import shardkit
from shardkit.errors import UsageError
from shardkit.reading.order import ranks
from shardkit.reading.order.ranks import LAUNCHERS, NODE_SIZES, RANK_ONLY, TF_CONFIG, find_node, find_rank


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in LAUNCHERS:
        for name in names:
            monkeypatch.delenv(name, raising=False)
    for name in (*RANK_ONLY, TF_CONFIG):
        monkeypatch.delenv(name, raising=False)
    for module in ("torch.distributed", "jax", "jax._src.distributed"):
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
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "6", "SLURM_STEP_ID": "0"}, (0, 6)),
        ({"JOB_COMPLETION_INDEX": "2", "JOB_COMPLETIONS": "5"}, (2, 5)),
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


def test_jax_is_not_made_to_start_its_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its public functions do, and wait there for all other processes."""
    state = SimpleNamespace(process_id=1, num_processes=4, client=object())
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(distributed=SimpleNamespace(is_initialized=lambda: True)))
    monkeypatch.setitem(sys.modules, "jax._src.distributed", SimpleNamespace(global_state=state))
    assert find_rank(None, None, {}) == (1, 4)


@pytest.mark.parametrize(
    ("rank", "world_size"), [(0, None), (None, 2), (2, 2), (-1, 2), (0, 0), (True, 2), (0, 2.0), ("0", "2")]
)
def test_values_without_sense_are_refused(rank: Any, world_size: Any) -> None:
    with pytest.raises(UsageError, match="rank"):
        find_rank(rank, world_size, {})


@pytest.mark.parametrize(("rank", "world_size"), LAUNCHERS)
def test_every_launcher_of_the_table_is_taken(rank: str, world_size: str) -> None:
    assert find_rank(None, None, {rank: "1", world_size: "3"}) == (1, 3)


@pytest.mark.parametrize("name", RANK_ONLY)
def test_one_of_several_processes_of_an_unknown_number_is_refused(name: str) -> None:
    """Rank 0 alone is what a batch script, and a job of one process, have as well."""
    with pytest.raises(UsageError, match=rf"\${name}: this is process 2 of several.*give rank= and world_size="):
        find_rank(None, None, {name: "2"})
    assert find_rank(None, None, {name: "0"}) == (0, 1)
    assert find_rank(1, 4, {name: "2"}) == (1, 4)


def test_a_slurm_allocation_is_not_a_step_of_several_tasks() -> None:
    shell = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_NPROCS": "8"}
    assert find_rank(None, None, shell) == (0, 1)  # salloc
    assert find_rank(None, None, shell | {"SLURM_PROCID": "0"}) == (0, 1)  # the body of an sbatch script
    step = shell | {"SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}
    assert find_rank(None, None, step) == (0, 1)  # srun --pty bash


def tf_config(kind: str, index: int, **cluster: int) -> dict[str, str]:
    hosts = {name: [f"host{number}:1" for number in range(count)] for name, count in cluster.items()}
    return {TF_CONFIG: json.dumps({"cluster": hosts, "task": {"type": kind, "index": index}})}


def test_the_workers_of_tf_config_are_ranks_and_the_chief_is_the_first() -> None:
    assert find_rank(None, None, tf_config("worker", 1, worker=2)) == (1, 2)
    assert find_rank(None, None, tf_config("chief", 0, chief=1, worker=2)) == (0, 3)
    assert find_rank(None, None, tf_config("worker", 0, worker=2, chief=1)) == (1, 3)
    assert find_rank(None, None, tf_config("evaluator", 0, worker=2, chief=1)) == (0, 1)
    assert find_rank(None, None, tf_config("worker", 0, worker=1)) == (0, 1)
    assert find_rank(None, None, {TF_CONFIG: "{}"}) == (0, 1)


@pytest.mark.parametrize(
    "environment", [tf_config("worker", 0, worker=2, ps=1), tf_config("worker", 2, worker=2), {TF_CONFIG: "[1]"},
                    tf_config("other", 0, worker=2), {TF_CONFIG: "{"}],
)  # fmt: skip
def test_a_tf_config_that_says_no_rank_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"\$TF_CONFIG: .*rank"):
        find_rank(None, None, environment)


def test_the_log_says_once_where_the_rank_comes_from(caplog: pytest.LogCaptureFixture) -> None:
    ranks._SAID.clear()
    with caplog.at_level("INFO", ranks.log.name):
        for _ in range(2):
            for rank, size in ((0, 1), (1, 2), (1, 4)):  # a rank alone is not worth a word
                find_rank(None, None, {"HOROVOD_RANK": f"{rank}", "HOROVOD_SIZE": f"{size}"})
    assert caplog.messages == [f"rank 1 of {size}, from $HOROVOD_RANK, $HOROVOD_SIZE" for size in (2, 4)]


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


@pytest.mark.parametrize("name", NODE_SIZES)
def test_a_launcher_says_how_many_ranks_a_node_has(name: str) -> None:
    assert find_node({name: "4"}) == 4


@pytest.mark.parametrize(
    ("environment", "match"),
    [({}, "is unknown"), ({NODE_SIZES[0]: "0"}, "not a number of ranks"), ({NODE_SIZES[0]: "x"}, "not a whole number")],
)
def test_the_ranks_of_a_node_are_told_or_refused(environment: dict[str, str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        find_node(environment)
