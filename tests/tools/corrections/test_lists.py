"""Lists of corrections: their forms, and all that can be wrong with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.errors import SourceError, UsageError

Labels = Callable[[str], dict[str, str]]


def forms(folder: Path) -> dict[str, Any]:
    """The same list in all forms: cat/0001 is a dog, and fox/0003 a cat."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys, names = ["cat/0001", "fox/0003"], ["dog", "cat"]
    (folder / "list.csv").write_text("key,label\ncat/0001,dog\nfox/0003,cat\n")
    (folder / "numbers.csv").write_text("key,label\ncat/0001,1\nfox/0003,0\n")
    (folder / "paths.tsv").write_text("path\tclass\ncat/0001.jpg\tdog\nfox/0003.jpg\tcat\n")
    (folder / "list.jsonl").write_text('{"key": "cat/0001", "label": "dog"}\n{"key": "fox/0003", "label": "cat"}\n')
    pq.write_table(pa.table({"key": keys, "label": names}), folder / "list.parquet")
    files = {name: folder / name for name in ("list.csv", "numbers.csv", "paths.tsv", "list.jsonl", "list.parquet")}
    return files | {
        "dict": dict(zip(keys, names, strict=True)),
        "columns": {"key": keys, "label": names},
        "pair": (keys, names),
        "arrow": pa.table({"__key__": keys, "label": [1, 0]}),
        "pandas": pd.DataFrame({"path": ["cat/0001.jpg", "fox/0003.jpg"], "category": names}),
        "numpy": {"key": np.array(keys), "label": np.array([1, 0])},
    }


FORMS = ("list.csv", "numbers.csv", "paths.tsv", "list.jsonl", "list.parquet", "dict", "columns", "pair", "arrow",
         "pandas", "numpy")  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_list_may_have_any_of_these_forms(form: str, train: str, tmp_path: Path, labels_of: Labels) -> None:
    before = labels_of(train)
    done = shardkit.relabel(train, forms(tmp_path)[form])
    assert (done.version, done.changed, done.unchanged) == (2, 2, 0)
    assert labels_of(train) == before | {"cat/0001": "dog", "fox/0003": "cat"}


def test_a_column_may_be_chosen_by_name(train: str, labels_of: Labels) -> None:
    columns = {"key": ["x"], "path": ["cat/0001.jpg"], "label": ["cat"], "better": ["fox"]}
    shardkit.relabel(train, columns, by="path", label_column="better")
    assert labels_of(train)["cat/0001"] == "fox"


@pytest.mark.parametrize("form", ["list.csv", "paths.tsv", "list.jsonl", "list.parquet", "arrow", "pandas"])
def test_a_list_of_samples_to_delete_may_have_any_of_these_forms(
    form: str, train: str, tmp_path: Path, labels_of: Labels
) -> None:
    shardkit.delete(train, forms(tmp_path)[form])
    assert set(labels_of(train)).isdisjoint({"cat/0001", "fox/0003"})
    assert len(shardkit.dataset(train)) == 10


def test_keys_to_delete_may_be_given_in_python(train: str) -> None:
    shardkit.delete(train, ["cat/0000"])
    shardkit.delete(train, np.array(["cat/0001"]))
    shardkit.delete(train, ["cat/0002.jpg", "cat/0003.jpg"], by="path")
    assert shardkit.dataset(train).class_counts == {"cat": 0, "dog": 4, "fox": 4}


def names_in(prefix: str) -> list[str]:
    return sorted(os.listdir(os.path.dirname(prefix)))


def test_all_faults_of_a_list_are_told_together_and_nothing_is_written(train: str) -> None:
    shardkit.delete(train, ["cat/0003"])
    before = names_in(train)
    columns = {
        "key": ["cat/0000", "cat/0000", "nothing", "cat/0003", "dog/0001"],
        "label": ["dog", "fox", "dog", "dog", "bird"],
    }
    with pytest.raises(SourceError) as told:
        shardkit.relabel(train, columns)
    text = str(told.value)
    for part in ("repeats the key 'cat/0000'", "no sample has the key 'nothing'", "a deleted sample has the key "
                 "'cat/0003'", "no class 'bird'", "new_classes"):  # fmt: skip
        assert part in text
    with pytest.raises(SourceError, match=r"repeats the key 'a'.*no sample has the key 'a', 'b'.*a deleted sample has"):
        shardkit.delete(train, ["a", "a", "b", "cat/0003"])
    assert names_in(train) == before


def test_many_faults_are_counted(train: str) -> None:
    with pytest.raises(SourceError, match="no sample has the key '0', '1', '2', '3', '4' and 95 more"):
        shardkit.delete(train, [str(number) for number in range(100)])


def test_new_classes_come_after_the_others(train: str) -> None:
    done = shardkit.relabel(train, {"cat/0000": "wolf", "cat/0001": "bee"}, new_classes=True)
    assert done.manifest.class_names == ["cat", "dog", "fox", "bee", "wolf"]
    assert shardkit.dataset(train).class_counts == {"cat": 2, "dog": 4, "fox": 4, "bee": 1, "wolf": 1}
    assert shardkit.log(train)[-1].classes == ("bee", "wolf")


def test_labels_that_samples_have_already_change_nothing(train: str) -> None:
    before = names_in(train)
    done = shardkit.relabel(train, {"cat/0000": "cat", "dog/0000": "dog"})
    assert (done.version, done.changed, done.unchanged, done.bytes) == (1, 0, 2, 0)
    assert names_in(train) == before
    again = shardkit.relabel(train, {"cat/0000": "cat", "dog/0000": "fox"})
    assert (again.version, again.changed, again.unchanged) == (2, 1, 1)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"key": ["cat/0000"], "name": ["dog"]}, SourceError, "no column of labels; its columns are key, name"),
        ({"cat/0000": 1.5}, UsageError, "its labels are numbers, and those of the dataset one class"),
        ({"cat/0000": ["cat", "dog"]}, UsageError, "its labels are several classes"),
        ({"cat/0000": 7}, SourceError, "the dataset has no class '7'"),
        ({"cat/0000": None}, SourceError, "no label in row 1|it has no rows|are one class"),
        ({}, UsageError, "it has no rows"),
        (["cat/0000"], UsageError, r"not \(keys, labels\)"),
        ((["a", "b"], ["cat"]), UsageError, "columns differ in length"),
    ],
    ids=["no labels", "a number", "several", "a class number", "none", "empty", "a list", "lengths"],
)
def test_a_list_that_does_not_fit_is_refused(given: Any, error: type, text: str, train: str) -> None:
    with pytest.raises(error, match=text):
        shardkit.relabel(train, given)
    assert len(shardkit.log(train)) == 1


def test_a_list_without_names_is_refused(train: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("name,label\nx,dog\n")
    with pytest.raises(SourceError, match="no column of keys or paths; its columns are name, label"):
        shardkit.relabel(train, tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text("key,label\n,dog\n")
    with pytest.raises(SourceError, match="row 1: it names no key"):
        shardkit.relabel(train, tmp_path / "list.csv")
    with pytest.raises(SourceError, match="there is no such list"):
        shardkit.delete(train, tmp_path / "nothing.csv")


def test_classes_that_are_called_by_numbers_are_meant_by_their_names(
    tmp_path: Path, draw_tree: Callable[..., Path], labels_of: Labels
) -> None:
    draw_tree(tmp_path / "tree", {"1": 1, "2": 1, "10": 1})
    shardkit.pack(tmp_path / "tree", tmp_path / "train", workers=1)
    (tmp_path / "list.csv").write_text("key,label\n1/0000,10\n")
    shardkit.relabel(tmp_path / "train", tmp_path / "list.csv")
    assert labels_of(str(tmp_path / "train"))["1/0000"] == "10"


def test_a_dataset_that_is_open_is_no_name_of_one(train: str) -> None:
    with pytest.raises(UsageError, match="a Dataset is not a path; give the path of a dataset"):
        shardkit.relabel(shardkit.dataset(train), {"cat/0000": "dog"})  # type: ignore[arg-type]
