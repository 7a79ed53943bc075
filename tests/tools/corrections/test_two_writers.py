"""Several runs that correct one dataset at once, on a disk and in a bucket: none is lost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import shardkit
from shardkit.errors import BusyError
from shardkit.tools.corrections import commit
from shardkit.tools.corrections.place import CorrectedPlace

Labels = Callable[[str], dict[str, str]]


@pytest.fixture(params=["disk", "bucket"])
def dataset(request: pytest.FixtureRequest, train: str, packed_once: Path) -> str:
    """A dataset on a disk, or in memory as in a bucket."""
    if request.param == "disk":
        return train
    shardkit.pack(packed_once / "tree", "memory://corrections/train", max_count=2, workers=1, overwrite=True)
    return "memory://corrections/train"


def meanwhile(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Run `action` once, after the next correction has read the dataset and before it writes."""
    real = CorrectedPlace.locked
    todo = [action]

    def locked(self: CorrectedPlace) -> object:
        if todo:
            todo.pop()()
        return real(self)

    monkeypatch.setattr(CorrectedPlace, "locked", locked)


def test_a_correction_of_other_samples_is_made_on_top_of_the_first(
    dataset: str, monkeypatch: pytest.MonkeyPatch, labels_of: Labels
) -> None:
    before = labels_of(dataset)
    meanwhile(monkeypatch, lambda: shardkit.relabel(dataset, {"cat/0001": "wolf"}, new_classes=True))
    done = shardkit.relabel(dataset, {"cat/0002": "bee"}, new_classes=True)
    assert done.version == 3
    assert labels_of(dataset) == before | {"cat/0001": "wolf", "cat/0002": "bee"}
    assert shardkit.dataset(dataset).class_counts == {"cat": 2, "dog": 4, "fox": 4, "wolf": 1, "bee": 1}
    assert [entry.kind for entry in shardkit.log(dataset)] == ["pack", "relabel", "relabel"]


def test_a_correction_of_the_same_sample_is_refused(
    dataset: str, monkeypatch: pytest.MonkeyPatch, labels_of: Labels
) -> None:
    meanwhile(monkeypatch, lambda: shardkit.delete(dataset, ["cat/0001"]))
    with pytest.raises(BusyError, match="corrected 1 of the same samples meanwhile, 'cat/0001' among them"):
        shardkit.relabel(dataset, {"cat/0001": "dog", "cat/0002": "dog"})
    assert "cat/0001" not in labels_of(dataset)
    assert labels_of(dataset)["cat/0002"] == "cat"


def test_going_back_is_refused_if_there_is_a_new_version(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shardkit.delete(dataset, ["cat/0001"])
    meanwhile(monkeypatch, lambda: shardkit.delete(dataset, ["cat/0002"]))
    with pytest.raises(BusyError, match="made version 3 meanwhile"):
        shardkit.revert(dataset, 1)


def test_many_corrections_at_once_are_all_there(dataset: str) -> None:
    keys = [f"{name}/000{number}" for name in ("cat", "dog", "fox") for number in range(4)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda key: shardkit.delete(dataset, [key]), keys[:8]))
    assert sorted(shardkit.dataset(dataset).keys) == keys[8:]
    assert [entry.version for entry in shardkit.log(dataset)] == list(range(1, 10))
    assert shardkit.verify(dataset, read=True).findings == ()


def test_a_dataset_that_was_replaced_meanwhile_is_not_corrected(
    dataset: str, packed_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace() -> None:
        shardkit.pack(packed_once / "tree", dataset, max_count=3, workers=1, overwrite=True)

    meanwhile(monkeypatch, replace)
    with pytest.raises(BusyError, match="another run replaced this dataset"):
        shardkit.delete(dataset, ["cat/0001"])
    assert len(shardkit.dataset(dataset)) == 12


def test_a_writer_that_never_comes_first_gives_up(train: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "TURNS", 1)
    meanwhile(monkeypatch, lambda: shardkit.delete(train, ["cat/0001"]))
    with pytest.raises(BusyError, match="other runs keep changing this dataset"):
        shardkit.delete(train, ["cat/0002"])


def test_fields_of_other_samples_or_other_fields_are_added_on_top_of_the_first(
    dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(monkeypatch, lambda: shardkit.add_fields(dataset, {"cat/0001": {"age": 1}, "cat/0002": {"age": 2}}))
    assert shardkit.add_fields(dataset, {"cat/0001": {"city": "Bern"}, "cat/0003": {"city": "Basel"}}).version == 3
    meanwhile(monkeypatch, lambda: shardkit.relabel(dataset, {"cat/0003": "dog"}))
    assert shardkit.add_fields(dataset, {"cat/0003": {"age": 3}}).version == 5
    meanwhile(monkeypatch, lambda: shardkit.add_fields(dataset, {"cat/0000": {"age": 0}}))
    assert shardkit.delete(dataset, ["cat/0000"]).version == 7
    table = shardkit.diff(f"{dataset}@1", dataset).table
    fields = {row["key"]: row["after"] for row in table.to_pylist() if row["change"] == "other fields"}
    assert fields == {
        "cat/0001": '{"age":1,"city":"Bern"}', "cat/0002": '{"age":2}', "cat/0003": '{"age":3,"city":"Basel"}',
    }  # fmt: skip


@pytest.mark.parametrize("first", ["fields", "deletion"])
def test_fields_of_samples_that_changed_meanwhile_are_refused(
    first: str, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other() -> None:
        if first == "fields":
            shardkit.add_fields(dataset, {"cat/0001": {"age": 1}})
        else:
            shardkit.delete(dataset, ["cat/0001"])

    meanwhile(monkeypatch, other)
    with pytest.raises(BusyError, match="corrected 1 of the same samples meanwhile, 'cat/0001' among them"):
        shardkit.add_fields(dataset, {"cat/0001": {"age": 2}, "cat/0002": {"age": 2}}, overwrite=True)
    assert len(shardkit.log(dataset)) == 2
