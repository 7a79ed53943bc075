"""A store that is read through a cache."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path

import google_crc32c
import pytest
from reading.far import Watched

from shardkit.location import locate
from shardkit.storage.cache import entry as cache_entry
from shardkit.storage.cache import store as module
from shardkit.storage.cache.folder import Cache, NoCache
from shardkit.storage.cache.store import Cached, Content
from shardkit.storage.store import open_store, read

CHUNK = 1000
DATA = bytes(n * 7 % 251 for n in range(3500))
NAME = "x-000000.tar"
Requests = list[tuple[str, str, int, int]]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_entry, "CHUNK", CHUNK)


@pytest.fixture
def requests() -> Requests:
    """What the store in `watched` was asked for."""
    return []


@pytest.fixture
def watched(requests: Requests) -> Watched:
    """A store with one object."""
    store = open_store(locate(f"memory://{os.urandom(6).hex()}"))
    store.put(NAME, io.BytesIO(DATA))
    return Watched(store, requests)


def content(data: bytes = DATA) -> dict[str, Content]:
    return {NAME: Content(f"s3://bucket/{NAME}", len(data), google_crc32c.value(data))}


def test_a_range_is_fetched_once_in_whole_chunks_by_all_who_share_the_cache(
    watched: Watched, requests: Requests, tmp_path: Path
) -> None:
    for _ in range(2):
        cached = Cached(watched, Cache(str(tmp_path), None), content())
        assert bytes(read(cached, NAME, 900, 1100)) == DATA[900:1100]
        assert cached.keeps(NAME) and cached.mapped(NAME) is None
    assert requests == [("read", NAME, 0, CHUNK), ("read", NAME, CHUNK, CHUNK)]


def test_an_object_is_mapped_when_all_of_it_was_read(watched: Watched, requests: Requests, tmp_path: Path) -> None:
    cached = Cached(watched, Cache(str(tmp_path), None), content())
    assert bytes(read(cached, NAME, 0, len(DATA))) == DATA
    requests.clear()
    mapped = cached.mapped(NAME, check=True)
    assert mapped is not None and mapped[:] == DATA
    assert bytes(read(cached, NAME, 5, 3000)) == DATA[5:3000]
    assert requests == []


def test_an_object_of_unknown_content_is_not_kept(watched: Watched, requests: Requests, tmp_path: Path) -> None:
    contents: dict[str, Content] = {}
    cached = Cached(watched, Cache(str(tmp_path), None), contents)
    for _ in range(2):
        assert bytes(read(cached, NAME, 900, 1100)) == DATA[900:1100]
        assert not cached.keeps(NAME) and cached.mapped(NAME) is None
    assert requests == [("read", NAME, 900, 200)] * 2
    contents |= content()
    assert bytes(read(cached, NAME, 900, 1100)) == DATA[900:1100]
    assert cached.keeps(NAME)


def test_an_object_whose_end_is_not_given_comes_from_the_store(
    watched: Watched, requests: Requests, tmp_path: Path
) -> None:
    cached = Cached(watched, Cache(str(tmp_path), None), content())
    assert b"".join(bytes(piece) for piece in cached.pieces(NAME, 5)) == DATA[5:]
    assert requests == [("read", NAME, 5, len(DATA) - 5)]


def test_without_a_cache_all_comes_from_the_store(watched: Watched, requests: Requests) -> None:
    cached = Cached(watched, NoCache(), content())
    for _ in range(2):
        assert bytes(read(cached, NAME, 900, 1100)) == DATA[900:1100]
    assert not cached.keeps(NAME) and cached.mapped(NAME) is None
    assert requests == [("read", NAME, 900, 200)] * 2


def test_another_content_of_the_same_name_is_another_object(
    watched: Watched, requests: Requests, tmp_path: Path
) -> None:
    read(Cached(watched, Cache(str(tmp_path), None), content()), NAME, 0, len(DATA))
    other = DATA[::-1]
    watched.put(NAME, io.BytesIO(other))
    requests.clear()
    cached = Cached(watched, Cache(str(tmp_path), None), content(other))
    assert bytes(read(cached, NAME, 0, CHUNK)) == other[:CHUNK]
    assert requests == [("read", NAME, 0, CHUNK)]


def test_an_object_is_offered_again_a_while_after_the_cache_had_no_room(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(str(tmp_path), len(DATA) - 1)
    cached = Cached(watched, cache, content())
    assert not cached.keeps(NAME)
    cache.limit = None
    assert not cached.keeps(NAME)
    monkeypatch.setattr(module, "REFUSED_SECONDS", 0.0)
    assert cached.keeps(NAME)


def test_a_damaged_copy_is_fetched_again_where_it_is_checked(
    watched: Watched, requests: Requests, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read(Cached(watched, Cache(str(tmp_path), None), content()), NAME, 0, len(DATA))
    (copy,) = tmp_path.glob("*.whole")
    copy.write_bytes(bytes(len(DATA)))
    requests.clear()
    cached = Cached(watched, Cache(str(tmp_path), None), content())
    caplog.set_level(logging.WARNING)
    assert cached.mapped(NAME, check=True) is None
    assert "damaged; fetching it again" in caplog.text
    assert bytes(read(cached, NAME, 0, len(DATA))) == DATA
    assert sum(size for *_, size in requests) == len(DATA)
    mapped = cached.mapped(NAME, check=True)
    assert mapped is not None and mapped[:] == DATA


def test_right_bytes_take_the_place_of_wrong_ones(watched: Watched, tmp_path: Path) -> None:
    watched.fault = lambda name, start, data: bytes(len(data))
    cached = Cached(watched, Cache(str(tmp_path), None), content())
    assert bytes(read(cached, NAME, 0, 10)) == bytes(10)
    cached.replace_damaged(NAME, 0, DATA[:CHUNK])
    assert bytes(read(cached, NAME, 0, 10)) == DATA[:10]


def test_the_store_behind_it_is_asked_what_is_known_of_an_object(watched: Watched, tmp_path: Path) -> None:
    cached = Cached(watched, Cache(str(tmp_path), None), content())
    assert cached.root == watched.root
    assert cached.info(NAME).bytes == len(DATA)
