from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from reading.far import uploaded

import shardkit
from shardkit.reading.batches.pool import Task, Threads
from shardkit.reading.blocks import fetch_ahead
from shardkit.reading.epoch import AHEAD_SHARE
from shardkit.reading.stats import auto, tuner
from shardkit.reading.stats.auto import Limits, Point, State
from shardkit.reading.stats.record import Recorder
from shardkit.reading.stats.tuner import Tuner, bytes_of


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> str:
    root = tmp_path_factory.mktemp("auto")
    draw_tree(root / "tree", {"a": 40, "b": 60})
    shardkit.pack(root / "tree", root / "x", workers=1)
    return str(root / "x")


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    """A controller that sets something else after each batch; what it set."""
    points = [Point(1, 1), Point(7, 20), Point(2, 3), Point(5, 1), Point(1, 9)]
    given: list[Point] = []

    def decided(state: State, figures: Any, limits: Limits) -> State:
        point = auto.within(points[len(given) % len(points)], limits)
        given.append(point)
        return replace(state, point=point)

    monkeypatch.setattr(tuner, "decided", decided)
    monkeypatch.setattr(tuner, "WINDOW_SECONDS", 0.0)
    monkeypatch.setattr(tuner, "WINDOW_BATCHES", 0)
    return given


def keys_and_pixels(data: Any) -> list[tuple[list[str], bytes]]:
    return [(batch.keys, batch.images.tobytes()) for batch in data]


def test_the_order_and_the_pixels_do_not_depend_on_it(packed: str, restless: list[Point]) -> None:
    def read(**options: Any) -> Any:
        data = shardkit.dataset(packed, shuffle=50, seed=3, **options)
        return keys_and_pixels(data.decode(size=16, crop="random", flip=True).batch(5).repeat(2))

    expected = read(threads=2, ahead=3)
    assert read(threads="auto", ahead="auto") == expected
    assert len(set(restless)) == 5
    assert read(threads="auto") == expected
    assert read(ahead="auto") == expected


def test_single_samples_are_read_with_it_too(packed: str, restless: list[Point]) -> None:
    data = shardkit.dataset(packed, threads="auto", ahead="auto").decode(size=16)
    assert [sample["__key__"] for sample in data] == list(data.keys)


def test_no_more_is_ahead_than_ahead_bytes_allows(packed: str, restless: list[Point]) -> None:
    size = 5 * 16 * 16 * 3 + 5 * 8
    data = shardkit.dataset(packed, threads="auto", ahead="auto", ahead_bytes=3 * size).decode(size=16).batch(5)
    most = 0
    for _ in data.repeat(3):
        most = max(most, data.stats().ahead)
    list(data.repeat(3))
    assert {point.ahead for point in restless} == {1, 3}


def test_with_a_store_batches_take_a_part_of_ahead_bytes(packed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    ahead = fetch_ahead.Ahead.__init__

    def watched(self: Any, how: Any, *rest: Any) -> None:
        seen.append(how.ahead_bytes)
        ahead(self, how, *rest)

    monkeypatch.setattr(fetch_ahead.Ahead, "__init__", watched)
    data = shardkit.dataset(uploaded(packed), ahead="auto", ahead_bytes=40_000_000).decode(size=16).batch(5)
    assert sum(1 for _ in data) == 20
    assert seen == [40_000_000 - 40_000_000 // AHEAD_SHARE]


def test_what_was_found_out_is_kept_for_the_next_epoch(packed: str, restless: list[Point]) -> None:
    data = shardkit.dataset(packed, threads="auto", ahead="auto").decode(size=16).batch(5)
    list(data)
    state = data.watch.kept.state
    assert state is not None and state.point == restless[-1]
    next(iter(data))
    assert data.stats().threads in {point.threads for point in restless}


@pytest.mark.parametrize("together", [True, False])
def test_epochs_that_are_shorter_than_a_window_share_one(
    packed: str, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    batches: list[int] = []

    def decided(state: State, figures: Any, limits: Limits) -> State:
        batches.append(figures.batches)
        return state

    monkeypatch.setattr(tuner, "decided", decided)
    monkeypatch.setattr(tuner, "WINDOW_SECONDS", 0.0)
    data = shardkit.dataset(packed, threads="auto", ahead="auto").decode(size=16).batch(20)
    epoch, epochs = len(data), 9
    assert epoch < tuner.WINDOW_BATCHES < epoch * epochs // 4
    for read in [data.repeat(epochs)] if together else [data] * epochs:
        list(read)
    assert len(batches) >= 3
    assert all(tuner.WINDOW_BATCHES - epoch <= each <= tuner.WINDOW_BATCHES + epoch for each in batches)


def test_one_batch_is_ahead_while_its_size_is_not_known() -> None:
    record = Recorder(2)
    made = Tuner(record, Point(2, 8), Limits(True, True, 4), 1000)
    threads = Threads(2, record)
    try:
        assert made.ahead(threads) == 1
        made.made(np.zeros(300, np.uint8))
        assert made.ahead(threads) == 3
        made.made(np.zeros(2000, np.uint8))
        assert made.ahead(threads) == 1
    finally:
        threads.close()


@pytest.mark.parametrize(
    ("item", "size"),
    [
        (np.zeros((3, 4), np.float32), 48), ((np.zeros(3, np.uint8), np.zeros(2, np.int64)), 19),
        ({"a": np.zeros(5, np.uint8), "b": [b"xyz", None]}, 8), (None, 0), (7, 0), ("text", 0),
    ],
    ids=["array", "tuple", "dict", "none", "number", "text"],
)  # fmt: skip
def test_the_bytes_of_an_item_are_those_of_its_arrays(item: Any, size: int) -> None:
    assert bytes_of(item) == size


def test_threads_can_be_added_and_taken_away() -> None:
    threads = Threads(1)
    try:
        for count in (4, 1, 3):
            threads.resize(count)
            together = threading.Barrier(count)
            tasks = [Task([together.wait] * count, lambda: None)]
            assert list(threads.run_in_order(tasks, 1)) == [None]
        assert sum(thread.is_alive() for thread in threads._threads) >= 3
    finally:
        threads.close()
    assert not any(thread.is_alive() for thread in threads._threads)


@pytest.mark.parametrize("name", ["threads", "ahead"])
def test_other_words_are_refused(packed: str, name: str) -> None:
    with pytest.raises(shardkit.UsageError, match=name):
        shardkit.dataset(packed, **{name: "many"})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["threads", "ahead"])
def test_another_word_than_auto_is_told(packed: str, name: str) -> None:
    options: dict[str, Any] = {name: "aut"}
    with pytest.raises(
        shardkit.UsageError, match=f"{name}: 'aut' is not a number of {name}; give a number, or \"auto\""
    ):
        shardkit.dataset(packed, **options)
