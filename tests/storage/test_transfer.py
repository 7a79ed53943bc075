"""Bytes on their way to a store: what a `put` reads, what an ETag proves, and how threads end together."""

from __future__ import annotations

import hashlib
import inspect
import io
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.errors import DamagedError, NotFoundError, StorageError
from shardkit.location import Location
from shardkit.storage import etag, transfer
from shardkit.storage.etag import Etag
from shardkit.storage.store import ObjectInfo
from shardkit.storage.transfer import SENDINGS, Outgoing, TransferCheck, crc_of, file_pieces, object_pieces, send
from shardkit.threads import Stopped, TransferPool

PLACE = Location("", "shards/train-000000.tar")


def outgoing(
    data: bytes,
    step: int = 3,
    *,
    size: int | None = None,
    crc: str | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> Outgoing:
    def pieces() -> Generator[bytes, None, None]:
        for at in range(0, len(data), step):
            yield data[at : at + step]

    wanted = ObjectInfo("x", len(data) if size is None else size, crc or f"{google_crc32c.value(data):08x}")
    return Outgoing(pieces, wanted, PLACE, on_progress, stop or threading.Event(), etag=False)


@given(st.binary(max_size=200), st.integers(1, 40), st.lists(st.integers(0, 50), max_size=20))
def test_it_reads_as_a_file_does(data: bytes, step: int, sizes: list[int]) -> None:
    body, file = outgoing(data, step), io.BytesIO(data)
    for size in sizes:
        assert body.read(size) == file.read(size)
        assert body.tell() == file.tell()
    assert body.read(None) == file.read(None)
    assert body.read() == b""


def test_its_length_can_be_found_and_it_can_be_read_again() -> None:
    told: list[int] = []
    body = outgoing(b"0123456789", on_progress=told.append)
    assert body.readable()
    assert body.seekable()
    assert (body.seek(0, io.SEEK_END), body.seek(0)) == (10, 0)
    assert body.read(4) == b"0123"
    body.seek(0)
    buffer = bytearray(20)
    assert io.BufferedReader(body).readinto(buffer) == 10
    assert buffer[:10] == b"0123456789"
    assert sum(told) == 10
    with pytest.raises(io.UnsupportedOperation):
        body.seek(5)


def test_what_it_reads_is_closed_when_it_is_read_again_and_at_its_end() -> None:
    opened: list[Generator[bytes, None, None]] = []

    def pieces() -> Generator[bytes, None, None]:
        opened.append(part for part in (b"12345", b"6789", b""))
        return opened[-1]

    body = Outgoing(pieces, ObjectInfo("x", 9, "e3069283"), PLACE, lambda _: None, threading.Event(), etag=False)
    body.read(5)
    body.seek(0)
    body.read(5)
    assert [inspect.getgeneratorstate(source) for source in opened] == [inspect.GEN_CLOSED, inspect.GEN_SUSPENDED]
    body.end(sent=False)
    assert inspect.getgeneratorstate(opened[1]) == inspect.GEN_CLOSED


def test_bytes_behind_the_wanted_ones_are_noticed_where_a_piece_ends_with_them() -> None:
    with pytest.raises(DamagedError, match="it has more bytes; 5 are expected"):
        outgoing(b"0123456789", 5, size=5, crc=f"{google_crc32c.value(b'01234'):08x}").read()


@pytest.mark.parametrize(
    ("size", "crc", "fact"),
    [
        (9, None, "it has more bytes; 9 are expected"),
        (12, None, "it has 10 bytes; 12 are expected"),
        (10, "00000000", "its CRC-32C is 280c069e; 00000000 is expected"),
    ],
)
def test_the_last_bytes_are_not_given_where_the_whole_is_not_what_was_wanted(
    size: int, crc: str | None, fact: str
) -> None:
    body = outgoing(b"0123456789", 5, size=size, crc=crc)
    got = body.read(5)
    with pytest.raises(DamagedError, match=f"^{PLACE}: {fact}") as raised:
        body.read()
    assert got == b"01234"
    assert body.failure is raised.value


def test_it_ends_at_the_next_piece_when_all_is_to_stop() -> None:
    stop = threading.Event()
    body = outgoing(b"0123456789", 5, stop=stop)
    assert body.read(5) == b"01234"
    stop.set()
    with pytest.raises(Stopped):
        body.read(5)


def test_a_file_gives_its_bytes_and_its_errors(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"123456789")
    assert crc_of(file_pieces(Location("", str(tmp_path / "x")))) == "e3069283"
    with pytest.raises(NotFoundError):
        list(file_pieces(Location("", str(tmp_path / "y")))())
    with pytest.raises(StorageError):
        list(file_pieces(Location("", str(tmp_path)))())


def summed(data: bytes, step: int) -> Etag:
    tag = Etag()
    for at in range(0, len(data), step):
        tag.update(memoryview(data)[at : at + step])
    return tag


@pytest.mark.parametrize("step", [1, 4, 7, 100])
@pytest.mark.parametrize("size", [0, 5, 10, 15, 20, 25])
def test_an_etag_is_that_of_one_request_or_of_parts(size: int, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etag, "PART_BYTES", 10)
    data = bytes(range(size))
    parts = [data[at : at + 10] for at in range(0, size, 10)] or [b""]
    joined = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()
    tag = summed(data, step)
    assert tag.fits(f'"{joined}-{len(parts)}"')
    assert tag.fits(f'"{hashlib.md5(data).hexdigest()}"') is (len(parts) == 1)
    assert not tag.fits(f'"{joined}-{len(parts) + 1}"')
    assert not tag.fits(None)
    assert not summed(data + b"x", step).fits(f'"{joined}-{len(parts)}"')


class Ranges:
    """A store of one object that notes which ranges of it are asked for, and by which threads."""

    def __init__(self, data: bytes) -> None:
        self.root, self.data = PLACE, data
        self.asked: list[tuple[int, int]] = []
        self.threads: set[threading.Thread] = set()
        self.came = threading.Semaphore(0)

    def pieces(self, name: str, start: int, end: int) -> Iterator[bytes]:
        self.asked.append((start, end))
        self.threads.add(threading.current_thread())
        self.came.release()
        return iter((self.data[start:end],))


@pytest.mark.parametrize("size", [1, 9, 10, 11, 20, 95])
def test_an_object_is_asked_for_in_ranges_once_each(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "RANGE_BYTES", 10)
    store: Any = Ranges(bytes(range(size)))
    pieces = list(object_pieces(store, "x", size, threading.Event())())
    assert b"".join(map(bytes, pieces)) == store.data
    assert sorted(store.asked) == [(start, min(start + 10, size)) for start in range(0, size, 10)]
    assert (store.threads == {threading.current_thread()}) is (size <= 10)  # one range needs no other thread


def test_ranges_are_asked_for_ahead_of_use_and_no_more_of_them_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "RANGE_BYTES", 10)
    store: Any = Ranges(bytes(200))
    pieces = object_pieces(store, "x", 200, threading.Event())()
    assert next(pieces) == bytes(10)
    for _ in range(transfer.AHEAD + 1):  # the one that is in use, too
        assert store.came.acquire(timeout=30)
    pieces.close()
    assert sorted(store.asked) == [(10 * n, 10 * n + 10) for n in range(transfer.AHEAD + 1)]


def test_no_range_is_asked_for_when_all_is_to_stop() -> None:
    store: Any = Ranges(bytes(9))
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        list(object_pieces(store, "x", 9, stop)())
    assert store.asked == []


def test_results_come_in_the_order_of_the_tasks() -> None:
    with TransferPool(3) as pool:
        assert list(pool.map(lambda n: n * n, range(50))) == [n * n for n in range(50)]


def test_the_first_error_of_a_thread_is_raised_and_stops_the_others() -> None:
    begun, seen = threading.Event(), list[int]()

    def work(number: int) -> None:
        if number == 1:
            begun.wait(30)
            raise ValueError("of the second")
        begun.set()
        assert pool.stop.wait(30)
        seen.append(number)
        raise Stopped

    with pytest.raises(ValueError, match="of the second"), TransferPool(2) as pool:
        list(pool.map(work, range(100)))
    assert seen == [0]


class Bucket:
    """A store of S3's kind: an ETag for each object, and no checksum of its own. `spoiled`: how many of the first puts
    store other bytes than they are given."""

    def __init__(self, spoiled: int = 0, *, etags: bool = True) -> None:
        self.root, self.spoiled, self.etags = Location("s3", "bucket/train"), spoiled, etags
        self.objects: dict[str, bytes] = {}
        self.puts, self.read = 0, list[str]()

    def info(self, name: str) -> ObjectInfo:
        data = self.objects[name]
        tag = hashlib.md5(data).hexdigest() if self.etags else None
        return ObjectInfo(name, len(data), f"{google_crc32c.value(b'123456789'):08x}", tag)

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        self.read.append(name)
        return iter((self.objects[name][start:end],))

    def put(self, name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
        self.puts += 1
        content = data.read()
        self.objects[name] = content if self.puts > self.spoiled else bytes(reversed(content))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return map(self.info, sorted(self.objects))

    def delete(self, name: str) -> None:
        del self.objects[name]


def sent(bucket: Bucket, check: TransferCheck, on_progress: Callable[[int], None] = lambda _: None) -> None:
    data = b"123456789"
    wanted = ObjectInfo("train-000000.tar", len(data), f"{google_crc32c.value(data):08x}")
    send(
        lambda: (piece for piece in (data,)), PLACE, bucket, wanted,
        check=check, stop=threading.Event(), on_progress=on_progress,
    )  # fmt: skip


def test_an_etag_that_fits_is_enough() -> None:
    bucket = Bucket()
    sent(bucket, "store")
    assert (bucket.puts, bucket.read) == (1, [])


def test_an_etag_that_fits_is_not_enough_where_reading_back_is_asked_for() -> None:
    bucket = Bucket()
    sent(bucket, "read")
    assert (bucket.puts, bucket.read) == (1, ["train-000000.tar"])


@pytest.mark.parametrize("etags", [True, False])
@pytest.mark.parametrize("check", ["store", "read"])
def test_an_object_that_arrived_otherwise_is_sent_again_whatever_its_metadata_say(
    check: TransferCheck, etags: bool
) -> None:
    bucket, told = Bucket(spoiled=SENDINGS - 1, etags=etags), list[int]()
    sent(bucket, check, told.append)
    assert sum(told) == len(b"123456789")  # what went again was taken back
    assert bucket.objects == {"train-000000.tar": b"123456789"}
    assert bucket.puts == SENDINGS


@pytest.mark.parametrize("check", ["store", "read"])
def test_an_object_that_always_arrives_otherwise_is_an_error_and_is_removed(check: TransferCheck) -> None:
    bucket = Bucket(spoiled=SENDINGS)
    told: list[int] = []
    with pytest.raises(StorageError, match=rf"it arrived damaged {SENDINGS} times: its CRC-32C is \w{{8}}"):
        sent(bucket, check, told.append)
    assert (bucket.objects, bucket.puts, sum(told)) == ({}, SENDINGS, 0)


def test_nothing_is_read_back_where_no_check_is_asked_for() -> None:
    bucket = Bucket(spoiled=1)
    sent(bucket, "none")
    assert (bucket.puts, bucket.read) == (1, [])


def test_what_a_store_refuses_counts_as_not_sent() -> None:
    bucket, told = Bucket(), list[int]()

    def refuse(name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
        data.read()
        raise StorageError("s3://bucket/train", "access is denied", "ask its owner")

    bucket.put = refuse  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="access is denied"):
        sent(bucket, "store", told.append)
    assert told == [9, -9]
