"""The files that are written in the background: by the C extension's thread, and by one of a pool."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from shardkit.checksums import crc32c
from shardkit.errors import StorageError
from shardkit.packing.write import sink
from shardkit.packing.write.framed import extension
from shardkit.packing.write.sink import PoolSink, ShardSink, ThreadSink, shard_sink

Begin = Callable[[BinaryIO], ShardSink]


@pytest.fixture(params=["C", "Python"])
def begin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Both ways of writing: a sink for a file."""
    if request.param == "Python":
        monkeypatch.setattr(sink, "load", lambda name: (None, "switched off"))
    elif extension() is None:
        pytest.skip("the C extension is not built here")
    with ThreadPoolExecutor(1) as pool:
        yield lambda file: shard_sink(file.fileno(), b"shard", pool)


@pytest.fixture
def native() -> Any:
    """The C extension."""
    if extension() is None:
        pytest.skip("the C extension is not built here")
    return extension()


def pieces_of_all_sizes(count: int) -> list[bytes]:
    draw = random.Random(0)
    return [draw.randbytes(draw.choice((0, 1, 511, 40_000, 2_000_000))) for _ in range(count)]


@pytest.mark.parametrize("count", [0, 1, 60])
def test_pieces_of_all_sizes_arrive_in_their_order(count: int, tmp_path: Path, begin: Begin) -> None:
    pieces = pieces_of_all_sizes(count)
    with (tmp_path / "shard").open("wb", buffering=0) as file:
        written = begin(file)
        for start in range(0, count, 7):
            some = pieces[start : start + 7]
            written.write(some, sum(map(len, some)))
        written.end()
        written.end()
    whole = b"".join(pieces)
    assert (tmp_path / "shard").read_bytes() == whole
    assert (written.bytes, written.crc) == (len(whole), crc32c(whole))


def test_what_is_written_is_let_go(tmp_path: Path, begin: Begin) -> None:
    class Piece(bytes):
        gone = 0

        def __del__(self) -> None:
            Piece.gone += 1

    with (tmp_path / "shard").open("wb", buffering=0) as file:
        written = begin(file)
        for number in range(30):
            written.write([Piece(bytes([number]) * 3_000_000)], 3_000_000)
            assert number - Piece.gone <= ThreadSink.WAITING_BYTES // 3_000_000 + PoolSink.TURNS
        written.end()
        gc.collect()
        assert Piece.gone == 30
    assert (tmp_path / "shard").stat().st_size == 90_000_000


def test_an_abort_waits_for_what_is_being_written(begin: Begin) -> None:
    size = 1 << 22  # more than a pipe holds
    out, into = os.pipe()
    with open(into, "wb", buffering=0) as file, open(out, "rb", buffering=0) as reader:
        written = begin(file)
        written.write([bytes(size)], size)
        first = reader.read(1)
        thread = threading.Thread(target=written.abort)
        thread.start()
        got = len(first)
        while got < size:
            got += len(reader.read(size))
        thread.join(60)
        assert not thread.is_alive()
        os.set_blocking(out, False)
        assert reader.read(1) is None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full is needed")
def test_an_error_of_writing_is_raised_with_its_place_again_and_again(begin: Begin) -> None:
    with open("/dev/full", "wb", buffering=0) as file:
        written = begin(file)
        with pytest.raises(StorageError, match="shard: No space left on device"):
            for _ in range(100):
                written.write([bytes(1 << 20)], 1 << 20)
        for _ in range(2):
            with pytest.raises(StorageError, match="shard: No space left on device"):
                written.end()
        written.abort()


def test_no_more_than_is_said_waits(native: Any) -> None:
    """In a pipe, from which nobody reads: the caller waits too, and Ctrl-C ends that."""
    assert native.WAITING_BYTES == ThreadSink.WAITING_BYTES
    out, into = os.pipe()
    with open(out, "rb", buffering=0) as reader:
        with open(into, "wb", buffering=0) as file:
            written = ThreadSink(file.fileno(), b"shard", native)
            taken = 0
            threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                while True:
                    written.write([bytes(1 << 16)], 1 << 16)
                    taken += 1 << 16
            assert taken <= ThreadSink.WAITING_BYTES + (1 << 21)
            draining = threading.Thread(target=reader.readall)
            draining.start()
            written.abort()
        draining.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_writes_nothing_and_does_not_wait(tmp_path: Path, native: Any) -> None:
    with (tmp_path / "shard").open("wb", buffering=0) as file:
        written = ThreadSink(file.fileno(), b"shard", native)
        written.write([bytes(3 << 20)], 3 << 20)
        child = os.fork()
        if child == 0:
            try:
                written.end()
            except StorageError:
                written.abort()
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        written.write([b"more"], 4)
        written.end()
    assert (tmp_path / "shard").stat().st_size == (3 << 20) + 4


@pytest.mark.parametrize("pieces", [[b"x"], None, (b"x", "text"), (bytearray(b"x"),)])
def test_only_bytes_are_pieces(pieces: Any, tmp_path: Path, native: Any) -> None:
    with (tmp_path / "shard").open("wb", buffering=0) as file:
        output = native.Output(file.fileno())
        with pytest.raises(TypeError, match="piece"):
            output.write(pieces)
        output.end()
