"""A plan whose columns are in temporary files packs to the same bytes."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit.errors import StorageError
from shardkit.location import Location
from shardkit.shards.manifest import Manifest
from shardkit.sources import scratch
from shardkit.storage.store import open_store

Pack = Callable[..., Manifest]
Content = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def tree(tmp_path: Path, draw_image: Callable[..., bytes]) -> Path:
    """A class tree with names of several lengths, two files of one key, and an odd name."""
    for number in range(60):
        path = tmp_path / "tree" / ["cat", "dog", "eel"][number % 3] / f"{'x' * (number % 7)}{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw_image(number))
    (tmp_path / "tree" / "cat" / "0.a.jpg").write_bytes(draw_image(99))
    (tmp_path / "tree" / "cat" / "0_a.jpg").write_bytes(draw_image(97))
    (tmp_path / "tree" / "cat" / ("é" * 70 + ".jpg")).write_bytes(draw_image(98))
    return tmp_path / "tree"


def in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, columns of over 64 bytes are in files."""
    for name, value in {"SCRATCH_BYTES": 64, "PIECE": 7, "BUCKET": 5}.items():
        monkeypatch.setattr(scratch, name, value)


OPTIONS: dict[str, dict[str, Any]] = {
    "tar": {},
    "tfrecord": {"format": "tfrecord"},
    "in order": {"shuffle": False},
    "split": {"split": "train=0.7,test=0.3"},
    "fields": {"fields": "jpg"},
    "labels": {"labels": shardkit.LabelOptions(no_labels=True)},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_files_are_the_same(
    name: str, tree: Path, out: Path, content_of: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"workers": 1, "max_count": 9} | OPTIONS[name]
    dest = "" if name == "split" else "train"
    shardkit.pack(tree, out / "memory" / dest, **given)
    in_files(monkeypatch)
    shardkit.pack(tree, out / "files" / dest, **given)
    assert content_of(out / "files") == content_of(out / "memory")


def test_a_bucket_packs_to_the_same_files(
    tree: Path, out: Path, pack_one: Pack, content_of: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "cat" / ("é" * 70 + ".jpg")).unlink()
    store = open_store(Location("memory", "plan-in-files/tree"))
    for path in tree.rglob("*.*"):
        store.put(str(path.relative_to(tree)), io.BytesIO(path.read_bytes()))
    pack_one(tree, out / "memory" / "train", max_count=9)
    in_files(monkeypatch)
    pack_one("memory://plan-in-files/tree", out / "files" / "train", max_count=9)
    assert content_of(out / "files") == content_of(out / "memory")


def test_parts_and_what_is_appended_are_the_same(
    tree: Path, out: Path, pack_one: Pack, content_of: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    def packed(dest: Path) -> dict[str, bytes]:
        for part in ((1, 2), (2, 2)):
            pack_one(tree, dest / "train", max_count=9, part=part)
        shardkit.merge(dest / "train")
        moved = tree / "cat" / "0.a.jpg"
        moved.rename(tree / "dog" / "later.jpg")
        pack_one(tree, dest / "train", max_count=9, append=True)
        (tree / "dog" / "later.jpg").rename(moved)
        return content_of(dest)

    before = packed(out / "memory")
    in_files(monkeypatch)
    assert packed(out / "files") == before


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no room")
def test_a_full_disk_ends_the_packing_with_an_error_and_leaves_nothing(
    tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    in_files(monkeypatch)
    monkeypatch.setattr(os, "posix_fallocate", full)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    with pytest.raises(StorageError, match="set TMPDIR to a folder on a disk with more room"):
        pack_one(tree, out / "train")
    assert not out.exists() or not any(path.is_file() for path in out.rglob("*"))
    assert list((tmp_path / "temporary").iterdir()) == []
