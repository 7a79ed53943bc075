"""Which rank this process is, of how many: found where frameworks and launchers say it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from shardkit.errors import UsageError

LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),  # torchrun, accelerate
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    ("PMI_RANK", "PMI_SIZE"),  # MPICH, Intel MPI
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),  # srun; the batch script itself is no step of several tasks
)
"""Environment variables for rank and world size, the first that are both there count."""


def find_rank(
    rank: int | None, world_size: int | None, environment: Mapping[str, str] | None = None
) -> tuple[int, int]:
    """(rank, world size): as given, else from torch.distributed, JAX, or the environment; (0, 1) where nobody says.

    torch and JAX are asked only where the program has imported them and set their processes up.
    Raises UsageError for one without the other, or for values that make no sense.
    """
    if (rank is None) != (world_size is None):
        raise UsageError("rank, world_size", "one is given without the other", "give both, or neither")
    if rank is not None and world_size is not None:
        return _checked(rank, world_size, "rank, world_size")
    return _from_torch() or _from_jax() or _from_environment(os.environ if environment is None else environment)


def _from_torch() -> tuple[int, int] | None:
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return int(distributed.get_rank()), int(distributed.get_world_size())


def _from_jax() -> tuple[int, int] | None:
    jax = sys.modules.get("jax")
    if jax is None or not hasattr(jax, "distributed") or not jax.distributed.is_initialized():
        return None  # asking for the process index would start JAX's backends
    return int(jax.process_index()), int(jax.process_count())


def _from_environment(environment: Mapping[str, str]) -> tuple[int, int]:
    for rank, world_size in LAUNCHERS:
        if environment.get(rank) and environment.get(world_size):
            try:
                found = int(environment[rank]), int(environment[world_size])
            except ValueError as exc:
                fact = f"{environment[rank]!r} and {environment[world_size]!r} are no whole numbers"
                raise UsageError(f"${rank}, ${world_size}", fact, "give rank= and world_size=") from exc
            return _checked(*found, f"${rank}, ${world_size}")
    return 0, 1


def _checked(rank: int, world_size: int, place: str) -> tuple[int, int]:
    for value in (rank, world_size):
        if isinstance(value, bool) or not isinstance(value, int):
            raise UsageError(place, f"{value!r} is not a whole number", "give whole numbers")
    if not 0 <= rank < world_size:
        raise UsageError(place, f"there is no rank {rank} in a world of {world_size}", "ranks count from 0")
    return rank, world_size
