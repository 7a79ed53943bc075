"""Threads that wait for a store: how long they are waited for, and how they end."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shardkit.errors import StorageError
from shardkit.storage import fetchers as module
from shardkit.storage.fetchers import Fetchers


def test_a_job_is_waited_for_in_turns_of_a_second_or_of_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a store that says nothing is told of at the limit, and not at the second one."""
    for limit, turn in ((60.0, 1.0), (0.25, 0.25)):
        clock, turns = itertools.count(0, 2 * limit), list[float]()
        monkeypatch.setattr("shardkit.storage.fetchers.time.monotonic", lambda clock=clock: float(next(clock)))
        monkeypatch.setattr(module, "GRACE_SECONDS", limit)
        job = cast(Any, SimpleNamespace(place="here", done=SimpleNamespace(wait=turns.append)))
        with pytest.raises(StorageError, match="here"):
            Fetchers(limit).wait(job)
        assert turns == [turn, turn]


def test_threads_that_were_ended_end_once_and_no_more_are_begun() -> None:
    pool = Fetchers(60.0)
    assert pool.submit(lambda: 5, "here").value() == 5
    pool.end()
    pool.end()
    pool.join(10.0)
    assert pool._jobs.empty()
    job = pool.submit(lambda: 6, "here")
    assert len(pool._threads) == 1 and not job.done.is_set()


def test_what_was_not_begun_when_threads_are_closed_is_forgotten() -> None:
    pool = Fetchers(60.0, count=0)  # no thread
    jobs = [pool.submit(lambda: 1, "here") for _ in range(3)]
    pool.close()
    assert [job.act for job in jobs] == [None] * 3
    assert pool._jobs.empty()
    assert not any(job.done.is_set() or job.failed for job in jobs)


def test_a_job_that_is_not_done_is_waited_for_and_one_that_is_done_is_not() -> None:
    waits: list[module.Job] = []

    def wait(job: module.Job) -> None:
        waits.append(job)
        job.run()

    job = module.Job(cast(Any, SimpleNamespace(wait=wait)), lambda: 5, "here", 1)
    assert [job.value(), job.value()] == [5, 5]
    assert waits == [job]


def test_at_the_end_of_the_process_all_threads_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LIVE", type(module._LIVE)())
    pools = [Fetchers(60.0), Fetchers(60.0)]
    assert [pool.submit(lambda: 5, "here").value() for pool in pools] == [5, 5]
    module._close_all()
    assert not any(thread.is_alive() for pool in pools for thread in pool._threads)
    assert [len(pool._threads) for pool in pools] == [1, 1]


def test_threads_that_do_not_end_are_waited_for_together_no_longer_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waits = [100.0], list[float]()

    def join(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += min(seconds, 2.0)

    monkeypatch.setattr("shardkit.storage.fetchers.time.monotonic", lambda: clock[0])
    pool = Fetchers(60.0)
    pool._threads = [cast(Any, SimpleNamespace(join=join)) for _ in range(4)]
    pool.join(5.0)
    assert waits == [5.0, 3.0, 1.0, 0.0]
    pool._threads = []


@pytest.mark.parametrize(
    ("seconds", "waiting", "begun"), [(2.0, True, True), (2.0, False, False), (0.5, True, False), (0.5, False, False)]
)
def test_a_slow_answer_begins_one_more_thread_where_jobs_wait(
    seconds: float, waiting: bool, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, more = [0.0], list[None]()

    def run() -> None:
        clock[0] += seconds

    monkeypatch.setattr("shardkit.storage.fetchers.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(module, "SLOW_SECONDS", 1.0)
    pool = Fetchers(60.0, count=0)
    jobs = iter([SimpleNamespace(run=run, chunks=1), None])
    monkeypatch.setattr(pool, "_jobs", SimpleNamespace(get=lambda: next(jobs), empty=lambda: not waiting))
    monkeypatch.setattr(pool, "_one_more", lambda: more.append(None))
    pool._serve()
    assert len(more) == begun
