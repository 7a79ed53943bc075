"""Datasets in a store: held against what the store says, or read."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shardkit import DestinationError, NotFoundError, UsageError, pack, repair, unpack, upload, verify
from shardkit.cli.main import run
from shardkit.events import Progress
from shardkit.storage.stores import memory
from shardkit.storage.stores.memory import MemoryStore

Edit = Callable[[bytes], bytes | None]


@pytest.fixture
def bucket() -> Iterator[str]:
    """The name of a store in memory, which is emptied."""
    yield "memory://verify"
    for path in [path for path in memory._OBJECTS if path.startswith("verify")]:
        del memory._OBJECTS[path]


@pytest.fixture(params=["tar", "tfrecord"])
def far(request: pytest.FixtureRequest, tree: Path, tmp_path: Path, bucket: str) -> str:
    """12 images in 3 shards, in a store."""
    pack(tree, tmp_path / "train", format=request.param, workers=1, max_count=4)
    upload(tmp_path / "train", f"{bucket}/train")
    return f"{bucket}/train"


def names() -> list[str]:
    return sorted(path.rpartition("/")[2] for path in memory._OBJECTS if path.startswith("verify"))


def edit(name: str, change: Edit) -> None:
    path = next(path for path in memory._OBJECTS if path.startswith("verify") and path.endswith(name))
    data = change(memory._OBJECTS.pop(path))
    if data is not None:
        memory._OBJECTS[path] = data


def kinds(source: Any, **options: Any) -> set[str]:
    return {item.kind for item in verify(source, **options).findings}


def flipped(data: bytes) -> bytes:
    return data[:700] + bytes([data[700] ^ 1]) + data[701:]


def first_shard() -> str:
    return next(name for name in names() if "-000000" in name)


@pytest.fixture
def no_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    known = MemoryStore.info
    monkeypatch.setattr(MemoryStore, "info", lambda self, name: msgspec.structs.replace(known(self, name), crc32c=None))


def test_a_sound_dataset_is_sound_by_its_store_and_by_its_bytes(far: str, tmp_path: Path) -> None:
    here = verify(tmp_path / "train")
    told = verify(far)
    assert (told.sound, told.read, told.unproven, told.checksums) == (True, False, 0, True)
    assert (told.shards, told.samples, told.bytes) == (here.shards, here.samples, here.bytes)
    assert verify(far, read=True) == replace(here, source=f"{far}.json")
    decoded = verify(far, decode=True)
    assert (decoded.decoded, decoded.read, decoded.sound) == (12, True, True)


def test_no_shard_is_read_to_ask_the_store(far: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    pieces = MemoryStore.pieces
    monkeypatch.setattr(MemoryStore, "pieces", lambda self, name, *span: read.append(name) or pieces(self, name, *span))
    assert verify(far).sound
    assert read == ["train.json"]


@pytest.mark.parametrize(
    ("change", "told", "read"),
    [
        (lambda data: None, {"shard-missing"}, {"shard-missing"}),
        (lambda data: data[:-1], {"shard-size"}, {"shard-size", "shard-damaged"}),
        (flipped, {"shard-crc"}, {"shard-crc"}),
    ],
)
def test_damage_of_a_shard_is_found_either_way(far: str, change: Edit, told: set[str], read: set[str]) -> None:
    edit(first_shard(), change)
    assert kinds(far) == told
    assert read <= kinds(far, read=True)
    [found] = verify(far).findings
    assert found.shard.startswith(f"{far}-000000.")


@pytest.mark.parametrize(
    ("change", "told", "read"),
    [
        (lambda data: None, {"index-missing"}, {"index-missing"}),
        (lambda data: data + b"x", {"index-crc"}, {"index-crc", "index-damaged"}),
        (flipped, {"index-crc"}, {"index-crc"}),
    ],
)
def test_damage_of_the_index_is_found_either_way(far: str, change: Edit, told: set[str], read: set[str]) -> None:
    edit("train.parquet", change)
    assert kinds(far) == told
    assert read <= kinds(far, read=True)


def test_a_shard_that_no_manifest_knows_is_found(far: str) -> None:
    path = f"verify/{first_shard()}"
    memory._OBJECTS[path.replace("000000", "000009")] = memory._OBJECTS[path]
    assert kinds(far) == kinds(far, read=True) == {"shard-unknown"}


@pytest.mark.usefixtures("no_checksums")
def test_where_the_store_keeps_no_checksums_that_is_said(far: str, capsys: pytest.CaptureFixture[str]) -> None:
    edit(first_shard(), flipped)
    told = verify(far)
    assert (told.sound, told.unproven) == (True, 4)
    assert run(["verify", far]) == 0
    assert "which has none for 4 files: --read checks the bytes" in capsys.readouterr().out
    assert "shard-crc" in kinds(far, read=True)
    assert run(["verify", far, "--read"]) == 5


def test_without_a_manifest_there_is_nothing_to_ask_the_store_about(far: str) -> None:
    edit("train.json", lambda data: None)
    with pytest.raises(UsageError, match=r"there is no manifest.*`read=True`"):
        verify(far)
    found = verify(far, read=True)
    assert (found.sound, found.samples, found.checksums) == (True, 12, False)


@pytest.mark.parametrize("damaged", [b"{}", b'{"bl\xff": 1}'])
def test_a_damaged_manifest_is_found_and_its_shards_are_checked(far: str, damaged: bytes) -> None:
    edit("train.json", lambda data: damaged)
    found = verify(far, read=True)
    assert ({item.kind for item in found.findings}, found.samples) == ({"manifest"}, 12)


def test_a_part_of_the_shards_is_asked_about(far: str) -> None:
    suffix = first_shard().partition(".")[2]
    edit(first_shard(), flipped)
    some = [f"{far}-00000{number}.{suffix}" for number in (1, 2)]
    assert (verify(some).sound, verify(some).shards, verify(some).samples) == (True, 2, 8)
    assert kinds([f"{far}-000000.{suffix}"]) == {"shard-crc"}


def test_gzip_shards_are_read_from_a_store(tree: Path, tmp_path: Path, bucket: str) -> None:
    pack(tree, tmp_path / "train", workers=1)
    data = gzip.compress((tmp_path / "train-000000.tar").read_bytes())
    memory._OBJECTS["verify/x-0.tar.gz"] = data
    assert (verify(f"{bucket}/x-0.tar.gz", read=True).samples, kinds(f"{bucket}/x-0.tar.gz", read=True)) == (12, set())
    memory._OBJECTS["verify/x-0.tar.gz"] = data[:-100]
    assert kinds(f"{bucket}/x-0.tar.gz", read=True) == {"shard-damaged"}


def test_progress_counts_the_objects(far: str) -> None:
    seen: list[Progress] = []
    verify(far, progress=seen.append, workers=2)
    assert [(each.step, each.done, each.total) for each in seen] == [("verify", n, 4) for n in range(1, 5)]


def test_a_store_that_is_not_there_and_options_it_does_not_know_are_errors(bucket: str) -> None:
    with pytest.raises(NotFoundError):
        verify(f"{bucket}/none")
    with pytest.raises(UsageError, match="storage options"):
        verify(f"{bucket}/none", storage_options={"region": "here"})


def test_repair_says_to_download_first(far: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="shardkit download"):
        repair(far, tmp_path / "mended")


def test_a_bucket_is_checked_with_the_options_that_reach_it(
    tree: Path, tmp_path: Path, s3_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(tree, tmp_path / "train", workers=1, max_count=4)
    options = {name: str(value) for name, value in s3_server.options.items()}
    upload(tmp_path / "train", f"{s3_server.url}/verify/train", storage_options=options)
    asked = [part for name, value in options.items() for part in ("--storage-option", f"{name}={value}")]
    assert run(["verify", f"{s3_server.url}/verify/train", *asked]) == 0
    assert "12 samples in 3 shards" in (told := capsys.readouterr().out)
    assert "sound by the store's checksums\n" in told
    assert run(["verify", f"{s3_server.url}/verify/train", "--read", *asked]) == 0
    assert run(["info", f"{s3_server.url}/verify/train", *asked]) == 0


@pytest.mark.parametrize("tool", [repair, unpack])
def test_what_writes_files_writes_to_a_disk(
    tool: Callable[..., Any], tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(tree, tmp_path / "train", workers=1)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DestinationError, match="writes to a disk, and s3:// is not one"):
        tool(tmp_path / "train", "s3://bucket/out")
    assert sorted(tmp_path.rglob("*")) == before
