"""What the serving process tells whom, without a socket."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from shardkit.storage.node import place
from shardkit.storage.node.client import WAIT_SECONDS
from shardkit.storage.node.memory import Memory
from shardkit.storage.node.message import Kind
from shardkit.storage.node.server import TICK_SECONDS
from shardkit.storage.node.shelf import KEEP_SECONDS, MAKE_SECONDS, PASSED_SECONDS, ROOM_SHARE, Answer, Shelf

pytestmark = pytest.mark.skipif(not place.AVAILABLE, reason="needs sealed memory")

A, B, C = (bytes([n]) * 16 for n in range(3))


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf(100, 4)
    for client in (1, 2, 3):
        made.joined(client)
    yield made
    made.clear()


def told(answers: list[Answer]) -> list[tuple[int, Kind, int]]:
    return [(client, message.kind, message.number) for client, message in answers]


def put(shelf: Shelf, client: int, key: bytes, size: int = 10, now: float = 0.0) -> list[Answer]:
    return shelf.put(client, key, Memory.of([bytes(size)]), now)


def test_the_first_makes_it_and_the_others_get_it(shelf: Shelf) -> None:
    assert told(shelf.asked(1, 7, A, 0.0)) == [(1, Kind.YOURS, 7)]
    assert not shelf.asked(2, 8, A, 0.0)
    assert not shelf.asked(3, 9, A, 0.0)
    assert told(put(shelf, 1, A)) == [(2, Kind.HERE, 8), (3, Kind.HERE, 9)]
    assert told(shelf.asked(2, 10, A, 0.0)) == [(2, Kind.HERE, 10)]


def test_what_is_not_made_is_made_by_the_next_who_waits(shelf: Shelf) -> None:
    shelf.asked(1, 0, A, 0.0)
    shelf.asked(2, 5, A, 0.0)
    shelf.asked(3, 6, A, 0.0)
    assert not shelf.dropped(3, A, 0.0)  # only who is to make it can give it up
    assert told(shelf.dropped(1, A, 0.0)) == [(2, Kind.YOURS, 5)]
    assert told(shelf.left(2, 0.0)) == [(3, Kind.YOURS, 6)]
    assert not shelf.left(3, 0.0)
    assert told(shelf.asked(1, 1, A, 0.0)) == [(1, Kind.YOURS, 1)]


def test_of_several_who_wait_none_waits_longer_than_that(shelf: Shelf) -> None:
    """Or a store that takes longer would look to them like a server that is gone."""
    assert MAKE_SECONDS + TICK_SECONDS < WAIT_SECONDS
    shelf.asked(1, 0, A, 0.0)
    shelf.asked(2, 1, A, 1.0)
    shelf.asked(3, 2, A, 1.0)
    assert told(shelf.overdue(MAKE_SECONDS + 0.5)) == [(2, Kind.YOURS, 1)]
    assert told(shelf.overdue(MAKE_SECONDS + 1.5)) == [(3, Kind.YOURS, 2)]
    assert not shelf.overdue(3 * MAKE_SECONDS)
    assert told(shelf.asked(1, 3, A, 3 * MAKE_SECONDS)) == [(1, Kind.YOURS, 3)]


def test_nobody_waits_for_ever(shelf: Shelf) -> None:
    shelf.asked(1, 0, A, 0.0)
    shelf.asked(2, 1, A, 0.0)
    assert not shelf.overdue(MAKE_SECONDS)
    assert told(shelf.overdue(MAKE_SECONDS + 0.1)) == [(2, Kind.YOURS, 1)]
    assert not shelf.overdue(MAKE_SECONDS + 0.2)
    assert not put(shelf, 1, A)  # the first comes after all
    assert told(put(shelf, 2, A)) == [(2, Kind.FREED, 0)]  # of two, the first is kept
    assert len(shelf) == 1


def test_a_server_that_takes_over_waits_for_what_the_others_made() -> None:
    shelf = Shelf(100, 4, quiet_until=5.0)
    for client in (1, 2):
        shelf.joined(client)
    assert not shelf.asked(1, 0, A, 4.0)
    assert not shelf.asked(1, 1, B, 4.0)
    assert told(put(shelf, 2, A)) == [(1, Kind.HERE, 0)]
    assert told(shelf.overdue(5.1)) == [(1, Kind.YOURS, 1)]
    assert told(shelf.asked(2, 2, C, 5.1)) == [(2, Kind.YOURS, 2)]
    shelf.clear()


def test_what_all_have_is_freed_first_and_then_what_was_used_least_recently(shelf: Shelf) -> None:
    for key in (A, B, C):
        put(shelf, 1, key, 40)
    for client in (2, 3):
        shelf.asked(client, 0, B, 0.0)
    assert told(shelf.make_room(0.0)) == [(1, Kind.FREED, 0)]
    assert (shelf.bytes, told(shelf.asked(2, 0, B, 0.0))) == (80, [(2, Kind.YOURS, 0)])
    put(shelf, 2, B, 40)
    shelf.asked(2, 0, A, 0.0)
    shelf.make_room(0.0)
    assert told(shelf.asked(3, 0, A, 0.0)) == [(3, Kind.HERE, 0)]
    assert told(shelf.asked(3, 1, C, 0.0)) == [(3, Kind.YOURS, 1)]


def test_descriptors_are_limited_as_bytes_are(shelf: Shelf) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(2 * shelf.limit_files):
        put(shelf, 1, bytes([number]) * 16, 1)
        shelf.make_room(0.0)
        assert min(number + 1, int(ROOM_SHARE * shelf.limit_files)) <= len(shelf) <= shelf.limit_files
        assert len(os.listdir("/proc/self/fd")) == before + len(shelf)


def test_what_nobody_asks_for_is_freed_in_time(shelf: Shelf) -> None:
    put(shelf, 1, A)
    assert not shelf.make_room(KEEP_SECONDS)
    assert told(shelf.make_room(KEEP_SECONDS + 0.1)) == [(1, Kind.FREED, 0)]
    assert shelf.bytes == 0


def test_what_all_workers_of_a_loader_have_is_freed_at_once() -> None:
    shelf = Shelf(100, 4, keep_passed=PASSED_SECONDS)
    for client in (1, 2):
        shelf.joined(client)
        put(shelf, client, bytes([client]) * 16)
    shelf.asked(2, 0, B, 0.0)
    assert not shelf.make_room(PASSED_SECONDS)
    assert told(shelf.make_room(PASSED_SECONDS + 0.1)) == [(1, Kind.FREED, 0)]  # of client 2, the other lacks it
    shelf.clear()


def test_what_is_wrong_is_made_again(shelf: Shelf) -> None:
    put(shelf, 1, A)
    assert told(shelf.dropped(2, A, 0.0)) == [(1, Kind.FREED, 0)]
    assert told(shelf.asked(2, 3, A, 0.0)) == [(2, Kind.YOURS, 3)]
