"""A tree that is listed while the process loads gives the same source, whatever was listed by then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardkit.errors import SourceError
from shardkit.native import load
from shardkit.sources.source import Source, scan_tree
from shardkit.sources.tree import early, native

pytestmark = pytest.mark.skipif(load("tree")[0] is None, reason="the C extension is not built here")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a/1.jpg", "a/2.jpg", "a/notes.md", "b/deep/er/3.jpg", "b/.hidden/4.jpg", "c/5.PNG", "stray.jpg"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(name.encode())
    os.symlink("a", tmp_path / "tree" / "linked")
    return tmp_path / "tree"


def told(source: Source) -> tuple[object, ...]:
    return [*source.paths], source.sizes.tolist(), source.classes, source.left_out.lines()


def test_the_source_is_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = told(scan_tree(root))
    with early.listing_early(str(root)):
        assert told(scan_tree(root)) == expected
    whole = early._Early(f"{root}/", early.wanted_extensions(early.DEFAULT_EXTENSIONS))
    whole.run()
    assert whole.stopped
    seen = []
    monkeypatch.setattr(native, "load", lambda name: (None, "all was listed"))
    monkeypatch.setattr("shardkit.sources.tree.walk.lister", lambda wanted: lambda folder: seen.append(folder))
    with early.taking_from(whole):
        assert told(scan_tree(root)) == expected
    assert len(seen) == 1, "the folder that is too deep"


def test_a_folder_is_taken_once(root: Path) -> None:
    whole = early._Early(str(root), frozenset(("jpg",)))
    whole.run()
    assert whole.taken(f"{root}/a") == ({"1.jpg": 7, "2.jpg": 7}, ["notes.md"])
    assert whole.taken(f"{root}/a") is None
    assert whole.taken(f"{root}/nowhere") is None


def test_a_folder_that_the_walk_lists_itself_is_left_to_it(root: Path) -> None:
    late = early._Early(str(root), frozenset(("jpg",)))
    assert late.taken(str(root)) is None
    late.run()
    assert late.taken(f"{root}/a") is None


def test_walks_for_other_extensions_take_nothing(root: Path) -> None:
    with early.listing_early(str(root)):
        assert [*scan_tree(root, extensions=["md"]).paths] == [b"a/notes.md", b"linked/notes.md"]


def test_what_is_no_folder_is_reported_by_the_walk(tmp_path: Path) -> None:
    with early.listing_early(str(tmp_path / "nowhere")), pytest.raises(SourceError, match="there is no such folder"):
        scan_tree(tmp_path / "nowhere")
