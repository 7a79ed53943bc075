"""A bounded number of threads over many tasks, results in the tasks' order.

Threads, not processes: the page cache gives bytes faster than they are summed, and reading, writing, decoding and
unpacking let go of the interpreter. A worker process takes longer to start than a small dataset to read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from shardkit.config import cores
from shardkit.errors import UsageError

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def thread_count(workers: int | None) -> int:
    """The threads to use: as the caller says, or the cores of this process. UsageError for less than one."""
    if workers is None:
        return cores()
    if workers < 1:
        raise UsageError("workers", f"{workers} is too small", "give at least 1")
    return workers


def in_threads(function: Callable[[_Task], _Result], tasks: Iterable[_Task], workers: int) -> Iterator[_Result]:
    """`function` of each task, in order; at most `workers` run and as many wait to be taken. Raises the first error."""
    if workers == 1:
        yield from map(function, tasks)
        return
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(workers, "shardkit") as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(function, task))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
