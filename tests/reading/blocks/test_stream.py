from __future__ import annotations

import gzip
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit import DamagedError, Dataset, DatasetError, DecodeError, NotFoundError, StorageError
from shardkit.formats.tar.samples import END, encode_sample
from shardkit.location import locate
from shardkit.reading.blocks import stream
from shardkit.reading.blocks.stream import StreamBlocks, shuffle_stream
from shardkit.reading.content import _PerProcess
from shardkit.rng import uniform

KeysOf = Callable[[Any], list[str]]
ALL = [f"n{number:02}" for number in range(50)]


def test_shards_without_a_manifest_are_read_in_order(foreign: str, keys_of: KeysOf) -> None:
    dataset = shardkit.dataset(foreign)
    assert keys_of(dataset) == keys_of(dataset) == ALL
    for number, sample in enumerate(dataset):
        assert [*sample] == ["__key__", "__url__", "cls", "png"]
        assert sample["cls"] == number % 3
        assert sample["png"].startswith(b"\x89PNG")


def test_they_are_shuffled_each_epoch_in_another_way(foreign: str, keys_of: KeysOf) -> None:
    dataset = shardkit.dataset(foreign, shuffle=8, seed=1)
    first, second = keys_of(dataset), keys_of(dataset)
    assert sorted(first) == sorted(second) == ALL
    assert first != second
    assert keys_of(shardkit.dataset(foreign, shuffle=8, seed=1)) == first
    assert keys_of(shardkit.dataset(foreign, shuffle=8, seed=2)) != first


def test_they_are_decoded_and_batched(foreign: str) -> None:
    sizes = []
    for batch in shardkit.dataset(foreign, shuffle=8).decode(size=8, flip=True).batch(16):
        assert batch.images.shape[1:] == (8, 8, 3)
        assert [int(key[1:]) % 3 for key in batch.keys] == batch.labels.tolist()
        sizes.append(len(batch.keys))
    assert sizes == [16, 16, 16, 2]
    assert [len(b.keys) for b in shardkit.dataset(foreign).decode(size=8).batch(16, drop_last=True)] == [16] * 3
    assert [len(b["cls"]) for b in shardkit.dataset(foreign).batch(16, drop_last=True)] == [16] * 3


def test_gzip_shards_read_as_plain_ones(foreign: str, tmp_path: Path, keys_of: KeysOf) -> None:
    for path in Path(foreign).parent.glob("*.tar"):
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert keys_of(shardkit.dataset(str(tmp_path / "other-*.tar.gz"))) == ALL
    assert keys_of(shardkit.dataset(tmp_path)) == ALL


@pytest.mark.parametrize(
    ("chain", "low", "high"),
    [
        (lambda d: d.take(7), 0, 7),
        (lambda d: d.skip(45), 45, 50),
        (lambda d: d.skip(10).take(5), 10, 15),
        (lambda d: d.take(0), 0, 0),
        (lambda d: d.batch(4).take(3), 0, 12),
        (lambda d: d.batch(4).skip(11), 44, 50),
        (lambda d: d.skip(2).batch(4).skip(1).take(2), 6, 14),
        (lambda d: d.decode(size=8).batch(4).take(3), 0, 12),
        (lambda d: d.filter(lambda s: s["cls"] < 9).take(4), 0, 4),
    ],
)
def test_take_and_skip_count(
    foreign: str, chain: Callable[[Dataset], Dataset], low: int, high: int, keys_of: KeysOf
) -> None:
    assert keys_of(chain(shardkit.dataset(foreign))) == ALL[low:high]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("workers", [1, 2])
def test_whole_shards_are_dealt_to_ranks_and_workers(foreign: str, world: int, workers: int, keys_of: KeysOf) -> None:
    parts = []
    for rank in range(world):
        dataset = shardkit.dataset(foreign, shuffle=5, rank=rank, world_size=world)
        runs = [dataset.run(2, worker=worker, workers=workers) for worker in range(workers)]
        parts += [[item for _, item in run] for run in runs]
    assert sorted(key for part in parts for key in keys_of(part)) == ALL
    shards = [{sample["__url__"] for sample in part} for part in parts]
    assert not any(a & b for a, b in itertools.combinations(shards, 2))


@pytest.mark.parametrize(
    "use",
    [
        len,
        lambda d: d.classes,
        lambda d: d.class_counts,
        lambda d: d.class_weight(),
        lambda d: d.fields,
        lambda d: d[3],
        lambda d: d["n03"],
        lambda d: d.state_dict(),
        lambda d: d.load_state_dict({"version": 1}),
        lambda d: next(iter(d.select("cat"))),
        lambda d: next(iter(d[:5])),
        lambda d: next(iter(d.split({"a": 0.5})["a"])),
        lambda d: next(iter(d.balance())),
        lambda d: next(iter(d.weight([1.0] * 50))),
        lambda d: next(iter(d.epoch_size(5))),
        lambda d: next(iter(shardkit.concat([d]))),
        lambda d: next(iter(shardkit.mix([d], [1]))),
    ],
)
def test_what_needs_an_index_says_how_to_make_one(foreign: str, use: Callable[[Dataset], Any]) -> None:
    with pytest.raises(DatasetError, match=r"no manifest.*shardkit index \".*other-\*\.tar\""):
        use(shardkit.dataset(foreign))


@pytest.mark.parametrize("remainder", ["drop", "pad"])
def test_equal_work_for_ranks_is_not_promised_without_an_index(foreign: str, remainder: Any, keys_of: KeysOf) -> None:
    dataset = shardkit.dataset(foreign, rank=0, world_size=2, remainder=remainder)
    with pytest.raises(DatasetError, match=r"can't be distributed equally to ranks.*shardkit index"):
        next(iter(dataset))
    assert keys_of(shardkit.dataset(foreign, rank=0, world_size=1, remainder=remainder)) == ALL
    with pytest.raises(DatasetError, match=r"counted by take\(\) and skip\(\) over ranks.*shardkit index"):
        next(iter(shardkit.dataset(foreign, rank=0, world_size=2).take(5)))


def test_labels_as_vectors_need_an_index(foreign: str) -> None:
    for label in ("onehot", "binary"):
        with pytest.raises(shardkit.UsageError, match=f'"{label}" needs the number of classes.*shardkit index'):
            next(iter(shardkit.dataset(foreign).decode(size=8, label=label).batch(2)))


def test_repeat_goes_on_with_the_next_epoch(foreign: str, keys_of: KeysOf) -> None:
    once = shardkit.dataset(foreign, shuffle=8)
    assert keys_of(shardkit.dataset(foreign, shuffle=8).repeat(2)) == keys_of(once) + keys_of(once)


def test_after_indexing_they_are_counted_and_resumed(foreign: str, tmp_path: Path, keys_of: KeysOf) -> None:
    import shutil

    from shardkit.tools.index_shards import index_shards

    shutil.copytree(Path(foreign).parent, tmp_path / "own")
    index_shards(str(tmp_path / "own" / "other-*.tar"))
    dataset = shardkit.dataset(tmp_path / "own" / "other-*.tar", shuffle=8)
    assert len(dataset) == 50
    keys = keys_of(dataset)
    dataset.set_epoch(0)
    iterator = iter(dataset)
    for _ in range(20):
        next(iterator)
    resumed = shardkit.dataset(tmp_path / "own", shuffle=8)
    resumed.load_state_dict(dataset.state_dict())
    assert keys_of(resumed) == keys[20:]


@pytest.mark.parametrize("buffer", [1, 5, 300, 20_000])
def test_the_shuffled_stream_is_in_the_order_of_its_sort_keys(buffer: int) -> None:
    stream = ((number, {"__key__": str(number)}) for number in range(10_000))
    out = np.array([number for number, _ in shuffle_stream(stream, buffer, 17)])
    keys = np.arange(10_000) + 2 * buffer * uniform(17, np.arange(10_000))
    assert out.tolist() == np.argsort(keys, kind="stable").tolist()


def test_at_most_two_buffers_of_a_stream_wait() -> None:
    read = 0

    def stream() -> Any:
        nonlocal read
        for read in range(1, 5_001):
            yield read, {"__key__": str(read)}

    waiting = [read - given for given, _ in enumerate(shuffle_stream(stream(), 100, 3))]
    assert max(waiting) <= 201


@pytest.mark.parametrize("packed", [False, True])
def test_a_cut_shard_is_named(foreign: str, tmp_path: Path, packed: bool) -> None:
    data = Path(foreign.replace("*", "000")).read_bytes()
    whole = gzip.compress(data) if packed else data
    path = tmp_path / ("a-000.tar.gz" if packed else "a-000.tar")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedError, match=r"a-000\.tar"):
        list(shardkit.dataset(path))


@pytest.mark.parametrize("data", [b"", b"hello", bytes(512), b"x" * 4096])
def test_what_is_no_shard_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a-000.tar").write_bytes(data)
    with pytest.raises(DamagedError, match=r"a-000\.tar"):
        list(shardkit.dataset(tmp_path / "a-000.tar"))


def test_a_shard_that_goes_away_or_is_a_folder_is_named(foreign: str, tmp_path: Path) -> None:
    (tmp_path / "a-000.tar").mkdir()
    (tmp_path / "b-000.tar").write_bytes(Path(foreign.replace("*", "000")).read_bytes())
    dataset = shardkit.dataset(tmp_path / "b-000.tar")
    assert len(list(dataset)) == 10
    (tmp_path / "b-000.tar").unlink()
    with pytest.raises(NotFoundError, match=r"b-000\.tar"):
        list(dataset)
    (tmp_path / "b-000.tar").mkdir()
    with pytest.raises(StorageError, match=r"b-000\.tar"):
        list(dataset)


def test_undecodable_images_of_streams_are_named_and_skipped(
    foreign: str, tmp_path: Path, keys_of: KeysOf, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(Path(foreign.replace("*", "000")).read_bytes())
    at = data.index(b"\x89PNG")
    data[at : at + 40] = bytes(40)
    (tmp_path / "a-000.tar").write_bytes(data)
    with pytest.raises(shardkit.DecodeError, match=r"a-000\.tar: sample n00"):
        list(shardkit.dataset(tmp_path / "a-000.tar").decode(size=8))
    caplog.set_level(logging.WARNING)
    assert keys_of(shardkit.dataset(tmp_path / "a-000.tar").decode(size=8, on_error="skip").batch(5)) == ALL[1:10]


def test_samples_are_those_that_webdataset_gives(foreign_as_read: tuple[str, list[str]]) -> None:
    source, found = foreign_as_read
    assert [f"{s['__key__']} {s['cls']} {s['png'].hex()}" for s in shardkit.dataset(source)] == found


@pytest.mark.parametrize("digits", [8, 18, 19, 30, 5000])
def test_a_cls_of_many_digits_is_no_label_and_stays_as_it_is(tmp_path: Path, draw_image: Any, digits: int) -> None:
    label, fields = b"9" * digits, [("jpg", draw_image()), ("cls", b"9" * digits)]
    shard = tmp_path / "x-000000.tar"
    shard.write_bytes(b"".join(encode_sample("a", fields)[0]) + END)
    (sample,) = shardkit.dataset(str(shard))
    assert sample["cls"] == label
    decoded = shardkit.dataset(str(shard)).decode(size=4).batch(1)
    with pytest.raises(DecodeError, match="field 'cls' can't be decoded"):
        list(decoded)


@pytest.mark.parametrize(
    ("low", "high", "unit", "start", "lengths"),
    [
        (0, None, 1, 0, [4] * 12 + [2]),
        (0, None, 3, 0, [6] * 8 + [2]),
        (5, 20, 1, 0, [4, 4, 4, 3]),
        (5, 20, 2, 9, [4, 4, 3]),
        (5, 9, 4, 9, []),
        (0, 50, 60, 48, [2]),
    ],
)
def test_blocks_of_a_stream_are_whole_units_from_the_start_on(
    foreign: str, monkeypatch: pytest.MonkeyPatch, low: int, high: int | None, unit: int, start: int, lengths: list[int]
) -> None:
    monkeypatch.setattr(stream, "BLOCK_SAMPLES", 4)
    shards = [locate(str(path)) for path in sorted(Path(foreign).parent.glob("*.tar"))]
    placed = list(StreamBlocks(shards, 0, 0, 0).blocks(low, high, unit, start))
    assert [len(block) for _, block, _ in placed] == lengths
    numbers = [number for numbers, _, _ in placed for number in numbers.tolist()]
    assert numbers == list(range(max(low, start), 50 if high is None else high))
    assert [key for _, block, _ in placed for key in block.keys] == [ALL[number] for number in numbers]


def test_a_block_of_a_stream_ends_with_the_sample_that_fills_its_bytes(
    foreign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no image counts as well, but for the label, which is a number by then."""
    shards = [locate(foreign.replace("*", "000"))]
    sizes = [len(sample["png"]) for sample in shardkit.dataset(foreign).take(10)]
    for beyond, first in ((0, 2), (1, 3)):
        monkeypatch.setattr(stream, "BLOCK_BYTES", sizes[0] + sizes[1] + beyond)
        _, block, _ = next(iter(StreamBlocks(shards, 0, 0, 0).blocks(0, None, 1)))
        assert len(block) == first


def test_what_is_opened_is_kept_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, made = _PerProcess(), list[int]()

    def opened(process: int) -> Any:
        monkeypatch.setattr("os.getpid", lambda: process)

        def open_it() -> Any:
            made.append(process)
            return f"of {process}"

        return kept.opened(open_it)

    assert [opened(7), opened(7), opened(8), opened(8)] == ["of 7", "of 7", "of 8", "of 8"]
    assert made == [7, 8]
    kept.forget()
    assert opened(8) == "of 8"
    assert made == [7, 8, 8]
