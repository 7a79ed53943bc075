"""Several views of each image through a Dataset: batches, samples, resuming, ranks, and what other frameworks get."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images.test_fused import way
from reading.test_decoded_batches import COUNT, jpeg, packed

import shardkit
from shardkit import DatasetError, DecodeError, UsageError

__all__ = ["way"]  # the fixture: each test with it runs with the decoder in C, and without

VIEWS: dict[str, Any] = {"global": (2, 32), "local": shardkit.View(3, (12, 16), scale=(0.05, 0.4))}
SHAPES = {"global": (2, 32, 32, 3), "local": (3, 12, 16, 3)}


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> str:
    return packed(tmp_path_factory.mktemp("views"), {})


def dataset(prefix: str, **options: Any) -> Any:
    return shardkit.dataset(prefix, shuffle=True, seed=3, threads=2, **options)


def test_a_batch_has_an_array_for_each_name(way: str, prefix: str) -> None:
    found = list(dataset(prefix).decode(views=VIEWS, flip=True).batch(32))
    assert [len(batch.labels) for batch in found] == [32, 32, COUNT - 64]
    for batch in found:
        assert {name: images.shape for name, images in batch.images.items()} == {
            name: (len(batch.keys), *shape) for name, shape in SHAPES.items()
        }
        assert batch["global"] is batch.images["global"]
        assert "'local': (" in repr(batch)
        assert batch._repr_html_() is not None
        again = pickle.loads(pickle.dumps(batch))
        np.testing.assert_array_equal(again["local"], batch["local"])


def test_layout_and_values_are_those_of_decode(way: str, prefix: str) -> None:
    batch = next(iter(dataset(prefix).decode(views=VIEWS, layout="chw", mean="imagenet", std="imagenet").batch(4)))
    assert batch["global"].shape == (4, 2, 3, 32, 32)
    assert batch["global"].dtype == np.float32
    assert batch["global"].min() < 0


def test_a_sample_has_a_dict_in_place_of_its_image(way: str, prefix: str) -> None:
    samples = list(dataset(prefix).decode(views=VIEWS))
    batches = list(dataset(prefix).decode(views=VIEWS).batch(COUNT))
    mapped = list(dataset(prefix).decode(views=VIEWS).map(lambda sample: sample).batch(COUNT))
    assert {name: array.shape for name, array in samples[0]["jpg"].items()} == SHAPES
    for name in VIEWS:
        stacked = np.stack([sample["jpg"][name] for sample in samples])
        np.testing.assert_array_equal(stacked, batches[0][name])
        np.testing.assert_array_equal(stacked, mapped[0][name])


def test_views_are_new_in_each_epoch_and_the_same_for_any_threads(way: str, prefix: str) -> None:
    def epochs(threads: int) -> list[Any]:
        made = shardkit.dataset(prefix, threads=threads).decode(views=VIEWS, flip=True).batch(COUNT)
        return [next(iter(made)) for _ in range(2)]

    first, second = epochs(1)
    assert first.keys == second.keys
    for name in VIEWS:
        assert (first[name] != second[name]).any()
        for batch, again in zip((first, second), epochs(3), strict=True):
            np.testing.assert_array_equal(batch[name], again[name])


def test_views_are_the_same_after_a_resume(way: str, prefix: str) -> None:
    whole = [batch["local"] for batch in dataset(prefix).decode(views=VIEWS, flip=True).batch(16)]
    begun, resumed = (dataset(prefix).decode(views=VIEWS, flip=True).batch(16) for _ in range(2))
    list(itertools.islice(begun, 2))
    resumed.load_state_dict(begun.state_dict())
    for expected, batch in zip(whole[2:], resumed, strict=True):
        np.testing.assert_array_equal(expected, batch["local"])


def test_the_views_of_a_sample_do_not_depend_on_the_ranks(way: str, prefix: str) -> None:
    def by_key(**ranks: int) -> dict[str, Any]:
        made = dataset(prefix, **ranks).decode(views=VIEWS, flip=True)
        return {sample["__key__"]: sample["jpg"]["global"] for sample in made}

    whole = by_key()
    for rank in range(2):
        for key, views in by_key(rank=rank, world_size=2).items():
            np.testing.assert_array_equal(views, whole[key])


def test_a_damaged_image_is_reported_or_omitted_from_all_views(way: str, tmp_path: Path) -> None:
    damaged = packed(tmp_path, {0: jpeg(0)[:300], 41: b"no image"})
    with pytest.raises(DecodeError, match="000"):
        list(shardkit.dataset(damaged).decode(views=VIEWS).batch(32))
    found = list(shardkit.dataset(damaged).decode(views=VIEWS, on_error="skip").batch(32))
    assert sum(len(batch["global"]) for batch in found) == sum(len(batch["local"]) for batch in found) == COUNT - 2


def test_samples_with_different_views_do_not_make_a_batch(prefix: str) -> None:
    def fewer(sample: Any) -> Any:
        first = sample["__key__"].endswith("000")
        return sample | {"jpg": {"global": sample["jpg"]["global"][: 1 if first else 2]}}

    with pytest.raises(DatasetError, match="a batch needs images of one size"):
        list(shardkit.dataset(prefix).decode(views=VIEWS).map(fewer).batch(8))


def test_torch_gets_a_dict_of_tensors(prefix: str) -> None:
    torch = pytest.importorskip("torch")
    made = dataset(prefix).decode(views=VIEWS).batch(8)
    expected = next(iter(made))
    batch = next(iter(dataset(prefix).decode(views=VIEWS).batch(8).to_torch()))
    turned = next(iter(dataset(prefix).decode(views=VIEWS).batch(8).to_torch(channels_last=True)))
    for name in VIEWS:
        assert torch.equal(batch.images[name], torch.from_numpy(expected[name]))
        assert torch.equal(turned[name], batch[name].movedim(-1, -3))
    halved = batch.to(torch.float16)
    assert halved["local"].dtype == torch.float16
    assert halved.labels.dtype == torch.int64
    assert batch.to("cpu")["global"].dtype == torch.uint8
    crops = [crop for views in turned.images.values() for crop in views.unbind(1)]
    assert [tuple(crop.shape) for crop in crops] == [(8, 3, 32, 32)] * 2 + [(8, 3, 12, 16)] * 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_hands_over_the_dict(prefix: str, workers: int) -> None:
    pytest.importorskip("torch")
    made = dataset(prefix).decode(views=VIEWS).batch(16)
    expected = [batch["local"] for batch in made]
    loader = dataset(prefix).decode(views=VIEWS).batch(16).to_torch().loader(num_workers=workers)
    for array, (images, labels) in zip(expected, loader, strict=True):
        np.testing.assert_array_equal(array, images["local"].numpy())
        assert len(labels) == len(array)


def test_a_map_style_dataset_gives_a_dict_of_tensors(prefix: str) -> None:
    pytest.importorskip("torch")
    made = shardkit.dataset(prefix).decode(views=VIEWS).to_torch(map_style=True, channels_last=True)
    images, label = made[0]
    assert {name: tuple(tensor.shape) for name, tensor in images.items()} == {
        "global": (2, 3, 32, 32), "local": (3, 3, 12, 16)
    }  # fmt: skip
    assert label == 0


def test_tensorflow_and_keras_get_a_dict(prefix: str) -> None:
    tf = pytest.importorskip("tensorflow")
    made = dataset(prefix).decode(views=VIEWS).batch(8, drop_last=True)
    (expected,) = itertools.islice(made, 1)
    batches = dataset(prefix).decode(views=VIEWS).batch(8, drop_last=True).to_tf()
    spec, _ = batches.element_spec
    assert {name: tuple(one.shape) for name, one in spec.items()} == {n: (8, *s) for n, s in SHAPES.items()}
    images, labels = next(iter(batches))
    by_keras = dataset(prefix).decode(views=VIEWS).batch(8, drop_last=True).to_keras()[0]
    for name in VIEWS:
        np.testing.assert_array_equal(images[name].numpy(), expected[name])
        np.testing.assert_array_equal(by_keras[0][name], expected[name])
    assert labels.shape == tf.TensorShape([8])


def test_a_graph_of_tensorflow_has_no_views(prefix: str) -> None:
    pytest.importorskip("tensorflow")
    with pytest.raises(UsageError, match=r"to_tf\(graph=True\)"):
        dataset(prefix).decode(views=VIEWS).batch(8).to_tf(graph=True)
