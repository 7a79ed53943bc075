"""The folder of local copies: whole or begun, shared, bounded, and ours alone."""

from __future__ import annotations

import errno
import inspect
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from leftovers import part_of_dead

import shardkit
from shardkit.errors import UsageError
from shardkit.storage.cache import entry as cache_entry
from shardkit.storage.cache import folder as module
from shardkit.storage.cache.folder import Cache, Entry
from shardkit.storage.parts import is_part

CHUNK = 1000


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_entry, "CHUNK", CHUNK)


class Source:
    """An object of a store, which counts what is asked for."""

    def __init__(self, seed: int = 0, size: int = 3500) -> None:
        self.data = bytes((seed * 31 + n * 7 + n // 256) % 256 for n in range(size))
        self.crc = google_crc32c.value(self.data)
        self.url = f"s3://bucket/x-{seed:06}.tar"
        self.asked: list[tuple[int, int]] = []

    def __call__(self, start: int, end: int) -> bytes:
        self.asked.append((start, end))
        return self.data[start:end]

    def entry(self, cache: Cache) -> Entry:
        found = cache.entry(self.url, len(self.data), self.crc)
        assert found is not None
        return found

    def fill(self, cache: Cache) -> None:
        assert bytes(self.entry(cache).read(0, len(self.data), self)) == self.data


def kinds(folder: Path) -> list[str]:
    return sorted(path.suffix[1:] for path in folder.iterdir() if module.OURS.fullmatch(path.name))


def test_what_is_read_is_kept_in_whole_chunks(tmp_path: Path) -> None:
    cache, source = Cache(str(tmp_path), None), Source()
    entry = source.entry(cache)
    assert bytes(entry.read(900, 1100, source)) == source.data[900:1100]
    assert source.asked == [(0, 1000), (1000, 2000)]
    assert bytes(entry.read(0, 2000, source)) == source.data[:2000]
    assert len(source.asked) == 2
    assert not entry.whole
    assert kinds(tmp_path) == ["map", "part"]


def test_an_object_gets_its_name_when_all_of_it_is_there_and_right(tmp_path: Path) -> None:
    cache, source = Cache(str(tmp_path), None), Source()
    source.fill(cache)
    [path] = [path for path in tmp_path.iterdir() if module.OURS.fullmatch(path.name)]
    assert path.name.endswith(".whole")
    assert path.read_bytes() == source.data
    source.asked.clear()
    again = source.entry(Cache(str(tmp_path), None))
    assert again.whole
    mapped = again.mapped()
    assert mapped is not None
    assert mapped[:] == source.data
    assert source.asked == []


def test_the_last_chunk_is_fetched_unasked(tmp_path: Path) -> None:
    cache, source = Cache(str(tmp_path), None), Source()
    entry = source.entry(cache)
    entry.read(0, 3000, source)
    assert entry.whole
    assert source.asked[-1] == (3000, 3500)


def test_an_object_that_arrived_wrong_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache, source = Cache(str(tmp_path), None), Source()
    entry = source.entry(cache)
    entry.read(0, 3500, lambda start, end: bytes(end - start))
    assert not entry.whole
    assert not entry.usable
    assert kinds(tmp_path) == []
    assert "arrived damaged" in caplog.text
    source.fill(cache)
    assert source.entry(cache).whole


def test_mended_bytes_make_an_object_right(tmp_path: Path) -> None:
    cache, source = Cache(str(tmp_path), None), Source()
    entry = source.entry(cache)
    wrong = bytearray(source.data)
    wrong[100] ^= 1
    assert bytes(entry.read(50, 200, lambda start, end: bytes(wrong[start:end]))) != source.data[50:200]
    entry.replace_damaged(50, source.data[50:200])
    entry.read(0, 3500, source)
    assert entry.whole


def test_a_whole_object_with_wrong_bytes_is_dropped(tmp_path: Path) -> None:
    cache, source = Cache(str(tmp_path), None), Source()
    source.fill(cache)
    [path] = tmp_path.glob("*.whole")
    path.write_bytes(source.data[:-1])
    assert not source.entry(Cache(str(tmp_path), None)).whole
    assert kinds(tmp_path) == ["map", "part"]
    other = Cache(str(tmp_path / "other"), None)
    source.fill(other)
    entry = source.entry(other)
    entry.replace_damaged(0, source.data[:10])
    assert kinds(tmp_path / "other") == []


def test_objects_of_another_url_size_or_checksum_are_others(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), None)
    names = {
        cache.entry(url, size, crc).name  # type: ignore[union-attr]
        for url, size, crc in [("a", 1, 2), ("b", 1, 2), ("a", 2, 2), ("a", 1, 3)]
    }
    assert len(names) == 4


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache, sources = Cache(str(tmp_path), 4 * 3500), [Source(n) for n in range(5)]
    for n, source in enumerate(sources[:4]):
        source.fill(cache)
        [path] = [p for p in tmp_path.glob("*.whole") if p.read_bytes() == source.data]
        os.utime(path, (1000 + n, 1000 + n))
    source = sources[0]
    source.entry(cache)  # used again
    sources[4].fill(cache)
    there = {path.read_bytes() for path in tmp_path.glob("*.whole")}
    assert sources[0].data in there
    assert sources[1].data not in there
    assert sources[4].data in there
    assert sum(map(len, there)) <= 4 * 3500


def test_what_is_in_use_stays_and_the_rest_is_refused(tmp_path: Path) -> None:
    cache, sources = Cache(str(tmp_path), 2 * 3500), [Source(n) for n in range(3)]
    held = [source.entry(cache) for source in sources[:2]]
    assert cache.entry(sources[2].url, 3500, sources[2].crc) is None
    held[0].read(0, 3500, sources[0])
    mapped = held[0].mapped()
    del held
    second = cache.entry(sources[2].url, 3500, sources[2].crc)
    assert second is not None  # the room of the other, which nobody has open
    assert cache.entry(sources[1].url, 3500, sources[1].crc) is None
    assert mapped is not None
    assert mapped[:] == sources[0].data
    mapped.close()
    del second
    assert cache.entry(sources[1].url, 3500, sources[1].crc) is not None


def test_an_object_larger_than_the_cache_is_refused(tmp_path: Path) -> None:
    cache, source = Cache(str(tmp_path), 3000), Source()
    assert cache.entry(source.url, 3500, source.crc) is None
    assert kinds(tmp_path) == []


def test_files_of_others_are_never_removed(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), 5000)
    strangers = [tmp_path / "train-000000.tar", tmp_path / ("0" * 32), tmp_path / ("0" * 31 + "g.whole")]
    for stranger in strangers:
        stranger.write_bytes(bytes(4000))
        os.utime(stranger, (1, 1))
    for n in range(4):
        Source(n).fill(cache)
    Cache(str(tmp_path), 10)
    assert all(stranger.stat().st_size == 4000 for stranger in strangers)


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", "utf-8")
    with pytest.raises(UsageError, match=r"other content \(thesis\.txt\)"):
        Cache(str(tmp_path), None)
    (tmp_path / "thesis.txt").unlink()
    (tmp_path / "CACHEDIR.TAG").write_text("Signature: of another", "utf-8")
    with pytest.raises(UsageError, match="is not a cache of shardkit"):
        Cache(str(tmp_path), None)


def test_a_full_disk_ends_the_cache_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache, source, kept = Cache(str(tmp_path), None), Source(), Source(1)
    kept.fill(cache)
    entry = source.entry(cache)
    entry.read(0, 1000, source)

    def full(*arguments: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert bytes(entry.read(500, 3200, source)) == source.data[500:3200]
    assert bytes(entry.read(500, 3200, source)) == source.data[500:3200]
    assert cache.entry("s3://bucket/other", 100, 1) is None
    assert kept.entry(cache).whole
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No space left on device" in caplog.text


def test_small_objects_are_saved_and_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache, data = Cache(str(tmp_path), None), b"an index"
    crc = google_crc32c.value(data)
    assert cache.load("u", len(data), crc) is None
    cache.save("u", data, crc)
    assert cache.load("u", len(data), crc) == data
    [path] = tmp_path.glob("*.whole")
    path.write_bytes(b"an Index")
    caplog.set_level(logging.WARNING)
    assert cache.load("u", len(data), crc) is None
    assert kinds(tmp_path) == []


def test_threads_fetch_each_chunk_once(tmp_path: Path) -> None:
    cache, source = Cache(str(tmp_path), None), Source()
    entry, gate = source.entry(cache), threading.Barrier(8)

    def slowly(start: int, end: int) -> bytes:
        time.sleep(0.02)
        return source(start, end)

    def read() -> None:
        gate.wait()
        assert bytes(entry.read(100, 3400, slowly)) == source.data[100:3400]

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(source.asked) == 4
    assert entry.whole


def test_what_a_killed_run_left_is_cleared_or_gone_on_with(tmp_path: Path) -> None:
    cache, source, old = Cache(str(tmp_path), None), Source(), Source(1)
    source.entry(cache).read(0, 1000, source)
    old.entry(cache).read(0, 1000, old)
    part = next(path for path in tmp_path.glob("*.part") if path.read_bytes()[:1000] == old.data[:1000])
    os.utime(part, (1, 1))
    (tmp_path / part_of_dead(f"{'a' * 32}.whole")).write_bytes(b"half")
    (tmp_path / part_of_dead(module.TAG)).write_bytes(b"half")
    (tmp_path / f"{'b' * 32}.map").write_bytes(b"\0")
    again = Cache(str(tmp_path), None)
    assert kinds(tmp_path) == ["map", "part"]
    assert not [path for path in tmp_path.iterdir() if is_part(path.name)]
    source.asked.clear()
    source.fill(again)
    assert source.asked == [(1000, 2000), (2000, 3000), (3000, 3500)]


def test_what_is_half_written_counts_for_the_limit_and_goes_when_its_writer_is_dead(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), 4000)
    left = tmp_path / part_of_dead(f"{'a' * 32}.whole")
    left.write_bytes(b"x" * 3000)
    cache.save("memory://b/one", b"1" * 2000, google_crc32c.value(b"1" * 2000))
    cache.save("memory://b/two", b"2" * 1900, google_crc32c.value(b"2" * 1900))
    cache.save("memory://b/three", b"3" * 2000, google_crc32c.value(b"3" * 2000))
    assert not left.exists()
    assert sum(path.stat().st_size for path in tmp_path.glob("*.whole")) <= 4000


def test_a_run_that_was_killed_before_the_last_step_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source()
    with monkeypatch.context() as patch:
        patch.setattr(Entry, "_finish", lambda self, fetch: None)
        source.fill(Cache(str(tmp_path), None))
    assert kinds(tmp_path) == ["map", "part"]
    source.asked.clear()
    source.fill(Cache(str(tmp_path), None))
    assert kinds(tmp_path) == ["whole"]
    assert source.asked == []


WORKER = """
import sys, time
import google_crc32c
from shardkit.storage.cache import folder as module
from shardkit.storage.cache import entry as cache_entry
from shardkit.storage.cache.folder import Cache, Entry
cache_entry.CHUNK = {chunk}
{source}
sources = [Source(n, 20_000) for n in range(6)]
print("ready", flush=True)
for turn in range({turns}):
    cache = module.Cache({folder!r}, {limit})
    for source in sources:
        entry = cache.entry(source.url, len(source.data), source.crc)
        def fetch(start, end):
            time.sleep(0.0005)
            return source(start, end)
        data = fetch(0, 20_000) if entry is None else bytes(entry.read(0, 20_000, fetch))
        assert data == source.data
        del entry
print(sum(len(source.asked) for source in sources), flush=True)
"""


def worker(folder: Path, *, turns: int = 1, limit: int | None = None) -> subprocess.Popen[str]:
    source = inspect.getsource(Source)
    text = WORKER.format(source=source, chunk=CHUNK, folder=str(folder), turns=turns, limit=limit)
    environment = os.environ | {"PYTHONPATH": str(Path(shardkit.__file__).parent.parent)}
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, env=environment)


def all_right(folder: Path) -> bool:
    """Whether each whole object in the cache is one of the sources."""
    contents = {Source(n, 20_000).data for n in range(6)}
    return {path.read_bytes() for path in folder.glob("*.whole")} <= contents


@pytest.mark.skipif(module.fcntl is None, reason="this system has no file locks")
def test_two_processes_share_what_they_fetch(tmp_path: Path) -> None:
    both = [worker(tmp_path) for _ in range(2)]
    fetched = [int(process.communicate(timeout=60)[0].split()[-1]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(fetched) == 6 * 20
    assert kinds(tmp_path) == ["whole"] * 6
    assert all_right(tmp_path)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system can't kill -9")
@pytest.mark.parametrize("limit", [None, 3 * 20_000])
def test_killed_readers_leave_nothing_wrong(tmp_path: Path, limit: int | None) -> None:
    for n in range(13):
        process = worker(tmp_path, turns=1000, limit=limit)
        with process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.003 + 0.007 * ((n * 0.618) % 1.0) * (n % 4 + 1))
            process.kill()
        assert all_right(tmp_path)
        if limit is not None:
            assert sum(path.stat().st_size for path in tmp_path.glob("*.[wp]*")) <= limit
    last = worker(tmp_path, limit=limit)
    assert last.communicate(timeout=60)[0].startswith("ready")
    assert last.returncode == 0
    assert all_right(tmp_path)
    assert kinds(tmp_path) == ["whole"] * (6 if limit is None else 3)


def test_a_whole_object_is_summed_only_where_that_is_asked_for(tmp_path: Path) -> None:
    cache, source = Cache(str(tmp_path), None), Source()
    source.fill(cache)
    entry = source.entry(cache)
    whole = entry.mapped(check=True)
    assert whole is not None
    assert (whole[:], entry.usable) == (source.data, True)
    [path] = tmp_path.glob("*.whole")
    path.write_bytes(source.data[:-1] + bytes([source.data[-1] ^ 1]))
    assert (entry.mapped() is not None, entry.usable, path.exists()) == (True, True, True)
    assert (entry.mapped(check=True), entry.usable, path.exists()) == (None, False, False)


@pytest.mark.parametrize("spare", [-1, 0])
def test_an_object_is_taken_if_it_fits_to_the_byte(tmp_path: Path, spare: int) -> None:
    source, data = Source(), b"small"
    cache = Cache(str(tmp_path), len(source.data) + len(data) + spare)
    cache.save("u", data, google_crc32c.value(data))
    assert cache._usage() == len(data)
    held = source.entry(cache)
    held.read(0, 3500, source)
    assert cache.load("u", len(data), google_crc32c.value(data)) == (None if spare < 0 else data)
    assert cache._usage() == len(source.data) + (0 if spare < 0 else len(data))


def test_what_was_loaded_was_used(tmp_path: Path) -> None:
    data = [bytes([n]) * 1000 for n in range(3)]
    cache = Cache(str(tmp_path), 2000)
    for n in range(2):
        cache.save(f"u{n}", data[n], google_crc32c.value(data[n]))
    for path in tmp_path.glob("*.whole"):
        first = path.read_bytes() == data[0]
        os.utime(path, (1 if first else 2, 1 if first else 2))
    assert cache.load("u0", 1000, google_crc32c.value(data[0])) == data[0]
    cache.save("u2", data[2], google_crc32c.value(data[2]))
    assert [cache.load(f"u{n}", 1000, google_crc32c.value(data[n])) for n in range(3)] == [data[0], None, data[2]]


def test_parts_that_nobody_went_on_with_for_so_long_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source()
    source.entry(Cache(str(tmp_path), None)).read(0, 1000, source)
    [part] = tmp_path.glob("*.part")
    for later, left in ((module.STALE_SECONDS, ["map", "part"]), (module.STALE_SECONDS + 1, [])):
        os.utime(part, (1000, 1000))
        monkeypatch.setattr(module.time, "time", lambda seconds=later: 1000 + seconds)
        Cache(str(tmp_path), None)
        assert kinds(tmp_path) == left


@pytest.mark.parametrize("noted", [b"%-19d\n" % 0, b"", b"no number"])
def test_what_is_here_is_counted_when_the_cache_is_opened_whatever_was_noted(tmp_path: Path, noted: bytes) -> None:
    first, second = Source(1), Source(2)
    first.fill(Cache(str(tmp_path), None))
    (tmp_path / "lock").write_bytes(noted)
    cache = Cache(str(tmp_path), 5000)
    assert (tmp_path / "lock").read_bytes() == b"%-19d\n" % 3500
    second.fill(cache)
    assert cache._usage() == sum(path.stat().st_size for path in tmp_path.glob("*.whole")) == 3500
