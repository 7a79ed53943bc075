"""Shards of a store through a cache: the same samples, each byte fetched once, whatever happens to the copies."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading.far import Watched, files_of, put, told, uploaded

import shardkit
from shardkit import UsageError
from shardkit.location import locate
from shardkit.reading.blocks import fetch_ahead
from shardkit.storage import mapped, patient
from shardkit.storage.cache import entry
from shardkit.storage.cache import folder as cache_module

KeysOf = Callable[[Any], list[str]]
Pairs = dict[str, tuple[str, str]]
Requests = list[tuple[str, str, int, int]]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4 KiB, so that a shard has several."""
    monkeypatch.setattr(entry, "CHUNK", 4096)
    monkeypatch.setattr(fetch_ahead, "CHUNK_BYTES", 4096)


def read(requests: Requests) -> list[str]:
    return [name for kind, name, *_ in requests if kind == "read"]


def copies(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if cache_module.OURS.fullmatch(path.name))


@pytest.mark.parametrize("shuffle", [0, 20, 1000])
@pytest.mark.parametrize("form", ["tar", "tfrecord", "gzip", "fields-tar"])
def test_the_second_epoch_comes_from_the_cache(
    pairs: Pairs, form: str, shuffle: int, watched: Any, tmp_path: Path
) -> None:
    near, far = pairs[form]
    requests: Requests = watched()
    data, right = shardkit.dataset(far, shuffle=shuffle, cache=tmp_path), shardkit.dataset(near, shuffle=shuffle)
    assert list(map(told, data)) == list(map(told, right))
    shards = [(name, start) for kind, name, start, _ in requests if kind == "read" and name.startswith("x-")]
    assert len(shards) == len(set(shards))  # nothing twice
    assert {path.suffix for path in copies(tmp_path)} == {".whole"}
    requests.clear()
    assert list(map(told, data)) == list(map(told, right))
    assert requests == []
    again = shardkit.dataset(far, shuffle=shuffle, cache=tmp_path)
    right.set_epoch(0)
    assert list(map(told, again)) == list(map(told, right))
    assert read(requests) == ["x.json"]


def test_batches_are_decoded_from_the_cache(pairs: Pairs, tmp_path: Path) -> None:
    near, far = pairs["tar"]
    data, right = (
        shardkit.dataset(source, shuffle=30, cache=tmp_path).decode(size=8, crop="random").batch(8)
        for source in (far, near)
    )
    for _ in range(2):
        for (images, labels), (others, other_labels) in zip(data, right, strict=True):
            assert np.array_equal(images, others)
            assert np.array_equal(labels, other_labels)


def test_shards_without_a_manifest_are_cached(foreign: str, watched: Any, tmp_path: Path) -> None:
    far = uploaded(foreign.replace("-*.tar", "")) + "-*.tar"
    requests: Requests = watched()
    data, right = shardkit.dataset(far, cache=tmp_path), shardkit.dataset(foreign)
    assert list(map(told, data)) == list(map(told, right))
    assert len(set(read(requests))) == 5
    requests.clear()
    assert list(map(told, data)) == list(map(told, right))
    assert read(requests) == []


def test_wrong_bytes_from_the_store_do_not_stay_in_the_cache(pairs: Pairs, watched: Any, tmp_path: Path) -> None:
    near, far = pairs["tar"]
    bad: set[tuple[str, int]] = set()

    def fault(name: str, start: int, data: bytes) -> bytes:
        if name.startswith("x-") and start == 4096 and (name, start) not in bad:
            bad.add((name, start))
            return data[:2000] + bytes(200) + data[2200:]
        return data

    watched(fault)
    data, right = shardkit.dataset(far, cache=tmp_path, shuffle=20), shardkit.dataset(near, shuffle=20)
    assert list(map(told, data)) == list(map(told, right))
    assert len(bad) == 5
    assert list(map(told, data)) == list(map(told, right))
    whole = {path.read_bytes() for path in tmp_path.glob("*.whole")}
    assert whole <= set(files_of(near).values())


def test_a_copy_that_becomes_shorter_while_it_is_read_is_fetched_again(
    pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "LOOK_SECONDS", 0.0)
    near, far = pairs["tar"]
    list(shardkit.dataset(far, cache=tmp_path))
    samples = iter(shardkit.dataset(far, cache=tmp_path))
    found = [told(next(samples))]
    for path in tmp_path.glob("*.whole"):
        if path.read_bytes()[:4] != b"PAR1":
            os.truncate(path, 0)
    found += map(told, samples)
    assert found == list(map(told, shardkit.dataset(near)))


@pytest.mark.parametrize("verify", [False, True])
def test_a_damaged_copy_is_fetched_again(
    pairs: Pairs, watched: Any, tmp_path: Path, verify: bool, caplog: pytest.LogCaptureFixture
) -> None:
    near, far = pairs["tar"]
    list(shardkit.dataset(far, cache=tmp_path))
    for n, path in enumerate(tmp_path.glob("*.whole")):
        content = path.read_bytes()
        if content[:4] == b"PAR1":
            continue
        path.write_bytes(content[: len(content) // 2] + bytes(3000) + content[len(content) // 2 + 3000 :])
        if n % 2:
            os.truncate(path, len(content) - 1)
    requests: Requests = watched()
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        data = shardkit.dataset(far, cache=tmp_path, verify=verify)
        assert list(map(told, data)) == list(map(told, shardkit.dataset(near)))
    assert "damaged; fetching it again" in caplog.text
    assert len(set(read(requests)) - {"x.json", "x.parquet"}) == 5
    assert {path.read_bytes() for path in tmp_path.glob("*.whole")} <= set(files_of(near).values())


def test_a_damaged_copy_of_a_packed_shard_is_fetched_again_where_whole_shards_are_checked(
    pairs: Pairs, watched: Any, tmp_path: Path
) -> None:
    near, far = pairs["gzip"]
    list(shardkit.dataset(far, cache=tmp_path))
    for path in tmp_path.glob("*.whole"):
        content = path.read_bytes()
        if content[:4] != b"PAR1":
            path.write_bytes(content[:-20] + bytes(20))
    requests: Requests = watched()
    for _ in range(2):
        data = shardkit.dataset(far, cache=tmp_path, verify=True)
        assert list(map(told, data)) == list(map(told, shardkit.dataset(near)))
    assert len(set(read(requests)) - {"x.json", "x.parquet"}) == 5


def test_a_small_cache_holds_what_it_may(pairs: Pairs, tmp_path: Path, keys_of: KeysOf) -> None:
    near, far = pairs["tar"]
    limit = 2 * max(len(data) for name, data in files_of(near).items() if name.endswith(".tar")) + 20_000
    for shuffle in (0, 20):
        data = shardkit.dataset(far, shuffle=shuffle, cache=tmp_path, cache_bytes=limit)
        right = shardkit.dataset(near, shuffle=shuffle)
        for _ in range(2):
            assert keys_of(data) == keys_of(right)
            assert 0 < sum(path.stat().st_size for path in copies(tmp_path) if path.suffix != ".map") <= limit


def test_a_full_disk_turns_into_streaming(
    pairs: Pairs, tmp_path: Path, keys_of: KeysOf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    near, far = pairs["tar"]
    real, left = os.pwrite, [3]

    def pwrite(*arguments: Any) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", pwrite)
    data = shardkit.dataset(far, shuffle=20, cache=tmp_path)
    right = shardkit.dataset(near, shuffle=20)
    for _ in range(2):
        assert keys_of(data) == keys_of(right)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "No space left on device" in warnings[0]


def test_another_content_of_the_same_name_is_noticed(small_tree: Path, tmp_path: Path, keys_of: KeysOf) -> None:
    shardkit.pack(small_tree, tmp_path / "a" / "x", max_count=20, workers=1)
    shardkit.pack(small_tree, tmp_path / "b" / "x", max_count=20, workers=1, seed=1)
    far = uploaded(str(tmp_path / "a" / "x"))
    for name in "ab":
        put(locate(far).parent, files_of(str(tmp_path / name / "x")))
        found = keys_of(shardkit.dataset(far, cache=tmp_path / "cache"))
        assert found == keys_of(shardkit.dataset(tmp_path / name / "x"))


def test_a_folder_of_others_is_refused(far: str, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("mine", "utf-8")
    with pytest.raises(UsageError, match="has other content"):
        list(shardkit.dataset(far, cache=tmp_path))


def test_random_access_fills_the_cache(pairs: Pairs, watched: Any, tmp_path: Path) -> None:
    near, far = pairs["tar"]
    requests: Requests = watched()
    data = shardkit.dataset(far, cache=tmp_path)
    assert told(data[7]) == told(shardkit.dataset(near)[7])
    requests.clear()
    assert told(data[7]) == told(shardkit.dataset(near)[7])
    assert requests == []


READER = """
import sys, shardkit
from shardkit.reading.blocks import fetch_ahead as ahead
from shardkit.storage.cache import entry as cache_entry
cache_entry.CHUNK = ahead.CHUNK_BYTES = 4096
slow = {"latency_seconds": 0.001, "bytes_per_second": 2e6}
data = shardkit.dataset(sys.argv[1], shuffle=20, cache=sys.argv[2], cache_bytes=sys.argv[3], storage_options=slow)
print("ready", flush=True)
for turn in range(int(sys.argv[4])):
    data.set_epoch(turn)
    print(",".join(sample["__key__"] for sample in data), flush=True)
"""


def reader(prefix: str, cache: Path, size: int, turns: int) -> subprocess.Popen[str]:
    home = str(Path(shardkit.__file__).parent.parent)
    command = [sys.executable, "-c", READER, f"slow+file://{prefix}", str(cache), str(size), str(turns)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": home})


def test_readers_that_are_killed_leave_nothing_wrong(pairs: Pairs, tmp_path: Path, keys_of: KeysOf) -> None:
    near = pairs["tar"][0]
    contents = set(files_of(near).values())
    for n in range(6):
        both = [reader(near, tmp_path, 70_000, 100) for _ in range(1 + n % 2)]
        for process in both:
            assert process.stdout is not None
            process.stdout.readline()
        time.sleep(0.02 + 0.4 * ((n * 0.618) % 1.0))
        for process in both:
            process.kill()
            process.communicate()
        assert {path.read_bytes() for path in tmp_path.glob("*.whole")} <= contents
    both = [reader(near, tmp_path, 10**9, 2) for _ in range(2)]
    right = shardkit.dataset(near, shuffle=20)
    epochs = [",".join(keys_of(right)) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=60)[0].split() == ["ready", *epochs]
        assert process.returncode == 0
    assert {path.read_bytes() for path in tmp_path.glob("*.whole")} == contents - {Path(near + ".json").read_bytes()}


def test_the_store_is_watched_by_these_tests(far: str, watched: Any) -> None:
    watched()
    assert isinstance(patient.open_store(locate(far).parent), Watched)  # type: ignore[attr-defined]
