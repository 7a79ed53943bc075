"""An epoch over a bad network: every sample once, or a clear error in time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from reading.far import told
from storage.toxic import Toxic

import shardkit
from shardkit import DamagedError, ShardkitError, StorageError
from shardkit.reading.blocks import fetch_ahead
from shardkit.storage import fetchers, patient, retry

KeysOf = Callable[[Any], list[str]]


@pytest.fixture
def web(http_folder: Any, cars: str) -> Iterator[tuple[str, str, Any]]:
    """The dataset `cars` on a web server: (its address, the path there, the storage options)."""
    for path in Path(cars).parent.glob("cars*"):
        shutil.copy(path, http_folder.folder)
    yield http_folder.endpoint, f"{http_folder.url.removeprefix(http_folder.endpoint)}/cars", http_folder.options


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small requests, so that there are many, and short waits."""
    monkeypatch.setattr(fetch_ahead, "CHUNK_BYTES", 8192)
    monkeypatch.setattr(fetchers, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(patient, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(retry.Retry, "wait_seconds", lambda self, failures: 0.01)


@pytest.mark.parametrize("shuffle", [0, 20])
@pytest.mark.parametrize(
    "faults",
    [
        {"cut": 0.4},
        {"fail": 0.1, "latency": (0.005, 0.02)},
        {"short": 0.3},
        {"corrupt": 0.1, "ranges_only": True},
        {"cut": 0.2, "fail": 0.1, "short": 0.1},
    ],
    ids=lambda faults: "-".join(faults),
)
def test_every_sample_comes_once(web: Any, cars: str, faults: dict[str, Any], shuffle: int) -> None:
    upstream, path, options = web
    right = list(map(told, shardkit.dataset(cars, shuffle=shuffle)))
    with Toxic(upstream, **faults) as toxic:
        data = shardkit.dataset(toxic.endpoint + path, shuffle=shuffle, storage_options=options)
        try:
            found = list(map(told, data))
        except DamagedError:  # the one that was fetched once more was wrong as well
            assert "corrupt" in faults
        else:
            assert found == right
        assert toxic.counts["requests"] > 10


def test_what_comes_through_the_cache_is_right_as_well(web: Any, cars: str, tmp_path: Path) -> None:
    upstream, path, options = web
    with Toxic(upstream, cut=0.3, fail=0.1, seed=2) as toxic:
        data = shardkit.dataset(toxic.endpoint + path, shuffle=20, storage_options=options, cache=tmp_path)
        assert list(map(told, data)) == list(map(told, shardkit.dataset(cars, shuffle=20)))
    assert {f.read_bytes() for f in tmp_path.glob("*.whole")} <= {f.read_bytes() for f in Path(cars).parent.iterdir()}


@pytest.mark.parametrize("faults", [{"hang": 1.0}, {"fail": 1.0}, {"ignore_ranges": True}], ids=str)
def test_a_server_that_is_no_use_is_a_clear_error_in_time(web: Any, faults: dict[str, Any], keys_of: KeysOf) -> None:
    upstream, path, options = web
    with Toxic(upstream, ranges_only=True, hang_seconds=30, **faults) as toxic:
        data = shardkit.dataset(toxic.endpoint + path, storage_options=options, timeout_seconds=1)
        begun = time.monotonic()
        try:
            assert len(keys_of(data)) == 97
        except ShardkitError as exc:
            assert isinstance(exc, StorageError)
            assert "cars-00000" in str(exc)
        else:
            assert "ignore_ranges" in faults
        assert time.monotonic() - begun < 20
