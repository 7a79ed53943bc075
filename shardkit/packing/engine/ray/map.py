"""Map a function over many shards on the nodes of a Ray cluster, for `index` and `verify`."""

from __future__ import annotations

import importlib
import os
import pickle
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from shardkit.errors import ShardkitError, WorkerError
from shardkit.packing.engine.ray.cluster import Call, Cluster


class Item(msgspec.Struct, frozen=True):
    """The input of the function. path: the shard that it reads, if that is a file that all nodes should see."""

    value: Any
    path: str = ""


def on_nodes(cluster: Cluster, function: str, items: Iterable[Item]) -> Iterator[Any]:
    """The results of `function` ("module:name") for each item's value, in order. Raises the first error.

    WorkerError for a node that does not see an item's path although this machine does.
    """
    done: dict[int, Any] = {}
    turn = 0
    again = deque[Call]()
    calls = (_call(number, item, function, item.path) for number, item in enumerate(items))
    results = cluster.results(calls, again)
    try:
        for call, data in results:
            node, unseen, result = pickle.loads(data)
            number, item = call.about
            if unseen:
                if os.path.lexists(item.path):
                    fact = f"the node {node} does not see {item.path}, which this machine does"
                    raise WorkerError(item.path, fact, "mount it on all nodes, under the same path")
                again.append(replace(call, args=_call(number, item, function, "").args))
                continue
            if isinstance(result, ShardkitError):
                raise result
            done[number] = result
            while turn in done:
                yield done.pop(turn)
                turn += 1
    finally:
        results.close()


def _call(number: int, item: Item, function: str, path: str) -> Call:
    # Pickles pass only between processes of this run: none is read from elsewhere.
    args = function.encode(), pickle.dumps(item.value), os.fsencode(path)
    return Call(os.path.basename(item.path) or function, f"{__name__}:{answer.__name__}", args, (number, item))


def answer(function: bytes, value: bytes, path: bytes) -> bytes:
    """On a node: (its name, whether it lacks the path, the function's result or its ShardkitError), pickled."""
    node = socket.gethostname()
    if path and not os.path.lexists(path):
        return pickle.dumps((node, True, None))
    module, _, name = function.decode().partition(":")
    try:
        result = getattr(importlib.import_module(module), name)(pickle.loads(value))
    except ShardkitError as exc:
        result = exc
    return pickle.dumps((node, False, result))
