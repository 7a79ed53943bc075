"""`dataset(SHARDS, index="auto")`: an index in the user's cache, made once and noticed to be old."""

from __future__ import annotations

import io
import logging
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from shards.indexing.in_store import tar_of

import shardkit
from shardkit import DestinationError, ManifestError, StorageError, UsageError, dataset
from shardkit.location import locate
from shardkit.shards.indexing import auto, spool
from shardkit.shards.names import LOCK, manifest_name
from shardkit.storage.access import Remote
from shardkit.storage.store import open_store
from shardkit.storage.stores.memory import MemoryStore


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the indexes, in a cache of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shardkit" / "indexes"


def shard(draw_image: Any, number: int, samples: int = 4) -> bytes:
    members = []
    for n in range(number * samples, (number + 1) * samples):
        members += [(f"{n:05}.jpg", draw_image(n) + bytes(40_000)), (f"{n:05}.cls", b"%d" % (n % 3))]
    return tar_of(members)


@pytest.fixture(params=["folder", "store"])
def theirs(request: pytest.FixtureRequest, tmp_path: Path, draw_image: Any) -> str:
    """The pattern of three shards that somebody else made."""
    place = str(tmp_path / "theirs") if request.param == "folder" else f"memory://{os.urandom(6).hex()}"
    for number in range(3):
        open_store(locate(place)).put(f"web-{number:06}.tar", io.BytesIO(shard(draw_image, number)))
    return f"{place}/web-{{000000..000002}}.tar"


def keys(data: Any) -> list[str]:
    return [sample["__key__"] for sample in data]


def test_it_is_made_once_and_knows_length_classes_and_ranks(
    theirs: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = dataset(theirs, index="auto")
    assert len(first) == 12 and first.classes == ["0", "1", "2"]
    [made] = cache.iterdir()
    assert sorted(os.listdir(made)) == ["index.json", "index.parquet", LOCK]
    monkeypatch.setattr(auto, "make_index", lambda *_, **__: pytest.fail("it is there"))
    again = dataset(theirs, index="auto", shuffle=5, seed=1)
    parts = [keys(dataset(theirs, index="auto", shuffle=5, seed=1, rank=rank, world_size=2)) for rank in range(2)]
    assert sorted(parts[0] + parts[1]) == sorted(keys(again)) and len(parts[0]) == len(parts[1]) == 6
    assert again[7]["__key__"] == "00007" and len(again.select([0])) == 4
    assert keys(pickle.loads(pickle.dumps(first))) == keys(first)


def test_a_changed_shard_has_another_index(theirs: str, cache: Path, draw_image: Any) -> None:
    opened = dataset(theirs, index="auto")
    assert len(opened) == 12
    place = locate(theirs.replace("{000000..000002}", "000001"))
    open_store(place.parent).put(place.name, io.BytesIO(shard(draw_image, 9, 3)))
    assert len(dataset(theirs, index="auto")) == 11
    assert len(list(cache.iterdir())) == 2
    with pytest.raises((ManifestError, shardkit.DamagedError)):
        keys(opened)


def test_shards_with_their_own_manifest_need_no_index(tree: Path, tmp_path: Path, cache: Path) -> None:
    shardkit.pack(tree, tmp_path / "train", workers=1)
    assert len(dataset(tmp_path / "train", index="auto")) == 12
    assert not cache.exists()


def test_a_class_directory_has_no_index(tree: Path) -> None:
    with pytest.raises(UsageError, match="this is a class directory"):
        len(dataset(tree, index="auto"))


def test_nothing_is_made_to_show_a_dataset(theirs: str, cache: Path) -> None:
    assert "auto" not in repr(dataset(theirs, index="auto")) and not cache.exists()


@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_a_damaged_index_is_made_again(damage: str, theirs: str, cache: Path) -> None:
    before = keys(dataset(theirs, index="auto"))
    [made] = cache.iterdir()
    if damage == "cut":
        (made / "index.json").write_bytes((made / "index.json").read_bytes()[:100])
    elif damage == "gone":
        (made / "index.parquet").unlink()
    else:
        (made / "index.parquet").write_bytes(b"PAR1")
    assert keys(dataset(theirs, index="auto")) == before


CODE = """
import sys, shardkit
print(len(shardkit.dataset(sys.argv[1], index="auto", storage_options={"latency_seconds": 0.01})))
"""


def test_processes_that_want_it_at_once_make_it_once(tmp_path: Path, cache: Path, draw_image: Any) -> None:
    for number in range(4):
        open_store(locate(str(tmp_path / "theirs"))).put(f"w-{number}.tar", io.BytesIO(shard(draw_image, number)))
    pattern = f"slow+file://{tmp_path}/theirs/w-{{0..3}}.tar"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-c", CODE, pattern]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(4)]
    assert [run.communicate()[0] for run in runs] == [b"16\n"] * 4
    assert sorted(os.listdir(next(cache.iterdir()))) == ["index.json", "index.parquet", LOCK]


def test_threads_that_want_it_at_once_make_it_once(theirs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, real = [], auto.make_index

    def counted(*arguments: Any, **options: Any) -> Any:
        made.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(auto, "make_index", counted)
    lengths: list[int] = []
    threads = [threading.Thread(target=lambda: lengths.append(len(dataset(theirs, index="auto")))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == [12] * 4 and made == [1]


def test_what_a_broken_run_has_read_is_kept(
    monkeypatch: pytest.MonkeyPatch, draw_image: Any, cache: Path, ranges: list[tuple[int, int]]
) -> None:
    place = f"memory://{os.urandom(6).hex()}"
    for number in range(3):
        open_store(locate(place)).put(f"web-{number:06}.tar", io.BytesIO(shard(draw_image, number)))
    pieces = MemoryStore.pieces

    def breaks(self: MemoryStore, name: str, start: int = 0, end: int | None = None) -> Any:
        if name == "web-000002.tar" and start:
            raise StorageError(name, "the line is cut", "try again")
        return pieces(self, name, start, end)

    pattern = f"{place}/web-*.tar"
    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "pieces", breaks)
        with pytest.raises(StorageError, match="the line is cut"):
            len(dataset(pattern, index="auto"))
    assert sorted(os.listdir(next(cache.iterdir()))) == [LOCK, spool.SPOOL]
    ranges.clear()
    assert len(dataset(pattern, index="auto")) == 12
    assert len(ranges) < 12


def refusing(error: int) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(error, os.strerror(error))

    return refuse


def test_a_cache_that_can_not_be_written_to_says_what_to_do(
    theirs: str, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(os, "makedirs", refusing(30))
    with pytest.raises(DestinationError, match="the index of the shards can't be kept here: not writable") as caught:
        len(dataset(theirs, index="auto"))
    assert "give `index=DIR`, or set XDG_CACHE_HOME" in caught.value.cure
    assert caught.value.place.startswith(str(cache))


def test_a_full_cache_says_so_and_an_index_that_is_there_is_used(
    theirs: str, monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(spool, "_opened", refusing(28))
        with pytest.raises(StorageError, match="can't be kept here: No space left"):
            len(dataset(theirs, index="auto"))
    assert len(dataset(theirs, index="auto")) == 12
    monkeypatch.setattr(os, "makedirs", refusing(30))
    monkeypatch.setattr(os, "utime", refusing(30))
    assert len(dataset(theirs, index="auto")) == 12


def test_a_url_with_a_secret_is_refused(cache: Path) -> None:
    for url in ("https://user:password@host/x-0.tar", "https://host/x-0.tar?signature=secret"):
        with pytest.raises(UsageError, match="a query or a password") as caught:
            auto.automatic_index([locate(url)], Remote())
        assert "secret" not in str(caught.value) and "password@" not in str(caught.value)
    assert not cache.exists()


def test_shards_in_several_folders_are_refused(tmp_path: Path, draw_image: Any) -> None:
    places = []
    for name in ("a", "b"):
        open_store(locate(str(tmp_path / name))).put("x-0.tar", io.BytesIO(shard(draw_image, 0)))
        places.append(str(tmp_path / name / "x-0.tar"))
    with pytest.raises(UsageError, match="the shards are in 2 folders"):
        len(dataset(places, index="auto"))


def test_unused_indexes_are_removed(theirs: str, cache: Path, draw_image: Any) -> None:
    assert len(dataset(theirs, index="auto")) == 12
    [old] = cache.iterdir()
    for path in [*old.iterdir(), old]:
        os.utime(path, (1, 1))
    one = theirs.replace("{000000..000002}", "000001")
    assert len(dataset(one, index="auto")) == 4
    [left] = cache.iterdir()
    assert left != old and (left / manifest_name(auto.STEM)).exists()


def test_a_line_of_progress_is_shown_on_a_terminal_and_logged(
    theirs: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with caplog.at_level(logging.INFO, "shardkit"):
        assert len(dataset(theirs, index="auto")) == 12
    assert screen.getvalue().endswith(": 12 samples, 100 %\n") and "index of 3 shards in " in screen.getvalue()
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records[-2:]] == [
        "making it, once",
        "12 samples",
    ]


def test_a_cache_of_a_relative_path_stays_where_it_was(
    theirs: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    data = dataset(theirs, index="auto")
    assert len(data) == 12
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(keys(data)) == 12
