"""Slow and faulty stores do what they say, and the same each time."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from storage.store_contract import content

from shardkit.errors import StorageError, TransientError, UsageError
from shardkit.location import locate
from shardkit.storage.store import Store, open_store
from shardkit.storage.stores import slow_and_faulty as faults_module
from shardkit.storage.stores.slow_and_faulty import Faults, FaultyStore, Slowness, SlowStore

DATA = os.urandom(3_000_000)


@pytest.fixture
def inside() -> Store:
    store = open_store(locate(f"memory://{os.urandom(6).hex()}"))
    store.put("a", io.BytesIO(DATA))
    return store


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only sleeping moves: [now]."""
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(faults_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(faults_module.time, "sleep", sleep)
    return now


def test_each_request_waits_for_the_latency(inside: Store, clock: list[float]) -> None:
    store = SlowStore(inside, Slowness(latency_seconds=0.5))
    store.info("a")
    assert content(store, "a") == DATA
    store.put("b", io.BytesIO(b"x"))
    list(store.list())
    store.delete("b")
    assert clock[0] == pytest.approx(102.5)


def test_streams_share_one_bandwidth_and_use_it_all(inside: Store, clock: list[float]) -> None:
    slowness = Slowness(bytes_per_second=1_000_000)
    one, two = SlowStore(inside, slowness), SlowStore(inside, slowness)
    streams = [iter(store.pieces("a")) for store in (one, two)]
    got = [b"", b""]
    while len(got[0]) < len(DATA):
        got = [so_far + bytes(next(stream)) for so_far, stream in zip(got, streams, strict=True)]
    assert got == [DATA, DATA]
    assert clock[0] == pytest.approx(106.0, abs=0.1)


def test_a_put_is_as_slow_as_a_read(inside: Store, clock: list[float]) -> None:
    SlowStore(inside, Slowness(bytes_per_second=1_000_000)).put("b", io.BytesIO(DATA))
    assert clock[0] == pytest.approx(103.0, abs=0.1)
    assert content(inside, "b") == DATA


@pytest.mark.parametrize(
    ("fault", "said"),
    [("refused", "503"), ("reset", "the connection broke"), ("hang", "stopped answering")],
)
def test_a_fault_of_a_read_is_one_that_may_pass(inside: Store, fault: str, said: str) -> None:
    store = FaultyStore(inside, Faults(hang_seconds=0.0, **{fault: 1.0}))
    for act in (lambda: content(store, "a"), lambda: store.info("a"), lambda: list(store.list())):
        with pytest.raises(TransientError, match=said):
            act()
    assert store.counts == {fault: 3}


def test_a_broken_read_gives_the_right_bytes_up_to_where_it_broke(inside: Store) -> None:
    store = FaultyStore(inside, Faults(reset=1.0, seed=4))
    got = b""
    with pytest.raises(TransientError):
        for piece in store.pieces("a", 10, 2_000_000):
            got += bytes(piece)
    assert 0 < len(got) < 2_000_000 - 10
    assert DATA[10:].startswith(got)


def test_a_short_body_ends_without_an_error(inside: Store) -> None:
    got = content(FaultyStore(inside, Faults(short=1.0)), "a")
    assert len(got) < len(DATA)
    assert DATA.startswith(got)


def test_a_corrupt_body_has_one_wrong_byte(inside: Store) -> None:
    got = content(FaultyStore(inside, Faults(corrupt=1.0)), "a", 5)
    assert sum(one != other for one, other in zip(got, DATA[5:], strict=True)) == 1
    assert content(inside, "a") == DATA


def test_a_put_fails_before_anything_or_after_everything(inside: Store) -> None:
    with pytest.raises(TransientError):
        FaultyStore(inside, Faults(reset=1.0)).put("b", io.BytesIO(DATA))
    assert [info.name for info in inside.list()] == ["a"]
    with pytest.raises(TransientError, match="before the answer came"):
        FaultyStore(inside, Faults(lost=1.0)).put("b", io.BytesIO(DATA))
    assert content(inside, "b") == DATA
    with pytest.raises(TransientError):
        FaultyStore(inside, Faults(lost=1.0)).delete("b")
    assert [info.name for info in inside.list()] == ["a"]


def outcomes(store: FaultyStore, threads: int) -> list[Any]:
    def read(n: int) -> Any:
        try:
            return content(store, "a", n * 1000, n * 1000 + 1000)
        except StorageError as exc:
            return exc.fact

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(read, [n % 100 for n in range(300)]))


def test_the_faults_follow_from_the_seed_whatever_the_threads(inside: Store) -> None:
    faults = Faults(refused=0.1, reset=0.2, short=0.1, corrupt=0.1, seed=7)
    stores = [FaultyStore(inside, faults) for _ in range(3)]
    first, *others = (store.counts for store in stores)
    assert sorted(map(str, outcomes(stores[0], 1))) == sorted(map(str, outcomes(stores[1], 8)))
    assert outcomes(stores[2], 1) != outcomes(FaultyStore(inside, Faults(refused=0.3, seed=8)), 1)
    assert others == [first, first]
    assert all(first[fault] > 20 for fault in ("refused", "reset", "short", "corrupt", "fine"))


def test_slow_and_faulty_stores_are_opened_by_url(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    slow = open_store(locate(f"slow+file://{tmp_path}"), {"latency_seconds": "0.0001", "bytes_per_second": 1e9})
    assert isinstance(slow, SlowStore)
    assert slow.slowness == Slowness(0.0001, 1e9)
    assert content(slow, "a", 2) == b"23456789"
    assert str(slow.root.child("a")) == f"slow+file://{tmp_path}/a"
    faulty = open_store(locate(f"faulty+file://{tmp_path}"), {"refused": 1, "seed": "3"})
    with pytest.raises(TransientError, match=r"^faulty\+file://.*/a: "):
        faulty.info("a")
    both = open_store(locate(f"slow+faulty+file://{tmp_path}"), {"refused": 1.0, "latency_seconds": 0})
    with pytest.raises(TransientError):
        both.info("a")


@pytest.mark.parametrize("options", [{"reset": 1.5}, {"reset": -0.1}, {"reset": 0.6, "short": 0.6}, {"reset": "often"}])
def test_shares_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        open_store(locate("faulty+memory://x"), options)


def test_an_option_of_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="colour"):
        open_store(locate(f"slow+file://{tmp_path}"), {"colour": "red"})
