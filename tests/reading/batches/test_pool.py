from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardkit.reading.batches import pool
from shardkit.reading.batches.pool import Task, Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(3)
    yield made
    made.close()


def test_results_come_in_the_order_of_the_tasks(threads: Threads) -> None:
    first_may_end = threading.Event()

    def part(number: int) -> None:
        if number == 0:
            assert first_may_end.wait(10)
        elif number == 2:
            first_may_end.set()

    tasks = (Task([lambda n=n: part(n)], lambda n=n: n) for n in range(6))
    assert list(threads.run_in_order(tasks, ahead=4)) == list(range(6))


def test_no_more_tasks_are_begun_than_may_be_ahead(threads: Threads) -> None:
    begun: list[int] = []

    def tasks() -> Iterator[Task[int]]:
        for number in range(10):
            begun.append(number)
            yield Task([lambda: None], lambda number=number: number)

    results = threads.run_in_order(tasks(), ahead=3)
    for number in range(5):
        assert next(results) == number
        assert begun == list(range(number + 3))


def test_a_task_ends_once_after_all_its_parts(threads: Threads) -> None:
    done: list[int] = []
    ended: list[int] = []
    task = Task([lambda n=n: done.append(n) for n in range(20)], lambda: ended.append(len(done)))
    list(threads.run_in_order([task], ahead=1))
    assert (sorted(done), ended) == (list(range(20)), [20])


def test_an_error_in_a_part_comes_out_and_the_task_does_not_end(threads: Threads) -> None:
    ended: list[int] = []

    def broken() -> None:
        raise ValueError("a part")

    task = Task([lambda: None, broken, lambda: None], lambda: ended.append(1))
    with pytest.raises(ValueError, match="a part"):
        list(threads.run_in_order([task], ahead=1))
    assert ended == []


def test_an_error_at_the_end_of_a_task_comes_out(threads: Threads) -> None:
    def broken() -> None:
        raise ValueError("the end")

    with pytest.raises(ValueError, match="the end"):
        list(threads.run_in_order([Task([lambda: None], broken)], ahead=1))


def test_closing_drops_what_was_not_begun_and_waits_for_what_was() -> None:
    pool, running, may_end, ran = Threads(1), threading.Event(), threading.Event(), list[int]()

    def slow() -> None:
        running.set()
        assert may_end.wait(10)
        ran.append(0)

    tasks = [Task([slow], lambda: 0), *(Task([lambda n=n: ran.append(n)], lambda: 0) for n in range(1, 4))]
    results = pool.run_in_order(tasks, ahead=9)
    waiter = threading.Thread(target=lambda: next(results, None))
    waiter.start()
    assert running.wait(10)
    closer = threading.Thread(target=pool.close)
    closer.start()
    while not pool._closed:
        pass
    may_end.set()
    closer.join(10)
    waiter.join(10)
    assert not closer.is_alive() and not waiter.is_alive()
    assert ran == [0]
    assert not any(thread.is_alive() for thread in pool._threads)


@pytest.mark.parametrize("how", ["raise SystemExit(3)", "raise KeyError('mine')", "pass"])
def test_a_script_that_ends_in_the_middle_of_an_iteration_ends_cleanly(
    cars: str, tmp_path: Path, how: str, run_python: Callable[..., Any]
) -> None:
    script = f"""
import shardkit
batches = shardkit.dataset({str(Path(cars).absolute())!r}, shuffle=9).decode(size=64).batch(4).repeat()
for images, labels in batches:
    break
kept = iter(batches)
next(kept)
{how}
"""
    for _ in range(3):
        ended = run_python("-c", script, cwd=tmp_path, check=False)
        assert ended.returncode == {"r": 3 if "Exit" in how else 1, "p": 0}[how[0]], ended.stderr


WAITING = """
import sys, threading
import shardkit
from shardkit.reading.batches import pool

pool.CLOSE_SECONDS = 0.1

items = iter(shardkit.dataset(sys.argv[1], threads=2).map(lambda sample: threading.Event().wait()))
threading.Thread(target=lambda: next(items), daemon=True).start()
while not any(thread.name == "shardkit-decode" for thread in threading.enumerate()):
    pass
print("the end")
"""


def test_a_map_that_waits_for_ever_does_not_keep_the_interpreter(cars: str, run_python: Any) -> None:
    done = run_python("-c", WAITING, cars, cwd=Path(cars).parent)
    assert "the end" in done.stdout


def test_closing_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(pool, "CLOSE_SECONDS", 0.05)
    waits, begun = threading.Event(), threading.Event()
    threads = pool.Threads(1)
    results = threads.run_in_order([pool.Task([lambda: (begun.set(), waits.wait())], lambda: None)] * 1, 1)
    consumer = threading.Thread(target=lambda: next(results), daemon=True)
    consumer.start()
    assert begun.wait(60)
    threads.close()
    assert ["is abandoned" in message for message in caplog.messages] == [True]
    waits.set()
    consumer.join(60)
    assert not consumer.is_alive()
