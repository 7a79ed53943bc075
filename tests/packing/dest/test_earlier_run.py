"""Run again: what is whole is kept, what was cut short goes on, and what changed is written again."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from generations import is_generation

import shardkit
from shardkit import Manifest
from shardkit.errors import BadFileError, DestinationError, NotFoundError, ShardkitError, SourceError, StorageError
from shardkit.packing import pack
from shardkit.packing.engine import engine as engines
from shardkit.packing.plan.content import plan_source
from shardkit.packing.settings import PackSettings
from shardkit.packing.write.task import ShardTask
from shardkit.shards import names
from shardkit.shards.manifest import file_names
from shardkit.sources.source import scan_tree

Pack = Callable[..., Manifest]


class Crash(BaseException):
    """Ends a run at a certain point; nobody catches it, as nobody catches the end of a process."""


@contextmanager
def crash_at(monkeypatch: pytest.MonkeyPatch, call: str, number: int, exc: BaseException) -> Iterator[list[int]]:
    """The call `os.<call>` with this number (from 0) raises `exc`, and all after it. Counts the calls."""
    real, made = getattr(os, call), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        made[0] += 1
        if made[0] > number:
            raise exc
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, counted)
        yield made


def identity(folder: Path) -> dict[str, tuple[int, int]]:
    """Name -> (inode, time of change) of every file: the same only where nothing was written."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


OPTIONS: dict[str, Any] = {"max_count": 3}


@pytest.fixture
def undisturbed(tree: Path, tmp_path: Path, pack_one: Pack, content_of: Any) -> dict[str, bytes]:
    """The files of a packing that nothing interrupted: 4 shards of 3 images, index, manifest."""
    pack_one(tree, tmp_path / "undisturbed" / "train", **OPTIONS)
    content: dict[str, bytes] = content_of(tmp_path / "undisturbed")
    assert len(content) == 6
    return content


# ---- a run that was finished


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_is_written_where_all_is_there(
    workers: int, tree: Path, out: Path, pack_one: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = pack_one(tree, out / "train", **OPTIONS)
    before = identity(out)
    with caplog.at_level(logging.INFO, "shardkit"):
        assert pack_one(tree, out / "train", **OPTIONS, workers=workers) == manifest
    assert identity(out) == before
    assert f"{out}/train.json: already packed and complete; nothing was written" in caplog.text


@pytest.mark.parametrize("name", ["train-000002.tar", "train.parquet"])
@pytest.mark.parametrize("how", ["is missing", "is cut"])
def test_a_dataset_with_a_missing_or_cut_file_is_not_taken_for_whole(
    name: str, how: str, tree: Path, out: Path, pack_one: Pack, undisturbed: dict[str, bytes], content_of: Any
) -> None:
    pack_one(tree, out / "train", **OPTIONS)
    (out / name).unlink() if how == "is missing" else os.truncate(out / name, 100)
    with pytest.raises(DestinationError, match=f"names {name}, which is missing or has another size; pack again with"):
        pack_one(tree, out / "train", **OPTIONS)
    pack_one(tree, out / "train", **OPTIONS, overwrite=True)
    assert is_generation(content_of(out), undisturbed, "train", 2)


def test_a_file_that_was_replaced_by_one_of_the_same_size_makes_the_dataset_out_of_date(
    tree: Path, out: Path, pack_one: Pack
) -> None:
    pack_one(tree, out / "train", **OPTIONS)
    path = tree / "red" / "0004.jpg"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    os.utime(out / "train.json", ns=(10**18, 10**18))
    path.write_bytes(data)
    with pytest.raises(
        DestinationError, match=r"out of date: the source's red/0004.jpg is not what was packed; replac"
    ):
        pack_one(tree, out / "train", **OPTIONS)
    assert pack_one(tree, out / "train", **OPTIONS, overwrite=True).samples == 12
    pack_one(tree, out / "train", **OPTIONS)


def test_another_tree_with_the_same_names_and_sizes_is_not_taken_for_the_packed_one(
    tmp_path: Path, out: Path, pack_one: Pack, draw_image: Any
) -> None:
    for name, seed in (("a", 0), ("b", 100)):
        for number in range(5):
            path = tmp_path / name / "cat" / f"{number}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(draw_image(seed + number, format="BMP"))
    pack_one(tmp_path / "a", out / "train")
    with pytest.raises(DestinationError, match=r"out of date: the source's cat/.*.bmp is not what was packed"):
        pack_one(tmp_path / "b", out / "train")
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    assert pack_one(tmp_path / "c", out / "train").samples == 5


def test_files_that_were_only_touched_are_still_what_was_packed(tree: Path, out: Path, pack_one: Pack) -> None:
    (tree / "red" / "bad.jpg").write_bytes(b"")
    manifest = pack_one(tree, out / "train", **OPTIONS, on_error="skip")
    before = identity(out)
    for path in tree.rglob("*.jpg"):
        if path.name != "bad.jpg":
            path.touch()
    assert pack_one(tree, out / "train", **OPTIONS, on_error="skip") == manifest
    assert identity(out) == before


def test_a_file_that_was_left_out_and_mended_makes_the_dataset_out_of_date(
    tree: Path, out: Path, pack_one: Pack, draw_image: Any
) -> None:
    good = draw_image(77)
    (tree / "red" / "bad.jpg").write_bytes(bytes(len(good)))
    pack_one(tree, out / "train", **OPTIONS, on_error="skip")
    os.utime(out / "train.json", ns=(10**18, 10**18))
    (tree / "red" / "bad.jpg").write_bytes(good)
    with pytest.raises(DestinationError, match=r"out of date: the source's red/bad.jpg"):
        pack_one(tree, out / "train", **OPTIONS, on_error="skip")


def test_a_file_that_vanishes_before_it_is_compared_is_told(
    tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_one(tree, out / "train", **OPTIONS)
    real = pack.find_finished

    def finished(*args: Any) -> Any:
        (tree / "red" / "0004.jpg").unlink()
        return real(*args)

    monkeypatch.setattr(pack, "find_finished", finished)
    with pytest.raises(SourceError, match=r"red/0004.jpg: can't be read \(No such file or directory\); run again when"):
        pack_one(tree, out / "train", **OPTIONS)


def test_a_damaged_index_is_told(tree: Path, out: Path, pack_one: Pack) -> None:
    pack_one(tree, out / "train", **OPTIONS)
    path = out / "train.parquet"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(
        DestinationError, match=r"train.parquet: the index is not the one .*; pack again with `overwrite=True`"
    ):
        pack_one(tree, out / "train", **OPTIONS)


# ---- a run that was interrupted while it wrote the shards


def interrupted_after(
    shards: int, tree: Path, dest: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> dict[str, int]:
    """Packs until some shards are finished; name -> inode of those."""
    real, written = engines.run_here, [0]

    def engine(tasks: Any, advance: Any) -> Iterator[Any]:
        for receipt in real(tasks, advance):
            written[0] += 1
            yield receipt
            if written[0] == shards:
                raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(engines, "run_here", engine)
        with pytest.raises(Crash):
            pack_one(tree, dest, **OPTIONS | options)
    work = dest.parent / f".{dest.name}.packing"
    return {path.name: path.stat().st_ino for path in work.glob("*.tar")}


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("workers", [1, 2])
def test_finished_shards_are_kept_and_the_bytes_are_those_of_an_undisturbed_run(
    shards: int, workers: int, tree: Path, out: Path, pack_one: Pack, content_of: Any, monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, bytes],
) -> None:  # fmt: skip
    finished = interrupted_after(shards, tree, out / "train", pack_one, monkeypatch)
    assert len(finished) == shards
    assert [path.name for path in out.iterdir()] == [".train.packing"]
    told: list[shardkit.Progress] = []
    pack_one(tree, out / "train", **OPTIONS, workers=workers, progress=told.append)
    assert content_of(out) == undisturbed
    assert finished.items() <= {path.name: path.stat().st_ino for path in out.glob("*.tar")}.items()
    assert (told[-1].done, told[-1].total) == (12, 12)


def test_a_shard_of_an_interrupted_run_is_not_kept_if_one_of_its_files_was_replaced(
    tree: Path, out: Path, pack_one: Pack, samples_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_after(4, tree, out / "train", pack_one, monkeypatch)
    path = tree / "blue" / "0002.jpg"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    new = tree.parent / "new.jpg"
    new.write_bytes(data)
    os.utime(new, (1, 1))
    new.replace(path)  # with an old time
    pack_one(tree, out / "train", **OPTIONS)
    assert samples_of(out)["blue/0002.jpg"] == data


def test_a_shard_of_another_tree_with_the_same_names_and_sizes_is_not_kept(
    tmp_path: Path, out: Path, pack_one: Pack, draw_image: Any, samples_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seed in (("b", 100), ("a", 0)):
        for number in range(12):
            path = tmp_path / name / "cat" / f"{number}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(draw_image(seed + number, format="BMP"))
    interrupted_after(3, tmp_path / "a", out / "train", pack_one, monkeypatch)
    pack_one(tmp_path / "b", out / "train", **OPTIONS)
    assert samples_of(out)["cat/3.bmp"] == draw_image(103, format="BMP")


@pytest.mark.parametrize("ending", [".receipt", ".rows", ""])
@pytest.mark.parametrize("damage", [b"", b"\0" * 500, None])
def test_a_shard_whose_files_are_damaged_or_missing_is_written_again(
    ending: str, damage: bytes | None, tree: Path, out: Path, pack_one: Pack, content_of: Any,
    monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, bytes],
) -> None:  # fmt: skip
    interrupted_after(3, tree, out / "train", pack_one, monkeypatch)
    path = out / ".train.packing" / f"train-000001.tar{ending}"
    path.unlink() if damage is None else path.write_bytes(damage)
    pack_one(tree, out / "train", **OPTIONS)
    assert content_of(out) == undisturbed


@pytest.mark.parametrize("options", [{"seed": 5}, {"max_count": 5}, {"max_count": 12}, {"shuffle": False}])
def test_what_an_interrupted_run_left_for_another_plan_is_replaced(
    options: dict[str, Any], tree: Path, out: Path, tmp_path: Path, pack_one: Pack, content_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    interrupted_after(4, tree, out / "train", pack_one, monkeypatch)
    pack_one(tree, out / "train", **OPTIONS | options)
    pack_one(tree, tmp_path / "new" / "train", **OPTIONS | options)
    assert content_of(out) == content_of(tmp_path / "new")


def test_shards_that_no_plan_wants_any_more_make_room_before_the_new_ones_are_written(
    tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_after(4, tree, out / "train", pack_one, monkeypatch)
    interrupted_after(1, tree, out / "train", pack_one, monkeypatch, max_count=6)
    names = {path.name for path in (out / ".train.packing").iterdir()}
    assert "train-000001.tar" in names
    assert not names & {"train-000002.tar", "train-000003.tar", "train-000003.tar.rows", "train-000003.tar.receipt"}


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ({"on_error": "stop"}, {"on_error": "skip"}, True),
        ({"check": "full"}, {"check": "header"}, True),
        ({"check": "header"}, {"check": "none"}, True),
        ({"check": "header"}, {"check": "full"}, False),
        ({"check": "none"}, {"check": "header"}, False),
        ({"on_error": "skip"}, {"on_error": "stop"}, True),
    ],
)
def test_a_shard_is_kept_where_the_new_options_would_write_the_same(
    before: dict[str, Any], after: dict[str, Any], kept: bool, tree: Path, out: Path, tmp_path: Path, pack_one: Pack,
    content_of: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    finished = interrupted_after(4, tree, out / "train", pack_one, monkeypatch, **before)
    pack_one(tree, out / "train", **OPTIONS, **after)
    now = {path.name: path.stat().st_ino for path in out.glob("*.tar")}
    assert (finished == now) is kept
    pack_one(tree, tmp_path / "new" / "train", **OPTIONS, **after)
    assert content_of(out) == content_of(tmp_path / "new")


def test_a_run_that_stopped_at_a_bad_file_goes_on_when_it_may_be_skipped(
    tree: Path, out: Path, tmp_path: Path, pack_one: Pack, content_of: Any
) -> None:
    (tree / "red" / "0005.jpg").write_bytes(b"<html>")
    with pytest.raises(BadFileError):
        pack_one(tree, out / "train", **OPTIONS, shuffle=False)
    finished = {path.name: path.stat().st_ino for path in (out / ".train.packing").glob("*.tar")}
    assert len(finished) == 3
    manifest = pack_one(tree, out / "train", **OPTIONS, shuffle=False, on_error="skip")
    assert (manifest.samples, manifest.skipped) == (11, 1)
    assert finished.items() <= {path.name: path.stat().st_ino for path in out.glob("*.tar")}.items()
    pack_one(tree, tmp_path / "new" / "train", **OPTIONS, shuffle=False, on_error="skip")
    assert content_of(out) == content_of(tmp_path / "new")


@pytest.mark.parametrize(
    ("before", "after"), [({"on_error": "skip"}, {}), ({"on_error": "skip", "check": "full"}, {"on_error": "skip"})]
)
def test_a_shard_that_lacks_a_file_which_the_new_options_want_is_not_kept(
    before: dict[str, Any], after: dict[str, Any], tree: Path, out: Path, tmp_path: Path, pack_one: Pack,
    draw_image: Any, content_of: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    data = bytearray(draw_image(size=(200, 200)))
    data[len(data) // 2 : len(data) // 2 + 300] = b"\xff\xc4" * 150  # the header is good, the pixels are not
    (tree / "red" / "0005.jpg").write_bytes(data if "check" in before else b"<html>")
    interrupted_after(4, tree, out / "train", pack_one, monkeypatch, **before)
    if "check" not in before:
        with pytest.raises(BadFileError, match=r"red/0005.jpg: HTML, not an image"):
            pack_one(tree, out / "train", **OPTIONS, **after)
        return
    assert pack_one(tree, out / "train", **OPTIONS, **after).samples == 12
    pack_one(tree, tmp_path / "new" / "train", **OPTIONS, **after)
    assert content_of(out) == content_of(tmp_path / "new")


def test_a_layout_of_another_version_is_not_kept(
    tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = interrupted_after(4, tree, out / "train", pack_one, monkeypatch)
    monkeypatch.setattr("shardkit.packing.plan.content.LAYOUT", 2)
    pack_one(tree, out / "train", **OPTIONS)
    assert not finished.items() & {path.name: path.stat().st_ino for path in out.glob("*.tar")}.items()


# ---- a run that was interrupted at any call, the commit's included


def replaces(tree: Path, dest: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch, **options: Any) -> int:
    """How many times a run calls os.replace."""
    with crash_at(monkeypatch, "replace", 10**6, Crash()) as made:
        pack_one(tree, dest, **OPTIONS | options)
    return made[0]


def assert_absent_or_whole(out: Path, undisturbed: dict[str, bytes], content_of: Any) -> None:
    """No manifest, or all that it names."""
    content = content_of(out)
    if "train.json" in content:
        assert {name: data for name, data in content.items() if not name.startswith(".")} == undisturbed
    assert not [name for name in content if name.endswith(".part")]


@pytest.mark.parametrize("exc", [Crash(), OSError(errno.EIO, "Input/output error")], ids=["a crash", "an error"])
def test_a_run_that_ends_at_any_rename_is_finished_by_the_next(
    exc: BaseException, tree: Path, tmp_path: Path, pack_one: Pack, content_of: Any, monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, bytes],
) -> None:  # fmt: skip
    calls = replaces(tree, tmp_path / "counted" / "train", pack_one, monkeypatch)
    assert calls == 4 * 3 + 2 + 4 + 1 + 1  # shards, rows, receipts; index, manifest; then each to its place
    for number in range(calls):
        out = tmp_path / f"out{number}"
        kind = Crash if isinstance(exc, Crash) else StorageError
        with crash_at(monkeypatch, "replace", number, exc), pytest.raises(kind):
            pack_one(tree, out / "train", **OPTIONS)
        assert_absent_or_whole(out, undisturbed, content_of)
        assert not (out / "train.json").exists()
        pack_one(tree, out / "train", **OPTIONS)
        assert content_of(out) == undisturbed, number


@pytest.mark.parametrize("call", ["unlink", "rmdir", "fsync", "open"])
def test_a_run_that_ends_at_any_other_call_is_finished_by_the_next(
    call: str, tree: Path, tmp_path: Path, pack_one: Pack, content_of: Any, monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, bytes],
) -> None:  # fmt: skip
    with crash_at(monkeypatch, call, 10**6, Crash()) as made:
        pack_one(tree, tmp_path / "counted" / "train", **OPTIONS)
    assert made[0] > 0
    for number in range(made[0]):
        out = tmp_path / f"out{number}"
        with crash_at(monkeypatch, call, number, Crash()), pytest.raises(Crash):
            pack_one(tree, out / "train", **OPTIONS)
        assert_absent_or_whole(out, undisturbed, content_of) if call != "unlink" else None
        pack_one(tree, out / "train", **OPTIONS)
        assert content_of(out) == undisturbed, number


def test_an_overwrite_that_ends_at_any_rename_removal_or_flush_is_finished_by_the_next(
    tree: Path, tmp_path: Path, pack_one: Pack, content_of: Any, monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, bytes],
) -> None:  # fmt: skip
    pack_one(tree, tmp_path / "old" / "train", max_count=1)
    old = content_of(tmp_path / "old")
    for call in ("replace", "unlink", "fsync"):
        shutil.copytree(tmp_path / "old", tmp_path / f"counted {call}")
        with crash_at(monkeypatch, call, 10**6, Crash()) as made:
            pack_one(tree, tmp_path / f"counted {call}" / "train", **OPTIONS, overwrite=True)
        for number in range(made[0]):
            out = tmp_path / f"{call}{number}"
            shutil.copytree(tmp_path / "old", out)
            with crash_at(monkeypatch, call, number, Crash()), pytest.raises(Crash):
                pack_one(tree, out / "train", **OPTIONS, overwrite=True)
            left = content_of(out)
            swapped = left["train.json"] != old["train.json"]
            assert shardkit.verify(out / "train").samples == 12, (call, number)
            assert old.items() <= left.items() if not swapped else True
            assert len(list(shardkit.dataset(out / "train-*.tar"))) == 12, (call, number)
            decided = ".train.packing/train.json" in left
            pack_one(tree, out / "train", **OPTIONS, overwrite=not swapped and not decided)
            assert is_generation(content_of(out), undisturbed, "train", 2), (call, number)


@pytest.mark.parametrize("call", ["replace", "unlink", "fsync"])
def test_a_writer_that_ends_while_it_replaces_a_dataset_loses_neither(
    call: str, tmp_path: Path, content_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(out: Path, count: int, **options: Any) -> None:
        samples = ({"__key__": str(number), "txt": "x", "cls": 0} for number in range(count))
        shardkit.write(samples, out / "train", max_count=2, classes=["a"], **options)

    write(tmp_path / "counted", 6)
    with crash_at(monkeypatch, call, 10**6, Crash()) as made:
        write(tmp_path / "counted", 4, overwrite=True)
    whole = content_of(tmp_path / "counted")
    for error in (Crash(), OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()):
        for number in range(made[0]):
            out = tmp_path / f"{type(error).__name__}{number}"
            write(out, 6)
            old = content_of(out)
            with (
                crash_at(monkeypatch, call, number, error),
                pytest.raises((Crash, StorageError, OSError, KeyboardInterrupt)),
            ):
                write(out, 4, overwrite=True)
                raise error  # where nobody minds that a file of the old dataset could not be removed
            left = content_of(out)
            assert len(list(shardkit.dataset(out / "train"))) in (4, 6)
            decided = ".train.packing/train.json" in left or left["train.json"] != old["train.json"]
            with pytest.raises(DestinationError, match="a dataset is already there"):
                write(out, 4)
            assert content_of(out) == (whole if decided else old), (call, number, error)


def test_a_reader_that_looks_all_the_time_finds_the_old_or_the_new_dataset(
    tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_one(tree, out / "train", max_count=1)
    seen = []

    def look(real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            done = real(*args, **options)
            if str(out) in os.fsdecode(args[0]):
                seen.append(sum(1 for _ in shardkit.dataset(out / "train", threads=1)))
            return done

        return call

    for name in ("replace", "unlink"):
        monkeypatch.setattr(os, name, look(getattr(os, name)))
    pack_one(tree, out / "train", **OPTIONS, overwrite=True)
    assert len(seen) > 12
    assert set(seen) == {12}


def test_the_list_of_what_was_left_out_is_of_the_generation_too(
    tree: Path, out: Path, pack_one: Pack, content_of: Any
) -> None:
    (tree / "red" / "bad.jpg").write_bytes(b"")
    pack_one(tree, out / "train", **OPTIONS, on_error="skip")
    first = content_of(out)
    pack_one(tree, out / "train", **OPTIONS, on_error="skip", overwrite=True)
    assert is_generation(content_of(out), first, "train", 2)
    assert shardkit.verify(out / "train").sound


def test_a_dataset_is_added_to_in_its_generation(tree: Path, out: Path, pack_one: Pack, draw_image: Any) -> None:
    pack_one(tree, out / "train", **OPTIONS)
    pack_one(tree, out / "train", **OPTIONS, overwrite=True)
    (tree / "red" / "new.jpg").write_bytes(draw_image(77))
    manifest = pack_one(tree, out / "train", **OPTIONS, append=True)
    assert manifest.samples == 13
    assert {names.file_generation(name, "train") for name in file_names(manifest)} == {2}
    assert shardkit.verify(out / "train").sound
    third = pack_one(tree, out / "train", **OPTIONS, overwrite=True)
    assert {path.name for path in out.iterdir()} == {*file_names(third), "train.json"}
    assert {names.file_generation(name, "train") for name in file_names(third)} == {3}


def test_a_dataset_whose_name_is_that_of_a_generation_keeps_its_files(
    tree: Path, out: Path, pack_one: Pack, content_of: Any
) -> None:
    pack_one(tree, out / "train-g2", **OPTIONS)
    theirs = content_of(out)
    pack_one(tree, out / "train", **OPTIONS)
    manifest = pack_one(tree, out / "train", **OPTIONS, overwrite=True)
    assert {names.file_generation(name, "train") for name in file_names(manifest)} == {3}
    assert theirs.items() <= content_of(out).items()
    with pytest.raises(DestinationError, match="have names that begin in the same way"):
        pack_one(tree, out / "train-g3", **OPTIONS, overwrite=True)


def test_a_commit_that_was_decided_is_finished_whatever_the_next_run_is_about(
    tree: Path, out: Path, pack_one: Pack, content_of: Any, monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, bytes],
) -> None:  # fmt: skip
    with crash_at(monkeypatch, "replace", 16, Crash()), pytest.raises(Crash):
        pack_one(tree, out / "train", **OPTIONS)
    with pytest.raises(DestinationError, match="another dataset is there, packed with the option seed 0, not 9"):
        pack_one(tree, out / "train", **OPTIONS, seed=9)
    assert content_of(out) == undisturbed


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_commit_that_an_older_version_began_is_finished(
    overwrite: bool, tree: Path, tmp_path: Path, pack_one: Pack, content_of: Any, undisturbed: dict[str, bytes]
) -> None:
    """It moved files of the same names over those of the dataset that it replaced, whose manifest it took away first:
    that of the new dataset waits in the work folder, and the old one beside it."""
    pack_one(tree, tmp_path / "old" / "train", max_count=4, seed=9)
    old = content_of(tmp_path / "old")
    moved = sorted(undisturbed.keys() - {names.manifest_name("train")})
    for count in range(len(moved) + 1):
        out = tmp_path / f"out{count}"
        work = out / names.work_name("train")
        work.mkdir(parents=True)
        files = {work / names.LOCK: b""}
        if overwrite:
            files |= {out / name: data for name, data in old.items() if name != names.manifest_name("train")}
            files[work / names.REPLACED] = old[names.manifest_name("train")]
        files |= {out / name: undisturbed[name] for name in moved[:count]}
        files |= {work / name: undisturbed[name] for name in (*moved[count:], names.manifest_name("train"))}
        for path, data in files.items():
            path.write_bytes(data)
        with pytest.raises(NotFoundError):
            len(shardkit.dataset(out / "train"))
        pack_one(tree, out / "train", **OPTIONS)
        assert content_of(out) == undisturbed, count


def test_a_shard_that_was_lost_before_the_commit_ended_is_told(
    tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with crash_at(monkeypatch, "replace", 15, Crash()), pytest.raises(Crash):
        pack_one(tree, out / "train", **OPTIONS)
    lost = out / ".train.packing" / "train-000003.tar"
    size = lost.stat().st_size
    lost.unlink()
    with pytest.raises(StorageError) as raised:
        pack_one(tree, out / "train", **OPTIONS)
    assert str(raised.value) == (
        f"{out}/train-000003.tar: it was written with {size} bytes but is now missing or has another size; "
        f"remove {out}/.train.packing and pack again with `overwrite=True`"
    )
    assert not (out / "train.json").exists()


def test_what_is_left_of_a_commit_that_was_cut_at_its_end_is_removed(
    tree: Path, out: Path, pack_one: Pack, content_of: Any, monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, bytes],
) -> None:  # fmt: skip
    with crash_at(monkeypatch, "unlink", 0, Crash()), pytest.raises(Crash):  # the first thing that is removed
        pack_one(tree, out / "train", **OPTIONS)
    assert "train-000000.tar.receipt" in {path.name for path in (out / ".train.packing").iterdir()}
    before = {path.name: path.stat().st_ino for path in out.iterdir() if path.is_file()}
    pack_one(tree, out / "train", **OPTIONS)
    assert content_of(out) == undisturbed
    assert {path.name: path.stat().st_ino for path in out.iterdir()} == before


def test_a_failing_run_leaves_no_folder_that_it_made(tree: Path, tmp_path: Path, pack_one: Pack) -> None:
    (tree / "red" / "bad.jpg").write_bytes(b"")
    for dest in ("a/b/c/train", "train"):
        with pytest.raises(ShardkitError):
            pack_one(tree, tmp_path / dest)
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_the_task_of_a_shard_is_the_same_for_the_same_source_only(tree: Path, tmp_path: Path) -> None:
    def digests(source: Path) -> list[str]:
        tasks: list[ShardTask] = []
        options = pack.make_options(PackSettings(
            max_bytes="1MB", workers=1, ext=None, format="tar", max_count=3, shuffle=True, seed=0, check="header",
            on_error="stop", overwrite=False,
        ))  # fmt: skip
        tasks += plan_source(scan_tree(source), "train", options).tasks("work", options)
        return [task.digest for task in tasks]

    (tmp_path / "link").symlink_to(tree)
    shutil.copytree(tree, tmp_path / "copy")
    assert digests(tree) == digests(tmp_path / "link")
    assert not set(digests(tree)) & set(digests(tmp_path / "copy"))
    assert len(set(digests(tree))) == 4
