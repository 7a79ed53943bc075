"""Apply one function to the shards of a dataset, in local threads or on the nodes of a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from shardkit.location import Location
from shardkit.packing.engine.options import EngineOptions
from shardkit.packing.engine.ray.cluster import Cluster
from shardkit.packing.engine.ray.map import Item, on_nodes
from shardkit.threads import in_threads, thread_count

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def over_shards(
    function: Callable[[_Task], _Result], tasks: Iterable[tuple[Location, _Task]], where: EngineOptions
) -> Iterator[_Result]:
    """Apply `function` (a module-level one) to each task; yield results in order, each with the shard that its task
    reads.

    Raises the first error. On a cluster, tasks and results are pickled, and the function may run twice.
    """
    if where.name == "local":
        yield from in_threads(function, (task for _, task in tasks), thread_count(where.workers))
        return
    items = (Item(task, os.path.abspath(shard.path) if shard.is_local else "") for shard, task in tasks)
    with Cluster(where.workers, where.address) as cluster:
        yield from on_nodes(cluster, f"{function.__module__}:{function.__qualname__}", items)
