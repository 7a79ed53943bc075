"""Stores around a store: what is tried again, and what ends in time."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

import pytest
from storage.store_contract import StoreContract

from shardkit.errors import DamagedError, StorageError, TransientError
from shardkit.location import Location, locate
from shardkit.storage import patient
from shardkit.storage.access import Remote
from shardkit.storage.patient import Patient, Timed, open_patient, open_timed
from shardkit.storage.retry import Retry
from shardkit.storage.store import ObjectInfo, Store
from shardkit.storage.stores.slow_and_faulty import Faults, FaultyStore

QUICK = Retry(attempts=5, first_seconds=0.0, total_seconds=60)
BROKE = TransientError("memory://x/a", "the connection broke", "check the network")


def memory() -> Location:
    return locate(f"memory://{os.urandom(6).hex()}")


class TestPatient(StoreContract):
    """A patient store is a store."""

    keeps_crc32c = True

    @pytest.fixture
    def store(self) -> Store:
        return Patient(FaultyStore(open_patient(memory()).store, Faults(refused=0.1, seed=1)), QUICK)


class TestTimed(StoreContract):
    """A store with a time limit is a store."""

    keeps_crc32c = True

    @pytest.fixture
    def store(self) -> Store:
        return open_timed(memory(), Remote())


class Failing:
    """A store whose calls fail a few times each before they succeed; it has the names a to e."""

    def __init__(self, failures: int) -> None:
        self.root, self.left = Location("memory", "failing"), failures
        self.stored: list[bytes] = []

    def _fail(self) -> None:
        if self.left:
            self.left -= 1
            raise BROKE

    def put(self, name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
        head = data.read(3)
        self._fail()
        self.stored.append(head + data.read())

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for number, name in enumerate("abcde"):
            if number == 3:
                self._fail()
            yield ObjectInfo(name, 1)

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        yield f"{self.left}".encode()
        self._fail()
        yield b"."


def test_what_is_written_is_read_again_from_where_it_stood() -> None:
    inside: Any = Failing(2)
    data = io.BytesIO(b"head0123456789")
    data.seek(4)
    Patient(inside, QUICK).put("a", data)
    assert inside.stored == [b"0123456789"]


def test_what_can_not_seek_is_written_once() -> None:
    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

    inside: Any = Failing(1)
    with pytest.raises(TransientError):
        Patient(inside, QUICK).put("a", Stream(b"0123456789"))
    Patient(inside, QUICK).put("a", Stream(b"0123456789"))
    assert inside.stored == [b"0123456789"]


def test_an_error_of_what_is_to_be_written_is_raised_at_once() -> None:
    class Damaged(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise DamagedError("here", "it is damaged", "make it again")

    inside: Any = Failing(0)
    with pytest.raises(DamagedError):
        Patient(inside, QUICK).put("a", Damaged())


def test_a_broken_listing_continues_behind_the_last_name() -> None:
    inside: Any = Failing(4)
    assert [found.name for found in Patient(inside, QUICK).list()] == list("abcde")
    inside = Failing(5)
    with pytest.raises(StorageError, match=r"gave up after 5 attempts"):
        list(Patient(inside, QUICK).list())


def test_an_object_without_an_end_is_of_one_attempt() -> None:
    inside: Any = Failing(2)
    assert b"".join(map(bytes, Patient(inside, QUICK).pieces("a"))) == b"0."


def test_a_store_without_folders_has_none() -> None:
    assert open_patient(memory()).folders() is None


class Silent:
    """A store that does not answer until `stop` is set."""

    def __init__(self, stop: threading.Event) -> None:
        self.root, self.stop = Location("memory", "silent"), stop

    def _wait(self, name: str = "", *_: Any) -> Any:
        self.stop.wait(30)
        return iter(())

    info = pieces = list = delete = _wait


@pytest.mark.timeout(30)
def test_a_call_that_is_not_answered_is_an_error_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "GRACE_SECONDS", 0.01)
    stop = threading.Event()
    store = Timed(Silent(stop), 0.02)  # type: ignore[arg-type]
    for act, place in (
        (lambda: store.info("a"), "memory://silent/a"),
        (lambda: list(store.pieces("a", 0, 5)), "memory://silent/a"),
        (lambda: list(store.list()), "memory://silent"),
        (lambda: store.delete("a"), "memory://silent/a"),
    ):
        with pytest.raises(StorageError, match=rf"{place}: the store did not answer within 0\.02 seconds"):
            act()
    stop.set()


def test_a_long_listing_comes_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "BATCH_NAMES", 2)
    inside: Any = Failing(0)
    assert [found.name for found in Timed(inside, 60).list()] == list("abcde")
