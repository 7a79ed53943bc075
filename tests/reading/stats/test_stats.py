from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from reading.far import uploaded

import shardkit
from shardkit import Dataset
from shardkit.reading.stats import record as record_module
from shardkit.reading.stats.record import Recorder, Spent


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> str:
    root = tmp_path_factory.mktemp("stats")
    draw_tree(root / "tree", {"a": 40, "b": 60})
    shardkit.pack(root / "tree", root / "x", workers=1)
    return str(root / "x")


def batches(source: str, **options: Any) -> Dataset[Any]:
    return shardkit.dataset(source, **options).decode(size=16).batch(10)


def test_an_iteration_is_counted(packed: str) -> None:
    data = batches(packed, threads=3, ahead=4)
    read = list(data)
    stats = data.stats()
    assert (stats.batches, stats.samples, stats.skipped) == (len(read), 100, 0)
    assert (stats.rank, stats.world_size, stats.threads, stats.ahead) == (0, 1, 3, 4)
    assert 0 < stats.bytes < sum(path.stat().st_size for path in Path(packed).parent.glob("x*.tar"))
    assert stats.wait.count == stats.hand_over.count == stats.batches - 1
    assert stats.step.count == stats.batches
    assert stats.request.count == 0
    assert 0 <= stats.queue_depth <= 4
    assert stats.first_seconds > 0
    assert stats.seconds == pytest.approx(stats.wait.seconds + stats.hand_over.seconds + stats.step.seconds, rel=0.01)
    assert stats.bottleneck in ("step", "decode", "disk", "buffer", "hand-over")
    assert stats.advice in str(stats)


def test_bytes_are_those_of_all_samples(packed: str) -> None:
    whole = sum(len(sample["jpg"]) for sample in shardkit.dataset(packed))
    for data in (batches(packed), shardkit.dataset(packed), shardkit.dataset(packed).batch(7),
                 shardkit.dataset(packed).batch(7, encoded=True)):  # fmt: skip
        assert sum(1 for _ in data) > 0
        assert (data.stats().bytes, data.stats().samples) == (whole, 100)


def test_class_directories_and_combined_and_streamed_datasets_are_counted_too(packed: str) -> None:
    tree = str(Path(packed).parent / "tree")
    mixed = shardkit.mix([shardkit.dataset(packed), shardkit.dataset(tree)]).decode(size=16).batch(10)
    loose = batches([str(path) for path in sorted(Path(packed).parent.glob("x-*.tar"))])
    for data, samples in ((batches(tree), 100), (mixed, 200), (loose, 100)):
        assert sum(1 for _ in data) == samples // 10
        assert (data.stats().batches, data.stats().samples) == (samples // 10, samples)
        assert data.stats().bytes > 100 * samples


def test_requests_to_a_store_are_counted(packed: str) -> None:
    data = batches(uploaded(packed))
    assert sum(1 for _ in data) == 10
    stats = data.stats()
    assert stats.request.count > 0 and stats.samples == 100


def test_functions_of_samples_and_batches_are_transforms(packed: str) -> None:
    def same(item: Any) -> Any:
        return item

    plain = shardkit.dataset(packed).decode(size=16)
    for data in (plain.map(same).batch(10), plain.batch(10).map(same), plain.filter(bool).batch(10)):
        list(data)
        assert data.stats().transform.count > 0 and data.stats().transform.seconds > 0
    assert batches(packed).stats().transform.count == 0


def test_functions_that_the_loop_calls_itself_are_transforms_and_not_hand_over(packed: str) -> None:
    data = batches(packed).filter(bool).take(8).map(lambda batch: batch)
    assert sum(1 for _ in data) == 8
    assert data.stats().transform.count == 7


def test_single_decoded_samples_are_timed_in_runs(packed: str) -> None:
    data = shardkit.dataset(packed).decode(size=16)
    assert sum(1 for _ in data) == 100
    assert (data.stats().samples, data.stats().batches) == (100, 2)


def test_skipped_samples_are_counted(tmp_path: Path, draw_tree: Any) -> None:
    tree = draw_tree(tmp_path / "tree", {"a": 9})
    (tree / "a" / "bad.jpg").write_bytes(b"\xff\xd8\xff no image")
    data = shardkit.dataset(tree).decode(size=16, on_error="skip").batch(5)
    list(data)
    assert (data.stats().skipped, data.stats().samples) == (1, 10)


def test_before_the_first_iteration_all_is_zero(packed: str) -> None:
    stats = batches(packed).stats()
    assert (stats.batches, stats.seconds, stats.bottleneck) == (0, 0.0, "none")
    assert "Too few batches" in str(stats)


def test_the_statistics_are_those_of_the_latest_iteration(packed: str) -> None:
    data = batches(packed)
    list(data)
    running = iter(data)
    next(running)
    next(running)
    assert (data.stats().batches, data.stats().samples) == (2, 20)
    other = iter(data)
    next(other)
    assert data.stats().batches == 1
    assert next(running) and data.stats().batches == 1


def test_an_iteration_that_was_broken_off_keeps_its_statistics(packed: str) -> None:
    data = batches(packed, ahead=2)
    for number, _ in enumerate(data):
        if number == 4:
            break
    before = data.stats()
    assert (before.batches, before.samples) == (5, 50)
    after = data.stats()
    assert (after.seconds, after.wait, after.step) == (before.seconds, before.wait, before.step)


def test_an_error_in_a_function_leaves_the_statistics_whole(packed: str) -> None:
    def fail(batch: Any) -> Any:
        raise ValueError("a mistake")

    data = batches(packed).map(fail)
    with pytest.raises(ValueError, match="a mistake"):
        list(data)
    assert data.stats().batches == 0


def test_a_function_that_ends_its_thread_leaves_the_statistics_whole(packed: str) -> None:
    def leave(batch: Any) -> Any:
        raise SystemExit(3)

    data = batches(packed).map(leave)
    with pytest.raises(SystemExit):
        list(data)
    assert (data.stats().batches, data.stats().bottleneck) == (0, "none")
    assert sum(1 for _ in batches(packed)) == 10


def test_readers_that_share_batches_are_counted_each(packed: str, tmp_path: Path) -> None:
    readers = [batches(packed, shuffle=True, shared=str(tmp_path / "meet")) for _ in range(2)]
    for data in readers:
        assert sum(1 for _ in data) == 10
        assert (data.stats().batches, data.stats().samples, data.stats().fetch.count) == (10, 100, 10)


def test_a_new_step_and_a_pickle_begin_without_statistics(packed: str) -> None:
    data = batches(packed)
    list(data)
    assert data.take(2).stats().batches == 0
    assert pickle.loads(pickle.dumps(data)).stats().batches == 0
    assert data.stats().batches == 10


def test_statistics_can_be_pickled_added_and_taken_off(packed: str) -> None:
    data = batches(packed).repeat(2)
    items = iter(data)
    for _ in range(12):
        next(items)
    early = pickle.loads(pickle.dumps(data.stats()))
    for _ in items:
        pass
    late = data.stats()
    assert ((late - early).batches, (late - early).samples) == (8, 80)
    assert ((late + early).batches, (late + early).wait.count) == (32, late.wait.count + early.wait.count)


def test_each_rank_has_its_own(packed: str) -> None:
    data = batches(packed, rank=1, world_size=2)
    list(data)
    assert (data.stats().rank, data.stats().world_size, data.stats().samples) == (1, 2, 50)


def test_it_may_be_asked_for_in_another_thread_meanwhile(packed: str) -> None:
    data, seen = batches(packed).repeat(20), list[int]()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.append(data.stats().batches)

    other = threading.Thread(target=look)
    other.start()
    assert sum(1 for _ in data) == 200
    over.set()
    other.join()
    assert seen == sorted(seen)


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_times_are_the_loops_its_waits_and_the_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(record_module, "perf_counter", clock)
    record = Recorder(threads=2)

    def items() -> Any:
        for _ in range(3):
            clock.now += 1.0  # the loader's own work
            clock.now += 4.0
            record.blocked(4.0, ready=1)
            yield "batch"

    for _ in record.through(items()):
        clock.now += 2.0
    counts = record.counts()
    seconds = {name: counts.stages[name].seconds for name in ("wait", "hand_over", "step")}
    assert seconds == {"wait": 8.0, "hand_over": 2.0, "step": 6.0}
    assert (counts.seconds, counts.available, counts.first, counts.batches) == (16.0, 32.0, 5.0, 3)


def test_a_clock_that_goes_back_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(record_module, "perf_counter", clock)
    record = Recorder()
    for _ in record.through(range(5)):
        clock.now -= 3.0
    assert record.counts().stages["step"].number == 5
    assert record.counts().stages["step"].percentile(50) == 0.0


def test_a_part_is_divided_as_one_of_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    record, spent = Recorder(), Spent()
    spent.add(10.0, 2.0, [0.0, 1.0, 3.0, 4.0])  # 8 s without the wait: 2 to read, 4 to decode, 2 in functions
    spent.add(1.0, 0.0, [0.0, 0.5])  # the sample was dropped: all of it is decoding
    monkeypatch.setattr(record_module, "perf_counter", lambda: 7.0)
    spent.close(record.meter(), 6.5, 0.25)
    meter = record.meter()
    assert (meter.fetch.seconds, meter.transform.seconds, meter.decode.seconds) == (4.0, 2.25, 5.25)
