from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from shardkit.errors import DatasetError
from shardkit.reading.batches.batch import Batch, collate


def sample(number: int, **fields: Any) -> dict[str, Any]:
    image = np.full((2, 3, 3), number, np.uint8)
    return {"__key__": f"k{number}", "__url__": "s.tar", "jpg": image, "cls": number, **fields}


def test_a_batch_unpacks_as_images_and_labels() -> None:
    batch = collate([sample(1), sample(2)])
    images, labels = batch
    assert images is batch.images is batch[0]
    assert labels is batch.labels is batch[1]
    assert images.shape == (2, 2, 3, 3)
    assert (labels.dtype, labels.tolist()) == (np.int64, [1, 2])
    assert (len(batch), batch.keys, batch.repeats) == (2, ["k1", "k2"], None)
    assert isinstance(batch, tuple)


def test_other_fields_are_there_by_name() -> None:
    batch = collate([sample(n, txt=f"t{n}", json={"n": n}, npy=np.array([n, n]), weight=0.5 * n) for n in (1, 2)])
    assert batch.txt == batch["txt"] == ["t1", "t2"]
    assert batch.json == [{"n": 1}, {"n": 2}]
    assert batch.npy.tolist() == [[1, 1], [2, 2]]
    assert batch.weight.tolist() == [0.5, 1.0]
    assert sorted(batch.fields) == ["json", "npy", "txt", "weight"]
    with pytest.raises(AttributeError, match="this batch has no 'depth'"):
        _ = batch.depth
    with pytest.raises(KeyError):
        _ = batch["depth"]


def test_samples_without_labels_give_none_for_labels() -> None:
    unlabelled = [{name: value for name, value in sample(n).items() if name != "cls"} for n in (1, 2)]
    assert collate(unlabelled).labels is None


@pytest.mark.parametrize("again", [lambda b: pickle.loads(pickle.dumps(b)), copy.copy, copy.deepcopy])
def test_a_batch_survives_pickling_and_copying(again: Any) -> None:
    batch = Batch(np.ones(2), np.zeros(2), keys=["a", "b"], fields={"txt": ["x", "y"]}, repeats=np.array([False, True]))
    found = again(batch)
    assert type(found) is Batch
    assert (found.keys, found.txt, found.repeats.tolist()) == (["a", "b"], ["x", "y"], [False, True])
    assert [part.tolist() for part in found] == [[1, 1], [0, 0]]


def test_a_batch_is_made_again_from_its_parts_as_tuples_are() -> None:
    batch = Batch(np.ones(2), np.zeros(2), keys=["a", "b"])
    doubled = type(batch)(2 * part for part in batch)
    assert [part.tolist() for part in doubled] == [[2, 2], [0, 0]]


def test_repeats_are_marked_in_batches_and_in_dicts() -> None:
    chosen = [sample(1), {**sample(2), "__repeat__": True}]
    batch = collate(chosen)
    assert batch.repeats.tolist() == [False, True]
    assert batch.fields == {}
    undecoded = collate([{**one, "jpg": b""} for one in chosen])
    assert undecoded["__repeat__"].tolist() == [False, True]
    assert "__repeat__" not in collate([{**sample(1), "jpg": b""}])


def test_dicts_without_images_give_a_dict_of_columns() -> None:
    batch = collate([{"__key__": "a", "jpg": b"1", "cls": 3}, {"__key__": "b", "jpg": b"2", "cls": 4}])
    assert batch["jpg"] == [b"1", b"2"]
    assert batch["cls"].tolist() == [3, 4]


def test_a_field_that_some_dicts_lack_is_none_there() -> None:
    batch = collate([{"__key__": "a", "cls": 3}, {"__key__": "b", "txt": "t"}])
    assert batch == {"__key__": ["a", "b"], "cls": [3, None], "txt": [None, "t"]}


def test_tuples_give_columns_and_anything_else_a_list_or_array() -> None:
    images, labels = collate([(np.zeros((2, 2)), 1), (np.ones((2, 2)), 2)])
    assert images.shape == (2, 2, 2)
    assert labels.tolist() == [1, 2]
    assert collate(["a", "b"]) == ["a", "b"]
    assert collate([True, False]) == [True, False]


def test_images_of_two_sizes_are_named() -> None:
    with pytest.raises(DatasetError, match=r"k1 is 2 x 3 x 3 and k2 is 4 x 3 x 3; give a size"):
        collate([sample(1), sample(2) | {"jpg": np.zeros((4, 3, 3), np.uint8)}])


def test_images_of_two_kinds_come_together() -> None:
    png = {name: value for name, value in sample(2).items() if name != "jpg"} | {"png": sample(2)["jpg"]}
    batch = collate([sample(1), png])
    assert batch.images[:, 0, 0, 0].tolist() == [1, 2]


def test_what_a_batch_shows() -> None:
    assert repr(Batch(np.ones((2, 3)), np.zeros(2), keys=["a", "b"])) == "Batch(images=(2, 3), labels=(2,), keys=2)"
