"""Patience: what is tried again, how long, and where a broken read goes on."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from storage.toxic import Toxic

from shardkit.errors import NotFoundError, StorageError, TransientError
from shardkit.location import Location, locate
from shardkit.storage import retry as retry_module
from shardkit.storage.patient import Patient
from shardkit.storage.retry import Retry, call_with_retries
from shardkit.storage.store import Store, open_store, read
from shardkit.storage.stores.slow_and_faulty import Faults, FaultyStore

QUICK = Retry(attempts=12, first_seconds=0.001, cap_seconds=0.01, total_seconds=60)
DATA = os.urandom(3_000_000)


def memory() -> Store:
    store = open_store(locate(f"memory://{os.urandom(6).hex()}"))
    store.put("a", io.BytesIO(DATA))
    return store


class Scripted:
    """A store whose reads end as told: each entry is how many bytes come, and what is raised then."""

    root = Location("memory", "scripted")

    def __init__(self, *script: tuple[int, Exception | None]) -> None:
        self.script = list(script)
        self.asked: list[tuple[int, int | None]] = []

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        self.asked.append((start, end))
        count, failure = self.script.pop(0)
        yield DATA[start : start + count]
        if failure:
            raise failure


BROKE = TransientError("memory://scripted/a", "the connection broke", "check the network")


def test_a_read_goes_on_at_the_byte_where_it_broke() -> None:
    store: Any = Scripted((100, BROKE), (0, BROKE), (50, BROKE), (850, None))
    assert read(Patient(store, QUICK), "a", 0, 1000) == DATA[:1000]
    assert store.asked == [(0, 1000), (100, 1000), (100, 1000), (150, 1000)]


def test_what_comes_as_one_piece_is_not_copied() -> None:
    piece = DATA[:1000]
    store: Any = Scripted()
    store.pieces = lambda *_: iter((piece,))
    assert read(Patient(store, QUICK), "a", 0, 1000) is piece


def test_a_read_of_the_middle_gives_its_bytes_alone() -> None:
    once = Retry(attempts=1)
    store: Any = Scripted((10, BROKE), (40, None))
    assert read(Patient(store, QUICK), "a", 100, 150) == DATA[100:150]
    assert store.asked == [(100, 150), (110, 150)]
    with pytest.raises(StorageError, match="more than the 50 bytes"):
        read(Patient(Scripted((51, None)), once), "a", 100, 150)  # type: ignore[arg-type]
    piece = DATA[100:150]
    store.pieces = lambda *_: iter((piece,))
    assert read(Patient(store, once), "a", 100, 150) is piece


def test_nothing_is_asked_for_where_nothing_is_wanted() -> None:
    store: Any = Scripted()
    assert read(Patient(store, QUICK), "a", 5, 5) == b""
    assert store.asked == []


def test_a_body_that_ends_early_without_an_error_is_a_break() -> None:
    store: Any = Scripted((10, None), (90, None))
    assert read(Patient(store, QUICK), "a", 0, 100) == DATA[:100]


def test_a_body_that_never_comes_ends_in_an_error() -> None:
    store: Any = Scripted(*[(0, None)] * 12)
    with pytest.raises(StorageError, match=r"0 of the 100 bytes .* \(gave up after 12 attempts in a row\)") as caught:
        read(Patient(store, QUICK), "a", 0, 100)
    assert not isinstance(caught.value, TransientError)


def test_a_body_that_is_longer_is_an_error_and_no_wrong_bytes() -> None:
    store: Any = Scripted((200, None))
    with pytest.raises(StorageError, match="more than the 100 bytes"):
        read(Patient(store, QUICK), "a", 0, 100)


def test_progress_renews_the_patience() -> None:
    script = [step for n in range(10) for step in [(0, BROKE), (0, BROKE), (10, BROKE)]]
    store: Any = Scripted(*script)
    assert read(Patient(store, Retry(4, 0.001, 0.001, 60)), "a", 0, 100) == DATA[:100]


def test_what_may_not_pass_is_raised_at_once() -> None:
    store: Any = Scripted((10, NotFoundError("a", "gone")), (90, None))
    with pytest.raises(NotFoundError):
        read(Patient(store, QUICK), "a", 0, 100)
    assert len(store.asked) == 1


def test_an_act_is_tried_again_until_it_succeeds() -> None:
    failures = [BROKE, BROKE]

    def act() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert call_with_retries(act, QUICK) == "done"


def test_the_attempts_are_limited_and_the_error_says_so() -> None:
    calls = []

    def act() -> None:
        calls.append(1)
        raise BROKE

    with pytest.raises(StorageError, match=r"broke \(gave up after 3 attempts in a row\); check the net"):
        call_with_retries(act, Retry(3, 0.001, 0.001, 60))
    assert len(calls) == 3


def test_the_time_is_limited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += 10.0

    monkeypatch.setattr(retry_module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(retry_module.time, "sleep", sleep)

    def act() -> None:
        raise BROKE

    with pytest.raises(StorageError, match="gave up after 4 attempts"):
        call_with_retries(act, Retry(100, 0.1, 0.2, 25.0))
    assert len(waits) == 3
    with pytest.raises(StorageError, match="gave up after 4 attempts"):
        call_with_retries(act, Retry(100, 0.0, 0.0, 20.0))  # the last second counts
    assert len(waits) == 6


def test_waits_grow_up_to_the_cap_and_differ() -> None:
    retry = Retry(first_seconds=0.1, cap_seconds=5.0)
    for failures, most in ((1, 0.2), (3, 0.8), (20, 5.0), (2000, 5.0)):
        waits = [retry.wait_seconds(failures) for _ in range(50)]
        assert 0 <= min(waits) <= max(waits) <= most
        assert len(set(waits)) > 40


def test_a_store_of_faults_is_read_right() -> None:
    faults = Faults(refused=0.1, reset=0.4, short=0.1, hang=0.05, hang_seconds=0.001, seed=1)
    store = FaultyStore(memory(), faults)
    with ThreadPoolExecutor(8) as pool:
        parts = list(
            pool.map(lambda n: read(Patient(store, QUICK), "a", n * 100_000, n * 100_000 + 100_000), range(30))
        )
    assert b"".join(parts) == DATA
    assert store.counts["reset"] > 3
    assert store.counts["short"] > 0
    assert store.counts["refused"] > 0


@pytest.mark.parametrize("server", ["web", "s3"])
class TestThroughAToxicProxy:
    """The retry of reads, over real connections that fail."""

    @pytest.fixture
    def opened(self, server: str, request: pytest.FixtureRequest) -> Any:
        """Opens the store at a proxy; the object `a` in it has DATA."""
        where = request.getfixturevalue("http_folder" if server == "web" else "s3_server")
        if server == "web":
            (where.folder / "a").write_bytes(DATA)
        else:
            open_store(locate(where.url), where.options).put("a", io.BytesIO(DATA))
        limits = {"read_timeout": "0.5s", "connect_timeout": "1s"}

        def open_at(toxic: Toxic) -> Store:
            url = where.url.replace(where.endpoint, toxic.endpoint)
            options = where.options | ({"endpoint": toxic.endpoint} if server == "s3" else {})
            return open_store(locate(url), options | limits)

        return where.endpoint, open_at

    def test_a_slow_and_breaking_connection_gives_every_byte(self, opened: Any) -> None:
        endpoint, open_at = opened
        with Toxic(endpoint, cut=0.4, short=0.1, fail=0.1, latency=(0.0, 0.02), seed=3) as toxic:
            store = open_at(toxic)
            with ThreadPoolExecutor(6) as pool:
                parts = list(
                    pool.map(lambda n: read(Patient(store, QUICK), "a", n * 150_000, n * 150_000 + 150_000), range(20))
                )
        assert b"".join(parts) == DATA
        assert min(toxic.counts[kind] for kind in ("cut", "short", "fail")) > 0

    def test_each_fault_alone_may_pass(self, opened: Any) -> None:
        endpoint, open_at = opened
        for fault, said in (
            ({"cut": 1.0}, "the connection broke"),
            ({"short": 1.0}, "of the 3000000 bytes"),
            ({"fail": 1.0}, "503 SlowDown: Please reduce your rate"),
            ({"hang": 1.0}, "stopped answering"),
        ):
            with Toxic(endpoint, **fault) as toxic, pytest.raises(TransientError, match=said):
                list(open_at(toxic).pieces("a", 0, len(DATA)))

    def test_a_server_that_stops_answering_ends_in_an_error_in_time(self, opened: Any) -> None:
        endpoint, open_at = opened
        with Toxic(endpoint, hang=1.0) as toxic, pytest.raises(StorageError, match=r"stopped answering .*gave up"):
            read(Patient(open_at(toxic), Retry(2, 0.001, 0.001, 10)), "a", 0, 10)
        assert toxic.counts["requests"] == 2

    def test_a_server_that_ignores_ranges_is_found_out(self, opened: Any) -> None:
        endpoint, open_at = opened
        with Toxic(endpoint, ignore_ranges=True) as toxic:
            store = open_at(toxic)
            with pytest.raises(StorageError, match="the server ignores ranges"):
                read(Patient(store, QUICK), "a", 5, 10)
            assert b"".join(store.pieces("a")) == DATA  # without a range it serves as well as any
        assert toxic.counts["requests"] == 2

    def test_wrong_bytes_arrive_as_they_are(self, opened: Any) -> None:
        """No store can tell: the checksums of shards and samples do."""
        endpoint, open_at = opened
        with Toxic(endpoint, corrupt=1.0) as toxic:
            data = read(Patient(open_at(toxic), QUICK), "a", 0, len(DATA))
        assert sum(one != other for one, other in zip(data, DATA, strict=True)) == 1


def test_a_proxy_leaves_nothing_behind(http_folder: Any) -> None:
    before = threading.active_count()
    with Toxic(http_folder.endpoint) as toxic:
        assert toxic.endpoint != http_folder.endpoint
    assert threading.active_count() <= before
