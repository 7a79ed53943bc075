from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shardkit.reading.order.batches import BatchOrder, BatchShare
from shardkit.reading.order.derived import SelectedOrder
from shardkit.reading.order.epoch_order import EpochOrder
from shardkit.reading.order.layout import Layout

worlds = st.integers(1, 64)


@st.composite
def orders(draw: Any, *, shuffled: bool | None = None) -> BatchOrder:
    """The batches of some buckets; the rows of bucket b are b * 1000 …"""
    counts = draw(st.lists(st.integers(1, 90), min_size=1, max_size=5))
    layout = Layout(draw(st.integers(1, 4)), draw(st.integers(1, 9)))
    seed, epoch, buffer = draw(st.integers(0, 9)), draw(st.integers(0, 3)), draw(st.sampled_from([1, 7, 1000]))
    mixed = draw(st.booleans()) if shuffled is None else shuffled
    parts = [
        SelectedOrder(
            EpochOrder(
                np.array([count // 2, 0, count - count // 2]),
                buffer * mixed,
                seed,
                epoch,
                layout.lanes,
                layout.sections,
            ),
            1000 * bucket + np.arange(count),
        )
        for bucket, count in enumerate(counts)
    ]
    return BatchOrder(parts, draw(st.integers(1, 12)), layout, seed, epoch, mixed, draw(st.booleans()))


def rows_of(order: BatchOrder) -> np.ndarray:
    """The rows of all batches, -1 where one is smaller (batches, size)."""
    return order.rows_at(np.arange(order.samples)).reshape(order.batches, order.size)


@given(orders())
def test_a_batch_has_one_bucket_and_each_sample_occurs_once_but_in_dropped_batches(order: BatchOrder) -> None:
    rows, batches = rows_of(order), np.arange(order.batches)
    there = rows >= 0
    assert (there.sum(axis=1) == order.lengths(batches)).all() and (order.lengths(batches) > 0).all()
    assert (np.diff(there.astype(int), axis=1) >= 0).all()  # those that are missing come first
    for bucket, own, has in zip(order.bucket_of(batches).tolist(), rows, there, strict=True):
        assert set((own[has] // 1000).tolist()) == {bucket}
    found = np.sort(rows[there])
    every = np.concatenate([1000 * bucket + np.arange(part.samples) for bucket, part in enumerate(order.orders)])
    if order.drop_last:
        assert there.all() and len(np.unique(found)) == len(found) and np.isin(found, every).all()
        left = [part.samples - int((found // 1000 == bucket).sum()) for bucket, part in enumerate(order.orders)]
        assert all(0 <= count < order.size for count in left)
    else:
        np.testing.assert_array_equal(found, every)


@given(orders(shuffled=True))
def test_the_ranks_of_the_layout_have_one_shape_in_each_step_but_for_what_is_left_over(order: BatchOrder) -> None:
    width = order.layout.sections
    buckets = order.bucket_of(np.arange(order.batches)).tolist()
    steps = [buckets[at : at + width] for at in range(0, len(buckets), width)]
    whole = sum(part.samples // (order.size * width) for part in order.orders)
    assert sum(len(step) == width and len(set(step)) == 1 for step in steps) >= whole


@given(orders(), st.data())
def test_any_place_is_found_without_the_others(order: BatchOrder, data: Any) -> None:
    whole = rows_of(order).ravel()
    for low in data.draw(st.lists(st.integers(0, max(0, order.samples - 1)), max_size=5)):
        places = np.arange(low, min(order.samples, low + 2 * order.size))
        np.testing.assert_array_equal(order.rows_at(places), whole[places])


@given(orders(shuffled=False))
def test_without_shuffling_each_bucket_keeps_its_order(order: BatchOrder) -> None:
    if order.layout.sections == 1:
        rows = rows_of(order).ravel()
        rows = rows[rows >= 0]
        for bucket, part in enumerate(order.orders):
            own = rows[rows // 1000 == bucket]
            assert own.tolist() == part.rows_at(np.arange(len(own))).tolist()


@given(st.integers(0, 200), st.integers(1, 8), worlds, st.integers(0, 60), st.sampled_from(["drop", "pad", "uneven"]))
def test_ranks_have_equal_steps_and_no_batch_twice(batches: int, size: int, world: int, done: int, how: str) -> None:
    done = min(done, batches)
    shares = [BatchShare(batches, size, rank, world, how, done) for rank in range(world)]
    taken = [share.batches_at(np.arange(len(share) // size)).tolist() for share in shares]
    first = sorted(batch for own in taken for batch in own if batch < batches)
    left = batches - done
    assert all(len(share) % size == 0 for share in shares)
    if how == "uneven":
        assert max(map(len, taken)) - min(map(len, taken)) <= 1
    else:
        assert {len(own) for own in taken} == {left // world if how == "drop" else -(-left // world)}
    assert first == list(range(done, batches - left % world if how == "drop" else batches))


@given(orders(), worlds, worlds, st.integers(1, 5))
def test_another_world_goes_on_where_one_stopped(order: BatchOrder, world: int, other: int, steps: int) -> None:
    done = min(order.batches, world * steps)
    before = range(done)
    after = [
        batch
        for rank in range(other)
        for share in [BatchShare(order.batches, order.size, rank, other, "uneven", done)]
        for batch in share.batches_at(np.arange(len(share) // order.size)).tolist()
    ]
    assert sorted([*before, *after]) == list(range(order.batches))
