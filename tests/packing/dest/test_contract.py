"""What both destinations, a disk and a bucket, promise to a job."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit.errors import BusyError, DestinationError
from shardkit.location import Location, locate
from shardkit.packing.dest.dataset_files import sizes_in
from shardkit.packing.dest.destination import Destination
from shardkit.packing.dest.in_the_way import check_free
from shardkit.packing.dest.open import destinations_of
from shardkit.packing.dest.work_folder import IndexFiles, decide, keep_only, write_index_files
from shardkit.packing.write.receipt import Receipt, Skipped, keep_receipt
from shardkit.packing.write.sink import Sink
from shardkit.packing.write.writer import SampleWriter
from shardkit.shards.manifest import Manifest
from shardkit.shards.names import shard_name
from shardkit.storage.files import whole_file


@pytest.fixture(params=["disk", "bucket"])
def dest(request: pytest.FixtureRequest, no_objects: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Location:
    """What a user gives as DEST."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return locate(tmp_path / "out" / "train" if request.param == "disk" else "memory://bucket/train")


@pytest.fixture
def destination(dest: Location) -> Destination:
    return opened(dest)


def opened(dest: Location) -> Destination:
    return destinations_of(dest, os.path.join(os.devnull, "samples"), None)[""]


def write_shard(destination: Destination, number: int, keys: Sequence[str]) -> Receipt:
    """A finished shard in the work folder."""
    name, folder = shard_name(destination.base, number, ".tar"), os.fsencode(destination.work)
    target = os.path.join(folder, os.fsencode(name))
    with whole_file(target) as file:
        sink = Sink(file.fileno(), target)
        writer = SampleWriter(sink, "tar", "none")
        for key in keys:
            writer.add(key, [("txt", key.encode())], f"{key}.txt".encode(), -1, "")
        writer.end()
    return keep_receipt(folder, name, sink, writer.written([]), digest="d", check="none", since=0)


def deliver(destination: Destination, *shards: Sequence[str]) -> list[Receipt]:
    """Shards that were written and have arrived."""
    with destination.delivery() as delivery:
        receipts = []
        for number, keys in enumerate(shards):
            delivery.wait_for_room()
            receipts.append(write_shard(destination, number, keys))
            delivery.deliver(receipts[-1])
        delivery.finish(lambda _: None)
    return receipts


def manifest_of(destination: Destination, receipts: Sequence[Receipt], *, skipped: int = 0) -> Manifest:
    entries = tuple(receipt.entry for receipt in receipts)
    return Manifest(
        samples=sum(entry.samples for entry in entries),
        bytes=sum(entry.bytes for entry in entries),
        fields=("txt",),
        shards=entries,
        index=write_index_files(destination, entries),
        skipped=skipped,
        plan="".join(entry.crc32c for entry in entries),
    )


def commit(destination: Destination, *shards: Sequence[str], overwrite: bool = False) -> Manifest:
    """A job from its beginning to its end."""
    with destination.locked():
        destination = check_free(destination, overwrite=overwrite)
        keep_only(destination, ())
        manifest = manifest_of(destination, deliver(destination, *shards))
        destination.commit(manifest, ())
    return manifest


def put(destination: Destination, name: str, data: bytes = b"somebody's") -> None:
    """A file of somebody else."""
    destination.files.write(name, data)


def keys_of(dest: Location) -> list[str]:
    """The keys of a dataset that is sound."""
    assert shardkit.verify(dest.url).sound
    files = opened(dest).files
    manifest = files.read_manifest()
    assert manifest is not None
    groups = files.open_index(manifest.index[0], manifest.shards).groups(["key"])
    return [key for columns in groups for key in columns["key"].to_pylist()]


# ---- a job


def test_as_text_it_is_the_place_of_its_manifest(dest: Location, destination: Destination) -> None:
    assert str(destination) == f"{dest}.json"


def test_what_was_delivered_and_committed_is_a_dataset(dest: Location, destination: Destination) -> None:
    manifest = commit(destination, ["a", "b"], ["c"])
    assert keys_of(dest) == ["a", "b", "c"]
    assert destination.files.read_manifest() == manifest
    assert destination.files.sizes() == sizes_in(manifest)
    assert destination.files.missing(sizes_in(manifest)) is None


def test_before_the_commit_there_is_no_dataset(destination: Destination) -> None:
    with destination.locked():
        deliver(destination, ["a"])
        assert destination.files.read_manifest() is None


def test_the_work_folder_goes_at_the_end_of_a_job(destination: Destination) -> None:
    commit(destination, ["a"])
    assert not os.path.exists(destination.work)


def test_a_second_job_is_refused_while_the_first_has_the_lock(dest: Location, destination: Destination) -> None:
    with destination.locked(), pytest.raises(BusyError, match="another run"), opened(dest).locked():
        pass


def test_the_list_of_what_was_left_out_goes_along(destination: Destination) -> None:
    with destination.locked():
        receipts = deliver(destination, ["a"])
        destination.commit(manifest_of(destination, receipts, skipped=1), [Skipped("é.txt", "it is empty")])
    listed = destination.files.read("train.skipped.json")
    assert b"it is empty" in listed
    assert "é".encode() in listed  # names can be read as they are


def test_it_is_known_when_the_manifest_was_written(destination: Destination) -> None:
    manifest = commit(destination, ["a"])
    written = destination.committed_at(manifest)
    assert written is not None
    assert abs(time.time_ns() - written) < 60e9


def test_the_index_is_opened_where_it_is(destination: Destination) -> None:
    manifest = commit(destination, ["a", "b"], ["c"])
    index = destination.files.open_index(manifest.index[0], manifest.shards)
    assert [columns["key"].to_pylist() for columns in index.groups(["key"])] == [["a", "b"], ["c"]]


# ---- a job that was interrupted


def test_a_commit_that_was_decided_is_finished_by_the_next_job(dest: Location, destination: Destination) -> None:
    with destination.locked():
        decide(destination, manifest_of(destination, deliver(destination, ["a"])), ())
    assert destination.files.read_manifest() is None
    with opened(dest).locked():
        assert destination.files.read_manifest() is not None
    assert keys_of(dest) == ["a"]


def test_what_another_plan_wrote_is_removed_wherever_it_is(destination: Destination) -> None:
    with destination.locked():
        deliver(destination, ["a"], ["b"])
    with destination.locked():
        check_free(destination, overwrite=False)
        keep_only(destination, ())
        assert destination.files.sizes() == {}
    assert not os.path.exists(destination.work)


def test_what_the_same_plan_wrote_is_kept(destination: Destination) -> None:
    with destination.locked():
        first, second = deliver(destination, ["a"], ["b"])
    with destination.locked():
        keep_only(destination, [first.entry.name])
        with destination.delivery() as delivery:
            here = os.path.exists(os.path.join(destination.work, first.entry.name))
            assert here or delivery.holds(first.entry)
            assert not delivery.holds(second.entry)


def test_what_a_manifest_names_is_never_withdrawn(dest: Location, destination: Destination) -> None:
    manifest = commit(destination, ["a"])
    with destination.locked():
        destination.withdraw([entry.name for entry in manifest.shards])
    assert keys_of(dest) == ["a"]


# ---- what is in the way


@pytest.mark.parametrize(("overwrite", "generation"), [(False, 1), (True, 2)])
def test_a_dataset_is_replaced_by_the_next_generation(
    destination: Destination, overwrite: bool, generation: int
) -> None:
    commit(destination, ["a"])
    assert check_free(destination, overwrite=overwrite).generation == generation


def test_a_replaced_dataset_leaves_no_file(dest: Location, destination: Destination) -> None:
    commit(destination, ["a"], ["b"])
    manifest = commit(destination, ["c"], overwrite=True)
    assert destination.files.sizes() == sizes_in(manifest)
    assert {name[:8] for name in sizes_in(manifest)} == {"train-g2"}
    assert keys_of(dest) == ["c"]


def test_a_shard_without_a_manifest_is_in_the_way(destination: Destination) -> None:
    put(destination, "train-000007.tar")
    with pytest.raises(DestinationError, match="this file already exists, belongs to no manifest"):
        check_free(destination, overwrite=False)
    assert check_free(destination, overwrite=True).generation == 1


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "what"), [("train.parquet", "a shardkit index"), ("train.json", "a shardkit manifest")]
)
def test_a_file_of_the_user_is_never_replaced(destination: Destination, name: str, what: str, overwrite: bool) -> None:
    put(destination, name)
    with pytest.raises(DestinationError, match=f"{name}: this file already exists, and is not {what}"):
        check_free(destination, overwrite=overwrite)
    assert destination.files.read(name) == b"somebody's"


def test_names_of_a_generation_of_another_dataset_are_refused(dest: Location, destination: Destination) -> None:
    commit(destination, ["a"])
    commit(destination, ["b"], overwrite=True)
    with pytest.raises(DestinationError, match="the files of the dataset train have names that begin in the same way"):
        check_free(opened(Location(dest.scheme, f"{dest.path}-g2")), overwrite=False)
    assert check_free(opened(Location(dest.scheme, f"{dest.path}-g3")), overwrite=False).generation == 1


def test_the_names_of_a_dataset_that_is_being_written_are_not_taken(dest: Location, destination: Destination) -> None:
    commit(destination, ["a"])
    other = opened(Location(dest.scheme, f"{dest.path}-g2"))
    with other.locked():
        deliver(other, ["b"])
        assert set(destination.files.sizes()) == {"train-000000.tar", "train.parquet"}
        assert check_free(destination, overwrite=True).generation == 3


def test_a_damaged_manifest_is_replaced_when_asked(destination: Destination) -> None:
    put(destination, "train.json", b'{"format": "shardkit", "sam')
    put(destination, "train-000000.tar")
    with pytest.raises(DestinationError, match="already exists"):
        destination.files.read_manifest()
    assert check_free(destination, overwrite=True).generation == 2


def test_a_link_to_nothing_is_somebodys_file(tmp_path: Path) -> None:
    (tmp_path / "train-000000.tar").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DestinationError, match="this file already exists, belongs to no manifest"):
        check_free(opened(locate(tmp_path / "train")), overwrite=False)


def test_the_manifest_of_another_machine_has_no_time_here(no_objects: None, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "here"))
    dest = locate("memory://bucket/train")
    manifest = commit(opened(dest), ["a"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    assert opened(dest).committed_at(manifest) is None


def test_an_index_that_is_not_completed_leaves_no_file(destination: Destination) -> None:
    with destination.locked():
        entry = write_shard(destination, 0, ["a"]).entry
        before = sorted(os.listdir(destination.work))
        with IndexFiles(destination) as index:
            index.add(entry)
            assert len(os.listdir(destination.work)) == len(before) + 1  # under a temporary name
        assert sorted(os.listdir(destination.work)) == before
