"""A large shard is read from several places at a time, with the rows that reading it from its beginning gives."""

from __future__ import annotations

import io
import random
import tarfile
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shards.indexing.in_store import put, tar_of
from shards.indexing.test_records import entry, shard_of

from shardkit.errors import DamagedError, StorageError
from shardkit.formats.format import FORMATS
from shardkit.formats.tar.headers import BLOCK
from shardkit.formats.tfrecord.features import ENCODED, KEY, LABEL
from shardkit.shards.indexing import parts
from shardkit.shards.indexing.shard import ShardTask, index_shard
from shardkit.storage.access import Remote
from shardkit.storage.store import open_store
from shardkit.storage.stores.memory import MemoryStore


def found(form: str, data: bytes, count: int) -> Any:
    """The samples, or the error with the number of those before it."""

    def fetch(at: int, n: int) -> bytes:
        return data[at : at + n]

    def span(start: int, end: int) -> bytes:
        return data[start:end]

    samples, place = list[Any](), "x.tar"
    try:
        for sample in parts.skimmed_in_parts(
            FORMATS[form],  # type: ignore[index]
            fetch,
            span,
            len(data),
            place=place,
            parts=count,
        ):
            samples.append((sample.description._replace(names=list(sample.description.names)), sample.head))
    except DamagedError as exc:
        return samples, exc.fact, exc.offset, exc.key
    return samples


def tar_shard(seed: int, count: int = 40) -> bytes:
    """Samples of several members and sizes; some members are tars themselves."""
    rng, members = random.Random(seed), []
    inner = tar_of([(f"inner{n}.jpg", b"i" * 2000) for n in range(3)])
    for n in range(count):
        members.append((f"{n:05}.jpg", bytes(rng.randrange(5000))))
        members.append((f"{n:05}.cls", b"%d" % (n % 3)))
        if rng.random() < 0.4:
            members.append((f"{n:05}.tar", inner))
        if rng.random() < 0.3:
            members.append((f"folder/{'long/' * 30}{n:05}.png", b"p" * rng.randrange(3000)))
        if rng.random() < 0.2:
            members.append(("__meta__", b"m" * 600))
    return tar_of(members, tarfile.PAX_FORMAT if seed % 2 else tarfile.GNU_FORMAT)


def record_shard(seed: int, count: int = 40) -> bytes:
    rng, inner = random.Random(seed), shard_of([[entry(KEY, "bytes", [b"inner"])]] * 3)
    images = [inner * rng.randrange(4) + bytes(rng.randrange(4000)) for _ in range(count)]
    return shard_of([
        [entry(KEY, "bytes", [b"s/%d" % n]), entry(ENCODED, "bytes", [image]), entry(LABEL, "int64", [n % 3])]
        for n, image in enumerate(images)
    ])  # fmt: skip


SHARDS = {"tar": tar_shard, "tfrecord": record_shard}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of any size are read, and searched in small pieces."""
    monkeypatch.setattr(parts, "SEARCH_BYTES", 700)


@pytest.mark.parametrize("form", SHARDS)
@pytest.mark.parametrize("count", [2, 3, 7, 16])
@pytest.mark.parametrize("seed", range(6))
def test_several_readers_find_what_one_finds(form: str, count: int, seed: int) -> None:
    data = SHARDS[form](seed)
    assert found(form, data, count) == found(form, data, 1)


@pytest.mark.parametrize("form", SHARDS)
@given(seed=st.integers(0, 10), count=st.integers(2, 9), at=st.floats(0, 1), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_is_the_same_error_after_the_same_samples(
    form: str, seed: int, count: int, at: float, bit: int, cut: bool
) -> None:
    data = bytearray(SHARDS[form](seed, 20))
    place = int(at * (len(data) - 1))
    if cut:
        del data[place:]
    else:
        data[place] ^= 1 << bit
    assert found(form, bytes(data), count) == found(form, bytes(data), 1)


@pytest.mark.parametrize("count", [2, 5, 16])
def test_a_key_that_occurs_again_is_the_same_error(count: int) -> None:
    members = [(f"{n % 30:05}.jpg", bytes(3000)) for n in range(40)]
    assert found("tar", tar_of(members), count) == found("tar", tar_of(members), 1)


def test_records_for_all_members_are_not_lost() -> None:
    """A global PAX header holds for members far behind it."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "all/same"}) as file:
        for n in range(30):
            info = tarfile.TarInfo(f"{n}.jpg")
            info.size = 3000
            file.addfile(info, io.BytesIO(bytes(3000)))
    data = sink.getvalue()
    assert found("tar", data, 8) == found("tar", data, 1)


def test_readers_begin_where_they_are_worth_it() -> None:
    assert parts.parts_of(10, 16) == 1
    assert parts.parts_of(3 * parts.PART_BYTES, 16) == 3
    assert parts.parts_of(100 * parts.PART_BYTES, 16) == 16


@pytest.mark.parametrize("form", SHARDS)
def test_several_ranges_of_one_shard_are_read_at_a_time(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 20 * BLOCK)
    place, at_once, most = put(SHARDS[form](1), f"x-000000.{form}"), 0, 0
    pieces, lock, meet = MemoryStore.pieces, threading.Lock(), threading.Event()

    def counted(self: MemoryStore, name: str, start: int = 0, end: int | None = None) -> Any:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        if most >= 3:
            meet.set()
        if start:
            meet.wait(10)
        found = pieces(self, name, start, end)
        with lock:
            at_once -= 1
        return found

    info = open_store(place.parent).info(place.name)
    alone = index_shard(ShardTask(place, Remote(), info))
    monkeypatch.setattr(MemoryStore, "pieces", counted)
    _, rows = index_shard(ShardTask(place, Remote(), info, parts=4))
    assert most >= 3 and rows.keys == alone[1].keys
    assert {name: column.tolist() for name, column in rows.numbers.items()} == {
        name: column.tolist() for name, column in alone[1].numbers.items()
    }


def test_an_error_of_the_store_in_any_part_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 20 * BLOCK)
    data = tar_shard(1)
    place, pieces = put(data), MemoryStore.pieces

    def breaks(self: MemoryStore, name: str, start: int = 0, end: int | None = None) -> Any:
        if start > len(data) * 0.8:
            raise StorageError(name, "the line is cut", "try again")
        return pieces(self, name, start, end)

    info = open_store(place.parent).info(place.name)
    monkeypatch.setattr(MemoryStore, "pieces", breaks)
    with pytest.raises(StorageError, match="the line is cut"):
        index_shard(ShardTask(place, Remote(), info, parts=4))
