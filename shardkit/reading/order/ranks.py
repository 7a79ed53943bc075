"""Find this process's rank and the world size, from frameworks and launchers."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

from shardkit.errors import UsageError

log = logging.getLogger(__name__)

LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),  # torchrun, accelerate
    ("HOROVOD_RANK", "HOROVOD_SIZE"),  # horovodrun
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    ("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"),  # jsrun of LSF
    ("FLUX_TASK_RANK", "FLUX_JOB_SIZE"),  # Flux
    ("PALS_RANKID", "PMI_SIZE"),  # PALS, with an MPI
    ("PMI_RANK", "PMI_SIZE"),  # MPICH, Intel MPI
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),  # srun; a batch script itself is not a step with several tasks
    ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES"),  # jax.distributed, before it is initialized
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),  # an indexed job of Kubernetes, whose manifest sets the second
)
"""Environment variables for rank and world size; the first pair of which both are set counts."""

RANK_ONLY = (
    "PALS_RANKID", "PMIX_RANK", "SLURM_PROCID", "JAX_PROCESS_ID", "JOB_COMPLETION_INDEX", "HOROVOD_RANK",
    "OMPI_COMM_WORLD_RANK", "JSM_NAMESPACE_RANK", "FLUX_TASK_RANK", "PMI_RANK",
)  # fmt: skip
"""Variables of launchers that may give only the rank. A rank above 0 is one of an unknown number of ranks;
rank 0 also occurs in a batch script, an interactive allocation and a Kubernetes job of one pod."""

TF_CONFIG = "TF_CONFIG"
TF_WORKERS = ("chief", "master", "worker")
"""The tasks of TF_CONFIG that train, in numbering order. An evaluator reads everything."""

_SAID: set[str] = set()
"""Messages already logged: each is logged once per process."""


def find_rank(
    rank: int | None, world_size: int | None, environment: Mapping[str, str] | None = None
) -> tuple[int, int]:
    """(rank, world size): as given, else from torch.distributed, JAX, Ray Train, or the environment; else (0, 1).

    They are queried only if the program has imported and initialized them. Raises UsageError if only one is
    given, or for invalid values.
    """
    if (rank is None) != (world_size is None):
        raise UsageError("rank, world_size", "one is given without the other", "give both, or neither")
    if rank is not None and world_size is not None:
        return _check_ranks(rank, world_size, "rank, world_size")
    found = (
        _from_torch()
        or _from_jax()
        or _from_ray()
        or _from_environment(os.environ if environment is None else environment)
    )
    if found is None:
        return 0, 1
    ranks, place = found[:2], found[2]
    said = f"rank {ranks[0]} of {ranks[1]}, from {place}"
    if ranks[1] > 1 and said not in _SAID:
        _SAID.add(said)
        log.info("%s", said)
    return ranks


NODE_SIZES = (
    "LOCAL_WORLD_SIZE",  # torchrun, accelerate
    "HOROVOD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "PALS_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE",
)  # fmt: skip
"""Environment variables for the number of ranks on a node; the first one that is set counts."""


def find_node(environment: Mapping[str, str] | None = None) -> int:
    """The number of ranks on each node, from the environment. Raises UsageError if it is not there."""
    found = os.environ if environment is None else environment
    name = next((name for name in NODE_SIZES if found.get(name)), None)
    if name is None:
        fact = "the number of ranks on a node is unknown: none of $" + ", $".join(NODE_SIZES) + " is set"
        raise UsageError("node_affinity", fact, "give the number instead of True, such as node_affinity=8")
    size = _number(found[name], f"${name}")
    if size < 1:
        raise UsageError(f"${name}", f"{size} is not a number of ranks", "give the number as node_affinity=")
    return size


def _from_torch() -> tuple[int, int, str] | None:
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return int(distributed.get_rank()), int(distributed.get_world_size()), "torch.distributed"


def _from_jax() -> tuple[int, int, str] | None:
    jax = sys.modules.get("jax")
    if jax is None or not hasattr(jax, "distributed") or not jax.distributed.is_initialized():
        return None
    process = jax_process()
    if process is not None:
        return process[0], process[1], "jax.distributed"
    return int(jax.process_index()), int(jax.process_count()), "jax.distributed"


def _from_ray() -> tuple[int, int, str] | None:
    """In a worker of Ray Train: what its context says, if there is no process group yet, or never one."""
    train = sys.modules.get("ray.train")
    if train is None:
        return None
    try:
        context = train.get_context()
        ranks = context.get_world_rank(), context.get_world_size()
    except (AttributeError, RuntimeError):  # not in a worker of Ray Train
        return None
    return None if None in ranks else (*ranks, "ray.train")


def jax_process() -> tuple[int, int, Any] | None:
    """(number of this process, number of processes, the client of their service) of jax.distributed.

    It is not a public API, but JAX's public functions start its backends, for which all processes wait for each other.
    """
    state = getattr(sys.modules.get("jax._src.distributed"), "global_state", None)
    number, count = getattr(state, "process_id", None), getattr(state, "num_processes", None)
    client = getattr(state, "client", None)
    return None if client is None or number is None or count is None else (int(number), int(count), client)


SLURM_ALLOCATION = ("SLURM_PROCID", "SLURM_NTASKS")
"""The tasks of an allocation, which are those of a step too where Slurm gives its number, but not that of its tasks."""

SLURM_STEPS = ("SLURM_STEP_ID", "SLURM_STEPID")


def _from_environment(environment: Mapping[str, str]) -> tuple[int, int, str] | None:
    step = any(environment.get(name) for name in SLURM_STEPS)
    for rank, world_size in (*LAUNCHERS, SLURM_ALLOCATION) if step else LAUNCHERS:
        if environment.get(rank) and environment.get(world_size):
            place = f"${rank}, ${world_size}"
            found = _number(environment[rank], place), _number(environment[world_size], place)
            return *_check_ranks(*found, place), place
    if environment.get(TF_CONFIG):
        return _from_tf_config(environment[TF_CONFIG])
    for name in RANK_ONLY:
        text = environment.get(name)
        if text and text.isdecimal() and int(text) > 0:
            fact = f"this is process {int(text)} of several, but their number is unknown"
            sizes = [size for rank, size in LAUNCHERS if rank == name]
            also = f", or set ${sizes[0]}" if sizes else ""
            raise UsageError(f"${name}", fact, f"give rank= and world_size= (0 and 1 to read everything){also}")
    return None


def _number(text: str, place: str) -> int:
    try:
        return int(text)
    except ValueError as exc:
        raise UsageError(place, f"{text!r} is not a whole number", "give rank= and world_size=") from exc


def _from_tf_config(text: str) -> tuple[int, int, str] | None:
    """The rank among the tasks that train; None for an evaluator, or if there is only one task."""
    cure = "fix the variable, or give rank= and world_size="
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster") or {}, config.get("task") or {}
        sizes = {kind: len(hosts) for kind, hosts in cluster.items()}
        kind, index = task.get("type"), int(task.get("index", 0))
    except (AttributeError, TypeError, ValueError, RecursionError) as exc:
        raise UsageError(f"${TF_CONFIG}", "it is not the JSON of a cluster and a task", cure) from exc
    if sum(sizes.values()) <= 1 or kind == "evaluator":
        return None
    if sizes.get("ps"):
        fact = "it has parameter servers, and it is not known which task reads what"
        raise UsageError(f"${TF_CONFIG}", fact, "give rank= and world_size= (0 and 1 to read everything)")
    if kind not in TF_WORKERS or kind not in sizes:
        raise UsageError(f"${TF_CONFIG}", f"its task {kind!r} is not one of its cluster", cure)
    before = sum(sizes.get(other, 0) for other in TF_WORKERS[: TF_WORKERS.index(kind)])
    world_size = sum(sizes.get(other, 0) for other in TF_WORKERS)
    return *_check_ranks(before + index, world_size, f"${TF_CONFIG}"), f"${TF_CONFIG}"


def _check_ranks(rank: int, world_size: int, place: str) -> tuple[int, int]:
    for value in (rank, world_size):
        if isinstance(value, bool) or not isinstance(value, int):
            raise UsageError(place, f"{value!r} is not a whole number", "give whole numbers")
    if not 0 <= rank < world_size:
        raise UsageError(place, f"there is no rank {rank} in a world of size {world_size}", "ranks start at 0")
    return rank, world_size
