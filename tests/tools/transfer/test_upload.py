"""`upload`: what is sent, in which order, what is kept, what is refused; against a store in memory."""

from __future__ import annotations

import inspect
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event, Timer
from typing import Any, BinaryIO

import click
import pytest
from generations import is_generation
from storage.in_memory import files, objects, refused

import shardkit
from shardkit.cli.main import cli
from shardkit.errors import (
    BusyError,
    DamagedError,
    DestinationError,
    ManifestError,
    NotFoundError,
    StorageError,
    TransientError,
    UsageError,
)
from shardkit.events import Progress
from shardkit.packing.parts.names import WHOLE_LEASE, shared_name
from shardkit.shards import names
from shardkit.shards.manifest import decode_manifest
from shardkit.storage.stores import memory

Objects = Callable[[str], dict[str, bytes]]


pytestmark = pytest.mark.usefixtures("no_objects")


@pytest.fixture
def packed(tree: Path, tmp_path: Path) -> Path:
    """The prefix of a dataset of 4 shards."""
    shardkit.pack(tree, tmp_path / "shards" / "train", max_count=3, workers=1)
    return tmp_path / "shards" / "train"


def test_a_bucket_then_holds_the_same_bytes(packed: Path) -> None:
    result = shardkit.upload(packed, "memory://bucket/train")
    assert objects("bucket") == files(packed.parent)
    (one,) = result.datasets
    assert (one.dataset, one.samples, one.shards) == ("memory://bucket/train.json", 12, 4)
    assert (one.sent, one.kept, one.kept_bytes) == (5, 0, 0)
    assert one.sent_bytes == sum(len(data) for name, data in files(packed.parent).items() if name != "train.json")


def test_of_two_uploads_at_once_one_is_refused(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = memory.MemoryStore.put
    said: list[str] = []

    def meanwhile(self: Any, name: str, *arguments: Any, **options: Any) -> None:
        if name.endswith(".tar") and not said:
            said.append(refused(BusyError, lambda: shardkit.upload(packed, "memory://bucket/train")))
        put(self, name, *arguments, **options)

    monkeypatch.setattr(memory.MemoryStore, "put", meanwhile)
    shardkit.upload(packed, "memory://bucket/train", workers=1)
    assert "another run" in said[0]
    assert objects("bucket") == files(packed.parent)


@pytest.mark.parametrize("source", ["shards/train", "shards/train.json", "shards", "shards/", "shards/train-*.tar"])
@pytest.mark.parametrize(
    ("dest", "at"),
    [("memory://b/train", "b"), ("memory://b", "b"), ("memory://b/", "b"), ("memory://b/x/y/", "b/x/y")],
)
def test_source_and_destination_may_be_said_in_several_ways(
    source: str, dest: str, at: str, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(packed.parent.parent)
    shardkit.upload(source, dest)
    assert objects(at) == files(packed.parent)


def test_a_folder_that_is_there_takes_the_dataset_by_its_name(packed: Path) -> None:
    memory._OBJECTS["b/cars/readme.txt"] = b"hello"
    shardkit.upload(packed, "memory://b/cars")
    assert objects("b/cars") == files(packed.parent) | {"readme.txt": b"hello"}


def test_all_datasets_of_a_folder_are_sent(splits: Path, tmp_path: Path) -> None:
    shardkit.pack(splits, tmp_path / "shards", workers=1)
    (tmp_path / "shards" / "notes.json").write_text("{}")
    result = shardkit.upload(tmp_path / "shards", "memory://b/cars")
    assert [one.dataset for one in result.datasets] == [
        f"memory://b/cars/{split}.json" for split in ("test", "train", "validation")
    ]
    sent = files(tmp_path / "shards")
    del sent["notes.json"]
    assert objects("b/cars") == sent


def test_hidden_files_and_copies_under_other_names_are_no_datasets(packed: Path) -> None:
    sent = files(packed.parent)
    for name in (".train.json", "train.json.bak"):
        (packed.parent / name).write_bytes(sent["train.json"])
    (one,) = shardkit.upload(packed.parent, "memory://b/").datasets
    assert one.dataset == "memory://b/train.json"
    assert objects("b") == sent


def test_another_name_is_refused_with_the_two_ways_out(packed: Path) -> None:
    text = refused(UsageError, lambda: shardkit.upload(packed, "memory://b/cats"))
    assert text == (
        "memory://b/cats: the dataset is called 'train', and its index names its shards; give memory://b/train, or the "
        "folder memory://b/cats/; 'shardkit convert' gives another name"
    )
    assert objects("b") == {}


def recorded(monkeypatch: pytest.MonkeyPatch, act: Callable[[str], None]) -> None:
    """Calls `act` with the name before each put, but those of the lease."""
    put, put_if = memory.MemoryStore.put, memory.MemoryStore.put_if

    def putting(self: Any, name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
        act(name)
        put(self, name, data, crc32c=crc32c)

    def putting_if(self: Any, name: str, data: bytes, **condition: Any) -> str | None:
        if name != shared_name("train", WHOLE_LEASE):
            act(name)
        return put_if(self, name, data, **condition)

    monkeypatch.setattr(memory.MemoryStore, "put", putting)
    monkeypatch.setattr(memory.MemoryStore, "put_if", putting_if)


def test_shards_go_first_the_index_then_and_the_manifest_last(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[str] = []
    recorded(monkeypatch, put.append)
    shardkit.upload(packed, "memory://b/train")
    assert put[0] == names.marker_name("train")
    assert sorted(put[1:5]) == [f"train-00000{n}.tar" for n in range(4)]
    assert put[5:] == ["train.parquet", "train.json"]


def test_what_is_there_is_not_sent_again(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shardkit.upload(packed, "memory://b/train")
    put: list[str] = []
    recorded(monkeypatch, put.append)
    (one,) = shardkit.upload(packed, "memory://b/train").datasets
    assert (one.sent, one.kept, put) == (0, 5, [])
    del memory._OBJECTS["b/train.json"], memory._OBJECTS["b/train-000002.tar"]
    (one,) = shardkit.upload(packed, "memory://b/train").datasets
    assert (one.sent, one.kept) == (1, 4)
    assert put == [names.marker_name("train"), "train-000002.tar", "train.json"]
    assert objects("b") == files(packed.parent)


def test_an_object_of_the_same_size_and_other_bytes_is_not_taken_for_ours(packed: Path) -> None:
    shardkit.upload(packed, "memory://b/train")
    data = memory._OBJECTS["b/train-000001.tar"]
    memory._OBJECTS["b/train-000001.tar"] = data[:600] + bytes([data[600] ^ 1]) + data[601:]
    (one,) = shardkit.upload(packed, "memory://b/train", check="read").datasets
    assert one.sent == 1
    assert objects("b") == files(packed.parent)


def test_a_store_without_checksums_is_read_to_know_what_it_has(packed: Path, tmp_path: Path) -> None:
    shardkit.upload(packed, tmp_path / "copy" / "train")
    assert files(tmp_path / "copy") == files(packed.parent)
    (tmp_path / "copy" / "train.json").unlink()
    damage(tmp_path / "copy" / "train-000000.tar")
    text = refused(DestinationError, lambda: shardkit.upload(packed, tmp_path / "copy" / "train"))
    assert "this file already exists, belongs to no manifest, and does not belong to this dataset" in text
    (one,) = shardkit.upload(packed, tmp_path / "copy" / "train", overwrite=True).datasets
    assert (one.sent, one.kept) == (1, 4)
    assert files(tmp_path / "copy") == files(packed.parent)
    assert [path.name for path in (tmp_path / "copy").iterdir() if path.name.startswith(".")] == []


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[700] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize("check", ["store", "read", "none"])
def test_a_damaged_local_shard_never_arrives(check: Any, packed: Path) -> None:
    damage(packed.parent / "train-000002.tar")
    text = refused(DamagedError, lambda: shardkit.upload(packed, "memory://b/train", check=check))
    assert "train-000002.tar: its CRC-32C is " in text
    assert not {"train-000002.tar", "train.json", "train.parquet"} & set(objects("b"))


def test_a_local_file_of_another_size_or_none_is_told_before_anything_is_sent(packed: Path) -> None:
    shard = packed.parent / "train-000003.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    assert "bytes, but its manifest says" in refused(DamagedError, lambda: shardkit.upload(packed, "memory://b/train"))
    shard.unlink()
    text = refused(NotFoundError, lambda: shardkit.upload(packed, "memory://b/train"))
    assert text.startswith(f"{shard}: the manifest names this file, but it is missing")
    assert objects("b") == {}


def test_a_shard_that_changes_while_it_is_sent_does_not_arrive(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(name: str) -> None:
        if name == "train-000001.tar":
            with (packed.parent / name).open("ab") as file:
                file.write(b"more")

    recorded(monkeypatch, change)
    text = refused(DamagedError, lambda: shardkit.upload(packed, "memory://b/train"))
    assert "train-000001.tar" in text
    assert "it has more bytes" in text
    assert not {"train-000001.tar", "train.json"} & set(objects("b"))


def test_another_dataset_is_replaced_only_when_asked(tree: Path, packed: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / "other" / "train", max_count=1, seed=3, workers=1)
    shardkit.upload(tmp_path / "other" / "train", "memory://b/train")
    before = objects("b")
    text = refused(DestinationError, lambda: shardkit.upload(packed, "memory://b/train"))
    assert text == (
        "memory://b/train.json: another dataset is there; choose another destination, "
        "or replace it with `overwrite=True`"
    )
    assert objects("b") == before
    shardkit.upload(packed, "memory://b/train", overwrite=True)
    assert is_generation(objects("b"), files(packed.parent), "train", 2)
    verified = shardkit.verify("memory://b/train", read=True)
    assert verified.sound
    (one,) = shardkit.upload(packed, "memory://b/train").datasets  # it knows its own again
    assert (one.sent, one.kept) == (0, 5)


def test_an_upload_of_what_was_added_to_sends_only_what_is_new(
    tree: Path, packed: Path, tmp_path: Path, draw_image: Any
) -> None:
    shutil.copytree(packed.parent, tmp_path / "own")
    shutil.copytree(tree, tmp_path / "more")
    (tmp_path / "more" / "red" / "new.jpg").write_bytes(draw_image(99))
    shardkit.upload(tmp_path / "own" / "train", "memory://b/train")
    shardkit.pack(tmp_path / "more", tmp_path / "own" / "train", max_count=3, append=True, workers=1)
    (one,) = shardkit.upload(tmp_path / "own" / "train", "memory://b/train", overwrite=True).datasets
    assert (one.sent, one.kept) == (2, 5)
    assert objects("b") == files(tmp_path / "own")


def test_while_a_dataset_is_replaced_the_old_or_the_new_one_is_there(
    tree: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shardkit.pack(tree, tmp_path / "other" / "train", max_count=1, seed=3, workers=1)
    shardkit.upload(tmp_path / "other" / "train", "memory://b/train")
    samples: list[int] = []
    with monkeypatch.context() as patch:
        recorded(patch, lambda name: samples.append(len(list(shardkit.dataset("memory://b/train", threads=1)))))
        shardkit.upload(packed, "memory://b/train", overwrite=True)
    assert samples == [12] * (4 + 1 + 2)  # shards, index, the copy of the old manifest, the new one


def test_a_replacement_that_was_cut_short_is_gone_on_with(
    tree: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shardkit.pack(tree, tmp_path / "other" / "train", max_count=1, seed=3, workers=1)
    shardkit.upload(tmp_path / "other" / "train", "memory://b/train")

    def fail(name: str) -> None:
        if name == "train-g2.parquet":
            raise StorageError(name, "no more", "x")

    with monkeypatch.context() as patch:
        recorded(patch, fail)
        refused(StorageError, lambda: shardkit.upload(packed, "memory://b/train", overwrite=True))
    assert shardkit.verify("memory://b/train").sound
    (one,) = shardkit.upload(packed, "memory://b/train", overwrite=True).datasets
    assert (one.sent, one.kept) == (1, 4)
    assert is_generation(objects("b"), files(packed.parent), "train", 2)


def test_objects_that_belong_to_no_manifest_are_in_the_way(packed: Path) -> None:
    memory._OBJECTS["b/train-000009.tar"] = b"somebody's"
    text = refused(DestinationError, lambda: shardkit.upload(packed, "memory://b/train"))
    assert text.startswith("memory://b/train-000009.tar: this file already exists, belongs to no manifest")
    assert objects("b") == {"train-000009.tar": b"somebody's"}
    shardkit.upload(packed, "memory://b/train", overwrite=True)
    assert objects("b") == files(packed.parent)


def test_objects_of_other_names_stay_as_they_are(packed: Path) -> None:
    others = {"b/training-000000.tar": b"1", "b/train/cat/1.jpg": b"2", "b/train.txt": b"3"}
    memory._OBJECTS.update(others)
    shardkit.upload(packed, "memory://b/train", overwrite=True)  # a folder train/ is there
    assert objects("b/train") == files(packed.parent) | {"cat/1.jpg": b"2"}
    memory._OBJECTS.pop("b/train/cat/1.jpg")
    assert others.items() - memory._OBJECTS.items() == {("b/train/cat/1.jpg", b"2")}


def test_the_list_of_what_was_left_out_goes_with_it(tree: Path, tmp_path: Path) -> None:
    (tree / "red" / "bad.jpg").write_bytes(b"no image")
    shardkit.pack(tree, tmp_path / "shards" / "train", on_error="skip", workers=1)
    shardkit.upload(tmp_path / "shards" / "train", "memory://b/train")
    assert objects("b") == files(tmp_path / "shards")
    assert "train.skipped.json" in objects("b")


def test_shards_without_a_manifest_are_sent_as_they_are(packed: Path) -> None:
    for name in ("train.json", "train.parquet"):
        (packed.parent / name).unlink()
    (one,) = shardkit.upload(packed, "memory://b/x/").datasets
    assert (one.dataset, one.samples, one.shards, one.sent) == ("memory://b/x", 0, 4, 4)
    assert objects("b/x") == files(packed.parent)
    (one,) = shardkit.upload(f"{packed.parent}/train-*.tar", "memory://b/x/").datasets
    assert (one.sent, one.kept) == (0, 4)
    memory._OBJECTS["b/x/train-000000.tar"] = b"another"
    text = refused(DestinationError, lambda: shardkit.upload(packed, "memory://b/x/"))
    assert text.startswith("memory://b/x/train-000000.tar: this file already exists, belongs to no manifest")


def test_shards_without_a_manifest_of_two_names_or_two_folders_are_refused(packed: Path, tmp_path: Path) -> None:
    for name in ("train.json", "train.parquet"):
        (packed.parent / name).unlink()
    ours = packed.parent / "train-000000.tar"
    other = packed.parent / "val-000000.tar"
    shutil.copy(ours, other)
    (tmp_path / "else").mkdir()
    elsewhere = tmp_path / "else" / "train-000001.tar"
    shutil.copy(ours, elsewhere)
    for shards in ([ours, other], [ours, elsewhere]):
        text = refused(UsageError, lambda shards=shards: shardkit.upload(shards, "memory://b/x/"))  # type: ignore[misc]
        assert "these shards have no manifest, and are in several folders or have several prefixes" in text
    assert objects("b") == {}


def test_progress_tells_files_and_bytes(packed: Path) -> None:
    told: list[Progress] = []
    shardkit.upload(packed, "memory://b/train", progress=told.append)
    total = sum(len(data) for name, data in files(packed.parent).items() if name != "train.json")
    assert told[-1] == Progress("upload", 5, 5, total, total)
    shardkit.upload(packed, "memory://b/train", progress=told.append)
    assert told[-1] == Progress("upload", 5, 5, total, total)


@pytest.mark.parametrize("fault", ["refused", "reset", "lost"])
def test_a_store_that_fails_now_and_then_gets_it_all_the_same(fault: str, packed: Path) -> None:
    told: list[Progress] = []
    options = {fault: 0.3, "seed": 5}
    shardkit.upload(packed, "faulty+memory://b/train", storage_options=options, progress=told.append)
    assert objects("b") == files(packed.parent)
    assert told[-1].bytes_done == told[-1].bytes_total


def test_what_is_read_back_wrong_is_sent_again(packed: Path) -> None:
    options = {"corrupt": 0.3, "short": 0.1, "seed": 1}
    shardkit.upload(packed, "faulty+memory://b/train", storage_options=options, check="read")
    assert objects("b") == files(packed.parent)


def test_a_store_that_never_answers_is_an_error_and_nothing_is_half_there(packed: Path) -> None:
    text = refused(
        StorageError, lambda: shardkit.upload(packed, "faulty+memory://b/train", storage_options={"refused": 1})
    )
    assert "503" in text
    assert "gave up after 8 attempts in a row" in text
    assert objects("b") == {}


class Spoiling:
    """Writes other bytes than it is given, so many times for each object."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.left: dict[str, int] = {}
        put = memory.MemoryStore.put

        def putting(store: Any, name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
            content = bytearray(data.read())
            left = self.left.setdefault(name, times)
            if left and name.endswith(".tar"):
                self.left[name] -= 1
                content[len(content) // 2] ^= 1
            put(store, name, io.BytesIO(content), crc32c=crc32c)

        monkeypatch.setattr(memory.MemoryStore, "put", putting)


def test_what_arrives_damaged_is_sent_again(
    packed: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Spoiling(monkeypatch, 2)
    shardkit.upload(packed, "memory://b/train")
    assert objects("b") == files(packed.parent)
    assert sum("sending it again" in record.message for record in caplog.records) == 8


def test_what_always_arrives_damaged_is_an_error_and_is_removed(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Spoiling(monkeypatch, 99)
    text = refused(StorageError, lambda: shardkit.upload(packed, "memory://b/train", workers=1))
    assert "train-000000.tar: it arrived damaged 3 times: its CRC-32C is " in text
    assert list(objects("b")) == [names.marker_name("train")]


def test_an_error_stops_the_other_threads_at_their_next_piece(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = Event()

    def act(name: str) -> None:
        if name == "train-000000.tar":
            go.wait(30)
            raise StorageError(name, "broken", "fix it")
        Timer(0.05, go.set).start()

    recorded(monkeypatch, act)
    text = refused(StorageError, lambda: shardkit.upload(packed, "memory://b/train", workers=2))
    assert text.startswith("train-000000.tar: broken")
    assert "train.json" not in objects("b")


def test_an_error_of_a_store_that_may_pass_is_not_shown_as_such(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(name: str) -> None:
        raise TransientError(name, "the connection broke", "try again")

    recorded(monkeypatch, act)
    with pytest.raises(StorageError) as raised:
        shardkit.upload(packed, "memory://b/train")
    assert type(raised.value) is StorageError


def test_a_scheme_or_check_that_is_not_known_is_a_usage_error(packed: Path) -> None:
    assert "nosuch" in refused(UsageError, lambda: shardkit.upload(packed, "nosuch://b/train"))
    call: Any = lambda: shardkit.upload(packed, "memory://b/train", check="half")  # type: ignore[arg-type]  # noqa: E731
    assert refused(UsageError, call) == "check: 'half' is not one of store, read, none; choose one of these"
    assert refused(UsageError, lambda: shardkit.upload(packed, "memory://b/train", workers=0)).startswith("workers: 0")


def test_sources_that_are_no_dataset_of_this_machine_are_refused(packed: Path, tree: Path, tmp_path: Path) -> None:
    text = refused(UsageError, lambda: shardkit.upload("s3://bucket/train", "memory://b/train"))
    assert text.startswith("s3://bucket/train: the source of an upload is on this machine")
    text = refused(UsageError, lambda: shardkit.upload(tree, "memory://b/train"))
    assert "this is a class directory, not a dataset; pack it straight to the bucket" in text
    refused(NotFoundError, lambda: shardkit.upload(tmp_path / "nothing", "memory://b/train"))
    some = [packed.parent / "train-000000.tar", packed.parent / "train-000001.tar"]
    assert "only some of the shards" in refused(UsageError, lambda: shardkit.upload(some, "memory://b/train"))
    packed.with_name("train.json").write_bytes(b"{")
    refused(ManifestError, lambda: shardkit.upload(packed.parent, "memory://b/train"))
    assert objects("b") == {}


def test_the_source_is_no_destination(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(packed.parent)
    for dest in ("train", ".", "../shards/train", str(packed), f"file://{packed}"):
        text = refused(DestinationError, lambda dest=dest: shardkit.upload("train", dest))  # type: ignore[misc]
        assert text.endswith("the destination is the source; choose another")


@pytest.mark.parametrize("name", ["train-*", "{a,b}", "a\\b", "a\nb"])
def test_a_name_that_can_begin_no_shard_is_refused(name: str, packed: Path) -> None:
    refused(DestinationError, lambda: shardkit.upload(packed, f"memory://b/{name}"))


def test_no_manifest_is_there_without_its_shards_after_the_store_lost_one(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(name: str) -> None:
        if name == "train.parquet":
            del memory._OBJECTS["b/train-000000.tar"]

    recorded(monkeypatch, act)
    text = refused(StorageError, lambda: shardkit.upload(packed, "memory://b/train"))
    assert "train-000000.tar: it was written with" in text
    assert "train.json" not in objects("b")


def test_the_manifest_that_arrives_is_the_one_that_was_read(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = packed.with_name("train.json").read_bytes()

    def act(name: str) -> None:
        if name == "train.parquet":
            packed.with_name("train.json").write_bytes(b"changed")

    recorded(monkeypatch, act)
    shardkit.upload(packed, "memory://b/train")
    assert objects("b")["train.json"] == before
    assert decode_manifest(before, place="x").samples == 12


def test_a_copy_on_this_machine_waits_for_no_other_run(packed: Path, tmp_path: Path) -> None:
    from shardkit.storage.files import FolderLock

    os.makedirs(tmp_path / "copy")
    lock = FolderLock(str(tmp_path / "copy" / ".train.packing"))
    with pytest.raises(shardkit.BusyError):
        shardkit.upload(packed, tmp_path / "copy" / "train")
    lock.release()
    shardkit.upload(packed, tmp_path / "copy" / "train")
    shutil.rmtree(packed.parent)
    assert shardkit.verify(tmp_path / "copy" / "train").sound


def test_shards_that_are_called_otherwise_are_known_by_their_manifest(packed: Path) -> None:
    for number in range(4):
        (packed.parent / f"train-00000{number}.tar").rename(packed.parent / f"part{number}.tar")
    for name in ("train.json", "train.parquet"):
        (packed.parent / name).unlink()
    shardkit.index_shards(f"{packed.parent}/part*.tar", out=packed)
    shardkit.upload(packed, "memory://b/train")
    assert objects("b") == files(packed.parent)
    (one,) = shardkit.upload(packed, "memory://b/train").datasets
    assert (one.sent, one.kept) == (0, 5)


def test_a_web_server_is_no_destination(packed: Path) -> None:
    text = refused(UsageError, lambda: shardkit.upload(packed, "http://127.0.0.1:1/train"))
    assert text == "http://127.0.0.1:1/train: a web server is read-only; write to its folder, or to a bucket"


@pytest.mark.parametrize("name", ["upload", "download"])
def test_every_keyword_is_an_option(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    options = {param.name for param in command.params} - {"as_json", "debug", "quiet", "verbose"}
    assert set(inspect.signature(getattr(shardkit, name)).parameters) - {"progress"} == options


@pytest.mark.parametrize("dest", ["new", "new/", "deep/new/"])
def test_the_datasets_of_a_folder_go_into_a_folder_that_is_made(small_tree: Path, tmp_path: Path, dest: str) -> None:
    shardkit.pack(small_tree, tmp_path / "up", split={"a": 0.5, "b": 0.5}, workers=1)
    shardkit.upload(tmp_path / "up", f"{tmp_path}/{dest}")
    assert {path.name for path in (tmp_path / dest).iterdir()} == {path.name for path in (tmp_path / "up").iterdir()}
    assert len(shardkit.dataset(tmp_path / dest / "a")) + len(shardkit.dataset(tmp_path / dest / "b")) == 97


def test_one_dataset_keeps_its_name_in_a_folder_that_is_made(cars: str, tmp_path: Path) -> None:
    shardkit.upload(cars, f"{tmp_path}/new/")
    assert len(shardkit.dataset(tmp_path / "new/cars")) == 97


def test_the_files_of_an_export_go_up_before_the_manifest_and_name_what_is_there(
    splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shardkit.pack(splits, tmp_path / "shards", max_count=3, workers=1)
    order: list[str] = []
    recorded(monkeypatch, order.append)
    shardkit.upload(tmp_path / "shards", "memory://b/cars/", export=["timm", "huggingface", "croissant"])
    manifests = [order.index(f"{name}.json") for name in ("train", "validation", "test")]
    written = [order.index(name) for name in ("_info.json", "README.md", "croissant.json")]
    shards = [number for number, name in enumerate(order) if name.endswith((".tar", ".parquet"))]
    assert max(shards) < min(written) and max(written) < max(manifests)
    sent = objects("b/cars")
    shardkit.export("memory://b/cars", ["timm", "huggingface", "croissant"])
    assert objects("b/cars") == sent
    assert "# cars" in sent["README.md"].decode()
    assert {name: data for name, data in sent.items() if name in files(tmp_path / "shards")} == files(
        tmp_path / "shards"
    )


def test_an_export_names_the_shards_of_the_generation_that_is_sent(packed: Path, tree: Path) -> None:
    shardkit.upload(packed, "memory://b/train", export=["timm", "croissant"])
    shardkit.pack(tree, packed, max_count=5, overwrite=True, workers=1, seed=1)
    for path in packed.parent.glob("train-g2*"):
        path.rename(packed.parent / path.name.replace("-g2", ""))
    shardkit.index_shards(f"{packed}-*.tar", overwrite=True)
    shardkit.upload(packed, "memory://b/train", overwrite=True, export=["timm", "croissant"])
    sent = objects("b")
    shardkit.export("memory://b/train", ["timm", "croissant"])
    assert objects("b") == sent
    assert b"train-g2-000000.tar" in sent["_info.json"]


def test_what_an_export_refuses_is_refused_before_anything_is_sent(packed: Path) -> None:
    text = refused(UsageError, lambda: shardkit.upload(packed, "memory://b/train", export=["tfds"]))
    assert "shardkit convert" in text and objects("b") == {}
    memory._OBJECTS["b/_info.json"] = b"{}"
    refused(DestinationError, lambda: shardkit.upload(packed, "memory://b/train", export=["timm"]))
    assert objects("b") == {"_info.json": b"{}"}
    refused(UsageError, lambda: shardkit.upload(packed, "memory://b/train", export=[]))
    (packed.parent / "train.json").unlink()
    text = refused(UsageError, lambda: shardkit.upload(f"{packed}-*.tar", "memory://b/x/", export=["timm"]))
    assert "shardkit index" in text
