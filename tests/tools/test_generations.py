"""What the tools make of a dataset that has replaced another one: its files have the names of a later generation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit import dataset
from shardkit.errors import BusyError, DestinationError
from shardkit.packing.dest.disk import disk_destination
from shardkit.packing.dest.work_folder import decided_path
from shardkit.shards import names
from shardkit.shards.manifest import all_names, decode_manifest, file_names
from shardkit.storage.files import FolderLock

STEM, GENERATION = "train", 2


def manifest_of(prefix: Path) -> shardkit.Manifest:
    return decode_manifest(Path(names.manifest_name(str(prefix))).read_bytes(), place=str(prefix))


def generation_of(prefix: Path) -> int:
    return names.generation_of(all_names(manifest_of(prefix), prefix.name), prefix.name)


def samples(source: Any) -> dict[str, tuple[bytes, int]]:
    return {sample["__key__"]: (bytes(sample["jpg"]), sample["cls"]) for sample in dataset(source)}


def stray(prefix: Path) -> set[str]:
    """The files in a dataset's folder that are not of it."""
    own = {*all_names(manifest_of(prefix), prefix.name), names.manifest_name(prefix.name)}
    return {path.name for path in prefix.parent.iterdir()} - own


@pytest.fixture
def second(tree: Path, tmp_path: Path) -> Path:
    """The 12 images of the tree, in a second generation of 3 shards; the prefix."""
    prefix = tmp_path / "own" / STEM
    shardkit.pack(tree, prefix, workers=1, max_count=1)
    shardkit.pack(tree, prefix, workers=1, max_count=4, overwrite=True)
    assert generation_of(prefix) == GENERATION
    assert not stray(prefix)
    return prefix


def test_it_is_read_by_every_name(second: Path) -> None:
    base = second.parent / names.base_of(STEM, GENERATION)
    first, last = (names.shard_name(str(base), number, ".tar") for number in (0, 2))
    expected = samples(second)
    assert len(expected) == 12
    shards = f"{base}-{{000000..000002}}.tar"
    for source in (f"{second}-*.tar", f"{base}-*.tar", shards, second.parent, names.manifest_name(str(second)),
                   [second], [f"{second}-*.tar"]):  # fmt: skip
        assert samples(source) == expected, source
    assert len(dataset([first, last])) == 8


def test_it_is_looked_at(second: Path, tmp_path: Path) -> None:
    told = shardkit.info(second)
    assert (told.samples, told.shards, told.classes) == (12, 3, manifest_of(second).classes)
    assert shardkit.verify(second, decode=True).sound
    sheet = shardkit.view(second, tmp_path / "sheet.png", count=3)
    assert {key for row in sheet.classes for key in row.keys} <= set(samples(second))
    written = shardkit.report(second, tmp_path / "report.html")
    assert [each.samples for each in written.datasets] == [12]


def test_it_is_unpacked_to_the_tree_that_was_packed(second: Path, tree: Path, tmp_path: Path) -> None:
    shardkit.unpack(second, tmp_path / "again", workers=1)
    for path in tree.rglob("*.jpg"):
        assert (tmp_path / "again" / path.relative_to(tree)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("format", ["tar", "tfrecord"])
def test_it_is_converted_to_a_first_generation_elsewhere(second: Path, tmp_path: Path, format: Any) -> None:
    dest = tmp_path / "converted" / STEM
    shardkit.convert(second, dest, format=format, max_count=5, workers=1)
    assert generation_of(dest) == 1
    assert samples(dest) == samples(second)
    shardkit.convert(second, dest, format=format, max_count=3, workers=1, overwrite=True)
    assert generation_of(dest) == GENERATION
    assert samples(dest) == samples(second)
    assert not stray(dest)


def test_it_is_repaired_where_another_dataset_was(second: Path, tmp_path: Path) -> None:
    dest = tmp_path / "repaired" / STEM
    for generation in (1, GENERATION):
        shardkit.repair(second, dest, overwrite=generation > 1)
        assert generation_of(dest) == generation
        assert samples(dest) == samples(second)
        assert not stray(dest)


def test_it_is_added_to(second: Path, tree: Path, draw_image: Any) -> None:
    (tree / "red" / "new.jpg").write_bytes(draw_image())
    shardkit.pack(tree, second, workers=1, max_count=4, append=True)
    assert generation_of(second) == GENERATION
    assert len(samples(second)) == 13
    assert not stray(second)
    assert {names.file_generation(name, STEM) for name in file_names(manifest_of(second))} == {GENERATION}


@pytest.mark.parametrize("store", ["file", "memory"])
def test_it_is_sent_to_a_store_and_brought_back(second: Path, tree: Path, tmp_path: Path, store: str) -> None:
    far = f"slow+file://{tmp_path}/far" if store == "file" else f"memory://{tmp_path.name}-{id(tmp_path)}/far"
    (tmp_path / "far").mkdir()
    shardkit.upload(second, f"{far}/")
    assert samples(f"{far}/{STEM}") == samples(second)
    near = tmp_path / "near" / STEM
    for count, generation in ((None, None), (3, GENERATION + 1)):
        if count is not None:
            shardkit.pack(tree, second, workers=1, max_count=count, overwrite=True)
            assert generation_of(second) == generation
            shardkit.upload(second, f"{far}/", overwrite=True)
        shardkit.download(f"{far}/{STEM}", f"{near.parent}/", overwrite=count is not None)
        assert samples(near) == samples(f"{far}/{STEM}") == samples(second)
        assert len(manifest_of(near).shards) == len(manifest_of(second).shards)
        assert not stray(near)


def test_a_dataset_that_is_written_to_gets_no_index_meanwhile(second: Path) -> None:
    lock = FolderLock(str(second.parent / names.work_name(STEM)))
    try:
        with pytest.raises(BusyError):
            shardkit.index_shards(second, overwrite=True)
    finally:
        lock.release()
    manifest = shardkit.index_shards(second, overwrite=True)
    assert manifest.samples == 12
    assert not stray(second)


class Crash(BaseException):
    """Ends a run at a certain point."""


def cut_short(second: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the dataset by one of 4 shards, up to the first that would be moved to its place."""
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        if os.path.dirname(os.fsdecode(target)) == str(second.parent):
            raise Crash
        real(source, target)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(os, "replace", replace)
        shardkit.pack(tree, second, workers=1, max_count=3, overwrite=True)
    assert os.path.exists(decided_path(disk_destination(str(second.parent), STEM)))


def test_an_index_is_made_of_the_dataset_that_a_run_had_decided(
    second: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short(second, tree, monkeypatch)
    manifest = shardkit.index_shards(second, overwrite=True)
    assert len(manifest.shards) == 4
    assert not stray(second)
    assert shardkit.verify(second).sound


def test_what_a_run_had_decided_is_finished_before_an_index_is_refused(
    second: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short(second, tree, monkeypatch)
    with pytest.raises(DestinationError, match="a manifest already exists"):
        shardkit.index_shards(second)
    assert generation_of(second) == GENERATION + 1
    assert not stray(second)


@pytest.mark.parametrize("call", ["replace", "unlink", "fsync"])
def test_a_repair_that_ends_at_any_call_loses_neither_dataset(
    call: str, second: Path, tmp_path: Path, draw_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(os, call)
    expected = samples(second)
    number, whole = 0, False
    while not whole:
        dest = tmp_path / f"dest{number}" / STEM
        shardkit.write(({"__key__": str(n), "jpg": draw_image(), "cls": 0} for n in range(3)), dest, classes=["a"])
        made = 0

        def counted(*args: Any, **options: Any) -> Any:
            nonlocal made
            made += 1
            if made > number:  # noqa: B023
                raise Crash
            return real(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, counted)
            try:
                shardkit.repair(second, dest, overwrite=True)
                whole = True
            except Crash:
                pass
        assert len(samples(dest)) in (3, 12)
        with disk_destination(str(dest.parent), STEM).locked():
            pass  # finishes what was decided
        assert len(samples(dest)) in (3, 12)
        if len(samples(dest)) == 3:
            shardkit.repair(second, dest, overwrite=True)
        assert samples(dest) == expected
        assert not stray(dest), number
        number += 1
    assert number > 1
