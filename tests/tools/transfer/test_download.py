"""`download`: a dataset of a bucket or web server, whole and checked, or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from generations import is_generation
from leftovers import part_of_dead
from storage.in_memory import files, refused

import shardkit
from shardkit.errors import (
    BusyError,
    DamagedError,
    DestinationError,
    ManifestError,
    NotFoundError,
    ShardkitError,
    StorageError,
    UsageError,
)
from shardkit.events import Progress
from shardkit.storage import transfer
from shardkit.storage.files import FolderLock
from shardkit.storage.parts import part_of
from shardkit.storage.stores import memory

pytestmark = pytest.mark.usefixtures("no_objects")


@pytest.fixture
def packed(tree: Path, tmp_path: Path) -> Path:
    """The folder of a dataset of 4 shards, which is at memory://b/train too."""
    shardkit.pack(tree, tmp_path / "shards" / "train", max_count=3, workers=1)
    shardkit.upload(tmp_path / "shards" / "train", "memory://b/train")
    return tmp_path / "shards"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("source", "dest"),
    [
        ("memory://b/train", "out/train"),
        ("memory://b/train.json", "out/"),
        ("memory://b/", "out/train"),
        ("memory://b", "out/"),
    ],
)
def test_the_same_bytes_come_here(
    source: str, dest: str, packed: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(out.parent)
    (one,) = shardkit.download(source, dest).datasets
    assert files(out) == files(packed)
    assert sorted(path.name for path in out.iterdir()) == sorted(files(packed))
    assert (one.dataset, one.samples, one.shards, one.sent, one.kept) == ("out/train.json", 12, 4, 5, 0)
    assert shardkit.verify(out / "train").sound


def test_all_datasets_of_a_folder_come(splits: Path, tmp_path: Path) -> None:
    shardkit.pack(splits, tmp_path / "shards", workers=1)
    shardkit.upload(tmp_path / "shards", "memory://b/cars/")
    memory._OBJECTS["b/cars/notes.json"] = b"{}"
    shardkit.download("memory://b/cars", tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "shards")


def test_hidden_objects_and_copies_under_other_names_are_no_datasets(packed: Path, out: Path) -> None:
    for name in (".train.json", "train.json.bak"):
        memory._OBJECTS[f"b/{name}"] = memory._OBJECTS["b/train.json"]
    (one,) = shardkit.download("memory://b/", f"{out}/").datasets
    assert one.dataset == str(out / "train.json")
    assert files(out) == files(packed)


def test_large_objects_come_in_ranges(packed: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "RANGE_BYTES", 1000)
    asked: list[tuple[int, int | None]] = []
    pieces = memory.MemoryStore.pieces

    def asking(self: Any, name: str, start: int = 0, end: int | None = None) -> Any:
        if name.endswith(".tar"):
            asked.append((start, end))
        return pieces(self, name, start, end)

    monkeypatch.setattr(memory.MemoryStore, "pieces", asking)
    shardkit.download("memory://b/train", out / "train")
    assert files(out) == files(packed)
    assert max(end - start for start, end in asked if end is not None) == 1000
    assert len(asked) > 20


def test_what_is_here_and_whole_is_not_fetched_again(packed: Path, out: Path) -> None:
    shardkit.download("memory://b/train", out / "train")
    (one,) = shardkit.download("memory://b/train", out / "train").datasets
    assert (one.sent, one.kept) == (0, 5)
    (out / "train.json").unlink()
    (out / "train-000001.tar").unlink()
    inode = (out / "train-000000.tar").stat().st_ino
    (one,) = shardkit.download("memory://b/train", out / "train").datasets
    assert (one.sent, one.kept) == (1, 4)
    assert (out / "train-000000.tar").stat().st_ino == inode
    assert files(out) == files(packed)


def test_a_file_of_others_is_in_the_way(packed: Path, out: Path) -> None:
    out.mkdir()
    (out / "train-000001.tar").write_bytes(b"x" * (packed / "train-000001.tar").stat().st_size)
    text = refused(DestinationError, lambda: shardkit.download("memory://b/train", out / "train"))
    assert text.startswith(f"{out}/train-000001.tar: this file already exists, belongs to no manifest")
    assert [path.name for path in out.iterdir()] == ["train-000001.tar"]
    shardkit.download("memory://b/train", out / "train", overwrite=True)
    assert files(out) == files(packed)


def test_another_dataset_is_replaced_only_when_asked(packed: Path, tree: Path, out: Path) -> None:
    shardkit.pack(tree, out / "train", max_count=1, workers=1)
    before = files(out)
    assert "another dataset is there" in refused(
        DestinationError, lambda: shardkit.download("memory://b/train", out / "train")
    )
    assert files(out) == before
    shardkit.download("memory://b/train", out / "train", overwrite=True)
    assert is_generation(files(out), files(packed), "train", 2)
    assert shardkit.verify(out / "train").sound


def test_a_shard_whose_bytes_are_wrong_there_is_an_error_and_does_not_come(packed: Path, out: Path) -> None:
    data = bytearray(memory._OBJECTS["b/train-000002.tar"])
    data[600] ^= 1
    memory._OBJECTS["b/train-000002.tar"] = bytes(data)
    text = refused(DamagedError, lambda: shardkit.download("memory://b/train", out / "train"))
    assert text.startswith("memory://b/train-000002.tar: its CRC-32C is ")
    assert not {"train-000002.tar", "train.json"} & set(files(out))


def test_a_shard_that_is_missing_there_is_an_error(packed: Path, out: Path) -> None:
    del memory._OBJECTS["b/train-000003.tar"]
    text = refused(NotFoundError, lambda: shardkit.download("memory://b/train", out / "train"))
    assert text.startswith("memory://b/train-000003.tar: ")
    assert "train.json" not in files(out)


@pytest.mark.parametrize("fault", ["refused", "reset", "short", "corrupt"])
def test_a_store_that_fails_now_and_then_gives_it_all_the_same(fault: str, packed: Path, out: Path) -> None:
    told: list[Progress] = []
    shardkit.download(
        "faulty+memory://b/train", out / "train", storage_options={fault: 0.25, "seed": 3}, progress=told.append
    )
    assert files(out) == files(packed)
    assert told[-1].bytes_done == told[-1].bytes_total == sum(
        len(data) for name, data in files(packed).items() if name != "train.json"
    )  # fmt: skip


def test_a_store_that_never_answers_is_an_error(packed: Path, out: Path) -> None:
    options = {"refused": 1}
    text = refused(
        StorageError, lambda: shardkit.download("faulty+memory://b/train", out / "train", storage_options=options)
    )
    assert "503" in text


def test_what_a_killed_run_left_half_written_is_removed(packed: Path, out: Path) -> None:
    out.mkdir()
    (out / part_of_dead("train-000000.tar")).write_bytes(b"half")
    (out / part_of_dead("train.json")).write_bytes(b"half")
    live = os.fsdecode(part_of("other.tar"))
    (out / live).write_bytes(b"of a process that lives")
    (out / "other.tar.part").write_bytes(b"a user's")
    shardkit.download("memory://b/train", out / "train")
    assert sorted(set(files(out)) - set(files(packed))) == sorted([live, "other.tar.part"])


def test_a_full_disk_is_an_error_and_the_next_run_goes_on(
    packed: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    real = os.fsync

    def full(fd: int) -> None:
        if len(list(out.glob("*.tar"))) >= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        text = refused(StorageError, lambda: shardkit.download("memory://b/train", out / "train", workers=1))
    assert "No space left on device; free some space and run the same command again: finished work is kept" in text
    assert not list(out.glob("*.part"))
    assert "train.json" not in files(out)
    (one,) = shardkit.download("memory://b/train", out / "train").datasets
    assert one.kept == 2
    assert files(out) == files(packed)


def test_two_runs_do_not_write_to_one_place(packed: Path, out: Path) -> None:
    lock = FolderLock(str(out / ".train.packing"))
    refused(BusyError, lambda: shardkit.download("memory://b/train", out / "train"))
    lock.release()
    shardkit.download("memory://b/train", out / "train")
    assert files(out) == files(packed)


def test_wrong_arguments_are_told(packed: Path, out: Path) -> None:
    def error(kind: type[ShardkitError], source: str, dest: str | Path = out / "train") -> str:
        return refused(kind, lambda: shardkit.download(source, dest))

    assert "the source is already on this machine" in error(UsageError, str(packed / "train"))
    assert "the destination of a download is on this machine" in error(UsageError, "memory://b/train", "memory://c/x")
    assert "the source is a pattern" in error(UsageError, "memory://b/train-*.tar")
    assert "there is no dataset" in error(NotFoundError, "memory://b/nothing")
    assert "there is no dataset" in error(NotFoundError, "memory://nothing/")
    assert "the dataset is called 'train'" in error(UsageError, "memory://b/train", out / "cats")
    memory._OBJECTS["b/train.json"] = b"{}"
    error(ManifestError, "memory://b/train")
    assert not out.exists()


def test_a_web_server_gives_a_dataset(packed: Path, out: Path, http_folder: Any) -> None:
    for name, data in files(packed).items():
        (http_folder.folder / name).write_bytes(data)
    shardkit.download(f"{http_folder.url}/train", out / "train", storage_options=http_folder.options)
    assert files(out) == files(packed)


def test_an_s3_server_gives_what_it_got(packed: Path, out: Path, s3_server: Any) -> None:
    (one,) = shardkit.upload(packed, f"{s3_server.url}/x/train", storage_options=s3_server.options).datasets
    assert (one.sent, one.kept) == (5, 0)
    (one,) = shardkit.upload(packed, f"{s3_server.url}/x/train", storage_options=s3_server.options).datasets
    assert (one.sent, one.kept) == (0, 5)
    shardkit.download(f"{s3_server.url}/x/", out / "train", storage_options=s3_server.options)
    assert files(out) == files(packed)
