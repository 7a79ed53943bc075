"""buckets() through a Dataset: one shape in each batch, over ranks, workers and resumes, and what is refused."""

from __future__ import annotations

import io
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import shardkit
from shardkit import Dataset, DatasetError, StateError, UsageError
from shardkit.images import fused
from shardkit.images.orientation import TAG
from shardkit.reading import epoch as epochs

COUNT, SIZE = 150, 48


def write(path: Path, size: tuple[int, int], seed: int, orientation: int = 1) -> None:
    """A JPEG of size (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[TAG] = orientation
    Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC).save(path, exif=exif)


def packed(folder: Path, sizes: list[tuple[int, int]], turned: frozenset[int] = frozenset()) -> str:
    for number, size in enumerate(sizes):
        write(folder / "tree" / "ab"[number % 2] / f"{number:03}.jpg", size, number, 6 if number in turned else 1)
    shardkit.pack(folder / "tree", folder / "shards", workers=1, max_count=40)
    return str(folder / "shards")


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> str:
    """150 JPEGs of many sizes in 4 shards; the prefix."""
    sizes = np.random.default_rng(0).integers(20, 90, (COUNT, 2)).tolist()
    return packed(tmp_path_factory.mktemp("varied"), [(height, width) for height, width in sizes])


@pytest.fixture(params=["fused", "simplejpeg"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "simplejpeg":
        monkeypatch.setattr(fused, "available", lambda part="": False)


def bucketed(prefix: str, *, size: int = 8, number: int = 4, drop_last: bool = False, **options: Any) -> Dataset[Any]:
    data = shardkit.dataset(prefix, shuffle=30, threads=2, **options)
    return data.buckets(number, size=SIZE).decode(flip=True).batch(size, drop_last=drop_last)


def keys_of(batches: Any) -> list[list[str]]:
    return [batch.keys for batch in batches]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("crop", ["cover", "random-cover", "resize", "random", "pad"])
def test_a_batch_holds_what_decode_makes_of_each_image_with_the_shape_of_the_bucket(varied: str, crop: Any) -> None:
    asked: dict[str, Any] = {"crop": crop, "flip": True, "layout": "chw", "padding": 3 if crop == "pad" else None}
    data = shardkit.dataset(varied, shuffle=30, seed=2)
    batches = list(data.buckets(3, size=SIZE).decode(**asked).batch(16))
    shapes = {batch.images.shape[2:] for batch in batches}
    assert len(shapes) == 3 and sum(len(batch.keys) for batch in batches) == COUNT
    for shape in shapes:
        alone = {
            key: (image, label)
            for images, labels, keys in (
                (batch.images, batch.labels, batch.keys)
                for batch in shardkit.dataset(varied, seed=2).decode(size=shape, **asked).batch(50)
            )
            for key, image, label in zip(keys, images, labels, strict=True)
        }
        for batch in batches:
            if batch.images.shape[2:] == shape:
                for key, image, label in zip(batch.keys, *batch, strict=True):
                    np.testing.assert_array_equal(image, alone[key][0])
                    assert label == alone[key][1]


def test_the_way_of_single_samples_gives_the_same_batches(varied: str) -> None:
    steps = shardkit.dataset(varied, shuffle=30).buckets(4, size=SIZE).decode(flip=True)
    for one, other in zip(steps.batch(8), steps.map(lambda sample: sample).batch(8), strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        assert one.keys == other.keys


@settings(max_examples=25)
@given(st.integers(1, 9), st.integers(1, 20), st.booleans(), st.sampled_from(["drop", "pad", "uneven"]))
def test_ranks_share_an_epoch_of_batches(varied: str, world: int, size: int, drop_last: bool, how: Any) -> None:
    given_options = {"size": size, "drop_last": drop_last, "remainder": how, "world_size": world}
    ranks = [bucketed(varied, rank=rank, **given_options) for rank in range(world)]
    found = [list(rank) for rank in ranks]
    assert [len(rank) for rank in ranks] == [len(batches) for batches in found]
    assert len(set(map(len, found))) <= (2 if how == "uneven" else 1)
    marks = [batch.repeats.tolist() if batch.repeats is not None else [False] for own in found for batch in own]
    assert all(len(set(one)) == 1 for one in marks) and (how == "pad" or not any(one[0] for one in marks))
    every = [batch for own in found for batch in own]
    times = Counter(key for batch, one in zip(every, marks, strict=True) if not one[0] for key in batch.keys)
    assert max(times.values(), default=1) == 1
    if how != "drop" and not drop_last:
        assert len(times) == COUNT


@settings(max_examples=25)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 4), st.integers(1, 12), st.booleans())
def test_any_world_resumes_with_the_batches_that_are_left(
    varied: str, world: int, other: int, steps: int, size: int, drop: bool
) -> None:
    options = {"size": size, "drop_last": drop, "remainder": "uneven"}
    ranks = [bucketed(varied, rank=rank, world_size=world, **options) for rank in range(world)]
    before, states = list[list[str]](), []
    for rank in ranks:
        items = iter(rank)
        before += keys_of(next(items) for _ in range(min(steps, len(rank))))
        states.append(rank.state_dict())
    if min(map(len, ranks)) < steps:
        return
    after = list[list[str]]()
    for rank in range(other):
        data = bucketed(varied, rank=rank, world_size=other, **options)
        data.load_state_dict(states[-1])
        after += keys_of(data)
    whole = [
        keys
        for rank in ranks
        for keys in keys_of(bucketed(varied, rank=rank.reading.rank, world_size=world, **options))
    ]
    assert sorted(map(tuple, [*before, *after])) == sorted(map(tuple, whole))


def test_workers_threads_and_epochs_do_not_change_the_batches(varied: str) -> None:
    data = bucketed(varied)
    first, second = keys_of(data), keys_of(data)
    assert first != second and sorted(chain.from_iterable(first)) == sorted(chain.from_iterable(second))
    streams = [bucketed(varied).run(0, worker=worker, workers=3) for worker in range(3)]
    turns = [[item for _, item in stream] for stream in streams]
    assert [turns[at % 3][at // 3].keys for at in range(len(first))] == first
    again = bucketed(varied)
    again.set_epoch(1)
    assert keys_of(again) == second


def test_the_shapes_alternate_and_ranks_have_the_same_one_in_a_step(varied: str) -> None:
    found = [
        [batch.images.shape for batch in bucketed(varied, rank=rank, world_size=2, size=4, number=2)] for rank in (0, 1)
    ]
    assert sum(one == other for one, other in zip(*found, strict=True)) >= len(found[0]) - 2
    assert sum(one != after for one, after in zip(found[0], found[0][1:], strict=False)) > 3


def test_a_state_belongs_to_its_shapes_and_batch_size(varied: str) -> None:
    state = bucketed(varied).state_dict()
    bucketed(varied).load_state_dict(state)
    for other in (bucketed(varied, size=9), bucketed(varied, number=3), bucketed(varied, drop_last=True)):
        with pytest.raises(StateError):
            other.load_state_dict(state)


def test_bucket_counts_are_those_of_the_given_shapes_that_have_samples(varied: str, caplog: Any) -> None:
    data = shardkit.dataset(varied).buckets([(16, 64), 32, (64, 16), (8, 1000)])
    assert list(data.bucket_counts) == [(16, 64), (32, 32), (64, 16)] and sum(data.bucket_counts.values()) == COUNT
    assert "no sample is nearest to 8 x 1000" in caplog.text


def test_views_and_numbers_are_sorted_into_buckets_too(varied: str) -> None:
    view = shardkit.dataset(varied)[[140, 3, 3, 77, 5]]
    found = keys_of(view.buckets(2, size=SIZE).decode().batch(2))
    assert sorted(chain.from_iterable(found)) == sorted(view.keys.tolist())
    wide = shardkit.dataset(varied).where(pc.field("width") > pc.field("height"))
    counts = wide.shuffle(9).buckets(3, size=SIZE).bucket_counts
    assert sum(counts.values()) == wide.epoch_samples and max(height / width for height, width in counts) <= 1


def test_one_sample_and_batches_larger_than_a_bucket_are_smaller_batches(
    tmp_path: Path, caplog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(epochs, "_SAID", set())
    data = shardkit.dataset(packed(tmp_path, [(40, 30)]), shuffle=True)
    steps = data.buckets(5, size=SIZE).decode()
    assert [batch.images.shape for batch in steps.batch(1000)] == [(1, 56, 40, 3)]
    assert len(steps.batch(2, drop_last=True)) == 0 == len(list(steps.batch(2, drop_last=True)))
    assert "so that none gets any" in caplog.text


def test_images_that_are_turned_upright_are_sorted_as_they_are_seen(tmp_path: Path) -> None:
    prefix = packed(tmp_path, [(30, 60)] * 12, frozenset({1, 5, 6}))
    data = shardkit.dataset(prefix).buckets([(32, 64), (64, 32)])
    assert data.bucket_counts == {(32, 64): 12}
    turned = data.decode(orientation=True, crop="resize")
    assert turned.bucket_counts == {(32, 64): 9, (64, 32): 3}
    found = {key[2:]: batch.images.shape[1:3] for batch in turned.batch(4) for key in batch.keys}
    assert {key for key, shape in found.items() if shape == (64, 32)} == {"001", "005", "006"}


def test_samples_without_a_size_are_told_with_the_cure(tmp_path: Path, varied: str) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (20, 30)).save(sink, "JPEG")
    samples: list[Any] = [{"__key__": "image", "jpg": sink.getvalue()}, {"__key__": "text", "txt": b"no"}]
    shardkit.write(samples, tmp_path / "shards")
    data = shardkit.dataset(tmp_path / "shards").buckets(2, size=SIZE)
    with pytest.raises(DatasetError, match=r"1 of 2 samples, such as 'text'.*where\(") as caught:
        list(data.decode().batch(2))
    assert "shards" in caught.value.place
    known = shardkit.dataset(tmp_path / "shards").where(pc.field("width") > 0)
    assert [batch.keys for batch in known.buckets(2, size=SIZE).decode().batch(2)] == [["image"]]
    with pytest.raises(UsageError, match="there are no samples"):
        len(shardkit.dataset(varied)[:0].buckets(2, size=SIZE).decode().batch(2))


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "tree" / "a" / "1.jpg", (9, 9), 0)
    with pytest.raises(UsageError, match="shardkit pack"):
        list(shardkit.dataset(tmp_path / "tree").buckets(2, size=SIZE).decode().batch(2))


@pytest.mark.parametrize(
    ("shapes", "options", "words"),
    [
        (0, {"size": 9}, "0 is not a number of shapes"),
        (5, {}, "the number of pixels of the shapes is missing"),
        (5, {"size": (1, 2, 3)}, "not a size in pixels"),
        (5, {"size": 7}, "multiples of 8"),
        (5, {"size": 64, "multiple": 0}, "not a number of pixels"),
        (1000, {"size": 64}, "more than 256"),
        ([], {}, "neither a list of sizes"),
        ("512x512", {}, "neither a list of sizes"),
        ([(1, 2), (0, 3)], {}, r"\(0, 3\) is neither"),
        ([32, (32, 32)], {}, "occurs twice"),
        ([32], {"size": 32}, "the shapes are given"),
        (True, {"size": 64}, "neither a list of sizes"),
        (2.5, {"size": 64}, "neither a list of sizes"),
    ],
)
def test_impossible_shapes_are_refused(shapes: Any, options: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        shardkit.dataset("nowhere").buckets(shapes, **options)


def test_chains_that_make_no_sense_are_refused(varied: str) -> None:
    data = shardkit.dataset(varied)
    some = data.buckets(2, size=SIZE)
    for wrong, words in [
        (lambda: data.decode().buckets(2, size=SIZE), "call it once, before them"),
        (lambda: some.buckets(2, size=SIZE), "call it once"),
        (lambda: some.decode(size=32), "each bucket has its own size"),
        (lambda: some.decode(views={"a": (2, 8)}), "each view has its own size"),
        (lambda: some.take(3), "between buckets"),
        (lambda: some.decode().filter(bool), "between buckets"),
        (lambda: some.select("a"), "before buckets"),
        (lambda: some.epoch_size(3), "before buckets"),
        (lambda: some.decode()[3], "before buckets"),
        (lambda: list(some.decode()), r"there is no batch\(\)"),
        (lambda: list(some.batch(2)), r"there is no decode\(\)"),
        (lambda: list(some.batch(2, encoded=True)), r"there is no decode\(\)"),
        (lambda: shardkit.mix([data, data]).buckets(2, size=SIZE), r"before mix\(\)"),
        (lambda: data.bucket_counts, "there are no buckets"),
    ]:
        with pytest.raises(UsageError, match=words):
            wrong()


def test_what_follows_batch_applies_to_its_batches(varied: str) -> None:
    data = bucketed(varied)
    whole = keys_of(data)
    data.set_epoch(0)
    assert (
        keys_of(data.take(3)) == whole[:3]
        and keys_of(data.skip(3)) == whole[3:]
        and len(data.skip(3)) == len(whole) - 3
    )
    assert [len(keys) for keys in data.map(lambda batch: batch.keys)] == [len(keys) for keys in whole]
    assert keys_of(data.filter(lambda batch: len(batch.keys) == 8)) == [keys for keys in whole if len(keys) == 8]
    assert len(data.repeat(2)) == 2 * len(whole)
