from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardkit.storage import node_files
from shardkit.storage.node_files import KEPT_SECONDS, load, save, shared_array
from shardkit.system import POSIX

pytestmark = pytest.mark.skipif(not POSIX, reason="only where files can be mapped and removed")

VALUES = np.arange(1000, dtype=np.int16)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this user."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"shardkit-{os.getuid()}"


class Maker:
    """Makes the array, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        return VALUES


def made(maker: Maker, name: str = "labels-1-0") -> Any:
    return shared_array(name, VALUES.dtype, maker)


def test_an_array_is_made_once_and_then_mapped(folder: Path) -> None:
    maker = Maker()
    for _ in range(3):
        found = made(maker)
        assert found.tolist() == VALUES.tolist()
        assert not found.flags.writeable
    assert maker.calls == 1
    assert [path.name for path in folder.iterdir()] == ["labels-1-0"]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_threads_and_processes_that_ask_at_the_same_time_make_it_once(folder: Path) -> None:
    maker, begin = Maker(), threading.Barrier(4)

    def ask() -> None:
        begin.wait()
        assert made(maker).tolist() == VALUES.tolist()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert maker.calls == 1


def test_a_process_that_makes_it_for_too_long_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_files, "WAIT_SECONDS", 0.1)
    maker = Maker()
    folder.mkdir(mode=0o700)
    with node_files._alone(str(folder), "labels-1-0"):
        assert made(maker).tolist() == VALUES.tolist()
    assert maker.calls == 1


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"x" + data[1:], lambda data: b""])
def test_a_damaged_file_is_made_again(folder: Path, damage: Any) -> None:
    maker = Maker()
    made(maker)
    path = folder / "labels-1-0"
    data = damage(path.read_bytes())
    path.unlink()
    path.write_bytes(data)
    assert made(maker).tolist() == VALUES.tolist()
    assert maker.calls == 2
    assert made(maker).tolist() == VALUES.tolist()
    assert maker.calls == 2


def test_a_full_disk_leaves_each_process_its_own_copy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> Any:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(node_files, "whole_file", full)
    maker = Maker()
    assert made(maker).tolist() == VALUES.tolist()
    assert made(maker).tolist() == VALUES.tolist()
    assert maker.calls == 2
    assert list(folder.iterdir()) == []
    assert not save("manifest-0.json", b"{}")


def test_a_folder_that_others_may_write_to_is_not_used(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    maker = Maker()
    assert made(maker).tolist() == VALUES.tolist()
    assert list(folder.iterdir()) == []
    assert load("labels-1-0") is None
    assert not save("labels-1-0", b"")


@pytest.mark.parametrize("kind", ["a file", "a link"])
def test_something_else_in_the_place_of_the_folder_is_not_used(folder: Path, kind: str, tmp_path: Path) -> None:
    if kind == "a file":
        folder.write_bytes(b"")
    else:
        (tmp_path / "other").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "other")
    assert made(Maker()).tolist() == VALUES.tolist()
    assert load("labels-1-0") is None


def test_an_error_of_the_maker_is_passed_on_and_nothing_is_kept(folder: Path) -> None:
    def fail() -> Any:
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        shared_array("labels-1-0", VALUES.dtype, fail)
    assert list(folder.iterdir()) == []
    assert made(Maker()).tolist() == VALUES.tolist()


def test_files_that_nobody_used_for_long_are_removed_and_no_others(folder: Path) -> None:
    made(Maker())
    (folder / "node-1.sock").write_bytes(b"")
    long_ago = os.stat(folder / "labels-1-0").st_mtime - 2 * KEPT_SECONDS
    for name in ("labels-1-0", "node-1.sock"):
        os.utime(folder / name, (long_ago, long_ago))
    made(Maker(), "keys-1-0")
    assert sorted(path.name for path in folder.iterdir()) == ["keys-1-0", "node-1.sock"]
