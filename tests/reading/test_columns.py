"""Labels, keys and paths as arrays, and what is chosen by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit import Dataset, UsageError
from shardkit.reading.chains import NOT_AFTER

CHAINS: dict[str, Callable[[Dataset], Dataset]] = {
    "all": lambda d: d,
    "shuffled": lambda d: d.shuffle(20),
    "decoded batches": lambda d: d.decode(size=8).batch(4),
    "selected": lambda d: d.select(["red", "blue"]),
    "a view": lambda d: d[[5, 3, 90, 3]],
    "taken": lambda d: d.skip(7).take(40),
    "a part": lambda d: d.split({"a": 0.5, "b": 0.5})["b"],
    "two": lambda d: shardkit.concat([d[:5], d[90:]]),
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_the_arrays_are_those_of_the_samples_by_number(cars: str, chain: Any) -> None:
    dataset = chain(shardkit.dataset(cars))
    samples = (
        [dataset[number] for number in range(len(dataset.labels))]
        if dataset.batch_size is None
        else list(shardkit.dataset(cars))
    )
    assert dataset.labels.tolist() == [sample["cls"] for sample in samples]
    assert dataset.keys.tolist() == [sample["__key__"] for sample in samples]
    assert dataset.paths.tolist() == [f"{key}.jpg" for key in dataset.keys]
    assert (dataset.labels.dtype, dataset.labels.ndim) == (np.int64, 1)


def test_a_class_tree_has_the_same_arrays(cars: str, small_tree: Path) -> None:
    tree, shards = shardkit.dataset(small_tree), shardkit.dataset(cars)
    assert sorted(zip(tree.keys, tree.labels, tree.paths, strict=True)) == sorted(
        zip(shards.keys, shards.labels, shards.paths, strict=True)
    )


def test_a_change_of_the_array_does_not_change_the_dataset(cars: str) -> None:
    dataset = shardkit.dataset(cars)
    dataset.labels[:] = 9
    assert dataset.labels.max() == 2


def test_labels_of_other_kinds_are_refused(small_tree: Path, tmp_path: Path) -> None:
    paths = [str(path) for path in sorted(small_tree.rglob("*.jpg"))][:4]
    shardkit.pack((paths, [[0], [0, 1], [], [1]]), tmp_path / "x", workers=1)
    with pytest.raises(UsageError, match="several classes"):
        _ = shardkit.dataset(tmp_path / "x").labels


def test_each_refused_chain_names_the_array(cars: str) -> None:
    for name in ("labels", "keys", "paths"):
        assert NOT_AFTER[name] == NOT_AFTER["labels"]
        with pytest.raises(UsageError, match=f"^{name}: "):
            getattr(shardkit.dataset(cars).filter(len), name)


@pytest.mark.parametrize("stratify", [True, False])
def test_folds_are_disjoint_and_together_everything(cars: str, stratify: bool) -> None:
    whole = shardkit.dataset(cars)
    folds = whole.split(5, seed=3, stratify=stratify)
    assert len(folds) == 5
    held: list[str] = []
    for train, validation in folds:
        assert not set(train.keys) & set(validation.keys)
        assert set(train.keys) | set(validation.keys) == set(whole.keys)
        assert 19 <= len(validation) <= 20
        if stratify:
            assert set(Counter(validation.labels.tolist())) == {0, 1, 2}
            assert abs(validation.class_counts["red"] - 10) <= 1
        held += validation.keys.tolist()
    assert sorted(held) == sorted(whole.keys)
    assert [part.keys.tolist() for part, _ in whole.split(5, seed=3, stratify=stratify)] == [
        part.keys.tolist() for part, _ in folds
    ]


def test_a_fold_can_be_shuffled_and_resumed(cars: str, keys_of: Callable[[Any], list[str]]) -> None:
    train, validation = shardkit.dataset(cars).split(2)[1]
    shuffled = train.shuffle(30)
    iterator = iter(shuffled)
    begun = [next(iterator)["__key__"] for _ in range(9)]
    state = shuffled.state_dict()
    again = shardkit.dataset(cars).split(2)[1][0].shuffle(30)
    again.load_state_dict(state)
    assert sorted(begun + keys_of(again)) == sorted(train.keys)
    with pytest.raises(shardkit.StateError):
        validation.shuffle(30).load_state_dict(state)


@pytest.mark.parametrize("count", [1, 0, -3])
def test_fewer_than_two_folds_are_refused(cars: str, count: int) -> None:
    with pytest.raises(UsageError, match=r"split\(k\)"):
        shardkit.dataset(cars).split(count)


def test_numbers_chosen_by_labels_are_a_view(cars: str) -> None:
    dataset = shardkit.dataset(cars)
    chosen = np.flatnonzero(dataset.labels == 1)
    assert dataset[chosen].class_counts == {"blue": 0, "green": 17, "red": 0}
    assert dataset[dataset.labels == 1].keys.tolist() == dataset[chosen].keys.tolist()


@pytest.mark.parametrize("expression", ["width > 100", True, None])
def test_where_takes_expressions_only(cars: str, expression: Any) -> None:
    with pytest.raises(UsageError, match="is not an expression of pyarrow"):
        shardkit.dataset(cars).where(expression)


def test_a_misspelled_option_of_dataset_gives_the_right_one(cars: str) -> None:
    with pytest.raises(UsageError, match=r"unexpected keyword argument 'shuffel'; did you mean `shuffle`\?"):
        shardkit.dataset(cars, shuffel=True)  # type: ignore[call-arg]
    assert len(shardkit.dataset(source=cars)) == 97


@pytest.mark.parametrize("folds", [2, 3, 7, 10, 97])
@pytest.mark.parametrize("stratify", [True, False])
def test_folds_and_their_classes_differ_by_at_most_one_sample(cars: str, folds: int, stratify: bool) -> None:
    parts = [validation for _, validation in shardkit.dataset(cars).split(folds, stratify=stratify)]
    sizes = [len(part.labels) for part in parts]
    assert (sum(sizes), max(sizes) - min(sizes) <= 1) == (97, True)
    for label in range(3) if stratify else ():
        counts = [int((part.labels == label).sum()) for part in parts]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("count", [98, 10**12])
def test_more_folds_than_samples_are_refused(cars: str, count: int) -> None:
    with pytest.raises(UsageError, match="give at most one fold for each sample"):
        shardkit.dataset(cars).split(count)
