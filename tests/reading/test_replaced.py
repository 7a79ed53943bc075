"""A dataset that is replaced while it is opened and read: a new reader gets the old one or the new one."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reading.far import files_of, put

import shardkit
from shardkit.errors import NotFoundError, ReplacedError
from shardkit.location import locate
from shardkit.reading import content
from shardkit.shards.find import find
from shardkit.shards.find.files import TRIES
from shardkit.shards.objects import Objects
from shardkit.storage.store import open_store

TESTS = Path(__file__).parent.parent
OVERWRITES = 20
SHARDS = 6


def write(prefix: str, number: int) -> None:
    """Replace the dataset by one whose samples all say `number`, each time with as many shards."""
    samples = ({"__key__": f"{number}/{n}", "txt": str(number), "cls": number} for n in range(2 * SHARDS))
    classes = [str(n) for n in range(OVERWRITES + TRIES + 1)]
    shardkit.write(samples, prefix, max_count=2, classes=classes, overwrite=number > 0)


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from reading.test_replaced import OVERWRITES, write
for number in range(1, OVERWRITES + 1):
    write(sys.argv[2], number)
"""


def said(dataset: Any) -> list[bytes]:
    return [sample["txt"] for sample in dataset]


@pytest.fixture(params=["local", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Callable[[int], None]]:
    """(a dataset, what replaces it by one that says a number), on a disk and in a store."""
    own = str(tmp_path / "train")
    write(own, 0)
    if request.param == "local":
        return own, lambda number: write(own, number)
    folder = f"memory://{tmp_path.name}-{id(tmp_path)}/some"
    put(folder, files_of(own))

    def replace(number: int) -> None:
        before = files_of(own)
        write(own, number)
        put(folder, files_of(own))
        for name in before.keys() - files_of(own).keys():
            open_store(locate(folder)).delete(name)

    return f"{folder}/train", replace


@pytest.fixture
def after_resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None], int], list[int]]:
    """Has something done so many times, each time after a name was looked up and before anything is opened."""

    def hook(act: Callable[[int], None], times: int) -> list[int]:
        done: list[int] = []

        def looked_up(*arguments: Any) -> Any:
            found = find.resolve(*arguments)
            if len(done) < times:
                done.append(len(done) + 1)
                act(done[-1])
            return found

        monkeypatch.setattr(content, "resolve", looked_up)
        return done

    return hook


CHAINS: dict[str, Callable[[Any], Any]] = {
    "samples": lambda ds: ds,
    "shuffled": lambda ds: ds.shuffle(4),
    "a view": lambda ds: ds[:],
    "concat": lambda ds: shardkit.concat([ds, ds[:0]]),
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("times", [1, TRIES - 1])
def test_a_dataset_that_is_replaced_before_it_is_opened_is_looked_up_again(
    place: Any, after_resolve: Any, chain: str, times: int
) -> None:
    where, replace = place
    done = after_resolve(replace, times)
    ds = CHAINS[chain](shardkit.dataset(where, threads=1))
    assert said(ds) == [str(times).encode()] * 2 * SHARDS
    assert len(done) == times
    assert len(ds) == 2 * SHARDS
    assert said(ds) == [str(times).encode()] * 2 * SHARDS


def test_a_dataset_that_is_replaced_at_each_look_is_an_error_in_the_end(place: Any, after_resolve: Any) -> None:
    where, replace = place
    done = after_resolve(replace, TRIES + 1)
    with pytest.raises(ReplacedError, match="was replaced by another one since it was opened; open the dataset again"):
        said(shardkit.dataset(where, threads=1))
    assert len(done) == TRIES


def test_what_was_told_of_a_dataset_is_not_changed_silently(place: Any) -> None:
    where, replace = place
    told, sent = shardkit.dataset(where, threads=1), shardkit.dataset(where, threads=1)
    assert len(told) == len(sent) == 2 * SHARDS
    sent = pickle.loads(pickle.dumps(sent))
    replace(1)
    for ds in (told, sent):
        with pytest.raises(ReplacedError, match="open the dataset again"):
            said(ds)


def test_a_second_epoch_is_of_what_the_first_opened_or_an_error(place: Any) -> None:
    where, replace = place
    ds = shardkit.dataset(where, threads=1)
    assert said(ds) == [b"0"] * 2 * SHARDS
    replace(1)
    if locate(where).is_local:
        assert said(ds) == [b"0"] * 2 * SHARDS
    else:
        with pytest.raises(ReplacedError, match=r"train-000000\.tar: the shard is gone: the dataset was replaced"):
            said(ds)
    assert said(shardkit.dataset(where)) == [b"1"] * 2 * SHARDS


def test_a_shard_that_is_lost_is_told_at_once(place: Any) -> None:
    where, _ = place
    store = open_store(locate(where).parent)
    store.delete("train-000001.tar")
    with pytest.raises(NotFoundError, match=r"train-000001\.tar: the shard is missing") as caught:
        said(shardkit.dataset(where, threads=1))
    assert not isinstance(caught.value, ReplacedError)


@pytest.mark.parametrize("pattern", ["train-*.tar", "", "train"])
def test_a_folder_that_changes_between_its_list_and_the_manifest_is_listed_again(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(str(tmp_path / "train"), 0)
    real, done = Objects.manifest, list[int]()

    def read(objects: Objects, place: Any) -> Any:
        if len(done) < 2:
            done.append(1)
            write(str(tmp_path / "train"), len(done))
        return real(objects, place)

    monkeypatch.setattr(Objects, "manifest", read)
    found = shardkit.dataset(str(tmp_path / pattern), threads=1)
    assert said(found) in ([b"1"] * 2 * SHARDS, [b"2"] * 2 * SHARDS)


@pytest.mark.parametrize("pattern", ["train", "train-*.tar", "list"])
def test_each_epoch_is_of_one_dataset_while_another_process_replaces_it(pattern: str, tmp_path: Path) -> None:
    prefix = str(tmp_path / "train")
    write(prefix, 0)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(TESTS), prefix])
    seen = []
    try:
        while writer.poll() is None:
            source = [prefix] if pattern == "list" else str(tmp_path / pattern)
            seen.append(said(shardkit.dataset(source, threads=1)))
    finally:
        writer.wait()
    seen.append(said(shardkit.dataset(prefix)))
    assert writer.returncode == 0
    assert seen[-1] == [str(OVERWRITES).encode()] * 2 * SHARDS
    for epoch in seen:
        assert len(set(epoch)) == 1
        assert len(epoch) == 2 * SHARDS
