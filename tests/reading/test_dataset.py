from __future__ import annotations

import copy
import gc
import logging
import pickle
import shutil
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit import Dataset, DatasetError, DecodeError, UsageError
from shardkit.reading.blocks import prefetch
from shardkit.reading.blocks import source as blocks
from shardkit.reading.blocks.catalog import IndexCatalog
from shardkit.reading.blocks.prefetch import AHEAD_BLOCKS
from shardkit.shards import buffers
from shardkit.shards.find import reference

KeysOf = Callable[[Any], list[str]]


@pytest.fixture
def spoiled(small_tree: Path, tmp_path: Path) -> str:
    """20 samples of two classes in 2 shards, of which 3 images are cut short; the prefix."""
    for name in ("blue", "red"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for number in range(10):
            data = (small_tree / name / f"{number:03}.jpg").read_bytes()
            cut = name == "red" and number < 3
            (tmp_path / "tree" / name / f"{number:03}.jpg").write_bytes(data[: len(data) // 2] if cut else data)
    shardkit.pack(tmp_path / "tree", tmp_path / "spoiled", max_count=10, workers=1, check="none")
    return str(tmp_path / "spoiled")


def test_what_the_design_says_a_user_writes(cars: str) -> None:
    train = shardkit.dataset(f"{cars}-*.tar", shuffle=10_000, seed=0)
    assert (len(train), train.classes) == (97, ["blue", "green", "red"])
    for sample in train:
        assert [*sample] == ["__key__", "__url__", "jpg", "cls"]
        assert [type(value) for value in sample.values()] == [str, str, bytes, int]
    batches = train.decode(size=24, crop="random", flip=True).batch(64)
    shapes = []
    for images, labels in batches:
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        shapes.append((images.shape, labels.shape))
    assert shapes == [((64, 24, 24, 3), (64,)), ((33, 24, 24, 3), (33,))]
    assert batches.state_dict()["epoch"] == 1


def test_samples_are_those_of_the_tree(cars: str, small_tree: Path) -> None:
    for sample in shardkit.dataset(cars):
        name = sample["__key__"].partition("/")[0]
        assert sample["jpg"] == (small_tree / f"{sample['__key__']}.jpg").read_bytes()
        assert sample["cls"] == ["blue", "green", "red"].index(name)
        assert Path(sample["__url__"]).parent == Path(cars).parent


def test_each_method_leaves_the_dataset_as_it_was(cars: str, keys_of: KeysOf) -> None:
    dataset = shardkit.dataset(cars)
    before = (repr(dataset), len(dataset), keys_of(dataset))
    for made in (
        dataset.shuffle(9), dataset.decode(size=8), dataset.map(len), dataset.filter(len), dataset.batch(3),
        dataset.take(2), dataset.skip(2), dataset.repeat(2), dataset.epoch_size(5), dataset[3:], dataset.select("red"),
        dataset.split({"a": 0.5})["a"], dataset.balance(), dataset.weight({"red": 1}),
    ):  # fmt: skip
        assert isinstance(made, Dataset)
        assert made is not dataset
        made.set_epoch(7)
    assert (repr(dataset), len(dataset), keys_of(dataset)) == before
    with pytest.raises(AttributeError):
        dataset.reading = dataset.reading  # type: ignore[misc]


def test_each_iteration_is_the_next_epoch_in_another_order(cars: str, keys_of: KeysOf) -> None:
    dataset, again = shardkit.dataset(cars, shuffle=True, seed=5), shardkit.dataset(cars, shuffle=True, seed=5)
    epochs = [keys_of(dataset) for _ in range(3)]
    assert len({tuple(keys) for keys in epochs}) == 3
    assert len({tuple(sorted(keys)) for keys in epochs}) == 1
    again.set_epoch(2)
    assert keys_of(again) == epochs[2]
    assert keys_of(shardkit.dataset(cars, shuffle=True, seed=6)) != epochs[0]
    in_order = shardkit.dataset(cars)
    assert keys_of(in_order) == keys_of(in_order)


def test_random_crops_follow_from_sample_and_epoch_not_from_threads_or_batches(cars: str) -> None:
    def pixels(**options: Any) -> dict[str, bytes]:
        size = options.pop("batch", 10)
        dataset = shardkit.dataset(cars, **options).decode(size=8, crop="random", flip=True).batch(size)
        return {key: image.tobytes() for batch in dataset for key, image in zip(batch.keys, batch.images, strict=True)}

    expected = pixels()
    assert pixels(threads=1, batch=7) == pixels(threads=4, batch=64) == pixels(shuffle=20) == expected
    assert pixels(seed=1) != expected
    dataset = shardkit.dataset(cars).decode(size=8, crop="random")
    first, second = ([sample["jpg"].tobytes() for sample in dataset] for _ in range(2))
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 5


CHAINS: list[tuple[Callable[[Dataset], Dataset], int]] = [
    (lambda d: d, 97),
    (lambda d: d.take(10), 10),
    (lambda d: d.take(0), 0),
    (lambda d: d.take(1_000), 97),
    (lambda d: d.skip(90), 7),
    (lambda d: d.skip(1_000), 0),
    (lambda d: d.skip(10).take(5), 5),
    (lambda d: d.take(10).skip(4), 6),
    (lambda d: d.batch(10), 10),
    (lambda d: d.batch(10, drop_last=True), 9),
    (lambda d: d.batch(97), 1),
    (lambda d: d.batch(98, drop_last=True), 0),
    (lambda d: d.batch(10).take(3), 3),
    (lambda d: d.batch(10).skip(3), 7),
    (lambda d: d.batch(10).skip(8).take(1), 1),
    (lambda d: d.batch(10).take(4).skip(1), 3),
    (lambda d: d.batch(10).skip(10), 0),
    (lambda d: d.skip(7).batch(10, drop_last=True).skip(1), 8),
    (lambda d: d.map(lambda x: x).take(3), 3),
    (lambda d: d.repeat(3), 291),
    (lambda d: d.batch(10).repeat(2), 20),
    (lambda d: d.epoch_size(30), 30),
    (lambda d: d.epoch_size(300).batch(7), 43),
    (lambda d: d.batch(7).epoch_size(20), 20),
    (lambda d: d.balance().batch(5), 20),
    (lambda d: d.decode(size=8).batch(10).map(lambda b: b), 10),
]


@pytest.mark.parametrize("number", range(len(CHAINS)))
@pytest.mark.parametrize("options", [{}, {"shuffle": 20}])
def test_the_length_is_the_number_of_items(cars: str, number: int, options: dict[str, Any]) -> None:
    chain, expected = CHAINS[number]
    dataset = chain(shardkit.dataset(cars, **options))
    assert len(dataset) == expected
    assert sum(1 for _ in dataset) == expected


def test_take_and_skip_are_of_the_order_as_it_is_read(cars: str, keys_of: KeysOf) -> None:
    keys = keys_of(shardkit.dataset(cars, shuffle=20))
    assert keys_of(shardkit.dataset(cars, shuffle=20).take(10)) == keys[:10]
    assert keys_of(shardkit.dataset(cars, shuffle=20).skip(10).take(5)) == keys[10:15]
    assert keys_of(shardkit.dataset(cars, shuffle=20).batch(10).skip(2).take(3)) == keys[20:50]
    ranks = [keys_of(shardkit.dataset(cars, shuffle=20, layout=1, rank=rank, world_size=2).take(10)) for rank in (0, 1)]
    assert ranks == [keys[0:10:2], keys[1:10:2]]


def test_map_and_filter_run_in_the_order_in_which_they_are_called(cars: str) -> None:
    labels = [sample["cls"] for sample in shardkit.dataset(cars)]
    numbers = shardkit.dataset(cars).map(lambda s: s["cls"]).filter(lambda n: n > 0).map(lambda n: 10 * n)
    assert list(numbers) == [10 * label for label in labels if label]
    batches = shardkit.dataset(cars).map(lambda s: s["cls"]).filter(lambda n: n > 0).batch(4).map(lambda a: a.tolist())
    assert [n for batch in batches for n in batch] == [label for label in labels if label]
    assert {len(batch) for batch in list(batches)[:-1]} == {4}
    after = shardkit.dataset(cars).batch(10).filter(lambda b: b["cls"][0] == 2).map(lambda b: len(b["cls"]))
    starts = labels[::10]
    assert len(list(after)) == starts.count(2)


@pytest.mark.parametrize("decoded", [False, True])
def test_a_filter_behind_batch_leaves_the_batches_as_they_are(cars: str, decoded: bool, keys_of: KeysOf) -> None:
    dataset = shardkit.dataset(cars).decode(size=8) if decoded else shardkit.dataset(cars)
    all_batches = [keys_of([batch]) for batch in dataset.batch(9, drop_last=True)]
    chosen = [keys_of([b]) for b in dataset.batch(9, drop_last=True).filter(lambda b: keys_of([b])[0][0] == "r")]
    assert chosen == [keys for keys in all_batches if keys[0][0] == "r"]


@pytest.mark.parametrize(
    ("chain", "cure"),
    [
        (lambda d: d.filter(lambda x: True), "where"),
        (lambda d: d.batch(3).filter(lambda x: True), "where"),
        (lambda d: d.repeat(), "repeat"),
    ],
)
def test_a_length_that_is_not_known_is_an_error(cars: str, chain: Callable[[Dataset], Dataset], cure: str) -> None:
    with pytest.raises(DatasetError, match=cure):
        len(chain(shardkit.dataset(cars)))
    with pytest.raises(TypeError):
        len(chain(shardkit.dataset(cars)))


def test_a_filtered_dataset_becomes_a_list(cars: str) -> None:
    assert len(list(shardkit.dataset(cars).filter(lambda sample: sample["cls"] == 1))) == 17


def test_repeat_goes_through_epochs_each_in_its_order(cars: str, keys_of: KeysOf) -> None:
    once = shardkit.dataset(cars, shuffle=20)
    epochs = [keys_of(once) for _ in range(4)]
    dataset = shardkit.dataset(cars, shuffle=20).repeat(2)
    assert keys_of(dataset) == epochs[0] + epochs[1]
    assert keys_of(dataset) == epochs[2] + epochs[3]
    endless = iter(shardkit.dataset(cars, shuffle=20).repeat())
    assert keys_of(next(endless) for _ in range(388)) == [key for keys in epochs for key in keys]


def test_repeat_without_end_of_nothing_is_an_error(cars: str) -> None:
    with pytest.raises(DatasetError, match="no items"):
        next(iter(shardkit.dataset(cars)[:0].repeat()))


def test_epochs_of_a_size_go_on_where_the_last_one_stopped(cars: str, keys_of: KeysOf) -> None:
    whole = shardkit.dataset(cars, shuffle=20)
    stream = keys_of(whole) + keys_of(whole) + keys_of(whole)
    dataset = shardkit.dataset(cars, shuffle=20).epoch_size(60)
    assert [key for _ in range(4) for key in keys_of(dataset)] == stream[:240]
    batches = shardkit.dataset(cars, shuffle=20).batch(7).epoch_size(5)
    assert [key for _ in range(4) for key in keys_of(batches)] == stream[: 4 * 35]


def test_epoch_size_behind_take_is_refused(cars: str) -> None:
    with pytest.raises(UsageError, match=r"dataset\[:1000\]"):
        shardkit.dataset(cars, shuffle=5).take(5).epoch_size(3)


def test_class_counts_and_weights(cars: str) -> None:
    dataset = shardkit.dataset(cars)
    assert dataset.class_counts == {"blue": 30, "green": 17, "red": 50}
    assert dataset.class_weight() == {0: 97 / 90, 1: 97 / 51, 2: 97 / 150}
    assert dataset.select(["red", "blue"]).class_counts == {"blue": 30, "green": 0, "red": 50}
    assert dataset.select(["red", "blue"]).class_weight() == {0: 80 / 60, 1: 0.0, 2: 80 / 100}
    assert dataset.fields == ["cls", "jpg"]
    assert (dataset.batch_size, dataset.batch(5).batch_size) == (None, 5)


def test_undecoded_batches_are_dicts_of_lists(cars: str) -> None:
    batch = next(iter(shardkit.dataset(cars).batch(4)))
    assert {name: type(value) for name, value in batch.items()} == {
        "__key__": list, "__url__": list, "jpg": list, "cls": np.ndarray,
    }  # fmt: skip
    assert [len(value) for value in batch.values()] == [4] * 4


@pytest.mark.parametrize(
    ("label", "expected"),
    [("int", np.array([0, 2])), ("onehot", np.array([[1, 0, 0], [0, 0, 1]], np.float32))],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_labels_come_as_asked(cars: str, label: str, expected: np.ndarray, mapped: bool) -> None:
    keys = ["blue/001", "red/001"]
    dataset = shardkit.dataset(cars)
    rows = [dataset.content.catalog.rows_of(key)[0] for key in keys]
    chain = dataset[rows].decode(size=8, label=label)
    (batch,) = (chain.map(lambda sample: sample) if mapped else chain).batch(2)
    assert batch.keys == keys
    assert batch.labels.dtype == expected.dtype
    assert batch.labels.tolist() == expected.tolist()


def test_binary_labels_need_two_classes(cars: str, by_shards: dict[int, str]) -> None:
    (batch,) = shardkit.dataset(by_shards[3]).decode(size=4, label="binary").batch(190)
    assert batch.labels.dtype == np.float32
    assert (batch.labels.sum(), len(batch.labels)) == (70, 190)
    with pytest.raises(UsageError, match="two classes, but there are 3"):
        next(iter(shardkit.dataset(cars).decode(size=4, label="binary").batch(2)))


def test_a_decoded_sample_holds_arrays_and_its_other_fields(cars: str) -> None:
    sample = next(iter(shardkit.dataset(cars).decode()))
    assert (sample["jpg"].shape, sample["jpg"].dtype) == ((10, 12, 3), np.uint8)
    assert isinstance(sample["cls"], int)


def test_batches_of_unequal_images_are_an_error_that_says_size(tmp_path: Path, draw_image: Any) -> None:
    for number, size in enumerate([(10, 10), (10, 10), (12, 10)]):
        (tmp_path / "tree" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / "a" / f"{number}.jpg").write_bytes(draw_image(number, size=size))
    dataset = shardkit.dataset(tmp_path / "tree").decode()
    with pytest.raises(DatasetError, match=r"a/0 is 10 x 10 x 3 and a/2 is 10 x 12 x 3; give a size: \.decode"):
        list(dataset.batch(3))
    assert [batch.images.shape for batch in dataset.batch(2)] == [(2, 10, 10, 3), (1, 10, 12, 3)]


@pytest.mark.parametrize("batched", [False, True])
def test_an_undecodable_image_is_named_with_shard_key_and_byte(spoiled: str, batched: bool) -> None:
    dataset = shardkit.dataset(spoiled).decode(size=8)
    with pytest.raises(DecodeError) as caught:
        list(dataset.batch(4) if batched else dataset)
    error = caught.value
    assert error.key is not None and error.key.startswith("red/00")
    assert Path(error.place).name.startswith("spoiled-00000")
    shard = Path(error.place).read_bytes()
    assert shard[error.offset : (error.offset or 0) + 2] == b"\xff\xd8"


@pytest.mark.parametrize("chain", [lambda d: d, lambda d: d.batch(4), lambda d: d.map(lambda s: s).batch(4)])
def test_undecodable_images_are_left_out_counted_and_logged(
    spoiled: str, chain: Callable[[Dataset], Dataset], keys_of: KeysOf, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "shardkit")
    keys = keys_of(chain(shardkit.dataset(spoiled).decode(size=8, on_error="skip")))
    assert len(keys) == len(set(keys)) == 17
    assert not {"red/000", "red/001", "red/002"} & set(keys)
    messages = sorted(record.getMessage() for record in caplog.records)
    assert [message.partition(":")[0] for message in messages] == [f"skipped ({n} of at most 100)" for n in (1, 2, 3)]


def test_more_undecodable_images_than_the_limit_are_an_error(spoiled: str) -> None:
    dataset = shardkit.dataset(spoiled).decode(size=8, on_error="skip", skip_limit=2).batch(4)
    with pytest.raises(DatasetError, match=r"3 samples could not be decoded, but skip_limit is 2.*raise skip_limit"):
        list(dataset)


@pytest.mark.parametrize("chain", [lambda d, f: d.map(f), lambda d, f: d.batch(4).map(f), lambda d, f: d.filter(f)])
def test_what_a_map_raises_reaches_the_caller_with_its_traceback(cars: str, chain: Any) -> None:
    def broken_by_design(item: Any) -> Any:
        raise KeyError("a key of mine")

    with pytest.raises(KeyError, match="a key of mine") as caught:
        list(chain(shardkit.dataset(cars), broken_by_design))
    assert "broken_by_design" in [entry.name for entry in caught.traceback]


def own_threads() -> set[threading.Thread]:
    gc.collect()
    return {thread for thread in threading.enumerate() if thread.name.startswith("shardkit")}


def no_threads_left(before: set[threading.Thread]) -> bool:
    for thread in own_threads() - before:
        thread.join(10)
    return own_threads() <= before


@pytest.mark.parametrize("chain", [lambda d: d, lambda d: d.decode(size=8), lambda d: d.decode(size=8).batch(4)])
def test_no_threads_are_left_of_an_iteration(
    cars: str, chain: Callable[[Dataset], Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffers, "is_cached", lambda *_: False)  # else nothing is read ahead
    monkeypatch.setattr(blocks, "BLOCK_SAMPLES", 8)
    before = own_threads()
    dataset = chain(shardkit.dataset(cars, threads=3))
    list(dataset)
    assert no_threads_left(before)
    iterator = iter(dataset)
    next(iterator)
    assert own_threads() - before
    iterator.close()  # type: ignore[attr-defined]
    assert no_threads_left(before)
    for _ in dataset:
        break
    assert no_threads_left(before)


def test_no_threads_are_left_after_an_error(cars: str) -> None:
    before = own_threads()
    with pytest.raises(ZeroDivisionError):
        list(shardkit.dataset(cars, threads=3).map(lambda sample: 1 // 0))
    assert no_threads_left(before)


def test_one_dataset_is_iterated_by_several_threads_at_once(cars: str, keys_of: KeysOf) -> None:
    dataset = shardkit.dataset(cars, shuffle=20).decode(size=8).batch(5)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: keys_of(dataset), range(12)))
    again = shardkit.dataset(cars, shuffle=20)
    assert sorted(map(tuple, found)) == sorted(tuple(keys_of(again)) for _ in range(12))


IN_PROCESSES = """
import multiprocessing, sys
import shardkit

def keys_of(dataset):
    return [key for batch in dataset for key in batch.keys]

if __name__ == "__main__":
    dataset = shardkit.dataset(sys.argv[2], shuffle=20).decode(size=8).batch(5)
    iterator = iter(dataset)
    next(iterator)
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        found = pool.map(keys_of, [dataset, dataset])
    again = shardkit.dataset(sys.argv[2], shuffle=20).decode(size=8).batch(5)
    again.set_epoch(1)
    assert found == [keys_of(again)] * 2
    assert len(list(iterator)) == 19
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_dataset_in_use_goes_to_other_processes(
    cars: str, method: str, tmp_path: Path, run_python: Callable[..., object]
) -> None:
    (tmp_path / "script.py").write_text(IN_PROCESSES)
    run_python("script.py", method, str(Path(cars).absolute()), cwd=tmp_path)


def test_a_dataset_survives_pickling_and_copying(cars: str, keys_of: KeysOf) -> None:
    dataset = shardkit.dataset(cars, shuffle=20).select(["red", "green"]).balance().batch(5)
    expected = keys_of(dataset)
    for copied in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        copied.set_epoch(0)
        assert keys_of(copied) == expected


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("looked_up", [True, False])
@pytest.mark.parametrize("kind", ["prefix", "pattern", "list", "folder", "index", "tree", "no manifest"])
def test_a_pickle_is_read_in_another_working_directory(
    tmp_path: Path, draw_tree: Any, keys_of: KeysOf, monkeypatch: pytest.MonkeyPatch, kind: str, *, looked_up: bool,
    inline: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(reference, "INLINE_BYTES", 10**9 if inline else 0)
    shardkit.pack(draw_tree(tmp_path / "tree", {"a": 4, "b": 3}), tmp_path / "shards" / "x", max_count=2, workers=1)
    shutil.copytree(tmp_path / "shards", tmp_path / "bare", ignore=shutil.ignore_patterns("x.*"))
    shardkit.index_shards(tmp_path / "bare" / "x-*.tar", out=tmp_path / "index" / "x")
    monkeypatch.chdir(tmp_path)
    sources: dict[str, Any] = {
        "prefix": "shards/x", "pattern": "shards/x-*.tar", "folder": "shards/", "tree": "tree",
        "list": ["shards/x-000000.tar", Path("shards/x-000001.tar")], "index": "bare/x-*.tar", "no manifest": "bare/x",
    }  # fmt: skip
    dataset = shardkit.dataset(sources[kind], **({"index": "index/x"} if kind == "index" else {}))
    if looked_up:
        keys_of(dataset)
    pickled = pickle.dumps(dataset)
    expected = keys_of(dataset)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert keys_of(pickle.loads(pickled)) == expected


def test_nothing_is_opened_before_it_is_read(tmp_path: Path) -> None:
    dataset = shardkit.dataset(tmp_path / "nothing-*.tar", shuffle=True).select("red").decode(size=8).batch(4)
    with pytest.raises(shardkit.NotFoundError, match="no file matches"):
        next(iter(dataset))


NONSENSE: list[tuple[str, Callable[[str], Any]]] = [
    ("shuffle", lambda p: shardkit.dataset(p, shuffle=-1)),
    ("shuffle", lambda p: shardkit.dataset(p, shuffle=1.5)),  # type: ignore[arg-type]
    ("shuffle", lambda p: shardkit.dataset(p).shuffle("yes")),  # type: ignore[arg-type]
    ("seed", lambda p: shardkit.dataset(p, seed=-1)),
    ("seed", lambda p: shardkit.dataset(p).shuffle(5, seed=-1)),
    ("lanes", lambda p: shardkit.dataset(p, lanes=0)),
    ("layout", lambda p: shardkit.dataset(p, layout=0)),
    ("layout", lambda p: shardkit.dataset(p, layout="4")),  # type: ignore[arg-type]
    ("layout", lambda p: shardkit.dataset(p, layout=10**9)),
    ("node_affinity", lambda p: shardkit.dataset(p, node_affinity=0)),
    ("node_affinity", lambda p: shardkit.dataset(p, node_affinity="4")),  # type: ignore[arg-type]
    ("threads", lambda p: shardkit.dataset(p, threads=0)),
    ("ahead", lambda p: shardkit.dataset(p, ahead=0)),
    ("rank", lambda p: shardkit.dataset(p, rank=0)),
    ("rank", lambda p: shardkit.dataset(p, rank=2, world_size=2)),
    ("remainder", lambda p: shardkit.dataset(p, remainder="keep")),  # type: ignore[arg-type]
    ("size", lambda p: shardkit.dataset(p).decode(size=0)),
    ("sise", lambda p: shardkit.dataset(p).decode(sise=8)),
    ("batch", lambda p: shardkit.dataset(p).batch(0)),
    ("batch", lambda p: shardkit.dataset(p).batch(True)),
    ("already in batches", lambda p: shardkit.dataset(p).batch(2).batch(2)),
    ("decode", lambda p: shardkit.dataset(p).batch(2).decode(size=8)),
    ("decode", lambda p: shardkit.dataset(p).map(len).decode(size=8)),
    ("decode", lambda p: shardkit.dataset(p).decode(size=8).decode(size=8)),
    ("take", lambda p: shardkit.dataset(p).take(-1)),
    ("skip", lambda p: shardkit.dataset(p).skip(2.0)),  # type: ignore[arg-type]
    ("encoded", lambda p: shardkit.dataset(p).batch(2, encoded="yes")),
    ("drop_last", lambda p: shardkit.dataset(p).batch(2, drop_last="no")),  # type: ignore[arg-type]
    ("turns", lambda p: shardkit.dataset(p).repeat(0)),
    ("epoch_size", lambda p: shardkit.dataset(p).epoch_size(0)),
    ("set_epoch", lambda p: shardkit.dataset(p).set_epoch(-1)),
    ("callable", lambda p: shardkit.dataset(p).map(5)),  # type: ignore[arg-type]
    ("callable", lambda p: shardkit.dataset(p).filter(None)),  # type: ignore[arg-type]
    ("batch", lambda p: shardkit.dataset(p).filter(len).take(2).batch(2)),
]


@pytest.mark.parametrize("number", range(len(NONSENSE)))
def test_nonsense_is_refused_where_it_is_written(cars: str, number: int) -> None:
    word, call = NONSENSE[number]
    with pytest.raises(UsageError, match=word):
        call(cars)


@pytest.mark.parametrize("size", [2**40, 2**80])
@pytest.mark.parametrize("encoded", [False, True])
def test_a_batch_larger_than_any_memory_takes_what_there_is(cars: str, size: int, encoded: bool) -> None:
    data = shardkit.dataset(cars)
    assert [len(batch.keys) for batch in data.decode(size=8).batch(size)] == [len(data)]
    assert len(list(data.batch(size, encoded=encoded))) == 1
    assert list(data.batch(size, encoded=encoded, drop_last=True)) == []


def test_a_batch_that_no_memory_holds_says_how_much_it_needs(cars: str) -> None:
    with pytest.raises(
        UsageError, match=r"batch\(size\): a batch of shape .* needs .* of memory at once; use a smaller"
    ):
        next(iter(shardkit.dataset(cars).decode(size=(2**15, 2**15), dtype="float32").batch(2**40)))


def test_numbers_of_numpy_are_numbers(cars: str) -> None:
    dataset = shardkit.dataset(cars).take(np.int64(20)).batch(np.int32(4))  # type: ignore[arg-type]
    dataset.set_epoch(np.int64(3))  # type: ignore[arg-type]
    assert len(list(dataset)) == 5
    assert type(dataset.state_dict()["epoch"]) is int


def test_memory_is_the_same_in_each_epoch(by_shards: dict[int, str]) -> None:
    dataset = shardkit.dataset(by_shards[7], shuffle=50).decode(size=16, crop="random").batch(8)
    peaks = []
    list(dataset)
    tracemalloc.start()
    try:
        for _ in range(6):
            tracemalloc.reset_peak()
            for _batch in dataset:
                pass
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert max(peaks[3:]) < 1.2 * max(peaks[:3])


def test_a_mix_of_all_extensions_of_images_is_one_field_each(tmp_path: Path, draw_image: Any) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    for name, kind in (("0.jpg", "JPEG"), ("1.png", "PNG"), ("2.bmp", "BMP")):
        (tmp_path / "tree" / "a" / name).write_bytes(draw_image(1, size=(8, 8), format=kind))
    shardkit.pack(tmp_path / "tree", tmp_path / "all", workers=1)
    for source in (tmp_path / "all", tmp_path / "tree"):
        dataset = shardkit.dataset(source)
        assert sorted(next(n for n in sample if n not in ("__key__", "__url__", "cls")) for sample in dataset) == [
            "bmp", "jpg", "png",
        ]  # fmt: skip
        (batch,) = dataset.decode(size=8).batch(3)
        assert batch.images.shape == (3, 8, 8, 3)


def test_index_rows_of_many_small_shards_are_read_once(
    by_shards: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    read_table = IndexCatalog._read_table
    monkeypatch.setattr(IndexCatalog, "_read_table", lambda self, shard: read.append(shard) or read_table(self, shard))
    dataset = shardkit.dataset(by_shards[64], shuffle=100, lanes=24).batch(4)
    for _ in range(3):
        assert len(list(dataset)) == 48
    assert sorted(read) == list(range(64))


@pytest.mark.parametrize(
    ("name", "plain"),
    [("tar", True), ("tfrecord", True), ("gzip", True), ("fields-tar", False), ("fields-tfrecord", False)],
)
def test_only_samples_of_one_image_and_a_label_are_read_without_a_look_at_their_fields(
    pairs: dict[str, tuple[str, str]], name: str, plain: bool
) -> None:
    for place in pairs[name]:
        dataset = shardkit.dataset(place)
        catalog = dataset.content.catalog
        assert isinstance(catalog, IndexCatalog)
        assert catalog.plain is plain
        assert set(dataset[0]) == {"__key__", "__url__", "cls", "jpg"} | (set() if plain else {"txt"})


@pytest.mark.parametrize("can", [True, False])
@pytest.mark.parametrize(("name", "runs"), [("tar", True), ("tfrecord", True), ("gzip", True), ("tree", False)])
def test_blocks_are_held_back_only_where_the_system_can_read_ahead_of_them(
    pairs: dict[str, tuple[str, str]],
    small_tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    runs: bool,
    can: bool,
) -> None:
    depths: list[int] = []

    def noted(self: Any, catalog: Any, first: Any, later: Any, depth: int) -> Any:
        depths.append(depth)
        return read_ahead(self, catalog, first, later, depth)

    read_ahead = prefetch.KernelPrefetch._read_ahead
    monkeypatch.setattr(prefetch.KernelPrefetch, "_read_ahead", noted)
    monkeypatch.setattr(prefetch, "can_read_ahead", lambda: can)
    assert len(list(shardkit.dataset(small_tree if name == "tree" else pairs[name][0]))) == 97
    assert len(depths) == (runs and can)


@pytest.mark.parametrize(("times", "depth"), [(0, 1), (1, 1), (3, 3), (AHEAD_BLOCKS + 1, AHEAD_BLOCKS)])
def test_as_many_blocks_are_held_back_as_have_the_bytes_that_the_system_may_read_ahead(
    cars: str, monkeypatch: pytest.MonkeyPatch, times: int, depth: int
) -> None:
    catalog = shardkit.dataset(cars).content.catalog
    assert isinstance(catalog, IndexCatalog)
    monkeypatch.setattr(blocks, "BLOCK_SAMPLES", 10)
    monkeypatch.setattr(prefetch, "AHEAD_BYTES", times * 10 * catalog.mean_bytes)
    monkeypatch.setattr(prefetch, "can_read_ahead", lambda: True)
    looked_up = 0

    def noted(self: Any, numbers: Any) -> Any:
        nonlocal looked_up
        looked_up += 1
        return block(self, numbers)

    block = blocks.IndexedBlocks._block
    monkeypatch.setattr(blocks.IndexedBlocks, "_block", noted)
    first = next(iter(shardkit.dataset(cars)))
    assert looked_up == depth + 1
    assert first["__key__"] == catalog.block(np.zeros(1, np.int64)).keys[0]


@pytest.mark.parametrize("size", [1, 7, 40, 97])
def test_an_image_is_the_same_in_a_batch_of_any_size(cars: str, size: int) -> None:
    """The threads decode parts of a batch, each with the random numbers of its own samples."""
    data = shardkit.dataset(cars, shuffle=20, seed=2, threads=2).decode(size=8, crop="random", flip=True)
    alone = {sample["__key__"]: sample["jpg"] for sample in data}
    data.set_epoch(0)
    seen = 0
    for batch in data.batch(size):
        assert (batch.images == np.stack([alone[key] for key in batch.keys])).all()
        seen += len(batch.keys)
    assert seen == len(alone) == 97


def test_a_catalog_is_freed_with_its_dataset_without_the_collector(cars: str) -> None:
    gc.collect()
    gc.disable()
    try:
        ds = shardkit.dataset(cars)
        assert len(list(ds)) == 97
        catalog = weakref.ref(ds.content.catalog)
        del ds
        assert catalog() is None
    finally:
        gc.enable()
