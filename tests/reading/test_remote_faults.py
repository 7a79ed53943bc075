"""Stores that fail, damage, and what must not be seen."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading.far import put, uploaded

import shardkit
from shardkit import DamagedError, DatasetError, ManifestError, NotFoundError, StorageError, UsageError
from shardkit.location import locate
from shardkit.shards.parquet import sources
from shardkit.storage import fetchers, patient
from shardkit.storage.store import open_store

KeysOf = Callable[[Any], list[str]]
Pairs = dict[str, tuple[str, str]]


def spoil(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize("form", ["tar", "tfrecord", "fields-tar", "fields-tfrecord"])
@pytest.mark.parametrize("decode", [False, True])
def test_wrong_bytes_are_fetched_once_more(pairs: Any, watched: Any, form: str, decode: bool, caplog: Any) -> None:
    bad: set[str] = set()

    def fault(name: str, start: int, data: bytes) -> bytes:
        if name.startswith("x-") and name not in bad:
            bad.add(name)
            return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 255]) + data[len(data) // 2 + 1 :]
        return data

    near, far = pairs[form]
    watched(fault)
    caplog.set_level(logging.WARNING)
    chain: Any = (lambda d: d.decode(size=8)) if decode else (lambda d: d)
    found, right = chain(shardkit.dataset(far, shuffle=20)), chain(shardkit.dataset(near, shuffle=20))
    assert [s["__key__"] for s in found] == [s["__key__"] for s in right]
    found.set_epoch(0), right.set_epoch(0)
    bad.clear()
    assert all(np.array_equal(a["jpg"], b["jpg"]) for a, b in zip(found, right, strict=True))
    assert len(bad) == 5
    if form in ("tar", "tfrecord"):
        assert "fetching it again" in caplog.text


@pytest.mark.parametrize("form", ["tar", "tfrecord", "fields-tar", "fields-tfrecord"])
def test_bytes_that_stay_wrong_are_damage(pairs: Any, watched: Any, form: str) -> None:
    watched(lambda name, start, data: bytes(len(data)) if name.startswith("x-") else data)
    with pytest.raises(DamagedError, match=r"memory://.*x-00000\d\.t"):
        list(shardkit.dataset(pairs[form][1]))
    with pytest.raises(DamagedError):
        list(shardkit.dataset(pairs[form][1]).decode(size=8).batch(4))
    with pytest.raises(DatasetError, match=r"\d+ samples .* skip_limit is 5; the last: memory://.*x-00000\d\.t"):
        list(shardkit.dataset(pairs[form][1]).decode(size=8, on_error="skip", skip_limit=5).batch(4))


def test_an_epoch_is_whole_over_a_store_that_fails_often(cars: str, far: str, keys_of: KeysOf) -> None:
    faults = {"refused": 0.1, "reset": 0.2, "short": 0.1, "seed": 4}
    data = shardkit.dataset(f"faulty+{far}", shuffle=20, storage_options=faults)
    assert keys_of(data) == keys_of(shardkit.dataset(cars, shuffle=20))


@pytest.mark.timeout(60)
def test_a_store_that_stops_answering_is_an_error_in_time(far: str, watched: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(fetchers, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(patient, "GRACE_SECONDS", 0.1)
    stop = threading.Event()

    def fault(name: str, start: int, data: bytes) -> bytes:
        if name.endswith(".tar"):
            stop.wait(30)
        return data

    watched(fault)
    try:
        for make in (lambda d: iter(d), lambda d: iter(d.decode(size=8).batch(4)), lambda d: iter([d[3]])):
            with pytest.raises(StorageError, match=r"did not answer within 0\.2 seconds"):
                next(make(shardkit.dataset(far, timeout_seconds=0.2)))
    finally:
        stop.set()


@pytest.mark.timeout(60)
def test_corrections_that_do_not_come_are_an_error_in_time(cars: str, watched: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(patient, "GRACE_SECONDS", 0.1)
    far = uploaded(cars)
    shardkit.delete(far, [shardkit.dataset(far)[0]["__key__"]])
    stop = threading.Event()

    def fault(name: str, start: int, data: bytes) -> bytes:
        if ".v2." in name:
            stop.wait(30)
        return data

    watched(fault)
    try:
        with pytest.raises(StorageError, match=r"\.v2\..*did not answer within 0\.2 seconds"):
            next(iter(shardkit.dataset(far, timeout_seconds=0.2)))
    finally:
        stop.set()


@pytest.mark.timeout(60)
def test_a_store_that_always_fails_is_an_error_in_time(far: str) -> None:
    with pytest.raises(StorageError, match="gave up after"):
        list(shardkit.dataset(f"faulty+{far}", storage_options={"refused": 1.0}, timeout_seconds=0.3))


def test_a_shard_of_another_size_does_not_fit_its_manifest(cars: str) -> None:
    far = uploaded(cars)
    name = f"{locate(far).name}-000001.tar"
    data = Path(cars).with_name(name).read_bytes()
    put(locate(far).parent, {name: data + bytes(512)})
    with pytest.raises(ManifestError, match=rf"{name}: the shard has {len(data) + 512} bytes"):
        list(shardkit.dataset(far))


def test_a_shard_with_other_content_is_seen_by_verify(cars: str) -> None:
    far = uploaded(cars)
    name = f"{locate(far).name}-000001.tar"
    data = Path(cars).with_name(name).read_bytes()
    put(locate(far).parent, {name: spoil(data)})
    with pytest.raises(ManifestError, match=rf"{name}: the shard's CRC-32C is"):
        list(shardkit.dataset(far, verify=True))


def test_a_missing_shard_is_told(cars: str) -> None:
    far = uploaded(cars)
    open_store(locate(far).parent).delete("cars-000002.tar")
    with pytest.raises(NotFoundError, match=r"cars-000002\.tar"):
        list(shardkit.dataset(far))


def test_an_index_that_is_not_the_manifests_is_refused(cars: str, monkeypatch: pytest.MonkeyPatch) -> None:
    far = uploaded(cars)
    folder, data = locate(far).parent, Path(cars + ".parquet").read_bytes()
    put(folder, {"cars.parquet": spoil(data)})
    with pytest.raises(ManifestError, match=r"cars\.parquet: the index is not the one"):
        list(shardkit.dataset(far))
    monkeypatch.setattr(sources, "FETCHED_WHOLE_BYTES", 10)
    put(folder, {"cars.parquet": data[:-1]})
    with pytest.raises(ManifestError, match=r"cars\.parquet: the index is not the one"):
        list(shardkit.dataset(far))


# ---- safety


def test_a_manifest_can_point_nowhere_else(cars: str) -> None:
    text = Path(cars + ".json").read_text("utf-8")
    for name in ("../secret.tar", "/etc/passwd", "https://elsewhere/x.tar", ".."):
        far = uploaded(cars)
        evil = text.replace("cars-000001.tar", name).encode()
        put(locate(far).parent, {"cars.json": evil})
        with pytest.raises(ManifestError, match="is not a plain file name"):
            list(shardkit.dataset(far))


def test_options_are_seen_nowhere_but_in_a_pickle(far: str, s3_server: Any, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "sEcReT-kEy"
    options = s3_server.options | {"secret_access_key": secret}
    data = shardkit.dataset(f"{s3_server.url}/train", shuffle=20, storage_options=options)
    with pytest.raises(shardkit.ShardkitError) as caught:
        list(data)
    near = shardkit.dataset(f"faulty+{far}", storage_options={"token": secret, "refused": 0.0})
    seen = [repr(data), repr(data.content), repr(data.content.remote), str(caught.value), repr(caught.value)]
    seen += [caplog.text, repr(data.reading), repr(near)]
    assert not [text for text in seen if secret in text]
    assert secret.encode() in pickle.dumps(data)


def test_the_state_of_a_remote_dataset_is_that_of_the_local_one(cars: str, far: str) -> None:
    near, there = shardkit.dataset(cars, shuffle=20), shardkit.dataset(far, shuffle=20)
    assert there.state_dict() == near.state_dict()
    assert "memory" not in repr(there.state_dict())


@pytest.mark.parametrize(
    "options",
    [
        {"storage_options": "key=1"},
        {"storage_options": {1: 2}},
        {"cache_bytes": "1GB"},
        {"cache": "x", "cache_bytes": "much"},
        {"ahead_bytes": 0},
        {"timeout_seconds": 0},
        {"timeout_seconds": float("inf")},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        shardkit.dataset("memory://x/y", **options)
