"""Folders that are listed ahead in threads give what they give one after the other."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shardkit.errors import SourceError
from shardkit.sources import source
from shardkit.sources.left_out import LeftOutCounter
from shardkit.sources.source import Source, scan_tree, scan_walks, split_walks
from shardkit.sources.tree import walk_ahead
from shardkit.sources.tree.walk import Walk


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A tree with folders below folders, names that sort in odd ways, and much that is left out."""
    root = tmp_path / "deep"
    for top in ("a", "a-b", "b", "z"):
        for below in ("", "x/", "x-y/", "x/1/", "x/1.2/", "é/", ".hidden/", "__MACOSX/"):
            folder = root / top / below
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("1.jpg", "2.JPG", "10.png", "notes.txt", ".secret", "Thumbs.db"):
                (folder / name).write_bytes(b"x" * len(below))
        os.symlink("..", root / top / "loop")
        os.symlink("nowhere", root / top / "broken.jpg")
        (root / top / "empty").mkdir()
    (root / "readme.txt").write_text("x")
    return root


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads from the second folder on."""
    monkeypatch.setattr(walk_ahead, "TRIAL_SECONDS", 0)
    monkeypatch.setattr(walk_ahead, "BUSY", float("inf"))


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_ahead, "TRIAL_SECONDS", float("inf"))


def facts(found: Source) -> object:
    return list(found.paths), found.sizes.tolist(), found.labels.tolist(), found.renamed, found.classes, found.left_out


def alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """The scan without threads."""
    with monkeypatch.context() as patch:
        patch.setattr(walk_ahead, "TRIAL_SECONDS", float("inf"))
        return scan_tree(root)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("waiting", [1 << 20, 1])
def test_the_columns_and_what_is_left_out_are_the_same(
    deep: Path, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    monkeypatch.setattr(walk_ahead, "_WAITING_FILES", waiting)
    assert facts(scan_tree(deep)) == facts(alone(deep, monkeypatch))


@pytest.mark.usefixtures("always")
def test_another_order_of_classes_is_kept(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scan_tree(deep, classes=["z", "a", "none", "b", "a-b"])
    assert [path.split(b"/")[0] for path in found.paths][:: len(found) // 4] == [b"z", b"a", b"b", b"a-b"]
    assert sorted(found.paths) == sorted(alone(deep, monkeypatch).paths)


@pytest.mark.usefixtures("always")
def test_splits_are_the_same(splits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["train", "test"]
    found = {name: facts(each) for name, each in scan_walks(split_walks(splits, names)).items()}
    monkeypatch.setattr(walk_ahead, "TRIAL_SECONDS", float("inf"))
    assert found == {name: facts(each) for name, each in scan_walks(split_walks(splits, names)).items()}


def listing_threads(root: Path, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The threads that list the folders of a scan."""
    seen: set[int] = set()

    class Seen(Walk):
        def _list(self, path: str) -> walk_ahead.Listing:
            seen.add(threading.get_ident())
            return super()._list(path)

    monkeypatch.setattr(source, "Walk", Seen)
    scan_tree(root)
    return seen


@pytest.mark.usefixtures("always")
def test_threads_list_where_they_pay(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listing_threads(deep, monkeypatch) - {threading.get_ident()}


@pytest.mark.usefixtures("never")
def test_no_thread_lists_where_none_pays(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listing_threads(deep, monkeypatch) == {threading.get_ident()}


def test_a_disk_that_keeps_the_scan_waiting_gets_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clocks = {"perf_counter": 0.0, "thread_time": 0.0}

    class Slow(Walk):
        def _list(self, path: str) -> walk_ahead.Listing:
            clocks["perf_counter"] += 0.1
            clocks["thread_time"] += 0.01
            return walk_ahead.Folder(path, ["1.jpg"], [1]), []

    def clock(name: str) -> Callable[[], float]:
        return lambda: clocks[name]

    for name in clocks:
        monkeypatch.setattr(walk_ahead.time, name, clock(name))
    walk = Slow(str(tmp_path), ["jpg"], LeftOutCounter())
    with walk_ahead.listed_ahead(walk, list("abcdef")) as looked:
        assert isinstance(looked, walk_ahead._Ahead)
        for top in "ab":
            list(looked.folders(top))
            assert looked.pool is None
        list(looked.folders("c"))
        assert looked.pool is not None
        assert [folder.path for top in "def" for folder in looked.folders(top)] == ["d", "e", "f"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc")
def test_no_folder_stays_open(deep: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    scan_tree(deep)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("always")
def test_a_folder_that_cannot_be_listed_is_named_and_the_threads_end(
    deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Walk):
        def _list(self, path: str) -> walk_ahead.Listing:
            if path == "b/x":
                raise SourceError("b/x", "the folder can't be read", "check its permissions")
            return super()._list(path)

    monkeypatch.setattr(source, "Walk", Broken)
    before = threading.active_count()
    with pytest.raises(SourceError, match="b/x"):
        scan_tree(deep)
    assert threading.active_count() == before
