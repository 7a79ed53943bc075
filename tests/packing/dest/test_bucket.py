"""Packing and converting straight to a bucket: the same bytes, the same promises, and a disk that holds few shards."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from generations import is_generation
from storage.in_memory import files, objects, refused

import shardkit
from shardkit.cli.main import run
from shardkit.errors import BadFileError, BusyError, DestinationError, NotFoundError, StorageError, UsageError
from shardkit.events import Progress
from shardkit.location import locate
from shardkit.packing.dest import shipping
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.packing.engine import engine
from shardkit.packing.pack import PackPlan
from shardkit.packing.parts.names import WHOLE_LEASE, shared_name
from shardkit.shards import names
from shardkit.shards.manifest import decode_manifest, file_names
from shardkit.storage.files import FolderLock
from shardkit.storage.patient import open_patient
from shardkit.storage.store import open_store
from shardkit.storage.stores import memory


@pytest.fixture(autouse=True)
def own_cache(no_objects: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def local(tree: Path, tmp_path: Path) -> dict[str, bytes]:
    """The files of the same packing on this machine."""
    shardkit.pack(tree, tmp_path / "local" / "train", max_count=2, workers=1)
    return files(tmp_path / "local")


def pack(tree: Path, dest: str = "memory://b/train", **options: Any) -> Any:
    return shardkit.pack(tree, dest, **{"max_count": 2, "workers": 1} | options)


def packed_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards that are written from here on, by one process."""
    names: list[str] = []
    write = engine.write_shard

    def writing(task: Any, advance: Any) -> Any:
        names.append(task.name)
        return write(task, advance)

    monkeypatch.setattr(engine, "write_shard", writing)
    return names


def before_put(patch: pytest.MonkeyPatch, act: Callable[[str], None]) -> None:
    """Calls `act` with the name before each put, other than of leases."""
    put, put_if = memory.MemoryStore.put, memory.MemoryStore.put_if

    def putting(self: Any, name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
        act(name)
        put(self, name, data, crc32c=crc32c)

    def putting_if(self: Any, name: str, data: bytes, **condition: Any) -> str | None:
        if not name.endswith(".lease"):
            act(name)
        return put_if(self, name, data, **condition)

    patch.setattr(memory.MemoryStore, "put", putting)
    patch.setattr(memory.MemoryStore, "put_if", putting_if)


def cut_short_at(patch: pytest.MonkeyPatch, last: str) -> None:
    def act(name: str) -> None:
        if name == last:
            raise StorageError(name, "the bucket is full", "make room")

    before_put(patch, act)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("format", ["tar", "tfrecord"])
def test_a_bucket_gets_the_bytes_of_a_packing_on_this_machine(
    format: str, workers: int, tree: Path, tmp_path: Path
) -> None:
    there = pack(tree, workers=workers, format=format)
    here = pack(tree, str(tmp_path / "local" / "train"), format=format)
    assert there == here
    assert objects("b") == files(tmp_path / "local")


def test_an_s3_server_gets_the_same_bytes(tree: Path, local: dict[str, bytes], s3_server: Any) -> None:
    pack(tree, f"{s3_server.url}/x/train", storage_options=s3_server.options)
    store = open_store(locate(f"{s3_server.url}/x"), s3_server.options)
    assert {info.name: b"".join(map(bytes, store.pieces(info.name))) for info in store.list()} == local


def test_splits_go_to_a_folder_of_the_bucket(splits: Path, tmp_path: Path) -> None:
    pack(splits, "memory://b/cars/")
    pack(splits, str(tmp_path / "local"))
    assert objects("b/cars") == files(tmp_path / "local")


def test_a_conversion_to_a_bucket_gives_the_same_bytes(tree: Path, local: dict[str, bytes], tmp_path: Path) -> None:
    source = tmp_path / "local" / "train"
    shardkit.convert(source, "memory://b/tf/", format="tfrecord", workers=1)
    shardkit.convert(source, tmp_path / "tf" / "train", format="tfrecord", workers=1)
    assert objects("b/tf") == files(tmp_path / "tf")
    shardkit.convert(source, "memory://b/tf/", format="tfrecord", workers=1)
    text = refused(DestinationError, lambda: shardkit.convert(source, "memory://b/tf/", max_count=5, workers=1))
    assert text.startswith("memory://b/tf/train.json: another dataset is there")
    shutil.rmtree(tmp_path / "cache")
    shardkit.convert(source, "memory://b/tf/", format="tfrecord", workers=1)


def test_the_index_goes_next_to_last_and_the_manifest_last(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[str] = []
    before_put(monkeypatch, put.append)
    pack(tree)
    assert put[0] == names.marker_name("train")
    assert sorted(put[1:-2]) == [f"train-00000{n}.tar" for n in range(6)]
    assert put[-2:] == ["train.parquet", "train.json"]


def test_the_disk_holds_a_few_shards_at_a_time(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "WAITING", 1)
    monkeypatch.setattr(shipping, "SENDERS", 2)
    most = [0]

    def look(name: str) -> None:
        time.sleep(0.01)
        most[0] = max(most[0], len(list((tmp_path / "cache").rglob("*.tar"))))

    before_put(monkeypatch, look)
    pack(tree, max_count=1)
    assert 1 <= most[0] <= 2 + 1 + 1
    kept = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept == ["train.packed"]


def test_shards_wait_in_the_folder_that_is_named(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    before_put(monkeypatch, lambda name: seen.update(path.name for path in (tmp_path / "w").rglob("*.tar")))
    pack(tree, work=tmp_path / "w")
    assert "train-000000.tar" in seen
    assert not (tmp_path / "cache").exists()


def test_a_run_that_was_cut_short_goes_on_where_it_was(
    tree: Path, local: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        cut_short_at(patch, "train.parquet")
        refused(StorageError, lambda: pack(tree))
    assert {"train.json", "train.parquet"}.isdisjoint(objects("b"))
    assert len(objects("b")) == 6 + 1
    with pytest.raises(NotFoundError, match="still to come"):
        list(shardkit.dataset("memory://b/train-*.tar"))
    sent: list[str] = []
    written = packed_names(monkeypatch)
    before_put(monkeypatch, sent.append)
    pack(tree)
    assert objects("b") == local
    assert (written, sent) == ([], ["train.parquet", "train.json"])


def test_a_shard_that_is_finished_and_not_sent_is_sent_by_the_next_run(
    tree: Path, local: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        cut_short_at(patch, "train-000002.tar")
        refused(StorageError, lambda: pack(tree))
    written = packed_names(monkeypatch)
    pack(tree)
    assert objects("b") == local
    assert "train-000002.tar" not in written
    assert len(written) < 6


def test_a_shard_that_changed_in_the_bucket_is_made_again(
    tree: Path, local: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        cut_short_at(patch, "train.parquet")
        refused(StorageError, lambda: pack(tree))
    data = memory._OBJECTS["b/train-000003.tar"]
    memory._OBJECTS["b/train-000003.tar"] = data[:-1] + b"\1"
    del memory._OBJECTS["b/train-000004.tar"]
    written = packed_names(monkeypatch)
    pack(tree)
    assert written == ["train-000003.tar", "train-000004.tar"]
    assert objects("b") == local


def test_another_plan_after_an_interruption_leaves_nothing_of_the_first(
    tree: Path, local: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        cut_short_at(patch, "train.parquet")
        refused(StorageError, lambda: pack(tree, max_count=1))
    assert len(objects("b")) == 12 + 1
    refused(DestinationError, lambda: pack(tree))  # it finishes what was decided
    assert len(list(shardkit.dataset("memory://b/train"))) == 12
    pack(tree, overwrite=True)
    assert is_generation(objects("b"), local, "train", 2)


def test_what_is_packed_is_not_packed_again(
    tree: Path, local: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pack(tree)
    sent: list[str] = []
    before_put(monkeypatch, sent.append)
    assert pack(tree) == decode_manifest(local["train.json"], place="x")
    assert "memory://b/train.json: already packed and complete; nothing was written" in caplog.text
    assert sent == []


@pytest.mark.parametrize("machine", ["this", "another"])
def test_a_source_that_changed_since_is_told(machine: str, tree: Path, tmp_path: Path, draw_image: Any) -> None:
    pack(tree)
    if machine == "another":
        shutil.rmtree(tmp_path / "cache")
        pack(tree)
    path = tree / "red" / "0003.jpg"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    text = refused(DestinationError, lambda: pack(tree))
    assert "this dataset is out of date: the source's red/0003.jpg is not what was packed" in text


def test_a_dataset_whose_shard_is_missing_is_told(tree: Path) -> None:
    pack(tree)
    del memory._OBJECTS["b/train-000001.tar"]
    text = refused(DestinationError, lambda: pack(tree))
    assert "names train-000001.tar, which is missing or has another size; pack again with `overwrite=True`" in text


def test_another_dataset_is_replaced_only_when_asked(tree: Path, local: dict[str, bytes]) -> None:
    pack(tree, max_count=1)
    before = objects("b")
    text = refused(DestinationError, lambda: pack(tree))
    assert text.startswith("memory://b/train.json: another dataset is there, packed with the option max_count 1, not 2")
    assert objects("b") == before
    pack(tree, overwrite=True)
    assert is_generation(objects("b"), local, "train", 2)


def test_a_replacement_that_fails_before_its_first_shard_leaves_the_old_dataset(tree: Path, tmp_path: Path) -> None:
    pack(tree)
    before = objects("b")
    other = tmp_path / "other"
    shutil.copytree(tree, other)
    (other / "blue" / "bad.jpg").write_bytes(b"no image")
    refused(BadFileError, lambda: pack(other, max_count=100, overwrite=True))
    assert objects("b") == before


def test_a_replacement_that_was_cut_short_is_gone_on_with(
    tree: Path, local: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(tree, max_count=1)
    with monkeypatch.context() as patch:
        cut_short_at(patch, "train-g2.parquet")
        refused(StorageError, lambda: pack(tree, overwrite=True))
    assert len(list(shardkit.dataset("memory://b/train"))) == 12
    pack(tree)
    assert is_generation(objects("b"), local, "train", 2)


@pytest.mark.parametrize("name", ["train-000000.tar", "train-000099.tar"])
def test_objects_of_others_are_in_the_way(name: str, tree: Path, local: dict[str, bytes]) -> None:
    memory._OBJECTS[f"b/{name}"] = b"somebody's"
    text = refused(DestinationError, lambda: pack(tree))
    assert text.startswith(f"memory://b/{name}: this file already exists, belongs to no manifest")
    assert objects("b") == {name: b"somebody's"}
    pack(tree, overwrite=True)
    assert objects("b") == local


def add_files(tree: Path, draw_image: Any, count: int = 3) -> None:
    for number in range(count):
        (tree / "red" / f"new{number}.jpg").write_bytes(draw_image(100 + number))


def test_files_are_added_to_a_dataset_in_a_bucket_as_on_a_disk(
    tree: Path, tmp_path: Path, draw_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for dest in ("memory://b/train", str(tmp_path / "local" / "train")):
        pack(tree, dest)
    add_files(tree, draw_image)
    before, put = objects("b"), list[str]()
    before_put(monkeypatch, put.append)
    there = pack(tree, append=True)
    assert put == [
        "train-000006.tar",
        "train-000007.tar",
        "train.00001.parquet",
        names.aside_name("train"),
        "train.json",
    ]
    assert there == pack(tree, str(tmp_path / "local" / "train"), append=True)
    assert objects("b") == files(tmp_path / "local")
    assert before.keys() < objects("b").keys()
    assert pack(tree, append=True) == there
    assert shardkit.verify("memory://b/train").sound


@pytest.mark.parametrize("last", ["train-000007.tar", "train.00001.parquet", "train.json"])
@pytest.mark.parametrize("machine", ["this", "another"])
def test_an_addition_that_is_cut_short_leaves_the_dataset_and_goes_on(
    machine: str, last: str, tree: Path, tmp_path: Path, draw_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(tree, str(tmp_path / "local" / "train"))
    pack(tree)
    add_files(tree, draw_image)
    with monkeypatch.context() as patch:
        cut_short_at(patch, last)
        refused(StorageError, lambda: pack(tree, append=True))
    assert len(list(shardkit.dataset("memory://b/train"))) == 12
    pack(tree, str(tmp_path / "local" / "train"), append=True)
    if machine == "another":
        shutil.rmtree(tmp_path / "cache")
        text = refused(DestinationError, lambda: pack(tree, append=True))
        assert "this file already exists, but the manifest of the dataset does not list it" in text
        return
    pack(tree, append=True)
    assert objects("b") == files(tmp_path / "local")


def test_of_two_additions_at_once_one_is_refused_and_nothing_is_lost(
    tree: Path, draw_image: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pack(tree)
    add_files(tree, draw_image)
    refusals: list[str] = []

    def second(name: str) -> None:
        if name == "train-000006.tar" and not refusals:
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
            refusals.append(refused(BusyError, lambda: pack(tree, append=True)))

    before_put(monkeypatch, second)
    pack(tree, append=True)
    assert f"another run (process {os.getpid()} on " in refusals[0]
    assert len(list(shardkit.dataset("memory://b/train"))) == 15


def test_a_manifest_that_another_run_wrote_meanwhile_is_not_replaced(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that lost its lease without knowing, or one of an older version."""

    def meanwhile(name: str) -> None:
        if name == "train.json":
            memory._OBJECTS["b/train.json"] = b"another"

    before_put(monkeypatch, meanwhile)
    assert "another run wrote it meanwhile" in refused(BusyError, lambda: pack(tree))
    assert memory._OBJECTS["b/train.json"] == b"another"


def test_a_second_run_of_this_machine_is_refused(tree: Path, tmp_path: Path) -> None:
    pack(tree)
    (folder,) = (tmp_path / "cache" / "shardkit" / "packing").iterdir()
    lock = FolderLock(str(folder / ".train.packing"))
    refused(BusyError, lambda: pack(tree))
    pack(tree, "memory://other/train")
    lock.release()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_store_that_fails_now_and_then_gets_it_all_the_same(
    workers: int, tree: Path, local: dict[str, bytes]
) -> None:
    options = {"refused": 0.2, "reset": 0.2, "lost": 0.1, "seed": 4}
    pack(tree, "faulty+memory://b/train", storage_options=options, workers=workers)
    assert objects("b") == local


@pytest.mark.parametrize("workers", [1, 2])
def test_a_store_that_is_gone_ends_the_run(workers: int, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "WAITING", 0)
    monkeypatch.setattr(shipping, "SENDERS", 1)
    cut_short_at(monkeypatch, "train-000000.tar")
    text = refused(StorageError, lambda: pack(tree, max_count=1, workers=workers))
    assert text == "train-000000.tar: the bucket is full; make room"


def test_progress_tells_of_the_last_shards_on_their_way(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before_put(monkeypatch, lambda name: time.sleep(0.05))
    told: list[Progress] = []
    pack(tree, progress=told.append)
    assert [one.step for one in told][-1] == "upload"
    assert max(one.done for one in told if one.step == "pack") == 12


def test_what_makes_no_sense_is_refused(tree: Path, tmp_path: Path) -> None:
    assert "is on this machine" in refused(UsageError, lambda: pack(tree, str(tmp_path / "o"), work=tmp_path))
    text = refused(UsageError, lambda: pack(tree, str(tmp_path / "o"), storage_options={"region": "secret"}))
    assert text.startswith("storage_options: given for ")
    assert "secret" not in text
    refused(DestinationError, lambda: pack(tree, "memory://b/train-*"))
    assert objects("b") == {}


def test_a_dry_run_names_the_bucket_and_writes_nothing(tree: Path, tmp_path: Path) -> None:
    plan = shardkit.plan_pack(tree, "memory://b/train", max_count=2, workers=1)
    assert isinstance(plan, PackPlan)
    assert plan.datasets[0].manifest == "memory://b/train.json"
    assert objects("b") == {}
    assert not (tmp_path / "cache").exists()


def test_the_command_tells_where_the_dataset_is(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pack", str(tree), "memory://b/x/", "--workers", "1"]) == 0
    assert capsys.readouterr().out.startswith("memory://b/x/tree: 12 samples in 1 shard, ")


def test_a_run_that_is_killed_leaves_no_half_dataset_and_the_next_goes_on(
    tmp_path: Path, draw_tree: Any, s3_server: Any
) -> None:
    tree = draw_tree(tmp_path / "many", {"a": 30, "b": 30})
    shardkit.pack(tree, tmp_path / "local" / "train", max_count=1, workers=1)
    local = files(tmp_path / "local")
    store = open_store(locate(s3_server.url), s3_server.options)
    options = [f"--storage-option={key}={value}" for key, value in s3_server.options.items()]
    line = ["pack", str(tree), f"{s3_server.url}/train", "--max-count", "1", "--workers", "2", *options]
    command = [sys.executable, "-m", "shardkit", *line]
    environment = os.environ | {"PYTHONPATH": str(Path(shardkit.__file__).parents[1])}
    chance = random.Random(1)
    for _ in range(4):
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        at = len(list(store.list())) + chance.randrange(1, 15)
        ends = time.monotonic() + 60
        while process.poll() is None and len(list(store.list())) < at:
            assert time.monotonic() < ends
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        there = {info.name: b"".join(map(bytes, store.pieces(info.name))) for info in store.list()}
        there.pop(names.marker_name("train"), None)
        there.pop(shared_name("train", WHOLE_LEASE), None)
        assert there.items() <= local.items()
        if "train.json" in there:
            assert set(file_names(decode_manifest(there["train.json"], place="x"))) <= set(there)
    done = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True, env=environment)
    assert json.loads(done.stdout)["samples"] == 60
    assert {info.name: b"".join(map(bytes, store.pieces(info.name))) for info in store.list()} == local


def test_a_configuration_file_may_hold_storage_options(
    tree: Path, local: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "pack.yaml"
    config.write_text("storage_options: [refused=0.2, seed=4]\nwork: waiting\nmax_count: 2\nworkers: 1\n")
    line = ["pack", str(tree), "faulty+memory://b/train", "--config", str(config)]
    assert run(line) == 0
    assert objects("b") == local
    assert (tmp_path / "waiting").is_dir()
    config.write_text("storage_options: [hunter2]\n")
    capsys.readouterr()
    assert run(line) == 2
    assert capsys.readouterr().err == (
        f"shardkit: error: {config}:1: storage_options: number 1 of them is not KEY=VALUE; "
        "write it as region=eu-west-1\n"
    )


def test_a_small_file_that_is_replaced_while_it_is_read_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    place = DatasetFiles(open_patient(locate("memory://b")), "train")
    versions = iter([b"the first one", b"the second"])
    place.write("train.json", next(versions))
    info = memory.MemoryStore.info

    def replaced(self: memory.MemoryStore, name: str) -> Any:
        found = info(self, name)
        for data in versions:
            self.put(name, io.BytesIO(data))
        return found

    monkeypatch.setattr(memory.MemoryStore, "info", replaced)
    assert place.read("train.json") == b"the second"
