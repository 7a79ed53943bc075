from __future__ import annotations

import os
import tempfile

import numpy as np
import pytest

from shardkit.errors import DatasetError, StorageError
from shardkit.location import Location
from shardkit.shards import keys
from shardkit.shards.keys import KeyHashes, require_unique

X, Y = Location("", "some/x-0.tar"), Location("", "some/y-0.tar")


def offsets(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, np.int64)


def collected(*arrays: np.ndarray[tuple[int], np.dtype[np.int64]]) -> KeyHashes:
    found = KeyHashes()
    for array in arrays:
        found.add(array)
    return found


@pytest.mark.parametrize("spooled", [keys.SPOOLED_BYTES, 64, 8])
def test_hashes_that_come_more_than_once_are_found_in_one_shard_and_in_several(
    spooled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "SPOOLED_BYTES", spooled)
    assert collected().repeats().tolist() == []
    assert collected(offsets(1, 2), offsets(), offsets(3)).repeats().tolist() == []
    found = collected(offsets(5, 1, -5), offsets(2), offsets(3, 2), offsets(-5, 7, 7, 7))
    assert len(found) == 10
    assert found.repeats().tolist() == [-5, 2, 7]
    assert list(found.shards_with(offsets(-5, 2))) == [(0, [2]), (1, [0]), (2, [1]), (3, [0])]
    numbers = np.random.default_rng(0).integers(-50, 50, 300)
    values, counts = np.unique(numbers, return_counts=True)
    assert collected(numbers[:100], numbers[100:]).repeats().tolist() == values[counts > 1].tolist()


def test_a_full_disk_for_temporary_files_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, data: bytes) -> None:
            raise OSError(28, os.strerror(28))

        def close(self) -> None:
            pass

    monkeypatch.setattr(keys, "_spool", lambda parts=1: Full())
    with pytest.raises(StorageError, match="free some space") as caught:
        collected(offsets(1))
    assert caught.value.place == tempfile.gettempdir()


def test_unique_keys_are_fine() -> None:
    require_unique([])
    require_unique([(X, ["a", "b"], offsets(0, 512)), (Y, [], offsets()), (Y, ["c"], offsets(0))])


def test_the_second_of_two_equal_keys_is_told_with_its_byte_and_the_shard_of_the_first() -> None:
    with pytest.raises(DatasetError, match=r"some/y-0\.tar: at byte 512: sample a: the key is already in x-0\.tar"):
        require_unique([(X, ["a", "b"], offsets(0, 512)), (Y, ["c", "a"], offsets(0, 512))])
    with pytest.raises(DatasetError, match=r"x-0\.tar: at byte 7: .*the key is already in x-0\.tar") as caught:
        require_unique([(X, ["a", "a"], offsets(3, 7)), (Y, ["a"], offsets(0))])
    assert (caught.value.offset, caught.value.key) == (7, "a")


def test_a_key_whose_byte_is_not_known_is_told_without_it() -> None:
    with pytest.raises(DatasetError) as caught:
        require_unique([(X, ["a"], offsets(-1)), (Y, ["a"], offsets(-1))])
    assert caught.value.offset is None


def test_keys_of_one_hash_are_not_equal_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardkit.shards.keys.hash", lambda key: 1, raising=False)
    require_unique([(X, ["a", "b"], offsets(0, 512)), (Y, ["c"], offsets(0))])
    with pytest.raises(DatasetError, match="sample b: "):
        require_unique([(X, ["a", "b"], offsets(0, 512)), (Y, ["b"], offsets(0))])
