"""shardkit in an interpreter that lacks what Windows lacks: fixtures/windows/sitecustomize.py takes it away.

It shows that no function, flag or module of POSIX is needed. It does not replace a test on Windows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import shardkit
from shardkit import system
from shardkit.storage import files

WINDOWS = Path(__file__).parent / "fixtures" / "windows"

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the simulation needs /proc")

Run = Callable[[str], list[str]]


@pytest.fixture
def on_windows(run_python: Any, tree: Path) -> Run:
    """A function that runs code beside a class tree and returns the words that it printed."""
    home = str(Path(shardkit.__file__).parent.parent)

    def run(code: str) -> list[str]:
        done = run_python("-c", code, cwd=tree.parent, check=False, PYTHONPATH=os.pathsep.join([str(WINDOWS), home]))
        assert done.returncode == 0, done.stderr
        return str(done.stdout).split()

    return run


def test_the_simulation_takes_away_what_it_says(on_windows: Run) -> None:
    code = (
        "import os, mmap, signal\n"
        "try: import fcntl\nexcept ImportError: print('no fcntl')\n"
        "names = ('pread', 'pwrite', 'fork', 'sched_getaffinity')\n"
        "print(*(hasattr(os, name) for name in names), hasattr(signal, 'SIGKILL'))\n"
        "file = open('open', 'w')\n"
        "for change in (lambda: os.replace('open', 'x'), lambda: os.unlink('open')):\n"
        "    try: change()\n    except PermissionError: print('refused')\n"
    )
    assert on_windows(code) == ["no", "fcntl", *["False"] * 5, "refused", "refused"]


def test_every_module_of_the_core_can_be_imported(on_windows: Run) -> None:
    code = (
        "import pkgutil, importlib, shardkit\n"
        "rooms = 'formats images options packing reading shards sources storage tools cli'.split()\n"
        "for room in rooms:\n"
        "    path = importlib.import_module('shardkit.' + room).__path__\n"
        "    for module in pkgutil.walk_packages(path, f'shardkit.{room}.'):\n"
        "        if '.ray' not in module.name: importlib.import_module(module.name)\n"
        "print('done')\n"
    )
    assert on_windows(code) == ["done"]


@pytest.mark.parametrize("format", ["tar", "tfrecord"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_tree_is_packed_read_verified_and_unpacked(on_windows: Run, format: str, workers: int) -> None:
    code = (
        "import os, shardkit\n"
        f"shardkit.pack('tree', 'out/train', format={format!r}, workers={workers}, max_count=5)\n"
        "ds = shardkit.dataset('out/train', shuffle=True)\n"
        "print(sum(1 for _ in ds), sum(len(b.keys) for b in ds.decode(size=8, crop='random').batch(4)))\n"
        "print(shardkit.verify('out/train').sound, shardkit.info('out/train').samples)\n"
        "shardkit.unpack('out/train', 'again')\n"
        "print(sum(len(files) for _, _, files in os.walk('again')))\n"
        "print(*(name for name in os.listdir('out') if name.startswith('.') or name.endswith('.part')))\n"
    )
    assert on_windows(code) == ["12", "12", "True", "12", "12"]


def test_an_overwrite_leaves_the_shards_that_are_being_read(on_windows: Run) -> None:
    code = (
        "import shardkit, os\n"
        "shardkit.pack('tree', 'out/train')\n"
        "old = shardkit.dataset('out/train')\n"
        "first = next(iter(old))['__key__']\n"
        "shards = {n for n in os.listdir('out') if n.endswith('.tar')}\n"
        "shardkit.pack('tree', 'out/train', overwrite=True, seed=5)\n"
        "print(shards <= set(os.listdir('out')), sum(1 for _ in old), sum(1 for _ in shardkit.dataset('out/train')))\n"
        "del old\n"
    )
    assert on_windows(code) == ["True", "12", "12"]


def test_archives_are_packed_and_shards_appended(on_windows: Run) -> None:
    code = (
        "import shutil, shardkit\n"
        "for kind in ('zip', 'tar', 'gztar'):\n"
        "    file = shutil.make_archive('tree-' + kind, kind, 'tree')\n"
        "    print(shardkit.pack(file, f'{kind}/train').samples)\n"
        "shutil.copy('tree/red/0000.jpg', 'tree/red/new.jpg')\n"
        "shardkit.pack('tree', 'more/train', to='webp')\n"
        "shutil.copy('tree/red/0001.jpg', 'tree/red/newer.jpg')\n"
        "print(shardkit.pack('tree', 'more/train', to='webp', append=True).samples)\n"
    )
    assert on_windows(code) == ["12", "12", "12", "14"]


def test_a_cache_keeps_objects_and_drops_what_nobody_reads(on_windows: Run) -> None:
    code = (
        "import os, shardkit\n"
        "shardkit.pack('tree', 'out/train', max_count=3)\n"
        "for name in ('train', 'other'): shardkit.upload('out/train', 'memory://bucket/' + name + '/train')\n"
        "shards = [os.path.getsize('out/' + name) for name in os.listdir('out') if name.endswith('.tar')]\n"
        "for name, limit in (('train', 10**9), ('train', 10**9), ('other', max(shards) + 1)):\n"
        "    ds = shardkit.dataset(f'memory://bucket/{name}/train', cache='cache', cache_bytes=limit)\n"
        "    print(sum(1 for _ in ds))\n"
        "    del ds\n"
        "print(sum(name.endswith(('.whole', '.part')) for name in os.listdir('cache')))\n"
    )
    *samples, objects = on_windows(code)
    assert samples == ["12", "12", "12"]
    assert 1 <= int(objects) <= 2  # a shard, and the index


def test_the_place_of_a_file_may_move_where_nothing_reads_at_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pread", "preadv", "pwrite"):
        monkeypatch.delattr(os, name)
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    descriptor = os.open(path, os.O_RDWR)
    assert system.read_at(descriptor, 3, 8) == b"89"
    assert system.write_at(descriptor, b"abc", 4) == 3
    view = bytearray(4)
    assert system.read_into(descriptor, memoryview(view), 3) == 4
    os.close(descriptor)
    assert (view, path.read_bytes()) == (b"3abc", b"0123abc789")


@pytest.mark.parametrize(
    ("handle", "error", "code", "running"), [(7, 0, 259, True), (7, 0, 1, False), (0, 5, 0, True), (0, 87, 0, False)]
)
def test_windows_is_asked_whether_a_process_runs_without_a_signal(
    monkeypatch: pytest.MonkeyPatch, handle: int, error: int, code: int, running: bool
) -> None:
    """87 is what it answers for a process that does not exist, 5 for one of another user."""
    import ctypes

    closed: list[int] = []

    def exit_code(handle: int, result: Any) -> int:
        result._obj.value = code
        return 1

    kernel = SimpleNamespace(OpenProcess=lambda *_: handle, GetExitCodeProcess=exit_code, CloseHandle=closed.append)
    monkeypatch.setattr(ctypes, "WinDLL", lambda *_, **__: kernel, raising=False)
    monkeypatch.setattr(ctypes, "get_last_error", lambda: error, raising=False)
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(os, "kill", None)
    assert system.is_running(123) is running
    assert closed == ([handle] if handle else [])


def test_a_lock_of_a_dead_run_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for running, seconds in ((True, 0.0), (False, files.ORPHAN_SECONDS)):
        monkeypatch.setattr(files, "is_running", lambda process, found=running: found)
        assert files._patience_seconds(123) == seconds
