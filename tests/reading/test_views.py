from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

import shardkit
from shardkit import Dataset, NotFoundError, UsageError
from shardkit.reading.blocks import catalog
from shardkit.shards.index_file import IndexFile

KeysOf = Callable[[Any], list[str]]


def test_a_sample_by_its_number_and_by_its_key(cars: str, small_tree: Path) -> None:
    dataset = shardkit.dataset(cars)
    samples = list(dataset)
    for number in (0, 1, 19, 20, 96, -1, -97, np.int64(5)):
        assert dataset[number] == samples[number]
    for sample in samples[::9]:
        assert dataset[sample["__key__"]] == sample
    assert dataset["green/003"]["jpg"] == (small_tree / "green/003.jpg").read_bytes()


def test_a_sample_by_its_number_does_not_depend_on_the_shuffle(cars: str) -> None:
    assert shardkit.dataset(cars, shuffle=50)[40] == shardkit.dataset(cars)[40]


def test_a_sample_by_its_number_is_decoded_and_mapped_as_in_epoch_0(cars: str) -> None:
    dataset = shardkit.dataset(cars).decode(size=8, crop="random", flip=True)
    for number, sample in enumerate(dataset):
        if number % 10 == 0:
            found = dataset[number]
            assert found["__key__"] == sample["__key__"]
            assert (found["jpg"] == sample["jpg"]).all()
    assert dataset.map(lambda sample: sample["cls"])["red/000"] == 2


@pytest.mark.parametrize("number", [97, -98, 10**9])
def test_a_number_that_is_not_there_is_an_index_error(cars: str, number: int) -> None:
    with pytest.raises(NotFoundError, match=f"no sample {number} among 97"):
        shardkit.dataset(cars)[number]
    with pytest.raises(IndexError):
        shardkit.dataset(cars)[number]


def test_a_key_that_is_not_there_is_named(cars: str) -> None:
    with pytest.raises(NotFoundError, match="no sample 'red/999'"):
        shardkit.dataset(cars)["red/999"]
    with pytest.raises(NotFoundError, match="no sample 'red/000'"):
        shardkit.dataset(cars).select("blue")["red/000"]


@pytest.mark.parametrize(
    "item",
    [
        slice(None), slice(5), slice(10, 40, 3), slice(-7, None), slice(None, None, -1), slice(90, 200), slice(5, 5),
        [3, 1, 2], [-1, 0], [], [4, 4, 4], np.array([96, 0]), np.arange(97) % 2 == 0, range(7, 3, -1),
    ],
)  # fmt: skip
def test_a_slice_or_array_is_a_view_of_these_samples(cars: str, item: Any, keys_of: KeysOf) -> None:
    keys = np.array(keys_of(shardkit.dataset(cars)))
    index = item if isinstance(item, slice) else np.asarray(item, None if len(item) else np.int64)
    view = shardkit.dataset(cars)[item]
    assert isinstance(view, Dataset)
    assert keys_of(view) == keys[index].tolist()
    assert len(view) == len(keys[index])
    shuffled = shardkit.dataset(cars, shuffle=1_000)[item]
    assert sorted(keys_of(shuffled)) == sorted(keys[index].tolist())


def test_views_of_views(cars: str, keys_of: KeysOf) -> None:
    dataset = shardkit.dataset(cars)
    keys = keys_of(dataset)
    assert keys_of(dataset[10:50][5:10]) == keys[15:20]
    reds = [key for key in keys if key.startswith("red")]
    assert keys_of(dataset.select("red")[::2]) == reds[::2]
    assert dataset.select("red")[3]["__key__"] == reds[3]
    assert keys_of(dataset[[50, 3, 20]].select(["red", "blue", "green"])) == [keys[50], keys[3], keys[20]]


@pytest.mark.parametrize("item", [1.5, None, [1.5], ["red/000"], [[1, 2]], slice("a", "b"), slice(0, 5, 0), {1: 2}])
def test_what_is_neither_number_nor_key_is_refused(cars: str, item: Any) -> None:
    with pytest.raises(UsageError, match="dataset"):
        shardkit.dataset(cars)[item]


def test_numbers_and_marks_that_do_not_fit_are_an_error_when_it_is_read(cars: str) -> None:
    with pytest.raises(NotFoundError, match="no sample 97 among 97"):
        list(shardkit.dataset(cars)[[1, 97]])
    with pytest.raises(UsageError, match="3 values True or False for 97 samples"):
        list(shardkit.dataset(cars)[[True, False, True]])


def test_batches_have_no_number(cars: str) -> None:
    with pytest.raises(UsageError, match=r"it applies to samples.*before batch\(\)"):
        shardkit.dataset(cars).batch(2)[0]


@pytest.mark.parametrize(("classes", "count"), [("red", 50), (2, 50), (["blue", 1], 47), ([], 0), (np.int64(0), 30)])
def test_classes_are_selected_by_name_or_label(cars: str, classes: Any, count: int) -> None:
    view = shardkit.dataset(cars).select(classes)
    labels = Counter(sample["cls"] for sample in view)
    assert len(view) == sum(labels.values()) == count
    assert view.classes == ["blue", "green", "red"]


@pytest.mark.parametrize("name", ["yellow", 3, -1])
def test_a_class_that_is_not_there_is_named_with_those_that_are(cars: str, name: Any) -> None:
    with pytest.raises(UsageError, match=f"no class {name!r}; the classes are blue, green, red"):
        len(shardkit.dataset(cars).select(name))


def test_where_takes_an_expression_over_the_index(cars: str, keys_of: KeysOf) -> None:
    dataset = shardkit.dataset(cars)
    assert len(dataset.where(pc.field("width") == 12)) == 97
    assert len(dataset.where(pc.field("width") > 12)) == 0
    small = dataset.where((pc.field("label") == 1) & pc.starts_with(pc.field("key"), "green/00"))
    assert sorted(keys_of(small)) == [f"green/{number:03}" for number in range(10)]
    sizes = [len(sample["jpg"]) for sample in dataset.where(pc.field("image_size") < 700)]
    assert all(size < 700 for size in sizes)


def test_where_reads_the_columns_that_its_expression_names(cars: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()
    tables = IndexFile.tables

    def watched(self: IndexFile, names: Any = None, groups: Any = None) -> Any:
        read.update(names)
        return tables(self, names, groups)

    monkeypatch.setattr(IndexFile, "tables", watched)
    assert len(shardkit.dataset(cars).where(pc.field("width") >= 0)) == 97
    assert read == {"width"}


def test_a_key_is_found_among_keys_of_the_same_checksum(cars: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "key_sum", lambda key: 7)
    monkeypatch.setattr(catalog, "key_sums", lambda keys: np.full(len(keys), 7, np.uint32))
    dataset = shardkit.dataset(cars)
    for key in dataset.keys[::20]:
        assert dataset[key]["__key__"] == key
    with pytest.raises(NotFoundError, match="no sample 'nobody'"):
        dataset["nobody"]


def test_a_column_that_a_part_does_not_have_is_null_there(cars: str, small_tree: Path) -> None:
    both = shardkit.concat([shardkit.dataset(cars), shardkit.dataset(small_tree)])
    assert len(both.where(pc.field("width") >= 0)) == len(shardkit.dataset(cars))
    assert len(both.where(pc.field("image_size") >= 0)) == len(both)


def test_where_with_a_column_that_is_not_there_names_those_that_are(cars: str) -> None:
    with pytest.raises(UsageError, match=r"use the index's columns: shard, key, path, label"):
        len(shardkit.dataset(cars).where(pc.field("colour") == 1))


def test_a_split_is_stratified_seeded_disjoint_and_whole(cars: str, keys_of: KeysOf) -> None:
    dataset = shardkit.dataset(cars, shuffle=20)
    parts = dataset.split({"train": 0.8, "validation": 0.2}, seed=3)
    assert {name: part.class_counts for name, part in parts.items()} == {
        "train": {"blue": 24, "green": 14, "red": 40}, "validation": {"blue": 6, "green": 3, "red": 10},
    }  # fmt: skip
    keys = {name: keys_of(part) for name, part in parts.items()}
    assert sorted(keys["train"] + keys["validation"]) == sorted(keys_of(dataset))
    again = shardkit.dataset(cars).split({"train": 0.8, "validation": 0.2}, seed=3)
    assert sorted(keys_of(again["train"])) == sorted(keys["train"])
    other = shardkit.dataset(cars).split({"train": 0.8, "validation": 0.2}, seed=4)
    assert sorted(keys_of(other["train"])) != sorted(keys["train"])


def test_a_part_without_samples_is_logged(cars: str, caplog: pytest.LogCaptureFixture) -> None:
    parts = shardkit.dataset(cars)[:3].split({"train": 0.9, "test": 0.1})
    assert [len(part) for part in parts.values()] == [3, 0]
    assert caplog.messages == ["split(): the part 'test' gets none of 3 samples"]


def test_a_split_that_older_versions_dealt_alike_is_the_same_order_to_a_state(
    cars: str, by_shards: dict[int, str]
) -> None:
    part = shardkit.dataset(cars).split({"a": 0.8, "b": 0.2})["a"]
    assert part.identity.endswith("/part=(('a', 0.8), ('b', 0.2)):a:0:True")


def test_a_split_without_strata_is_of_all_samples_together(cars: str) -> None:
    parts = shardkit.dataset(cars).split({"a": 0.5, "b": 0.5}, stratify=False)
    assert sorted(len(part) for part in parts.values()) == [48, 49]


@pytest.mark.parametrize("fractions", [{}, {"a": 0}, {"a": 0.7, "b": 0.7}, {"a": "half"}, [0.8, 0.2], None])
def test_fractions_without_sense_are_refused(cars: str, fractions: Any) -> None:
    with pytest.raises(UsageError, match=r"split\(\)"):
        shardkit.dataset(cars).split(fractions)


def test_balance_gives_all_classes_equally_often(cars: str) -> None:
    dataset = shardkit.dataset(cars, shuffle=50).balance()
    assert len(dataset) == 97
    for _ in range(3):
        samples = list(dataset)
        assert sorted(Counter(sample["cls"] for sample in samples).values()) == [32, 32, 33]
        green = Counter(sample["__key__"] for sample in samples if sample["cls"] == 1)
        assert len(green) == 17 and set(green.values()) <= {1, 2}


def test_balanced_classes_come_evenly_along_the_epoch(cars: str) -> None:
    labels = [sample["cls"] for sample in shardkit.dataset(cars).balance()]
    for begin in range(0, 96, 12):
        assert max(Counter(labels[begin : begin + 12]).values()) <= 6


def test_weights_of_classes(cars: str) -> None:
    found = Counter(sample["cls"] for sample in shardkit.dataset(cars, shuffle=30).weight({"red": 1, 1: 3}))
    assert (found[0], found[1] + found[2]) == (0, 97)
    assert abs(found[1] - 97 * 3 / 4) < 1


def test_weights_of_samples(cars: str) -> None:
    weights = np.arange(97) % 3 == 0
    found = Counter(sample["__key__"] for sample in shardkit.dataset(cars, shuffle=30).weight(weights))
    keys = [sample["__key__"] for sample in shardkit.dataset(cars)]
    assert set(found) == {key for key, weight in zip(keys, weights, strict=True) if weight}
    assert sum(found.values()) == 97
    assert set(found.values()) <= {2, 3}


def test_weights_of_the_samples_of_a_view(cars: str, keys_of: KeysOf) -> None:
    view = shardkit.dataset(cars).select("green")
    weights = np.zeros(17)
    weights[4] = 1
    assert keys_of(view.weight(weights)) == [keys_of(view)[4]] * 17


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"red": -1},
        {"yellow": 1},
        {"red": float("nan")},
        [1, 2],
        np.zeros(97),
        np.full(97, -1.0),
        np.full(97, np.nan),
    ],
)
def test_weights_without_sense_are_refused(cars: str, weights: Any) -> None:
    with pytest.raises(UsageError, match=r"weight|class"):
        list(shardkit.dataset(cars).weight(weights))


@pytest.mark.parametrize("weights", ["red", None, object(), [[1], [2, 3]]])
def test_what_are_no_weights_is_refused_where_it_is_written(cars: str, weights: Any) -> None:
    with pytest.raises(UsageError, match="weight"):
        list(shardkit.dataset(cars).weight(weights))


def test_ranks_share_what_is_weighted(cars: str, keys_of: KeysOf) -> None:
    whole = keys_of(shardkit.dataset(cars, shuffle=30).balance())
    parts = [
        keys_of(shardkit.dataset(cars, shuffle=30, layout=1, rank=rank, world_size=2).balance()) for rank in (0, 1)
    ]
    assert [key for pair in zip(*parts, strict=True) for key in pair] == whole[:96]


def test_a_mix_has_exact_shares_in_a_thousand(cars: str, by_shards: dict[int, str], keys_of: KeysOf) -> None:
    mix = shardkit.mix([shardkit.dataset(cars, shuffle=30), shardkit.dataset(by_shards[3], shuffle=30)], [0.3, 0.7])
    assert len(mix) == 97 + 190
    assert mix.classes == ["blue", "green", "red", "a", "b"]
    keys = [key for _ in range(7) for key in keys_of(mix)]
    for begin in (0, 1_000):
        chosen = Counter(key.partition("/")[0] in ("a", "b") for key in keys[begin : begin + 1_000])
        assert chosen == {True: 700, False: 300}
    small = [key for key in keys if key.partition("/")[0] not in ("a", "b")]
    assert sorted(small[:97]) == sorted(keys_of(shardkit.dataset(cars)))


def test_a_mix_has_the_labels_of_the_whole(cars: str, by_shards: dict[int, str]) -> None:
    mix = shardkit.mix([shardkit.dataset(cars), shardkit.dataset(by_shards[3])])
    for dataset in (mix, mix.decode(size=4).map(lambda sample: sample)):
        for sample in dataset:
            assert mix.classes[sample["cls"]] == sample["__key__"].partition("/")[0]
    for batch in mix.decode(size=4).batch(50):
        names = [mix.classes[label] for label in batch.labels]
        assert names == [key.partition("/")[0] for key in batch.keys]


def test_a_mix_is_the_same_for_any_number_of_ranks(cars: str, keys_of: KeysOf) -> None:
    def mix(rank: int, world: int) -> Dataset:
        options = {"shuffle": 30, "layout": 1, "rank": rank, "world_size": world}
        parts = [shardkit.dataset(cars, **options).select(c) for c in ("red", "blue")]
        return shardkit.mix(parts, [1, 2])

    whole = keys_of(mix(0, 1))
    assert len(whole) == 80
    for world in (2, 5):
        parts = [keys_of(mix(rank, world)) for rank in range(world)]
        assert [key for step in zip(*parts, strict=True) for key in step] == whole


def test_numbers_and_counts_of_a_mix_are_those_of_its_parts(cars: str, keys_of: KeysOf) -> None:
    parts = [shardkit.dataset(cars).select(name) for name in ("red", "green")]
    mix = shardkit.mix(parts)
    assert mix.class_counts == {"blue": 0, "green": 17, "red": 50}
    assert [mix[number]["__key__"] for number in range(67)] == keys_of(parts[0]) + keys_of(parts[1])
    assert mix["green/004"]["cls"] == 1
    with pytest.raises(NotFoundError):
        mix["blue/000"]


def test_a_mix_of_shuffled_parts_drops_what_ranks_cannot_share(cars: str) -> None:
    parts = [shardkit.dataset(cars, shuffle=30, rank=0, world_size=2)]
    assert shardkit.mix(parts).reading.order_remainder == "drop"
    assert shardkit.mix([shardkit.dataset(cars)]).reading.order_remainder == "pad"


@pytest.mark.parametrize(
    "call",
    [
        lambda mix: mix.shuffle(5),
        lambda mix: mix.balance(),
        lambda mix: mix.weight({"red": 1}),
        lambda mix: mix.select("red"),
        lambda mix: mix[:5],
        lambda mix: mix.split({"a": 0.5}),
        lambda mix: shardkit.mix([mix, mix]),
        lambda mix: shardkit.concat([mix]),
    ],
)
def test_what_a_mix_cannot_do_is_refused(cars: str, call: Callable[[Dataset], Any]) -> None:
    with pytest.raises(UsageError):
        call(shardkit.mix([shardkit.dataset(cars)]))


@pytest.mark.parametrize(
    "call",
    [
        lambda a: shardkit.mix([]),
        lambda a: shardkit.concat([]),
        lambda a: shardkit.mix([a], [1, 2]),
        lambda a: shardkit.mix([a, a], [0, 0]),
        lambda a: shardkit.mix([a, a], [1, 1e-6]),
        lambda a: shardkit.mix([a.batch(3)]),
        lambda a: shardkit.concat([a.decode(size=3)]),
        lambda a: shardkit.concat([a.repeat(2)]),
        lambda a: shardkit.concat([a.balance()]),
        lambda a: shardkit.mix(a),
        lambda a: shardkit.concat([a, "shards"]),
        lambda a: list(shardkit.mix([a, a[:0]], [1, 1])),
    ],
)
def test_parts_and_weights_without_sense_are_refused(cars: str, call: Callable[[Dataset], Any]) -> None:
    with pytest.raises(UsageError):
        call(shardkit.dataset(cars))


def test_parts_of_different_ranks_are_refused(cars: str) -> None:
    parts = [shardkit.dataset(cars, rank=rank, world_size=2) for rank in (0, 1)]
    for together in (shardkit.concat, shardkit.mix):
        with pytest.raises(UsageError, match="different ranks"):
            together(parts)


def test_concat_joins_datasets_and_their_classes_by_name(
    cars: str, small_tree: Path, by_shards: dict[int, str], keys_of: KeysOf
) -> None:
    parts = [shardkit.dataset(cars).select("red"), shardkit.dataset(by_shards[2]), shardkit.dataset(small_tree)[:40]]
    whole = shardkit.concat(parts)
    assert whole.classes == ["blue", "green", "red", "a", "b"]
    assert whole.class_counts == {"blue": 30, "green": 10, "red": 50, "a": 120, "b": 70}
    assert keys_of(whole) == [key for part in parts for key in keys_of(part)]
    assert len(whole) == 50 + 190 + 40
    assert all(whole.classes[sample["cls"]] == sample["__key__"].partition("/")[0] for sample in whole.shuffle(100))
    assert whole["a/003"]["cls"] == 3
    assert whole[50]["__key__"] == keys_of(parts[1])[0]
    assert len(whole.where(pc.field("image_size") > 0)) == 280
    assert [len(part) for part in whole.split({"x": 0.5, "y": 0.5}).values()] == [140, 140]
    (first, *_) = whole.select("b").decode(size=4).batch(70)
    assert set(first.labels.tolist()) == {4}


def test_concat_of_concats_is_one(cars: str, by_shards: dict[int, str], keys_of: KeysOf) -> None:
    a, b = shardkit.dataset(cars), shardkit.dataset(by_shards[1])
    nested = shardkit.concat([shardkit.concat([a, b])[90:100], a])
    assert keys_of(nested) == keys_of(a)[90:] + keys_of(b)[:3] + keys_of(a)


def test_concat_keeps_ranks_and_threads_of_its_parts(cars: str) -> None:
    part = shardkit.dataset(cars, rank=1, world_size=2, threads=1, remainder="uneven")
    whole = shardkit.concat([part, part])
    assert len(whole) == 97
    assert (whole.reading.rank, whole.reading.threads, whole.reading.order_remainder) == (1, 1, "uneven")


def test_an_empty_view_has_nothing_and_says_so(cars: str) -> None:
    empty = shardkit.dataset(cars, shuffle=10)[:0]
    assert len(empty) == 0
    assert list(empty.decode(size=8).batch(4)) == []
    assert empty
    assert empty.class_counts == {"blue": 0, "green": 0, "red": 0}


def test_a_mix_keeps_the_weights_of_its_parts(cars: str) -> None:
    data = shardkit.dataset(cars, shuffle=50, seed=1)
    blue = data.weight({data.classes[0]: 1})
    red = data.weight({data.classes[1]: 1})
    labels = [sample["cls"] for sample in shardkit.mix([blue, red], [1, 3])]
    assert labels.count(1) == pytest.approx(0.75 * len(labels), abs=0.1 * len(labels))
    assert len(labels) == 2 * len(data)


def test_a_sample_that_comes_up_several_times_in_an_epoch_is_augmented_anew(cars: str) -> None:
    one_class = shardkit.dataset(cars, shuffle=20, seed=2)[:3].shuffle(20).balance()
    decoded = one_class.epoch_size(30).decode(size=16, crop="random", flip=True)
    images: dict[str, set[bytes]] = {}
    for sample in decoded:
        images.setdefault(sample["__key__"], set()).add(sample["jpg"].tobytes())
    assert len(images) == 3
    assert all(len(versions) >= 8 for versions in images.values())


def test_a_split_that_older_versions_dealt_otherwise_is_another_order_to_a_state(cars: str) -> None:
    data = shardkit.dataset(cars)
    three = data[[[sample["cls"] for sample in data].index(label) for label in range(3)]]
    parts = three.split({"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25})
    assert [len(part) for part in parts.values()] == [1, 1, 1, 0]
    assert parts["a"].identity.endswith(":a:0:True:dealt over classes")


def test_a_view_is_found_once_for_the_whole_chain_and_again_after_forget(
    cars: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[Any]()
    candidates = catalog.IndexCatalog.candidates

    def counted(self: Any, names: Any, holds: Any) -> Any:
        read.append(names)
        return candidates(self, names, holds)

    monkeypatch.setattr(catalog.IndexCatalog, "candidates", counted)
    view = shardkit.dataset(cars).where(pc.field("label") == 2)
    expected = len(view)
    decoded = view.decode(size=8)
    for number in range(5):
        assert decoded[number]["cls"] == 2
        assert view[[number, 0]].labels.tolist() == [2, 2]
    assert len(decoded.batch(4)) == -(-expected // 4)
    assert len(read) == 1
    decoded.forget()
    assert len(decoded) == expected
    assert len(read) == 2


def test_the_same_selection_of_another_dataset_is_found_by_itself(cars: str) -> None:
    one, other = shardkit.dataset(cars), shardkit.dataset(cars)[:50]
    step = one.select("red").selection
    chosen = Dataset(other.content, other.reading, selection=(*other.selection, *step))
    first = one.select("red")
    assert Dataset(one.content, one.reading, selection=step).rows().tolist() == first.rows().tolist()
    assert chosen.rows().tolist() == [row for row in first.rows().tolist() if row < 50]
    assert Dataset(one.content, one.reading, selection=step).rows().tolist() == first.rows().tolist()


def test_labels_have_the_smallest_type_that_holds_them(cars: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shardkit.dataset(cars)
    assert data.content.catalog.labels().dtype == np.int8
    assert shardkit.concat([data, data]).content.catalog.labels().dtype == np.int8
    monkeypatch.setattr(IndexFile, "numbers", lambda self, name, groups: iter([np.arange(97) + 200]))
    found = shardkit.dataset(cars).content.catalog
    found.classes = ()  # then the highest label is not known before it is read
    assert found.labels().dtype == np.int16
    assert found.labels().tolist() == list(range(200, 297))
