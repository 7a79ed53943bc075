"""Chains of methods against a model in plain Python: each method applies to the list that those before it left."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

import shardkit
from shardkit import Dataset, UsageError
from shardkit.reading import epoch
from shardkit.reading.chains import BEFORE, NOT_AFTER

KeysOf = Callable[[Any], list[str]]
Items = list[Any]

BUFFER, PART = 9, {"a": 0.7, "b": 0.3}
WEIGHTS = {0: 1.0, 1: 2.0, 2: 3.0}
METHODS: dict[str, Callable[[Dataset], Dataset]] = {
    "take": lambda d: d.take(40),
    "skip": lambda d: d.skip(7),
    "shuffle": lambda d: d.shuffle(BUFFER),
    "select": lambda d: d.select(["red", "blue"]),
    "where": lambda d: d.where(pc.field("label") != 0),
    "view": lambda d: d[3:31],
    "split": lambda d: d.split(PART)["a"],
    "weight": lambda d: d.weight(WEIGHTS),
    "balance": lambda d: d.balance(),
    "epoch_size": lambda d: d.epoch_size(13),
    "repeat": lambda d: d.repeat(2),
    "batch": lambda d: d.batch(4),
    "map": lambda d: d.map(lambda item: item),
    "filter": lambda d: d.filter(lambda item: even(named(item))),
}


def named(item: Any) -> Any:
    """The key of a sample, the keys of a batch."""
    return item["__key__"]


def even(item: Any) -> bool:
    return int((item if isinstance(item, str) else item[0])[-1]) % 2 == 0


class RefusedError(Exception):
    """The model has no meaning for a chain."""


@dataclass(frozen=True)
class Model:
    """rows: the numbers of a view, which an order is made of; then what is done to the list of each epoch."""

    order: Callable[[tuple[int, ...], str, str, int], list[int]]
    labels: list[int]
    keys: list[str]
    rows: tuple[int, ...]
    shuffled: str = ""
    weighted: str = ""
    size: int | None = None
    steps: tuple[Callable[[Items], Items], ...] = ()
    done: frozenset[str] = frozenset()
    cut: bool = False
    turns: int = 1

    def epoch(self, number: int) -> Items:
        if self.size is None:
            items: Items = self.order(self.rows, self.shuffled, self.weighted, number)
        else:
            size = self.size * (4 if "sized batches" in self.done else 1)
            ahead = (self.order(self.rows, self.shuffled, self.weighted, n) for n in itertools.count())
            endless = itertools.chain.from_iterable(ahead)
            items = list(itertools.islice(endless, number * size, (number + 1) * size))
        items = [self.keys[row] for row in items]
        for step in self.steps:
            items = step(items)
        return items

    def iteration(self, number: int) -> Items:
        epochs = range(number * self.turns, (number + 1) * self.turns)
        return [item for epoch in epochs for item in self.epoch(epoch)]

    def refuse_after(self, *names: str) -> None:
        there = self.done | ({"cut"} if self.cut else frozenset())
        if there & set(names):
            raise RefusedError

    def then(self, name: str, step: Callable[[Items], Items] | None = None) -> Model:
        return replace(self, done=self.done | {name}, steps=(*self.steps, step) if step else self.steps)

    def chosen(self, name: str, *also: str, rows: Any) -> Model:
        self.refuse_after("batch", "cut", "epoch_size", "weight", *also)
        return replace(self.then(name), rows=tuple(rows))

    def windowed(self, window: slice) -> Model:
        self.refuse_after("repeat")
        if not self.done & {"shuffle", "weight", "epoch_size", "batch", "filter"}:
            return replace(self.then("window"), rows=self.rows[window])
        return replace(self.then("window", lambda items: items[window]), cut=True)

    def take(self) -> Model:
        return self.windowed(slice(40))

    def skip(self) -> Model:
        return self.windowed(slice(7, None))

    def shuffle(self) -> Model:
        self.refuse_after("batch", "cut", "epoch_size")
        return replace(self.then("shuffle"), shuffled="shuffle")

    def select(self) -> Model:
        return self.chosen("select", rows=(row for row in self.rows if self.labels[row] in (0, 2)))

    def where(self) -> Model:
        return self.chosen("where", rows=(row for row in self.rows if self.labels[row] != 0))

    def view(self) -> Model:
        return self.chosen("view", "filter", "repeat", rows=self.rows[3:31])

    def split(self) -> Model:
        return self.chosen("split", "filter", rows=self.order(self.rows, "split", "", 0))

    def weight(self) -> Model:
        return replace(self.chosen("weight", "filter", rows=self.rows), weighted="weight")

    def balance(self) -> Model:
        return replace(self.chosen("weight", "filter", rows=self.rows), weighted="balance")

    def epoch_size(self) -> Model:
        self.refuse_after("cut", "filter", "repeat", "epoch_size")
        batched = self.then("sized batches") if "batch" in self.done else self
        return replace(batched.then("epoch_size"), size=13)

    def repeat(self) -> Model:
        return replace(self.then("repeat"), turns=2 * self.turns)

    def batch(self) -> Model:
        self.refuse_after("repeat", "batch")
        if "filter" in self.done and self.cut and self.after_filter:
            raise RefusedError
        return self.then("batch", lambda items: [items[at : at + 4] for at in range(0, len(items), 4)])

    @property
    def after_filter(self) -> bool:
        """Whether a take() or skip() came behind a filter(): `cut` and the filter's step before it."""
        return "cut after filter" in self.done

    def map(self) -> Model:
        return self.then("map")

    def filter(self) -> Model:
        return self.then("filter", lambda items: [item for item in items if even(item)])


@pytest.fixture(scope="module")
def model(cars: str) -> Model:
    whole = shardkit.dataset(cars)
    samples = list(whole)
    keys, labels = [sample["__key__"] for sample in samples], [sample["cls"] for sample in samples]
    numbers = {key: number for number, key in enumerate(keys)}

    @cache
    def order(rows: tuple[int, ...], kind: str, weighted: str, epoch: int) -> list[int]:
        """The order of a view of some numbers, which other tests pin."""
        view = whole[np.array(rows, np.int64)]
        if kind == "split":
            view = view.split(PART)["a"]
        if weighted:
            view = METHODS[weighted](view)
        if kind == "shuffle":
            view = view.shuffle(BUFFER)
        view.set_epoch(epoch)
        return [numbers[sample["__key__"]] for sample in view]

    return Model(order, labels, keys, tuple(range(len(keys))))


def expected(model: Model, chain: tuple[str, ...]) -> Model | None:
    """The model after a chain; None where it is refused."""
    try:
        for name in chain:
            if name in ("take", "skip") and "filter" in model.done:
                model = model.then("cut after filter")
            model = getattr(model, name)()
    except RefusedError:
        return None
    return model


def made(whole: Dataset, chain: tuple[str, ...]) -> Dataset | None:
    try:
        for name in chain:
            whole = METHODS[name](whole)
    except UsageError as exc:
        assert exc.cure
        return None
    return whole


def hold_together(cars: str, model: Model, chain: tuple[str, ...]) -> None:
    right, found = expected(model, chain), made(shardkit.dataset(cars), chain)
    assert (found is None) == (right is None), chain
    if found is None or right is None:
        return
    for number in (0, 1):
        items = [named(item) for item in found]
        assert items == right.iteration(number), (chain, number)
        if "filter" not in chain:
            assert len(found) == len(items), chain
    try:
        counts = found.class_counts
    except UsageError:
        assert right.cut or right.done & {"epoch_size", "weight", "filter"}, chain
    else:
        if "batch" in chain:
            items = [key for keys in items for key in keys]
        labels = Counter(model.labels[model.keys.index(key)] for key in items)
        assert counts == {name: labels[label] for label, name in enumerate(found.classes)}, chain


@pytest.mark.parametrize("first", METHODS)
def test_every_pair_of_methods_is_as_in_plain_python_or_refused(cars: str, model: Model, first: str) -> None:
    for second in METHODS:
        hold_together(cars, model, (first, second))


TRIPLES = random.Random(0).sample(list(itertools.product(METHODS, repeat=3)), 500)


@pytest.mark.parametrize("first", METHODS)
def test_triples_of_methods_are_as_in_plain_python_or_refused(cars: str, model: Model, first: str) -> None:
    for chain in TRIPLES:
        if chain[0] == first:
            hold_together(cars, model, chain)


def test_longer_chains_are_as_in_plain_python_or_refused(cars: str, model: Model) -> None:
    draw = random.Random(1)
    for length in (4, 5, 6):
        for _ in range(150):
            hold_together(cars, model, tuple(draw.choice(list(METHODS)) for _ in range(length)))


@pytest.mark.parametrize("lanes", [None, 1, 4])
def test_a_part_that_is_taken_first_never_comes_up_in_the_rest(cars: str, lanes: int | None, keys_of: KeysOf) -> None:
    data = shardkit.dataset(cars, lanes=lanes)
    held, rest = keys_of(data.take(20)), data.skip(20).shuffle(50)
    assert len(held) == 20 and len(rest) == 77
    for _ in range(3):
        assert not set(held) & set(keys_of(rest))
    assert sorted(keys_of(data.take(20).shuffle(50))) == sorted(held)


def test_ranks_share_what_was_taken_before_the_shuffle(cars: str, keys_of: KeysOf) -> None:
    def taken(rank: int, world: int) -> Dataset:
        data = shardkit.dataset(cars, layout=1, rank=rank, world_size=world).skip(10).take(40).shuffle(30)
        data.set_epoch(2)
        return data

    whole = keys_of(taken(0, 1))
    assert sorted(whole) == sorted(keys_of(shardkit.dataset(cars)[10:50]))
    assert [key for pair in zip(*(keys_of(taken(rank, 2)) for rank in (0, 1)), strict=True) for key in pair] == whole


def test_what_was_taken_before_the_shuffle_goes_on_from_its_state(cars: str, keys_of: KeysOf) -> None:
    data = shardkit.dataset(cars).skip(10).take(40).shuffle(30)
    data.set_epoch(1)
    items = iter(data)
    first = keys_of(itertools.islice(items, 15))
    state, rest = data.state_dict(), keys_of(items)
    again = shardkit.dataset(cars).skip(10).take(40).shuffle(30)
    again.load_state_dict(state)
    assert keys_of(again) == rest
    assert sorted(first + rest) == sorted(keys_of(shardkit.dataset(cars)[10:50]))


def test_a_sample_by_number_or_key_is_one_of_those_taken(cars: str) -> None:
    data = shardkit.dataset(cars)
    taken = data.skip(10).take(5)
    assert taken[2] == data[12]
    assert taken[data[13]["__key__"]] == data[13]
    for outside in (5, data[9]["__key__"]):
        with pytest.raises(shardkit.NotFoundError):
            taken[outside]


def test_numbers_of_a_shuffled_part_are_refused(cars: str) -> None:
    for item in (2, "red/000", slice(2, 4)):
        with pytest.raises(UsageError, match=r"dataset\[:1000\]"):
            shardkit.dataset(cars, shuffle=5).take(5)[item]


def test_a_concat_or_mix_of_parts_that_were_taken_is_of_these(cars: str, keys_of: KeysOf) -> None:
    data = shardkit.dataset(cars)
    assert keys_of(shardkit.concat([data.take(3), data.skip(90)])) == [*keys_of(data[:3]), *keys_of(data[90:])]
    assert keys_of(shardkit.mix([data.take(3), data.skip(90)])) == keys_of(shardkit.mix([data[:3], data[90:]]))
    with pytest.raises(UsageError, match="does more than select samples"):
        shardkit.concat([data.shuffle(9).take(3)])


def test_a_concat_that_forgets_a_shuffle_says_so(
    cars: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch, "_SAID", set())
    data = shardkit.dataset(cars)
    list(shardkit.concat([data, data]))
    list(shardkit.concat([data.shuffle(9), data]).shuffle(9))
    assert not caplog.messages
    list(shardkit.concat([data.shuffle(9), data]))
    assert ["call shuffle() on the result" in message for message in caplog.messages] == [True]


def test_epochs_repeat_as_often_as_all_repeats_say(cars: str) -> None:
    assert len(shardkit.dataset(cars).repeat(2).repeat(3)) == 6 * 97
    assert shardkit.dataset(cars).repeat().repeat(3).reading.turns is None
    with pytest.raises(UsageError, match="endless"):
        _ = shardkit.dataset(cars).repeat().class_counts


def test_the_documented_table_is_that_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs/chains.md").read_text("utf-8")
    rows = re.findall(r"^\| (.+?) \|.*\| (.*?) \|$", text, re.MULTILINE)
    found = {
        method: {word.strip("`") for word in words.replace(" and ", ", ").split(", ")}
        for methods, words in rows[1:]
        for method in methods.replace("`", "").split(", ")
    }
    words = {
        "pack_to": "pack_to",
        "cut": "a cut",
        "mix": "mix()",
        "endless": "repeat() without end",
        "weights": "weights",
    }
    assert {name: set(found[name]) for name in NOT_AFTER} == {
        name: {words.get(before, f"{before}()") for before in befores} for name, befores in NOT_AFTER.items()
    }
    assert {before for befores in NOT_AFTER.values() for before in befores} == set(BEFORE)
