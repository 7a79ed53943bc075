"""What is asked of a store, when and in which pieces: without a store."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from shardkit.reading.blocks import fetch_ahead
from shardkit.reading.blocks.fetch_ahead import Ahead, Cuts, chunk_bytes, copy_spans, request_ahead, share_views
from shardkit.storage import fetchers
from shardkit.storage.access import Remote


class Block:
    """A block of so many samples of ten bytes each."""

    def __init__(self, number: int, samples: int) -> None:
        self.number, self.samples, self.wanted, self.arriving = number, samples, 10 * samples, (self,)

    def __len__(self) -> int:
        return self.samples


class Asked:
    """In place of `Ahead`: notes what is expected and started."""

    def __init__(self, chunk: int, flight: int) -> None:
        self.chunk, self.flight, self.keep = chunk, flight, False
        self.told: list[str] = []
        self.kept: list[bool] = []

    def expect(self, block: Block) -> None:
        self.told.append(f"know {block.number}")

    def start(self, block: Block) -> None:
        self.told.append(f"start {block.number}")
        self.kept.append(self.keep)

    def end(self) -> None:
        self.told.append("end")


def course(
    monkeypatch: pytest.MonkeyPatch, *, samples: int = 1, chunk: int = 10, flight: int = 30, limit: int = 1000,
    window: int = 0, blocks: int = 6,
) -> Asked:  # fmt: skip
    """What becomes of six blocks that are taken one by one."""
    asked = Asked(chunk, flight)
    monkeypatch.setattr(fetch_ahead, "Ahead", lambda how, readers, record: asked)
    placed = ((None, Block(number, samples), None) for number in range(blocks))
    for _, block, _ in request_ahead(cast(Any, placed), Remote(ahead_bytes=limit), window):
        asked.told.append(f"give {cast(Any, block).number}")
    return asked


def short(asked: Asked) -> str:
    """ "k0 s0 g0 …" """
    return " ".join(word[0] + word.rpartition(" ")[2] if " " in word else word for word in asked.told)


def test_blocks_in_the_order_in_which_they_lie_are_started_when_a_chunk_beyond_them_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three blocks are as much as may be under way."""
    told = "k0 k1 s0 k2 s1 k3 s2 g0 k4 s3 g1 k5 s4 g2 s5 g3 g4 g5 end"
    assert short(course(monkeypatch)) == told


def test_two_blocks_are_started_even_where_one_is_more_than_may_be_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "k0 k1 s0 k2 s1 g0 k3 s2 g1 k4 s3 g2 k5 s4 g3 s5 g4 g5 end"
    assert short(course(monkeypatch, flight=1)) == told


def test_a_shuffled_block_is_started_when_its_window_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "k0 k1 s0 k2 s1 g0 k3 s2 g1 k4 s3 g2 k5 s4 g3 s5 g4 g5 end"
    assert short(course(monkeypatch, samples=2, window=4, flight=40)) == told
    told = "k0 k1 k2 s0 k3 s1 g0 k4 s2 g1 k5 s3 g2 s4 g3 s5 g4 g5 end"
    assert short(course(monkeypatch, samples=2, window=5, flight=40)) == told


def test_no_more_is_known_than_may_wait_and_two_blocks_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (1, 10, 20):
        assert short(course(monkeypatch, limit=limit, window=100)) == (
            "k0 k1 s0 s1 g0 k2 s2 g1 k3 s3 g2 k4 s4 g3 k5 s5 g4 g5 end"
        )
    for limit in (21, 30):
        assert short(course(monkeypatch, limit=limit, window=100)).startswith("k0 k1 k2 s0 s1 s2 g0 k3 s3 g1 ")


def test_no_more_samples_are_known_beyond_the_window_than_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_ahead, "KNOWN_SAMPLES", 2)
    known = short(course(monkeypatch, window=2, flight=1000))
    assert known.startswith("k0 k1 s0 k2 s1 k3 s2 s3 g0 k4 ")  # four samples


@pytest.mark.parametrize(
    ("limit", "kept"), [(2 * fetch_ahead.KEPT_SHARE * 10, True), (2 * fetch_ahead.KEPT_SHARE * 10 - 1, False)]
)
def test_samples_are_kept_as_they_came_while_a_window_is_that_part_of_what_may_wait(
    monkeypatch: pytest.MonkeyPatch, limit: int, kept: bool
) -> None:
    assert set(course(monkeypatch, window=2, limit=limit).kept) == {kept}


def test_a_request_is_a_chunk_or_the_sixteenth_part_of_what_may_wait() -> None:
    least, most, share = 64 << 10, fetch_ahead.CHUNK_BYTES, fetchers.REQUESTS
    for limit, size in ((1, least), (share * least, least), (share * (least + 1), least + 1), (share * most * 2, most)):
        assert chunk_bytes(Remote(ahead_bytes=limit)) == size
        made = Ahead(Remote(ahead_bytes=limit))
        assert (made.chunk, made.flight) == (size, max(1, min(share * size, limit // 2)))


class Requests(Ahead):
    """Notes what would be fetched, as (first byte, byte after the last, chunks), in place of it."""

    def __init__(self, chunk: int, readers: int = 1) -> None:
        super().__init__(Remote(), readers)
        self.chunk, self.made = chunk, list[tuple[int, int, int]]()
        self.fetchers = cast(Any, SimpleNamespace(slow=False, submit=self.noted))

    def noted(self, act: Any, place: str, chunks: int) -> str:
        self.keep = True
        act()
        return f"job for {place}: {chunks}"


class Wanted:
    """A block with samples first … stop - 1 of one shard."""

    def __init__(self, spans: list[tuple[int, int]], *, shard: int = 0) -> None:
        self.firsts, self.stops = (np.array(each, np.int64) for each in zip(*spans, strict=True))
        self.jobs: list[Any] = [None] * len(spans)
        self.data: list[Any] = [None] * len(spans)
        self.shard, self.reads = shard, list[tuple[int, int]]()
        files = {shard: SimpleNamespace(url="here", bytes=max(stop for _, stop in spans))}
        self.shards = SimpleNamespace(files=files, pieces=self.pieces, shares=False)

    def pieces(self, shard: int, base: int, stop: int, chunk: int = 0) -> Any:
        assert shard == self.shard
        self.reads.append((base, stop))
        self.whole = chunk
        return [bytes(at % 251 for at in range(base, stop))]

    def by_chunk(self, size: int) -> Any:
        keys = self.shard << 32 | self.firsts // size
        self.chunks = list(dict.fromkeys(keys.tolist()))
        return [(key, np.flatnonzero(keys == key)) for key in self.chunks]


def requests_of(spans: list[tuple[int, int]], chunk: int) -> Wanted:
    """What a block of these samples asks for."""
    block, asks = Wanted(spans, shard=3), Requests(chunk)
    asks.expect(cast(Any, block))
    asks.start(cast(Any, block))
    assert asks.asked == sum(stop - first for first, stop in spans)
    assert [bytes(data) for data in block.data] == [
        bytes(at % 251 for at in range(first, stop)) for first, stop in spans
    ]
    return block


@pytest.mark.parametrize("turned", [False, True])
def test_samples_come_in_one_request_up_to_the_gap_and_in_two_beyond_it(
    monkeypatch: pytest.MonkeyPatch, turned: bool
) -> None:
    monkeypatch.setattr(fetch_ahead, "GAP_BYTES", 7)
    spans = [(10, 30), (37, 40), (48, 50)]
    assert requests_of(spans[::-1] if turned else spans, 1000).reads == [(10, 40), (48, 50)]
    assert requests_of([(10, 60), (20, 30), (67, 70)], 1000).reads == [(10, 70)]  # after the longest


@pytest.mark.parametrize(("slow", "reads"), [(False, [(0, 18), (20, 38), (60, 68)]), (True, None)])
def test_chunks_that_follow_each_other_come_in_one_request_while_it_is_wide_enough(
    slow: bool, reads: list[tuple[int, int]] | None
) -> None:
    assert fetch_ahead.WIDE == 2
    spans = [(at, at + 8) for at in (0, 10, 20, 30, 60)]
    block, asks = Wanted(spans), Requests(10)
    asks.fetchers.slow = slow
    asks.expect(cast(Any, block))
    asks.start(cast(Any, block))
    assert block.reads == (reads or spans)
    asks.start(cast(Any, block))
    assert len(block.reads) == len(reads or spans)  # once


@pytest.mark.parametrize(("readers", "whole"), [(1, False), (4, False), (8, True)])
def test_whole_chunks_are_asked_for_where_the_readers_together_need_much_of_them(
    monkeypatch: pytest.MonkeyPatch, readers: int, whole: bool
) -> None:
    monkeypatch.setattr(fetch_ahead, "AROUND_BYTES", 0)
    monkeypatch.setattr(fetch_ahead, "GAP_BYTES", 7)
    block, asks = Wanted([(10, 30), (980, 1000)]), Requests(1000, readers)
    block.shards.shares = True
    asks.expect(cast(Any, block))
    asks.start(cast(Any, block))
    assert (block.reads, block.whole) == (([(10, 1000)], 1000) if whole else ([(10, 30), (980, 1000)], 0))


def test_a_job_says_how_many_chunks_it_is() -> None:
    for stop, chunks in ((5, 1), (10, 1), (19, 1), (20, 2), (35, 3)):
        assert requests_of([(0, stop)], 10).jobs == [f"job for here: {chunks}"]
        assert requests_of([(5, 5 + stop)], 10).jobs == [f"job for here: {chunks}"]


@pytest.mark.parametrize("give", [copy_spans, share_views])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_each_sample_has_its_bytes_however_they_come(give: Any, size: int) -> None:
    base, whole = 7, bytes(range(7, 40))
    spans = [(7, 9), (9, 9), (9, 16), (9, 16), (18, 23), (23, 38), (39, 40), (40, 40), (40, 40)]
    owner = SimpleNamespace(data=[None] * 20)
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    numbers = [2 * number for number in range(len(spans))]
    owners = cast(Any, [owner] * len(spans))
    give(pieces, base, Cuts([a for a, _ in spans], [b for _, b in spans], owners, numbers))
    assert [bytes(owner.data[number]) for number in numbers] == [bytes(range(a, b)) for a, b in spans]
    assert not any(owner.data[1::2])
