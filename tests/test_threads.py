"""Jobs in threads: results in order, few under way, the first error, and an end that does not wait."""

from __future__ import annotations

import os
import re
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import shardkit
from shardkit.errors import UsageError
from shardkit.system import POSIX
from shardkit.threads import BackgroundCall, cached_property, in_threads, thread_count
from shardkit.units import cores


class Slow:
    """A value that is computed while `going` is not set."""

    def __init__(self) -> None:
        self.begun, self.going = threading.Event(), threading.Event()
        self.times = 0

    @cached_property
    def value(self) -> object:
        """What it is."""
        self.times += 1
        self.begun.set()
        assert self.going.wait(30)
        return object()


def test_a_cached_property_is_computed_once_and_known_by_its_docstring() -> None:
    slow = Slow()
    slow.going.set()
    assert slow.value is slow.value
    assert slow.times == 1
    assert Slow.value.__doc__ == "What it is."
    del slow.__dict__["value"]
    slow.__dict__["value"] = 3
    assert slow.value == 3


def test_threads_that_ask_for_a_value_at_once_all_get_the_same() -> None:
    slow = Slow()
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(slow.value)) for _ in range(4)]
    for thread in threads:
        thread.start()
    slow.begun.wait(30)
    slow.going.set()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(map(id, found))) == 1


@pytest.mark.skipif(not POSIX, reason="this system does not fork")
def test_a_process_that_is_forked_while_a_value_is_computed_can_compute_others() -> None:
    slow, other = Slow(), Slow()
    other.going.set()
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    slow.begun.wait(30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on, of a fork beside threads
        child = os.fork()
    if not child:
        signal.alarm(20)  # which ends a process that hangs
        os._exit(0 if other.value is not None else 1)
    slow.going.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_no_file_takes_the_cached_property_that_locks() -> None:
    files = Path(shardkit.__file__).parent.rglob("*.py")
    found = [
        path.name for path in files if re.search(r"from functools import .*cached_property", path.read_text("utf-8"))
    ]
    assert found == ["threads.py"]


def test_results_come_in_the_order_of_the_tasks() -> None:
    released = threading.Event()

    def slow_first(number: int) -> int:
        if number == 0:
            assert released.wait(30)
        else:
            released.set()
        return number * number

    assert list(in_threads(slow_first, range(20), 2)) == [n * n for n in range(20)]


@pytest.mark.parametrize(("workers", "ahead", "most"), [(2, None, 4), (3, None, 6), (4, 4, 4), (2, 1, 1), (1, None, 1)])
def test_few_tasks_are_taken_ahead(workers: int, ahead: int | None, most: int) -> None:
    taken = 0

    def tasks() -> Iterator[int]:
        nonlocal taken
        for number in range(50):
            taken += 1
            yield number

    for done, _ in enumerate(in_threads(lambda n: n, tasks(), workers, ahead=ahead)):
        assert taken - done <= most
    assert taken == 50


def test_the_first_error_in_the_tasks_order_is_raised_and_the_rest_is_dropped() -> None:
    begun = []

    def fails(number: int) -> int:
        begun.append(number)
        if number >= 3:
            raise ValueError(str(number))
        return number

    results = in_threads(fails, range(1000), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"^3$"):
        next(results)
    assert len(begun) <= 4 + 2 * 2


def test_a_closed_iterator_drops_what_has_not_begun() -> None:
    begun: list[int] = []
    results = in_threads(lambda n: begun.append(n), range(1000), 2)
    next(results)
    results.close()
    assert len(begun) <= 4


def test_the_number_of_threads_is_the_callers_or_that_of_the_cores() -> None:
    assert thread_count(None) == cores()
    assert thread_count(1) == 1
    with pytest.raises(UsageError, match="workers: 0 is too small"):
        thread_count(0)


def test_a_call_in_the_background_gives_its_result_or_its_error() -> None:
    assert BackgroundCall(lambda: 5).result() == 5
    with pytest.raises(KeyError, match="x"):
        BackgroundCall(lambda: {}["x"]).result()
    never = threading.Event()
    waiting = BackgroundCall(never.wait)
    assert not waiting.wait(0.01)
    never.set()
    assert waiting.wait(30)
