"""How many of the ranks are on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping

LOCAL_SIZES = (
    "LOCAL_WORLD_SIZE",  # torchrun
    "HOROVOD_LOCAL_SIZE",  # horovodrun
    "OMPI_COMM_WORLD_LOCAL_SIZE",  # Open MPI
    "MPI_LOCALNRANKS",  # MPICH, Intel MPI
    "SLURM_NTASKS_PER_NODE",  # srun, where it was asked for so many
)
"""Environment variables for the number of ranks of this machine; the first that is set counts."""


def local_ranks(world_size: int, environment: Mapping[str, str] | None = None) -> int:
    """The number of ranks on this machine, of `world_size`; all of them where no launcher tells it."""
    variables = os.environ if environment is None else environment
    for name in LOCAL_SIZES:
        found = variables.get(name, "")
        if found.isdigit() and int(found) > 0:
            return min(int(found), world_size)
    return world_size
