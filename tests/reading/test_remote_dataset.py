"""Shards in a store are read as those on a disk are: the same samples in the same order."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading.far import files_of, put, told, uploaded

import shardkit
from shardkit import NotFoundError, UsageError
from shardkit.location import locate

KeysOf = Callable[[Any], list[str]]
Pairs = dict[str, tuple[str, str]]


@pytest.mark.parametrize("shuffle", [0, 10, 1000])
@pytest.mark.parametrize("form", ["tar", "tfrecord", "gzip", "fields-tar", "fields-tfrecord"])
def test_samples_and_order_are_those_of_the_local_shards(
    pairs: dict[str, tuple[str, str]], form: str, shuffle: int, chunks: None
) -> None:
    near, far = (shardkit.dataset(source, shuffle=shuffle, seed=3) for source in pairs[form])
    assert (len(far), far.classes, far.fields) == (len(near), near.classes, near.fields)
    for _ in range(2):
        assert [told(sample) for sample in far] == [told(sample) for sample in near]
    assert next(iter(far))["__url__"].startswith("memory://")


def test_batches_are_those_of_the_local_shards(pairs: dict[str, tuple[str, str]], chunks: None) -> None:
    options: dict[str, Any] = {"size": 8, "crop": "random", "flip": True}
    for form in ("tar", "tfrecord"):
        near, far = (shardkit.dataset(s, shuffle=30).decode(**options).batch(8) for s in pairs[form])
        for (images, labels), (others, other_labels) in zip(near, far, strict=True):
            assert np.array_equal(images, others)
            assert np.array_equal(labels, other_labels)


@pytest.mark.parametrize("source", ["", ".json", "-*.tar", "-00000[0-4].tar", "-{000000..000004}.tar", "-000001.tar"])
def test_a_source_on_a_store_means_what_it_means_on_a_disk(cars: str, far: str, source: str, keys_of: KeysOf) -> None:
    assert keys_of(shardkit.dataset(far + source)) == keys_of(shardkit.dataset(cars + source))


def test_a_list_of_urls_and_a_folder_are_sources(cars: str, far: str, keys_of: KeysOf) -> None:
    names = [f"-{number:06}.tar" for number in (3, 0)]
    near, there = ([prefix + name for name in names] for prefix in (cars, far))
    assert keys_of(shardkit.dataset(there)) == keys_of(shardkit.dataset(near))
    folder = far.rpartition("/")[0]
    assert (
        keys_of(shardkit.dataset(folder)) == keys_of(shardkit.dataset(folder + "/")) == keys_of(shardkit.dataset(far))
    )
    assert keys_of(shardkit.dataset([f"{far}-00000[12].tar"])) == keys_of(shardkit.dataset(f"{cars}-00000[12].tar"))


def test_shards_are_found_by_the_manifest_without_a_listing(far: str, watched: Any, keys_of: KeysOf) -> None:
    requests = watched()
    for source in ("", "-*.tar", "-{000000..000004}.tar"):
        assert len(keys_of(shardkit.dataset(far + source))) == 97
    assert [kind for kind, *_ in requests if kind == "list"] == []


@pytest.mark.parametrize(
    "source", ["memory://nowhere/train", "memory://nowhere/t-*.tar", "memory://nowhere/train.json"]
)
def test_what_is_not_there_is_told(source: str) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        len(shardkit.dataset(source))


def test_paths_and_urls_in_one_list_are_refused(cars: str, far: str) -> None:
    with pytest.raises(UsageError, match="the list mixes local paths and URLs"):
        len(shardkit.dataset([f"{cars}-000000.tar", f"{far}-000001.tar"]))


def test_two_datasets_in_one_folder_are_not_mixed_up(cars: str, pairs: dict[str, tuple[str, str]]) -> None:
    far = uploaded(cars)
    put(locate(far).parent, files_of(pairs["tar"][0]))
    assert len(shardkit.dataset(far)) == 97
    with pytest.raises(UsageError, match="the folder holds 2 datasets: cars, x"):
        len(shardkit.dataset(far.rpartition("/")[0]))
    with pytest.raises(UsageError, match="more than one dataset"):
        len(shardkit.dataset([f"{far}-000000.tar", far.rpartition("/")[0] + "/x-000000.tar"]))


def test_views_and_random_access_work(cars: str, far: str) -> None:
    near, there = shardkit.dataset(cars), shardkit.dataset(far)
    assert told(there[5]) == told(near[5])
    assert told(there["red/007"]) == told(near["red/007"])
    assert told(there.decode(size=8)[3])["jpg"].shape == (8, 8, 3)
    for view in (lambda d: d.select("red"), lambda d: d[10:40:3], lambda d: d.shuffle(20).take(30).skip(4)):
        assert list(map(told, view(there))) == list(map(told, view(near)))
    weighted = [list(map(told, d.balance().shuffle(20))) for d in (there, near)]
    assert weighted[0] == weighted[1]


def test_datasets_of_a_store_and_a_disk_are_put_together(cars: str, far: str, keys_of: KeysOf) -> None:
    near, there = shardkit.dataset(cars), shardkit.dataset(far)
    assert keys_of(shardkit.concat([near, there]).shuffle(40)) == keys_of(shardkit.concat([near, near]).shuffle(40))
    mixed = (shardkit.mix([d.select("red").shuffle(9), near]) for d in (there, near))
    assert keys_of(next(mixed)) == keys_of(next(mixed))


def test_ranks_and_workers_share_the_epoch(cars: str, far: str, keys_of: KeysOf) -> None:
    for rank in range(2):
        options = {"shuffle": 16, "rank": rank, "world_size": 2, "lanes": 2}
        assert keys_of(shardkit.dataset(far, **options)) == keys_of(shardkit.dataset(cars, **options))
    batches = shardkit.dataset(far, shuffle=16).batch(8)
    parts = [[item for _, item in batches.run(0, worker=worker, workers=3)] for worker in range(3)]
    together = keys_of([batch for turn in zip(*parts, strict=False) for batch in turn])
    assert together == keys_of(shardkit.dataset(cars, shuffle=16))[: len(together)]


@pytest.mark.parametrize("shuffle", [0, 30])
def test_an_epoch_goes_on_in_the_middle(far: str, shuffle: int, keys_of: KeysOf) -> None:
    whole = keys_of(shardkit.dataset(far, shuffle=shuffle))
    first = shardkit.dataset(far, shuffle=shuffle)
    items = iter(first)
    begun = [next(items)["__key__"] for _ in range(41)]
    then = shardkit.dataset(far, shuffle=shuffle)
    then.load_state_dict(first.state_dict())
    assert begun + keys_of(then) == whole


def keys_in_process(data: shardkit.Dataset, keys: Any) -> None:
    keys.send([sample["__key__"] for sample in data])


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_dataset_goes_to_other_processes(
    s3_server: Any, cars: str, method: str, keys_of: KeysOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3_server.url, files_of(cars), s3_server.options)
    data = shardkit.dataset(f"{s3_server.url}/cars", shuffle=20, storage_options=s3_server.options)
    assert keys_of(data) == keys_of(shardkit.dataset(cars, shuffle=20))
    data.set_epoch(0)
    home = str(Path(__file__).parents[2])  # a spawned process has this one's path, and imports this file by its name
    monkeypatch.setattr(sys, "path", [*sys.path, home])
    context = multiprocessing.get_context(method)
    keys, theirs = context.Pipe(duplex=False)
    process = context.Process(target=keys_in_process, args=(data, theirs))
    process.start()
    try:
        assert keys.poll(60)
        assert keys.recv() == keys_of(shardkit.dataset(cars, shuffle=20))
        process.join(30)
        assert process.exitcode == 0
    finally:
        process.kill()


def test_shards_are_streamed_from_s3(s3_server: Any, pairs: dict[str, tuple[str, str]]) -> None:
    put(s3_server.url + "/deep/folder", files_of(pairs["tar"][0]), s3_server.options)
    near = [told(sample) for sample in shardkit.dataset(pairs["tar"][0], shuffle=20)]
    for source in ("x", "x-*.tar"):
        url = f"{s3_server.url}/deep/folder/{source}"
        assert [told(s) for s in shardkit.dataset(url, shuffle=20, storage_options=s3_server.options)] == near


def test_shards_are_streamed_from_a_web_server(http_folder: Any, cars: str, keys_of: KeysOf) -> None:
    for path in sorted(Path(cars).parent.glob("cars*")):
        (http_folder.folder / path.name).write_bytes(path.read_bytes())
    options: Any = http_folder.options
    for source in ("cars", "cars.json", "cars-*.tar", "cars-{000000..000004}.tar"):
        data = shardkit.dataset(f"{http_folder.url}/{source}", shuffle=20, storage_options=options)
        assert keys_of(data) == keys_of(shardkit.dataset(cars, shuffle=20))
    for source in ("*.tar", "other-*.tar", "other"):
        with pytest.raises((UsageError, NotFoundError), match="name the manifest"):
            len(shardkit.dataset(f"{http_folder.url}/{source}", storage_options=options))
