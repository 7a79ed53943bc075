"""Leases: one holder at a time, on any number of machines."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from storage.in_memory import refused

from shardkit.errors import BusyError, StorageError
from shardkit.location import locate
from shardkit.packing.dest import lease
from shardkit.packing.dest.lease import Claim, held, holders, require_held
from shardkit.storage.patient import Patient, open_patient
from shardkit.storage.store import Store, content_of, has_conditions, put_if
from shardkit.storage.stores.fsspec import FsspecStore
from shardkit.system import process_space


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, no_objects: None) -> Patient:
    return open_patient(locate(tmp_path / "x" if request.param == "disk" else "memory://leases/x"))


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.02)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 0.3)
    monkeypatch.setattr(lease, "SETTLING_SECONDS", 0.1)


def put_claim(store: Patient, name: str = "a", process: int = 1, space: str = "another") -> bytes:
    """The lease of a run on a machine with the name of this one."""
    data = msgspec.json.encode(Claim("0123", platform.node(), process, space=space))
    assert put_if(store, name, data, version=None) is not None
    return data


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_lease_exists_while_it_is_held(store: Patient) -> None:
    with held(store, "a") as mine:
        claim = msgspec.json.decode(content_of(store, "a") or b"", type=Claim)
        assert (claim.owner, claim.process) == (mine.claim.owner, os.getpid())
        require_held(str(store.root))
    assert content_of(store, "a") is None
    require_held(str(store.root))


def test_a_second_holder_is_refused(store: Patient) -> None:
    with held(store, "a"), held(store, "b"):
        text = refused(BusyError, lambda: held(store, "a").__enter__())
        assert f"another run (process {os.getpid()} on " in text
    with held(store, "a"):
        pass


def test_a_lease_that_is_renewed_elsewhere_is_not_taken(store: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(store, "a"):
        monkeypatch.setattr(lease, "_held", {})
        monkeypatch.setattr(lease, "process_space", lambda: "another")
        assert "another run" in refused(BusyError, lambda: held(store, "a").__enter__())


def test_a_lease_of_a_dead_process_of_this_machine_is_taken_at_once(
    store: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 1e9)
    put_claim(store, process=dead_process(), space=process_space())
    with held(store, "a") as mine:
        mine.require()


@pytest.mark.parametrize("process", ["not here", "this one"])
@pytest.mark.parametrize("space", ["another", ""])
def test_a_process_of_another_container_is_not_taken_for_dead(
    store: Patient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, process: str, space: str
) -> None:
    """Containers often have one name, and numbers of processes that start from 1 in each."""
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 1e9)
    put_claim(store, process=dead_process() if process == "not here" else os.getpid(), space=space)
    ended = threading.Event()

    def renew() -> None:
        turn = 0
        while not ended.wait(0.1):
            turn += 1
            claim = Claim("0123", platform.node(), 1, turn=turn, space=space)
            assert put_if(store, "a", msgspec.json.encode(claim), version=store.info("a").version) is not None

    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(renew)
        with caplog.at_level("INFO"):
            text = refused(BusyError, lambda: held(store, "a").__enter__())
        ended.set()
        renewing.result()
    assert "another run" in text
    assert caplog.text.count("waiting up to ") == 1


def test_a_lease_on_a_disk_that_is_being_renewed_is_not_missed(store: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is then absent for a moment."""
    put_claim(store)
    looks: list[str | None] = []
    version = lease._version

    def absent_first(where: Any, name: str) -> str | None:
        looks.append(version(where, name) if looks else None)
        return looks[-1]

    monkeypatch.setattr(lease, "_version", absent_first)
    watched = lease._Watched(store, "a")
    assert watched.look() is (None if store.root.is_local else False)
    assert (watched.claim is not None) == store.root.is_local


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces of Linux")
def test_a_process_space_is_a_namespace_of_one_start_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    here = process_space.__wrapped__()
    assert here == process_space() != ""
    monkeypatch.setattr(os, "readlink", lambda _: "pid:[1]")
    assert process_space.__wrapped__() not in (here, "")


def test_a_renewal_that_was_written_though_it_failed_is_no_loss(
    store: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = threading.Event()

    def written_but_failed(*arguments: Any, **options: Any) -> str | None:
        version = put_if(*arguments, **options)
        if failing.is_set():
            failing.clear()
            raise StorageError("a", "the answer was lost", "try again")
        return version

    monkeypatch.setattr(lease, "put_if", written_but_failed)
    with held(store, "a") as mine:
        failing.set()
        while failing.is_set():
            time.sleep(0.01)
        turn = mine.claim.turn
        while mine.claim.turn < turn + 2:
            time.sleep(0.01)
            mine.require()


@pytest.mark.parametrize("damaged", [False, True])
def test_a_lease_that_nobody_renews_is_taken_after_a_while(store: Patient, *, damaged: bool) -> None:
    if damaged:
        put_if(store, "a", b"{", version=None)
    else:
        put_claim(store)
    with held(store, "a") as mine:
        mine.require()


def test_a_holder_whose_lease_was_taken_over_is_told(store: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(store, "a") as mine:
        store.delete("a")
        theirs = put_claim(store)
        while mine.lost is None:
            time.sleep(0.01)
        text = refused(BusyError, lambda: require_held(str(store.root)))
        assert "another run has taken it over" in text
    assert content_of(store, "a") == theirs  # it is not ours to remove


def test_a_holder_that_can_not_renew_gives_up_before_others_take_over(
    store: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lease.HOLDER_SECONDS < 45.0
    with held(store, "a") as mine:
        monkeypatch.setattr(lease, "HOLDER_SECONDS", -1.0)
        assert "could not be renewed" in refused(BusyError, mine.require)


def test_the_holders_that_are_alive_are_told_and_others_are_removed(store: Patient) -> None:
    put_claim(store, "gone")
    put_claim(store, "dead", process=dead_process(), space=process_space())
    with held(store, "alive") as mine:
        found = holders(store, ["gone", "dead", "alive", "never"])
        assert {name: claim.owner for name, claim in found.items()} == {"alive": mine.claim.owner}
    assert [info.name for info in store.list()] == []


def test_a_store_that_ignores_conditions_is_warned_of(
    store: Patient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def ignoring(where: Any, name: str, data: bytes, *, version: str | None) -> str | None:
        import io

        where.put(name, io.BytesIO(data))
        return where.info(name).version

    monkeypatch.setattr(lease, "put_if", ignoring)
    with held(store, "a"):
        assert "this store ignores conditions" in caplog.text
        assert "another run" in refused(BusyError, lambda: held(store, "a").__enter__())


class Unconditional:
    """A store without `put_if`, in which writers that begin together do not see each other."""

    def __init__(self, store: Store, writers: int) -> None:
        self._store, self.root, self._together = store, store.root, threading.Barrier(writers)

    def __getattr__(self, name: str) -> Any:
        if name in ("store", "put_if"):
            raise AttributeError(name)
        return getattr(self._store, name)

    def put(self, name: str, data: Any, **options: Any) -> None:
        """Write an object when all have asked whether it is there."""
        with suppress(threading.BrokenBarrierError):
            self._together.wait(2)
        self._store.put(name, data, **options)


def test_of_runs_that_begin_together_without_conditions_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SETTLING_SECONDS", 4.0)
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 30.0)
    plain = Unconditional(FsspecStore(locate(f"memory://{tmp_path.name}/x"), {}), 3)
    assert not has_conditions(plain)
    assert not has_conditions(Patient(plain))
    others = threading.Semaphore(0)

    def begin(_: int) -> bool:
        try:
            with held(Patient(plain), "a"):
                return others.acquire(timeout=30) and others.acquire(timeout=30)  # while both others are refused
        except BusyError:
            others.release()
            return False

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(begin, range(3)))
    assert sorted(results) == [False, False, True]


def test_stores_with_conditions_are_told_from_others(store: Patient) -> None:
    assert has_conditions(store)
    assert not has_conditions(FsspecStore(locate("memory://leases/x"), {}))
