"""A packing in parts gives the bytes of one machine, however the parts run, on a disk and in a bucket."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from storage.in_memory import files, objects, refused

import shardkit
from shardkit.checksums import crc32c
from shardkit.cli.main import run
from shardkit.errors import BadFileError, BusyError, DestinationError, NotFoundError, StorageError
from shardkit.location import locate
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.packing.dest.lease import held
from shardkit.packing.dest.shared import SharedFolder
from shardkit.packing.engine import engine
from shardkit.packing.parts import names, record
from shardkit.packing.parts.part import Part
from shardkit.packing.parts.record import PartRecord
from shardkit.storage.patient import open_patient
from shardkit.storage.stores import memory

COUNT = 3


class Place:
    """A destination, and what a packing on one machine gives."""

    def __init__(self, kind: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kind, self.tree, self.tmp, self.patch = kind, tree, tmp_path, monkeypatch
        self.folder = str(tmp_path / "out") if kind == "disk" else "memory://b"
        self.dest = f"{self.folder}/train"

    def pack(self, part: Any = None, source: Path | None = None, **options: Any) -> Any:
        return shardkit.pack(source or self.tree, self.dest, **{"max_count": 2, "workers": 1, "part": part} | options)

    def pack_all(self, **options: Any) -> None:
        for number in range(1, COUNT + 1):
            self.pack((number, COUNT), **options)

    def another_machine(self) -> None:
        """What follows runs on a machine that shares only the destination."""
        self.patch.setenv("XDG_CACHE_HOME", str(self.tmp / os.urandom(4).hex()))

    @property
    def shared(self) -> SharedFolder:
        return SharedFolder(DatasetFiles(open_patient(locate(self.folder)), "train"))

    def files(self) -> dict[str, bytes]:
        """All files of the destination by name."""
        if self.kind == "bucket":
            return objects("b")
        root = Path(self.folder)
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def one_machine(self, **options: Any) -> dict[str, bytes]:
        one = self.tmp / os.urandom(4).hex()
        shardkit.pack(self.tree, one / "train", **{"max_count": 2, "workers": 1} | options)
        return files(one)


@pytest.fixture(params=["disk", "bucket"])
def place(
    request: pytest.FixtureRequest, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_objects: None
) -> Place:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Place(request.param, tree, tmp_path, monkeypatch)


def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards that are written from here on."""
    found: list[str] = []
    write = engine.write_shard

    def writing(task: Any, advance: Any) -> Any:
        found.append(task.name)
        return write(task, advance)

    monkeypatch.setattr(engine, "write_shard", writing)
    return found


def failing_at(monkeypatch: pytest.MonkeyPatch, name: str, after: Callable[[], bool]) -> None:
    write = engine.write_shard

    def writing(task: Any, advance: Any) -> Any:
        if task.name == name:
            while not after():
                time.sleep(0.01)
            raise StorageError(name, "the machine is gone", "start another")
        return write(task, advance)

    monkeypatch.setattr(engine, "write_shard", writing)


@pytest.mark.parametrize("format", ["tar", "tfrecord"])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_the_bytes_are_those_of_one_machine(format: str, count: int, place: Place) -> None:
    for number in range(count, 0, -1):
        place.another_machine()
        place.pack(f"{number}/{count}", format=format)
    place.another_machine()
    merged = shardkit.merge(place.dest)
    assert place.files() == place.one_machine(format=format)
    assert merged.location == place.dest
    assert merged.samples == 12
    assert shardkit.verify(place.dest).sound


def test_a_part_tells_of_its_own_shards(place: Place) -> None:
    packed = place.pack("2/3")
    assert [entry.name for entry in packed.shards] == ["train-000002.tar", "train-000003.tar"]
    assert (packed.samples, packed.index) == (4, ())
    assert sum(entry.count for entry in packed.classes) == 4
    with pytest.raises(NotFoundError):
        list(shardkit.dataset(place.dest))


def test_progress_is_that_of_the_part(place: Place) -> None:
    told: list[Any] = []
    place.pack("2/3", progress=told.append)
    assert {each.total for each in told if each.step == "pack"} == {4}
    assert max(each.done for each in told if each.step == "pack") == 4


def test_a_plan_of_a_part_is_of_its_shards(place: Place) -> None:
    plan = shardkit.plan_pack(place.tree, place.dest, max_count=2, part="3/3")
    assert [name for name, _, _ in plan.datasets[0].shards] == ["train-000004.tar", "train-000005.tar"]


def test_a_part_that_is_run_again_on_another_machine_keeps_its_finished_shards(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing_at(patch, "train-000003.tar", after=lambda: place.kind == "disk" or "train-000002.tar" in place.files())
        refused(StorageError, lambda: place.pack("2/3"))
    assert "not finished are the parts 2/3" in refused(DestinationError, lambda: shardkit.merge(place.dest))
    place.another_machine()
    again = written(monkeypatch)
    place.pack_all()
    assert again == [f"train-00000{number}.tar" for number in (0, 1, 3, 4, 5)]
    del again[:]
    place.pack_all()
    assert again == []
    shardkit.merge(place.dest)
    assert place.files() == place.one_machine()


def test_a_run_without_part_keeps_the_shards_of_parts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.pack("1/3")
    place.another_machine()
    again = written(monkeypatch)
    place.pack()
    assert again == [f"train-00000{number}.tar" for number in (2, 3, 4, 5)]
    assert place.files() == place.one_machine()


def test_a_merge_that_was_interrupted_is_finished_by_the_next(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.pack_all()
    with monkeypatch.context() as patch:
        patch.setattr(DatasetFiles, "require_all", lambda *_: refuse())
        refused(StorageError, lambda: shardkit.merge(place.dest))
    shardkit.merge(place.dest)
    assert place.files() == place.one_machine()
    assert shardkit.merge(place.dest).samples == 12
    place.pack("1/3")
    assert place.files() == place.one_machine()


def refuse() -> None:
    raise StorageError("x", "the disk is full", "make room")


def test_what_a_merge_left_after_its_manifest_is_removed(place: Place) -> None:
    place.pack_all()
    left = {name: data for name, data in place.files().items() if name.endswith(".json")}
    shardkit.merge(place.dest)
    for name, data in left.items():
        place.shared.write(os.path.basename(name), data)
    shardkit.pack(place.tree, place.dest, max_count=3, workers=1, overwrite=True)
    assert len(list(shardkit.dataset(place.dest))) == 12
    assert not any(".packing" in name for name in place.files())


def test_missing_parts_are_named_and_nothing_is_lost(place: Place) -> None:
    place.pack("2/3")
    before = place.files()
    text = refused(DestinationError, lambda: shardkit.merge(place.dest))
    assert "missing are the parts 1/3, 3/3" in text
    assert "--part 1/3" in text
    assert place.files() == before


def test_where_there_are_no_parts_it_is_told(place: Place) -> None:
    assert "there are no parts of a packing here" in refused(NotFoundError, lambda: shardkit.merge(place.dest))
    assert "there are no parts" in refused(NotFoundError, lambda: shardkit.merge(place.folder + "/"))


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"seed": 1}, "with the option seed 0, not 1"),
        ({"max_count": 3}, "with the option max_count 2, not 3"),
        ({"format": "tfrecord"}, "of the format tar, not tfrecord"),
        ({"classes": ["red", "green", "blue"]}, "with other classes: label 0 is 'blue' there, and 'red' here"),
        ({"part": "1/4"}, "the parts 2/3 are there, and this is part 1/4"),
        ({"part": None, "seed": 1}, "with the option seed 0, not 1"),
    ],
)
def test_a_part_of_another_packing_is_refused(options: dict[str, Any], fact: str, place: Place) -> None:
    place.pack("2/3")
    before = place.files()
    text = refused(DestinationError, lambda: place.pack(**{"part": "1/3"} | options))
    assert fact in text
    assert "2/3" in text
    assert "--discard" in text
    assert place.files() == before


def test_a_part_of_another_source_is_refused(place: Place, draw_tree: Callable[..., Path], tmp_path: Path) -> None:
    place.pack("2/3")
    other = draw_tree(tmp_path / "other", {"blue": 5, "red": 7}, size=(50, 30))
    text = refused(DestinationError, lambda: place.pack("1/3", source=other))
    assert "of other files: names, sizes or labels in the source differ" in text


def test_a_part_of_another_version_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.pack("2/3")
    monkeypatch.setattr("shardkit.packing.commit.__version__", "99.0")
    assert "written by shardkit 0." in refused(DestinationError, lambda: place.pack("1/3"))


def test_a_first_part_with_wrong_options_that_wrote_nothing_is_forgotten(place: Place) -> None:
    (place.tree / "blue" / "0000.jpg").write_bytes(b"no image")
    for number in range(6):
        with pytest.raises(BadFileError):
            place.pack("1/1", seed=number, max_count=12)
    place.pack("1/2", on_error="skip")
    place.pack("2/2", on_error="skip")
    shardkit.merge(place.dest)
    assert place.files() == place.one_machine(on_error="skip")
    assert "train.skipped.json" in place.files()


def test_the_same_part_twice_at_once_is_refused(place: Place) -> None:
    with held(place.shared.files.store, place.shared.name(names.lease_name(Part(2, 3).name))):
        place.pack("1/3")
        assert "another run" in refused(BusyError, lambda: place.pack("2/3"))
        text = refused(BusyError, lambda: shardkit.merge(place.dest))
        assert f"parts are still running: 2/3 (process {os.getpid()}" in text
        assert "parts are still running" in refused(BusyError, place.pack)


def test_a_part_is_refused_while_a_merge_runs(place: Place) -> None:
    with held(place.shared.files.store, place.shared.name(names.WHOLE_LEASE)):
        text = refused(BusyError, lambda: place.pack("1/3"))
        assert "a merge or a run without `part` is writing to this destination" in text


def test_parts_run_at_the_same_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    write = engine.write_shard

    def writing(task: Any, advance: Any) -> Any:
        if task.name == "train-000002.tar":
            with monkeypatch.context() as patch:
                patch.setattr(engine, "write_shard", write)
                place.pack("1/3")
                place.pack("3/3")
        return write(task, advance)

    monkeypatch.setattr(engine, "write_shard", writing)
    place.pack("2/3")
    shardkit.merge(place.dest)
    assert place.files() == place.one_machine()


def change_record(place: Place, part: Part, change: Callable[[PartRecord], PartRecord]) -> None:
    [mine] = [each for each in record.records(place.shared) if each.part == part]
    record.write_record(place.shared, change(mine))


def test_records_that_do_not_belong_together_are_refused(place: Place) -> None:
    place.pack_all()
    good = place.shared.read(names.record_name(Part(2, 3).name)) or b""

    def expect(fact: str, kind: type[Exception] = DestinationError) -> None:
        before = place.files()
        assert fact in refused(DestinationError, lambda: shardkit.merge(place.dest))
        assert place.files() == before
        place.shared.write(names.record_name(Part(2, 3).name), good)

    change_record(place, Part(2, 3), lambda each: msgspec.structs.replace(each, plan="0"))
    expect("parts of different packings are there: 2/3 had another source, other options or classes")
    first = record.records(place.shared)[0]
    change_record(place, Part(2, 3), lambda each: msgspec.structs.replace(each, totals=first.totals))
    expect("train-000000.tar was written by part 2/3 and by another")
    empty = type(first.totals)()
    change_record(place, Part(2, 3), lambda each: msgspec.structs.replace(each, totals=empty))
    expect("part 2/3 has not written just its own shards: train-000002.tar")
    place.shared.write(names.record_name(Part(2, 3).name), b"{")
    expect("the record of a part can't be read")
    place.shared.write(names.record_name(Part(2, 3).name), good.replace(b'"number":2', b'"number":1'))
    expect("it is of part 1 of 3")
    place.shared.write(
        names.record_name(Part(1, 2).name), good.replace(b'"number":2,"count":3', b'"number":1,"count":2')
    )
    expect("there are parts of different divisions, which overlap: 1/2, 1/3")
    place.shared.remove([names.record_name(Part(1, 2).name)])
    plan = place.shared.read(names.PLAN) or b""
    place.shared.write(names.PLAN, b"{}")
    expect("the plan of the parts can't be read")
    place.shared.write(names.PLAN, plan)
    shardkit.merge(place.dest)
    assert place.files() == place.one_machine()


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_damaged_index_rows_are_told_and_the_part_writes_them_again(damage: str, place: Place) -> None:
    place.pack_all()
    if damage == "missing":
        place.shared.remove(["train-000003.tar.rows"])
    else:
        place.shared.write("train-000003.tar.rows", b"x")
    shutil.rmtree(place.tmp / "cache", ignore_errors=True)
    text = refused(StorageError, lambda: shardkit.merge(place.dest))
    assert "the index rows of train-000003.tar are missing or damaged" in text
    place.another_machine()
    place.pack("2/3")
    shardkit.merge(place.dest)
    assert place.files() == place.one_machine()


def test_index_rows_of_another_version_are_told_and_the_part_writes_them_again(place: Place) -> None:
    place.pack_all()
    name, record = "train-000003.tar", names.record_name(Part(2, 3).name)
    rows = msgspec.msgpack.encode({"keys": ["a"], "paths": ["a.jpg"], "numbers": {}})
    found = msgspec.json.decode(place.shared.read(record) or b"", type=PartRecord)
    assert found.totals is not None
    found.totals.rows[name] = crc32c(rows)
    place.shared.write(record, msgspec.json.encode(found))
    place.shared.write(f"{name}.rows", rows)
    shutil.rmtree(place.tmp / "cache", ignore_errors=True)
    text = refused(StorageError, lambda: shardkit.merge(place.dest))
    assert f"{name}: the index rows can't be read, or are of another version of shardkit" in text
    place.another_machine()
    place.pack("2/3")
    shardkit.merge(place.dest)
    assert place.files() == place.one_machine()


def test_parts_are_discarded_only_when_asked(place: Place) -> None:
    place.pack("1/3")
    place.another_machine()
    assert not shardkit.merge(place.dest, discard=True)
    assert place.files() == {}
    place.pack(max_count=3)
    assert place.files() == place.one_machine(max_count=3)


def test_where_nothing_is_to_be_discarded_it_is_told(place: Place) -> None:
    place.pack_all()
    shardkit.merge(place.dest)
    before = place.files()
    text = refused(NotFoundError, lambda: shardkit.merge(place.dest, discard=True))
    assert "there are no parts of a packing here" in text
    assert place.files() == before


def test_parts_for_a_dataset_that_changed_are_refused_and_leave_nothing(
    place: Place, draw_tree: Callable[..., Path]
) -> None:
    place.pack()
    before = place.files()
    draw_tree(place.tree, {"new": 5}, seed=70)
    place.pack_all(append=True)
    changed = place.shared.files.read("train.json").replace(b'"plan": "', b'"plan": "0')
    place.shared.files.write("train.json", changed)
    there = place.files()
    text = refused(DestinationError, lambda: shardkit.merge(place.dest))
    assert "not the one that this was planned to be added to" in text
    assert "--discard" in text
    assert place.files() == there
    shardkit.merge(place.dest, discard=True)
    assert place.files() == before | {"train.json": changed}


def test_discarding_leaves_a_dataset_that_would_have_been_replaced(place: Place) -> None:
    place.pack(max_count=3)
    before = place.files()
    place.pack("1/3", overwrite=True)
    assert len(list(shardkit.dataset(place.dest))) == 12
    shardkit.merge(place.dest, discard=True)
    assert place.files() == before


def test_parts_replace_a_dataset_when_they_are_merged(place: Place) -> None:
    place.pack(max_count=3)
    place.pack_all(overwrite=True)
    assert len(list(shardkit.dataset(place.dest))) == 12
    assert place.files()["train.json"] == place.one_machine(max_count=3)["train.json"]
    merged = shardkit.merge(place.dest)
    assert [entry.name for entry in merged.shards][:2] == ["train-g2-000000.tar", "train-g2-000001.tar"]
    assert sorted(place.files()) == sorted(["train.json", "train-g2.parquet", *(entry.name for entry in merged.shards)])
    assert shardkit.verify(place.dest).sound


def test_parts_add_to_a_dataset(place: Place, draw_tree: Callable[..., Path]) -> None:
    one = place.tmp / "one"
    shardkit.pack(place.tree, one / "train", max_count=2, workers=1)
    place.pack()
    draw_tree(place.tree, {"new": 5}, seed=70)
    shardkit.pack(place.tree, one / "train", max_count=2, workers=1, append=True)
    place.pack_all(append=True)
    assert len(list(shardkit.dataset(place.dest))) == 12
    shardkit.merge(place.dest)
    assert place.files() == files(one)


def test_a_dataset_that_came_meanwhile_is_not_overwritten(place: Place) -> None:
    place.pack_all()
    manifest = place.one_machine(max_count=5)["train.json"]
    place.shared.files.write("train.json", manifest)
    text = refused(DestinationError, lambda: shardkit.merge(place.dest))
    assert "a dataset was written here after the parts were begun" in text
    assert place.files()["train.json"] == manifest


def test_other_commands_do_not_remove_what_parts_wrote(place: Place) -> None:
    place.pack("1/3")
    before = place.files()
    one = place.tmp / "one"
    shardkit.pack(place.tree, one / "train", max_count=2, workers=1)
    text = refused(DestinationError, lambda: shardkit.convert(one / "train", place.dest, workers=1))
    assert "an unfinished packing in parts is there" in text
    refused(DestinationError, lambda: shardkit.write([{"__key__": "a", "txt": b"x"}], place.dest))
    text = refused(DestinationError, lambda: shardkit.upload(one / "train", place.dest, overwrite=True))
    assert "an unfinished packing in parts is there" in text
    assert place.files() == before


def test_splits_are_packed_and_merged_together(place: Place, splits: Path) -> None:
    one = place.tmp / "one"
    shardkit.pack(splits, one, max_count=2, workers=1)
    for number in (2, 1):
        shardkit.pack(splits, place.folder + "/", max_count=2, workers=1, part=(number, 2))
    merged = shardkit.merge(place.folder)
    assert merged.splits
    assert list(merged) == sorted(shardkit.pack(splits, one, max_count=2, workers=1))
    assert place.files() == files(one)


def test_the_command_packs_a_part_and_merges(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        line = ["pack", str(place.tree), place.dest, "--workers", "1", "--max-count", "2", "--part", f"{number}/2"]
        assert run(line) == 0
    out = capsys.readouterr().out
    assert f"{place.dest}: this part has 6 samples in 3 shards" in out
    assert f"when all parts are finished: shardkit merge {place.dest}" in out
    assert run(["merge", place.dest]) == 0
    assert f"{place.dest}: 12 samples in 6 shards" in capsys.readouterr().out
    assert run(line) == 0
    assert f"{place.dest}: 12 samples in 6 shards" in capsys.readouterr().out
    assert run(["merge", f"{place.dest}-other"]) == 5
    assert run([*line[:-1], "3/2"]) == 2


def test_objects_that_no_part_wrote_are_in_the_way(place: Place) -> None:
    if place.kind == "disk":
        pytest.skip("a bucket's shards have their final names before the commit")
    place.pack("1/3")
    memory._OBJECTS["b/train-000004.tar"] = b"somebody's"
    text = refused(DestinationError, lambda: place.pack("2/3"))
    assert "train-000004.tar: this file already exists, belongs to no manifest" in text
