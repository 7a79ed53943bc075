from __future__ import annotations

import io
import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shardkit import NotFoundError, UsageError, dataset, pack
from shardkit.cli.bench import bench_text
from shardkit.images.rewrite import lossless
from shardkit.tools.bench import advice as bench_advice
from shardkit.tools.bench import bench as bench_module
from shardkit.tools.bench import measure as bench_measure
from shardkit.tools.bench.advice import Figures, advise, measured_table, resize_side, shard_bytes_for
from shardkit.tools.bench.bench import BenchResult, _thread_counts, bench, plot
from shardkit.tools.bench.measure import Measurement, Way, can_drop, decode_rate, measure, one_pass, resized
from shardkit.tools.progressive import TIMES

GB = 10**9


def figures(
    rates: dict[tuple[str, str, str, int], float], *, decode: float = 2_000, resized: float | None = None, **others: Any
) -> Figures:
    """Figures with these rates: (what, cache, stage, threads) -> images a second; 100 kB an image."""
    measured = [Measurement(*key, rate, rate * 1e5, 3) for key, rate in rates.items()]  # type: ignore[arg-type]
    given: dict[str, Any] = {"samples": 100_000, "bytes": 10 * GB, "memory_bytes": 64 * GB, "cores": 4, "size": 224}
    bytes_ratio = None if resized is None else 0.3
    return Figures(
        measurements=tuple(measured), decode_rate=decode, resized_gain=resized, resized_bytes=bytes_ratio,
        **{**given, **others},
    )  # fmt: skip


def usual(**changes: float) -> dict[tuple[str, str, str, int], float]:
    """Rates of a machine where decoding is the limit; changes: by `what_cache_stage`."""
    rates = {
        "directory_cold_raw": 500.0, "shards_cold_raw": 9_000.0, "directory_warm_raw": 9_000.0,
        "shards_warm_raw": 30_000.0, "directory_cold_decoded": 480.0, "shards_cold_decoded": 1_900.0,
        "directory_warm_decoded": 1_850.0, "shards_warm_decoded": 1_900.0,
    } | changes  # fmt: skip
    found: dict[tuple[str, str, str, int], float] = {}
    for name, rate in rates.items():
        what, cache, stage = name.split("_")
        found[what, cache, stage, 4 if stage == "decoded" else 1] = rate
    return found


def test_packing_pays_where_cold_reads_gain() -> None:
    advice = advise(figures(usual()), buffer=10_000)
    assert advice.pack
    assert advice.gain_cold == pytest.approx(1_900 / 480)
    text = " ".join(advice.lines)
    assert "from a cold disk 4.0 times as fast as the directory, from the page cache as fast as the directory" in text
    assert "The images (10.0 GB) fit in memory (64.0 GB), so only the first epoch gains." in text


def test_a_dataset_larger_than_memory_gains_in_every_epoch() -> None:
    advice = advise(figures(usual(), bytes=100 * GB), buffer=10_000)
    assert "do not fit in memory (64.0 GB), so every epoch gains" in " ".join(advice.lines)


def test_it_says_when_packing_brings_nothing() -> None:
    advice = advise(figures(usual(directory_cold_decoded=1_880.0)), buffer=10_000)
    assert not advice.pack
    assert "packing brings no speed here" in " ".join(advice.lines)


def test_it_says_when_shards_are_slower() -> None:
    advice = advise(figures(usual(directory_cold_decoded=3_800.0, directory_warm_decoded=3_800.0)), buffer=1)
    assert "from a cold disk 2.0 times slower than the directory" in " ".join(advice.lines)
    assert not advice.pack


@pytest.mark.parametrize(
    ("changes", "decode", "where"),
    [
        ({}, 2_000.0, "decode"),
        ({"shards_cold_raw": 1_000.0}, 2_000.0, "storage"),
        ({"shards_warm_decoded": 500.0}, 2_000.0, "hand-over"),
        ({}, 40_000.0, "hand-over"),
    ],
)
def test_the_bottleneck_is_where_the_least_is_possible(changes: dict[str, float], decode: float, where: str) -> None:
    assert advise(figures(usual(**changes), decode=decode), buffer=1).bottleneck == where


def test_passes_that_differ_much_are_told() -> None:
    shown = figures(usual())
    assert "busy" not in " ".join(advise(shown, buffer=1).lines)
    noisy = replace(shown, measurements=tuple(replace(each, spread=2.0) for each in shown.measurements))
    assert "Passes of the same kind differ by 2.0 times: the machine is busy" in advise(noisy, buffer=1).lines[-1]


def test_a_busy_machine_gives_no_advice_and_says_why() -> None:
    quiet = figures(usual(), resized=3.0)
    busy = replace(quiet, load=quiet.cores * bench_advice._BUSY + 1)
    advice = advise(busy, buffer=1)
    assert (advice.pack, advice.resize) == (None, False)
    assert len(advice.lines) == 1 and "Other programs kept 3.0 of 4 cores busy" in advice.lines[0]
    assert advise(replace(busy, load=quiet.cores * bench_advice._BUSY), buffer=1).pack is True


@pytest.mark.parametrize(
    ("directory", "spread", "pays"),
    [(1_900.0, 1.0, False), (1_900.0, 1.3, None), (1_000.0, 1.3, True), (1_000.0, 2.0, None), (3_800.0, 1.3, False)],
)
def test_what_the_spread_of_the_passes_covers_is_not_advised(
    directory: float, spread: float, pays: bool | None
) -> None:
    shown = figures(usual(directory_cold_decoded=directory, directory_warm_decoded=directory))
    noisy = replace(shown, measurements=tuple(replace(each, spread=spread) for each in shown.measurements))
    advice = advise(noisy, buffer=1)
    assert advice.pack is pays
    assert ("no telling" in " ".join(advice.lines)) is (pays is None)


def test_a_copy_is_not_advised_from_passes_that_differ_more_than_the_two() -> None:
    rates = {("store", "warm", "decoded", 1): 1_000.0, ("shards", "warm", "decoded", 1): 1_500.0}
    shown = figures(rates)  # type: ignore[arg-type]
    assert advise(shown, buffer=1).copy
    noisy = replace(shown, measurements=tuple(replace(each, spread=1.6) for each in shown.measurements))
    advice = advise(noisy, buffer=1)
    assert not advice.copy and "no telling" in " ".join(advice.lines)


def test_packing_and_resizing_pay_from_the_gain_on_that_is_worth_it() -> None:
    for rate, worth in ((1_000.0 * bench_advice.WORTH, True), (1_149.0, False)):
        packed = advise(figures(usual(directory_cold_decoded=1_000.0, shards_cold_decoded=rate)), buffer=1)
        assert packed.pack is worth
    assert advise(figures(usual(), resized=bench_advice.WORTH), buffer=1).resize


def test_without_cold_reads_the_page_cache_is_the_storage_and_that_is_said() -> None:
    warm = {key: rate for key, rate in usual().items() if key[1] == "warm"}
    advice = advise(figures(warm), buffer=1)
    assert advice.gain_cold is None
    assert "the page cache gives 30,000 images/s" in advice.lines[0]
    assert "Cold reads could not be measured" in " ".join(advice.lines)


def test_the_threads_are_the_fewest_that_are_nearly_the_fastest() -> None:
    rates = {("shards", "warm", "decoded", n): rate for n, rate in {1: 500.0, 2: 960.0, 4: 1_000.0, 8: 990.0}.items()}
    assert advise(figures(rates), buffer=1).threads == 2


@pytest.mark.parametrize(
    ("gain", "storage", "pays"), [(3.0, 9_000.0, True), (1.05, 9_000.0, False), (3.0, 100.0, True), (None, 9.0, False)]
)
def test_resizing_pays_where_it_shortens_what_takes_time(gain: float | None, storage: float, pays: bool) -> None:
    advice = advise(figures(usual(shards_cold_raw=storage), resized=gain), buffer=1)
    assert advice.resize is pays
    assert advice.resize_gain == gain
    assert ("a shorter side of 256" in advice.lines[-1]) is (gain is not None)


@given(st.integers(1, 10**15))
def test_the_proposed_shards_are_of_a_size_that_works(total: int) -> None:
    size = shard_bytes_for(total)
    assert 16 * 10**6 <= size <= GB
    assert size % 10**6 == 0
    if 256 * 10**6 * 16 <= total <= 256 * 10**6 * 10_000:
        assert size == 256 * 10**6
    if 16 * 16 * 10**6 <= total <= 256 * 10**6 * 16:
        assert 16 <= total / size <= 17.01


def test_the_side_for_resizing_leaves_room_for_the_crop() -> None:
    assert resize_side(224) == 256


def test_the_table_sets_the_directory_beside_the_shards() -> None:
    rows = measured_table(figures(usual()).measurements)
    assert rows[0] == ["", "cache", "threads", "directory", "shards", "shards are"]
    assert rows[1] == [
        "raw", "cold", "1", "500 images/s, 50 MB/s", "9,000 images/s, 900 MB/s", "18.00 times as fast",
    ]  # fmt: skip
    assert len(rows) == 5


def test_a_pass_ends_in_time_and_closes_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(float(n) for n in range(1000))
    monkeypatch.setattr(bench_measure.time, "perf_counter", lambda: next(clock))
    closed = []

    def endless() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.append(True)

    assert one_pass(endless, 10) == (9, 9.0)  # one a second, counted from the first on
    assert closed == [True]
    assert one_pass(lambda: iter([1, 2]), 10) == (2, 2.0)


def test_ways_are_measured_in_turns_and_cold_ones_after_dropping(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(bench_measure, "drop", lambda files: order.append(f"drop {files[0]}"))
    monkeypatch.setattr(bench_measure, "one_pass", lambda start, _: (order.append(start()), (50, 0.5))[1])
    ways = [Way(what, "cold", "raw", 1, lambda w=what: w, [what]) for what in ("directory", "shards")]  # type: ignore[misc]
    first, second = measure(ways, 1.0, 10.0)
    assert order == ["drop directory", "directory", "drop shards", "shards"] * 2
    assert (first.images, first.bytes, first.passes) == (100.0, 1000.0, 2)
    assert second.what == "shards"


def drops_here(folder: Path) -> bool:
    path = folder / "probe"
    path.write_bytes(b"x" * 100_000)
    return can_drop([str(path)])


@pytest.mark.parametrize(("answer", "cached"), [(BlockingIOError(), False), (OSError(), None), (1, True)])
def test_a_file_is_cached_where_reading_it_does_not_wait(
    answer: Any, cached: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def preadv(fd: int, buffers: Any, offset: int, flags: int) -> int:
        asked.append(offset)
        if isinstance(answer, Exception):
            raise answer
        return int(answer)

    (tmp_path / "file").write_bytes(bytes(100))
    monkeypatch.setattr(os, "preadv", preadv)
    assert bench_measure._cached(str(tmp_path / "file")) is cached
    assert asked == [50]


@pytest.mark.parametrize("held", [0, 2, 3])
def test_dropping_works_where_few_files_stay_cached_and_is_given_up_in_time(
    held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [str(tmp_path / str(number)) for number in range(10)]
    for path in files:
        Path(path).write_bytes(b"x")
    slept: list[float] = []
    monkeypatch.setattr(bench_measure, "_cached", lambda path: files.index(path) < held)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert seconds <= bench_measure._PATIENCE

    monkeypatch.setattr(bench_measure.time, "sleep", sleep)
    works = held <= bench_measure._MOST_CACHED * len(files)
    assert can_drop(files) is works is (held < 3)
    pauses = [0.05 * 2**number for number in range(10)]
    assert slept == ([] if works else [pause for pause in pauses if pause <= bench_measure._PATIENCE / 2])


def test_a_pass_that_ends_early_closes_what_it_read() -> None:
    class Items:
        closed = False

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            return {}

        def close(self) -> None:
            self.closed = True

    items = Items()
    assert one_pass(lambda: items, 0.0)[0] == 1  # type: ignore[arg-type,return-value]
    assert items.closed


def test_a_file_that_is_mapped_and_in_use_is_seen_as_not_dropped(tmp_path: Path) -> None:
    if not drops_here(tmp_path):
        pytest.skip("files can't be evicted from the page cache here")
    path = tmp_path / "held"
    path.write_bytes(os.urandom(1 << 20))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        assert sum(held[::4096]) > 0
        assert not can_drop([str(path)])
    assert can_drop([str(path)])


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of `can_drop`, which are not taken; nothing is dropped."""
    found: list[float] = []
    monkeypatch.setattr(os, "posix_fadvise", None, raising=False)
    monkeypatch.setattr(os, "RWF_NOWAIT", 8, raising=False)
    monkeypatch.setattr(bench_measure, "drop", lambda files: None)
    monkeypatch.setattr(bench_measure.time, "sleep", found.append)
    return found


@pytest.mark.parametrize("missing", ["posix_fadvise", "RWF_NOWAIT"])
def test_a_system_that_cannot_tell_what_is_cached_has_no_cold_reads(
    missing: str, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_measure, "_cached", lambda path: False)
    assert can_drop(["a"])
    monkeypatch.delattr(os, missing)
    assert not can_drop(["a"])
    assert pauses == []


def test_decoding_is_measured_for_damaged_images_too(draw_image: Any) -> None:
    assert decode_rate([draw_image(1), b"no image", draw_image(2)], 16, 0.01, threads=2) > 0


def test_resized_images_have_the_shorter_side_asked_for(draw_image: Any) -> None:
    found = resized([draw_image(1, size=(400, 300)), b"no image", draw_image(2, size=(40, 20))], 100)
    sizes = []
    for image in found:
        with Image.open(io.BytesIO(image)) as opened:
            sizes.append(opened.size)
    assert sizes == [(133, 100), (40, 20)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> Path:
    """A tree of 90 images of 360 x 300 pixels in 2 classes, and the same packed beside it as `shards`."""
    root = tmp_path_factory.mktemp("bench")
    draw_tree(root / "tree", {"a": 50, "b": 40}, size=(360, 300))
    pack(root / "tree", root / "shards", workers=1, max_bytes="256KiB")
    return root


@pytest.mark.parametrize("kind", ["class directory", "shards"])
def test_a_directory_and_shards_are_measured_in_both_forms(kind: str, photos: Path, tmp_path: Path) -> None:
    source = photos / ("tree" if kind == "class directory" else "shards")
    before = sorted(path.name for path in photos.rglob("*"))
    result = bench(source, seconds=1, threads=[1, 2], size=64, folder=tmp_path)
    assert (result.kind, result.samples, result.size) == (kind, 90, 64)
    assert 64 <= result.sampled <= 90
    whole = sum(path.stat().st_size for path in (photos / "tree").rglob("*.jpg"))
    assert result.bytes == pytest.approx(whole, rel=0.2)
    found = {(m.what, m.cache, m.stage, m.threads) for m in result.measurements}
    caches = {cache for _, cache, _, _ in found}
    assert "warm" in caches
    for what in ("directory", "shards"):
        assert {(what, "warm", "raw", 1), (what, "warm", "decoded", 1), (what, "warm", "decoded", 2)} <= found
        assert ((what, "cold", "decoded", 2) in found) == ("cold" in caches)
    assert all(m.images > 0 and m.passes >= 1 for m in result.measurements)
    assert result.decode_rate > 0
    assert result.advice.resize_gain is not None  # 300 pixels are many more than a crop of 64 needs
    assert (result.pack_rate is None) == (kind == "shards")
    assert list(tmp_path.iterdir()) == []
    assert sorted(path.name for path in photos.rglob("*")) == before


def test_the_sample_of_a_directory_is_the_same_images_in_both_forms(photos: Path, tmp_path: Path) -> None:
    from shardkit.tools.bench.bench import _packed_sample, _unpacked_sample

    whole = dataset(photos / "tree")
    sample = _packed_sample(str(photos / "tree"), whole, str(tmp_path), 20.0, 0)
    images = [{bytes(s["jpg"]) for s in data} for data in (sample.directory(), sample.packed())]
    assert images[0] == images[1]
    assert len(images[0]) == sample.images
    assert sum(map(len, images[0])) == sample.bytes
    (tmp_path / "other").mkdir()
    other = _unpacked_sample(photos / "shards", dataset(photos / "shards"), str(tmp_path / "other"))
    images = [{bytes(s["jpg"]) for s in data} for data in (other.directory(), other.packed())]
    assert images[0] == images[1]
    assert len(images[0]) == other.images == 90


def test_a_dataset_in_runs_of_classes_gets_a_larger_buffer(draw_tree: Any, tmp_path: Path) -> None:
    from shardkit.tools.bench.bench import _buffer

    tree = draw_tree(tmp_path / "tree", {"a": 30, "b": 30}, size=(8, 8))
    pack(tree, tmp_path / "runs", shuffle=False, workers=1)
    assert _buffer(tmp_path / "runs", dataset(tmp_path / "runs"), 60) == 60
    assert _buffer(tree, dataset(tree), 60) == 60
    assert _buffer(tree, dataset(tree), 10**6) == 10_000


@pytest.mark.parametrize(
    ("options", "message"),
    [({"seconds": 0.5}, "0.5 is too small; give at least 1"), ({"threads": [0]}, "0 is too small; give at least 1")],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str, photos: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        bench(photos / "tree", **options)


def test_a_source_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        bench(tmp_path / "nothing")


@pytest.mark.parametrize(("cores", "counts"), [(1, [1, 1]), (6, [1, 2, 4, 6]), (64, [4, 8, 16, 32, 64])])
def test_the_usual_threads_are_the_cores_and_four_powers_of_2_below(
    cores: int, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardkit.tools.bench.bench.cores", lambda: cores)
    assert _thread_counts() == counts


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    shown = figures(usual())
    result = BenchResult(
        source="x", kind="shards", samples=1, bytes=1, sampled=1, sampled_bytes=1, size=224, cores=4, memory_bytes=1,
        pack_rate=None, decode_rate=1.0, measurements=shown.measurements, advice=advise(shown, buffer=1),
    )  # fmt: skip
    plot(result, tmp_path / "bench.png")
    with Image.open(tmp_path / "bench.png") as image:
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10
        assert image.size == (960, 480)  # 8 inches; 1.6 and 0.6 for each of 4 rows; at 120 dots
    plot(result, tmp_path / "bench.svg")
    assert (tmp_path / "bench.svg").read_text().count("<svg") == 1
    with pytest.raises(UsageError, match=r"give one that ends with \.png"):
        plot(result, tmp_path / "bench.tar")


def far(store: float, copy: float, decode: float) -> dict[tuple[str, str, str, int], float]:
    """Rates of a store and of a copy here: of bytes; and of decoded batches, no faster than `decode`."""
    found: dict[tuple[str, str, str, int], float] = {}
    for what, rate in (("store", store), ("shards", copy)):
        found[what, "warm", "raw", 1] = rate
        found[what, "warm", "decoded", 4] = 0.95 * min(rate, decode)
    return found


def test_a_copy_pays_where_the_store_is_slower_than_decoding() -> None:
    advice = advise(figures(far(500, 30_000, 2_000), decode=2_000), buffer=7)
    assert (advice.bottleneck, advice.copy, advice.gain_copy) == ("storage", True, 4.0)
    assert "the store gives 500 images/s" in advice.lines[0]
    assert 'cache="FOLDER"' in advice.lines[1]
    assert "10.0 GB" in advice.lines[1]
    assert (advice.pack, advice.gain_cold, advice.gain_warm, advice.buffer) == (False, None, None, 7)


def test_a_copy_pays_from_the_gain_on_that_is_worth_it() -> None:
    for gain, pays in ((bench_advice.WORTH, True), (bench_advice.WORTH - 0.01, False)):
        rates = {("store", "warm", "decoded", 1): 1_000.0, ("shards", "warm", "decoded", 1): 1_000.0 * gain}
        advice = advise(figures(rates), buffer=1)  # type: ignore[arg-type]
        assert (advice.gain_copy, advice.copy) == (pytest.approx(gain), pays)


def test_a_copy_brings_nothing_where_decoding_is_slower_than_the_store() -> None:
    advice = advise(figures(far(9_000, 30_000, 2_000), decode=2_000), buffer=7)
    assert (advice.bottleneck, advice.copy, advice.gain_copy) == ("decode", False, 1.0)
    assert "a copy gains nothing" in advice.lines[1]


def test_the_table_sets_the_store_beside_a_copy() -> None:
    head, raw, decoded = measured_table(figures(far(500, 2_000, 1_000)).measurements)
    assert head == ["", "cache", "threads", "the store", "a local copy", "the copy is"]
    assert raw == ["raw", "none", "1", "500 images/s, 50 MB/s", "2,000 images/s, 200 MB/s", "4.00 times as fast"]
    assert decoded[:3] == ["decoded", "none", "4"]


def test_shards_in_a_store_are_measured_against_a_copy(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from shardkit import upload
    from shardkit.cli.main import run

    upload(photos / "shards", "memory://bench/shards")
    result = bench("memory://bench/shards", seconds=1, threads=[1, 2], size=64, folder=tmp_path)
    assert (result.kind, result.samples, result.sampled, result.pack_rate) == ("shards in a store", 90, 90, None)
    found = {(m.what, m.cache, m.stage, m.threads) for m in result.measurements}
    assert found == {
        (what, "warm", stage, threads)
        for what in ("store", "shards")
        for stage, threads in (("raw", 1), ("decoded", 1), ("decoded", 2))
    }
    assert result.advice.gain_copy is not None
    assert list(tmp_path.iterdir()) == []
    plot(result, tmp_path / "far.png")
    assert run(["bench", "memory://bench/shards", "--seconds", "1", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "memory://bench/shards: shards in a store, 90 images" in out
    assert "a local copy" in out


@pytest.mark.parametrize(("tree", "shards"), [(True, True), (True, False), (False, True), (False, False)])
def test_cold_reads_are_measured_where_both_forms_can_be_dropped_from_the_cache(
    tree: bool, shards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    can = {("tree",): tree, ("shards",): shards}
    caches: list[str] = []
    monkeypatch.setattr(bench_module.timing, "can_drop", lambda files: can[tuple(files)])
    monkeypatch.setattr(bench_module, "_pair", lambda sample, form, cache, *_: caches.append(cache))
    monkeypatch.setattr(bench_module, "_in_groups", lambda *_: [])
    sample: Any = SimpleNamespace(far=None, tree_files=["tree"], shard_files=["shards"])
    bench_module._measured(sample, [1, 2], 224, 1.0, lambda _: None)
    assert ("cold" in caches) is (tree and shards)
    assert caches.count("warm") == 3


def test_the_first_samples_are_as_many_as_fit_and_one_at_least() -> None:
    def first(sizes: list[int | None]) -> tuple[list[int], int]:
        table = pa.table({"image_size": pa.array(sizes, pa.int64())})
        catalog = SimpleNamespace(index_tables=lambda names: [table])
        whole: Any = SimpleNamespace(content=SimpleNamespace(catalog=catalog))
        rows, size = bench_module._first_rows(whole)
        return rows.tolist(), size

    most = bench_module.SAMPLE_BYTES
    assert first([most + 1, 5]) == ([0], most + 1)
    assert first([5, None, 7]) == ([0, 1, 2], 12)
    assert first([1, most, 1]) == ([0], 1)
    assert first([most // 2, most // 2 + 1, 1]) == ([0], most // 2)


def test_threads_are_counted_in_words() -> None:
    assert [bench_advice.plural(number) for number in (1, 2, 16)] == ["1 thread", "2 threads", "16 threads"]


def test_what_is_measured_is_cropped_and_flipped_as_in_training(photos: Path) -> None:
    options = bench_measure.decoded(dataset(photos / "shards"), 64).steps.decode
    assert options is not None
    assert (options.options.size, options.options.crop, options.options.flip) == (64, "random", True)


def test_few_images_give_no_advice() -> None:
    shown = figures(usual(), resized=3.0)
    advice = advise(replace(shown, sampled=bench_advice.FEW - 1), buffer=1)
    assert (advice.pack, advice.resize) == (None, False)
    assert advice.lines == (
        "255 images are too few to advise: opening files takes longer than reading them. Measure a larger dataset.",
    )
    assert advise(replace(shown, sampled=bench_advice.FEW), buffer=1).pack is True


def test_the_table_gives_the_spread_of_several_passes() -> None:
    way = figures({("shards", "warm", "raw", 1): 1_000.0}).measurements[0]  # type: ignore[arg-type]
    cells = [measured_table([replace(way, passes=passes, spread=1.1)])[1][4] for passes in (1, 2)]
    assert [" ± 5%" in cell for cell in cells] == [False, True]


def test_the_load_is_what_other_programs_use_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """(a clock, seconds of all processors, seconds of this process), before and after."""
    times = iter([(100.0, 50.0, 7.0), (110.0, 75.0, 12.0)])
    monkeypatch.setattr(bench_module, "_processor_seconds", lambda: next(times))
    monkeypatch.setattr("os.cpu_count", lambda: bench_module.cores() * 2)
    assert bench_module.OtherPrograms().cores() == pytest.approx((25 - 5) / 10 / 2)


def test_without_figures_of_the_processors_the_load_is_the_average_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "_processor_seconds", lambda: None)
    monkeypatch.setattr(bench_module, "_load", lambda: 3.5)
    assert bench_module.OtherPrograms().cores() == 3.5


def test_the_processors_of_this_machine_are_read() -> None:
    seen = bench_module._processor_seconds()
    assert seen is None or all(value >= 0 for value in seen)


@pytest.mark.parametrize("converts", [True, False])
def test_progressive_jpegs_are_counted_and_what_baseline_brings_is_measured(
    converts: bool, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if converts and not lossless.available():
        pytest.skip("shardkit was built without the part that converts JPEGs")
    monkeypatch.setattr(lossless, "available", lambda: converts)
    (tmp_path / "tree" / "a").mkdir(parents=True)
    for number, path in enumerate(sorted((photos / "tree").rglob("*.jpg"))[:8]):
        with Image.open(path) as image:
            image.save(tmp_path / "tree" / "a" / f"{number}.jpg", progressive=number < 4)
    result = bench(tmp_path / "tree", seconds=1, threads=[1], size=64)
    assert (result.jpegs, result.progressive) == (8, 4)
    assert (result.baseline_gain is not None) == converts
    told = result.advice.lines[-1]
    assert told.startswith("4 of the 8 JPEGs are progressive: 'shardkit pack --baseline'")
    times = f"decode {result.baseline_gain:.1f} times" if converts else f"decode about {TIMES} times"
    assert times in told
    assert told in bench_text(result)


def test_nothing_is_said_about_progressive_jpegs_where_there_are_none(photos: Path, tmp_path: Path) -> None:
    result = bench(photos / "tree", seconds=1, threads=[1], size=64, folder=tmp_path)
    assert (result.progressive, result.baseline_gain) == (0, None)
    assert result.jpegs > 0
    assert not any("progressive" in line for line in result.advice.lines)
