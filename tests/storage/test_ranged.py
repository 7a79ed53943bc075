from __future__ import annotations

import io
import os
from typing import Any

import pytest

from shardkit.errors import NotFoundError
from shardkit.location import locate
from shardkit.storage import ranged
from shardkit.storage.ranged import RangedFile, merged
from shardkit.storage.store import open_store

DATA = bytes(range(256)) * 4


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The spans that were requested."""
    found: list[tuple[int, int]] = []
    fetch = RangedFile._fetch

    def noted(self: RangedFile, span: Any) -> bytes:
        found.append(span)
        return fetch(self, span)

    monkeypatch.setattr(RangedFile, "_fetch", noted)
    return found


@pytest.fixture
def file() -> RangedFile:
    store = open_store(locate(f"memory://{os.urandom(6).hex()}"))
    store.put("x", io.BytesIO(DATA))
    return RangedFile(store, "x", len(DATA))


def test_spans_are_merged_across_small_gaps_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranged, "GAP_BYTES", 5)
    assert merged([(30, 40), (0, 10), (15, 20), (18, 19), (46, 50)]) == [(0, 20), (30, 40), (46, 50)]
    assert merged([]) == []


def test_reads_are_those_of_a_file(file: RangedFile) -> None:
    plain = io.BytesIO(DATA)
    for offset, whence, size in ((10, 0, 5), (3, 1, 20), (-8, 2, 100), (0, 0, -1), (5, 0, None), (2000, 0, 4)):
        assert file.seek(offset, whence) == plain.seek(offset, whence)
        assert file.read(size) == plain.read(size)
        assert file.tell() == plain.tell()
    assert (file.size(), file.readable(), file.seekable()) == (len(DATA), True, True)


def test_what_is_held_is_fetched_once_and_no_longer_than_its_context(
    file: RangedFile, asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranged, "GAP_BYTES", 5)

    def read(start: int, end: int) -> bytes:
        file.seek(start)
        return file.read(end - start)

    with file.holding([(100, 120), (122, 130), (500, 510)]):
        assert sorted(asked) == [(100, 130), (500, 510)]
        with file.holding([(500, 505), (-5, 3)]):  # of the two only the second has to be fetched
            assert sorted(asked) == [(0, 3), (100, 130), (500, 510)]
            assert read(0, 3) == DATA[:3]
        assert read(110, 125) == DATA[110:125]
        assert read(502, 508) == DATA[502:508]
        assert len(asked) == 3
        assert read(125, 140) == DATA[125:140]  # not all of it is held
        assert asked[-1] == (125, 140)
    assert read(110, 125) == DATA[110:125]
    assert asked[-1] == (110, 125)


def test_a_failed_request_holds_nothing(file: RangedFile) -> None:
    missing = RangedFile(file._store, "y", 100)
    with pytest.raises(NotFoundError), missing.holding([(0, 10)]):
        pass
    assert missing._held == []
