"""An index made of the headers of shards in a store: what it lacks, how it is read, and how it goes on after a kill."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shards.indexing.in_store import tar_of

import shardkit
from shardkit import DamagedError, DatasetError, StorageError, dataset, index_shards
from shardkit.cli.main import run
from shardkit.location import locate
from shardkit.shards.indexing import kept
from shardkit.shards.names import work_name
from shardkit.storage.store import open_store
from shardkit.storage.stores.memory import MemoryStore


def large(image: bytes, number: int) -> bytes:
    """A picture of 60 kB: more than is read through."""
    return image + bytes(60_000) + b"%d" % number


def shard(draw_image: Any, number: int, samples: int = 4) -> bytes:
    members = []
    for n in range(number * samples, (number + 1) * samples):
        members += [(f"{n:05}.jpg", large(draw_image(n), n)), (f"{n:05}.cls", b"%d" % (n % 3))]
    return tar_of(members)


def folder_of(shards: dict[str, bytes]) -> str:
    folder = f"memory://{os.urandom(6).hex()}/theirs"
    for name, data in shards.items():
        open_store(locate(folder)).put(name, io.BytesIO(data))
    return folder


@pytest.fixture
def theirs(draw_image: Any) -> str:
    """The URL of three shards in a store: web-000000.tar …"""
    return folder_of({f"web-{number:06}.tar": shard(draw_image, number) for number in range(3)})


def test_such_an_index_has_no_checksums_and_says_so(
    theirs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], ranges: list[tuple[int, int]]
) -> None:
    manifest = index_shards(f"{theirs}/web-*.tar", out=tmp_path / "mine")
    assert sum(end - start for start, end in ranges) < manifest.bytes / 10
    assert not manifest.has_checksums and {entry.crc32c for entry in manifest.shards} == {""}
    assert {entry.name: entry.count for entry in manifest.classes} == {"0": 4, "1": 4, "2": 4}
    found = shardkit.verify(tmp_path / "mine")
    assert (found.sound, found.read, found.unproven) == (True, False, 3)
    found = shardkit.verify(tmp_path / "mine", decode=True)
    assert (found.sound, found.decoded, found.checksums) == (True, 12, False)
    assert run(["verify", str(tmp_path / "mine"), "--decode"]) == 0
    assert "'shardkit index --whole' makes them" in capsys.readouterr().out


def test_a_report_does_not_take_images_without_checksums_for_equal(theirs: str, tmp_path: Path) -> None:
    index_shards(f"{theirs}/web-*.tar", out=tmp_path / "mine")
    found = shardkit.report(tmp_path / "mine", tmp_path / "report.html")
    assert all(part.duplicates == () and part.mislabelled == 0 for part in found.datasets)
    assert "duplicates are not looked for" in (tmp_path / "report.html").read_text("utf-8")
    index_shards(f"{theirs}/web-*.tar", out=tmp_path / "mine", whole=True, overwrite=True)
    shardkit.report(tmp_path / "mine", tmp_path / "report.html")
    assert "duplicates are not looked for" not in (tmp_path / "report.html").read_text("utf-8")


def test_it_is_measured_and_shown_from_where_the_shards_are(theirs: str, tmp_path: Path) -> None:
    index_shards(f"{theirs}/web-*.tar", out=tmp_path / "mine")
    assert shardkit.bench(tmp_path / "mine", seconds=1, threads=[1]).kind == "shards in a store"
    shardkit.view(tmp_path / "mine", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000


@pytest.mark.parametrize("act", ["repair", "export", "upload"])
def test_what_needs_the_shards_on_a_disk_says_so(act: str, theirs: str, tmp_path: Path) -> None:
    index_shards(f"{theirs}/web-*.tar", out=tmp_path / "mine")
    with pytest.raises(shardkit.UsageError, match=r"shards (are in a store|elsewhere)") as caught:
        if act == "export":
            shardkit.export(tmp_path / "mine", kinds=["timm"])
        else:
            getattr(shardkit, act)(tmp_path / "mine", tmp_path / "own")
    assert caught.value.place.startswith(str(tmp_path / "mine"))
    assert caught.value.cure == "write a dataset of its own with 'shardkit convert'"


def test_the_whole_shards_give_one_with_checksums(theirs: str, tmp_path: Path) -> None:
    manifest = index_shards(f"{theirs}/web-*.tar", out=tmp_path / "mine", whole=True)
    assert manifest.has_checksums and manifest.samples == 12
    found = shardkit.verify(tmp_path / "mine")
    assert (found.sound, found.unproven) == (True, 0)  # memory:// has checksums
    headers = index_shards(f"{theirs}/web-*.tar", out=tmp_path / "headers")
    assert (headers.classes, headers.fields, headers.bytes) == (manifest.classes, manifest.fields, manifest.bytes)


def test_its_images_are_read_decoded_and_found_by_number(theirs: str, tmp_path: Path, draw_image: Any) -> None:
    index_shards(f"{theirs}/web-*.tar", out=tmp_path / "mine")
    found = dataset(tmp_path / "mine")
    assert [s["jpg"] for s in found] == [large(draw_image(n), n) for n in range(12)]
    assert found[7]["__key__"] == "00007" and found[7]["cls"] == 1
    shuffled = dataset(tmp_path / "mine", shuffle=6, seed=3).decode(size=16).batch(5, drop_last=False)
    batches = [(images.shape, labels.tolist()) for images, labels in shuffled]
    assert [shape for shape, _ in batches] == [(5, 16, 16, 3), (5, 16, 16, 3), (2, 16, 16, 3)]
    assert sorted(label for _, labels in batches for label in labels) == sorted(n % 3 for n in range(12))
    assert len(dataset(tmp_path / "mine").select([0, 2])) == 8
    assert np.asarray(dataset(tmp_path / "mine").labels).tolist() == [n % 3 for n in range(12)]


def test_a_sample_that_is_another_one_is_told_without_checksums(theirs: str, tmp_path: Path, draw_image: Any) -> None:
    index_shards(f"{theirs}/web-*.tar", out=tmp_path / "mine")
    path = tmp_path / "mine.json"
    told = json.loads(path.read_bytes())
    del told["options"]["elsewhere"]["versions"]  # as for a server without ETags
    path.write_text(json.dumps(told))
    other = shard(draw_image, 1).replace(b"00005.jpg", b"x0005.jpg")
    assert len(other) == len(shard(draw_image, 1))
    open_store(locate(theirs)).put("web-000001.tar", io.BytesIO(other))
    with pytest.raises(DamagedError):
        list(dataset(tmp_path / "mine").decode(size=16).batch(4))
    with pytest.raises(DamagedError):
        list(dataset(tmp_path / "mine"))


def test_a_compressed_shard_is_unpacked_as_a_whole(tmp_path: Path, draw_image: Any) -> None:
    theirs = folder_of({f"web-{n:06}.tar.gz": gzip.compress(shard(draw_image, n)) for n in range(2)})
    manifest = index_shards(f"{theirs}/web-*.tar.gz", out=tmp_path / "mine")
    assert manifest.has_checksums and all(manifest.unpacked_bytes)
    assert [s["__key__"] for s in dataset(tmp_path / "mine")] == [f"{n:05}" for n in range(8)]


@pytest.mark.parametrize(
    ("head", "kind"), [(b"BZh91AY", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")]
)
def test_another_compression_is_named(head: bytes, kind: str, tmp_path: Path) -> None:
    theirs = folder_of({"web-000000.tar": head + bytes(4000)})
    with pytest.raises(DamagedError, match=f"this is a {kind} file, but shards must be plain or gzip"):
        index_shards(f"{theirs}/web-*.tar", out=tmp_path / "mine")


def test_a_key_that_occurs_twice_is_told_with_both_shards(tmp_path: Path, draw_image: Any) -> None:
    theirs = folder_of({"web-000000.tar": shard(draw_image, 0), "web-000001.tar": shard(draw_image, 0)})
    with pytest.raises(DatasetError, match="the key is already in web-000000"):
        index_shards(f"{theirs}/web-*.tar", out=tmp_path / "mine")


def test_a_glob_that_mixes_formats_is_told(tmp_path: Path, draw_image: Any) -> None:
    theirs = folder_of({"web-000000.tar": shard(draw_image, 0), "web-000001.tfrecord": b""})
    with pytest.raises(shardkit.UsageError, match="these are shards of more than one format"):
        index_shards(f"{theirs}/web-*", out=tmp_path / "mine")


def test_shards_that_were_read_are_not_read_again(
    theirs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranges: list[tuple[int, int]]
) -> None:
    pattern = f"{theirs}/web-{{000000..000002}}.tar"
    monkeypatch.setattr(kept, "KEPT_BYTES", 0)
    index_shards(pattern, out=tmp_path / "straight" / "web")
    all_ranges = len(ranges)
    with monkeypatch.context() as patch:
        pieces = MemoryStore.pieces

        def breaks(self: MemoryStore, name: str, start: int = 0, end: int | None = None) -> Any:
            if name == "web-000002.tar" and start > 100_000:
                raise StorageError(name, "the line is cut", "try again")
            return pieces(self, name, start, end)

        patch.setattr(MemoryStore, "pieces", breaks)
        with pytest.raises(StorageError, match="the line is cut"):
            index_shards(pattern, out=tmp_path / "again" / "web", workers=1)
    assert os.listdir(tmp_path / "again") == [work_name("web")]
    ranges.clear()
    index_shards(pattern, out=tmp_path / "again" / "web")
    assert 0 < len(ranges) < all_ranges / 2
    for name in ("web.json", "web.parquet"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert sorted(os.listdir(tmp_path / "again")) == ["web.json", "web.parquet"]


def names_read(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the shards in memory that are read from now on."""
    names, pieces = set[str](), MemoryStore.pieces

    def noted(self: MemoryStore, name: str, start: int = 0, end: int | None = None) -> Any:
        names.update([name] if name.endswith(".tar") else [])
        return pieces(self, name, start, end)

    monkeypatch.setattr(MemoryStore, "pieces", noted)
    return names


def test_only_changed_and_new_shards_are_read_for_the_next_index(
    theirs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw_image: Any
) -> None:
    index_shards(f"{theirs}/web-{{000000..000001}}.tar", out=tmp_path / "web")
    open_store(locate(theirs)).put("web-000001.tar", io.BytesIO(shard(draw_image, 7)))
    names, three = names_read(monkeypatch), f"{theirs}/web-{{000000..000002}}.tar"
    index_shards(three, out=tmp_path / "web", overwrite=True)
    assert names == {"web-000001.tar", "web-000002.tar"}
    names.clear()
    assert len(dataset(three, index="auto")) == index_shards(three, out=tmp_path / "other").samples == 12
    assert names == set()
    monkeypatch.setattr(kept, "cache_home", lambda: str(tmp_path / "cache"))
    index_shards(three, out=tmp_path / "read" / "other")
    assert names == {f"web-00000{number}.tar" for number in range(3)}
    for name in ("other.json", "other.parquet"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "read" / name).read_bytes()


def test_other_columns_and_whole_shards_are_not_taken_from_what_was_read(
    theirs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = f"{theirs}/web-{{000000..000002}}.tar"
    index_shards(pattern, out=tmp_path / "web")
    names = names_read(monkeypatch)
    assert index_shards(pattern, out=tmp_path / "whole", whole=True).has_checksums and len(names) == 3
    names.clear()
    assert index_shards(pattern, out=tmp_path / "quality", quality_columns=True).quality_columns and len(names) == 3
    names.clear()
    index_shards(pattern, out=tmp_path / "again", quality_columns=True)
    assert not names


def test_what_is_kept_is_not_needed_and_goes_when_it_is_old(
    theirs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "cache_home", lambda: str(tmp_path / "cache"))
    folder, pattern = tmp_path / "cache" / "shardkit" / "indexed", f"{theirs}/web-{{000000..000002}}.tar"
    folder.mkdir(parents=True)
    (folder / "old").write_bytes(b"")
    os.utime(folder / "old", (1, 1))
    index_shards(pattern, out=tmp_path / "web")
    [file] = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-10])
    assert index_shards(pattern, out=tmp_path / "two").samples == 12
    file.write_bytes(b"something else")
    assert index_shards(pattern, out=tmp_path / "three").samples == 12
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(kept, "cache_home", lambda: str(tmp_path / "file"))
    assert index_shards(pattern, out=tmp_path / "four").samples == 12


def test_a_shard_that_changed_meanwhile_is_read_again(
    theirs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw_image: Any
) -> None:
    pattern = f"{theirs}/web-{{000000..000002}}.tar"
    open_store(locate(theirs)).put("web-000002.tar", io.BytesIO(b"no tar" * 1000))
    with pytest.raises(DamagedError):
        index_shards(pattern, out=tmp_path / "web")
    changed = [(f"new{n}.jpg", large(draw_image(n), n)) for n in range(6)]
    open_store(locate(theirs)).put("web-000000.tar", io.BytesIO(tar_of(changed)))
    open_store(locate(theirs)).put("web-000002.tar", io.BytesIO(shard(draw_image, 2)))
    assert index_shards(pattern, out=tmp_path / "web").samples == 14
    assert [s["__key__"] for s in dataset(tmp_path / "web")][:7] == [*(f"new{n}" for n in range(6)), "00004"]


CODE = """
import sys, shardkit
shardkit.index_shards
print("begins", flush=True)
shardkit.index_shards(sys.argv[1], out=sys.argv[2], storage_options={"latency_seconds": 0.002})
"""


def test_a_run_that_is_killed_at_any_moment_goes_on_to_equal_bytes(tmp_path: Path, draw_image: Any) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for number in range(12):
        (folder / f"web-{number:06}.tar").write_bytes(shard(draw_image, number))
    pattern, rng = f"slow+file://{folder}/web-{{000000..000011}}.tar", random.Random(7)
    index_shards(pattern, out=tmp_path / "straight" / "web")
    for _ in range(6):
        command = [sys.executable, "-c", CODE, pattern, str(tmp_path / "killed" / "web")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.random() * 0.3)
            process.kill()
    index_shards(pattern, out=tmp_path / "killed" / "web", overwrite=True)
    for name in ("web.json", "web.parquet"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert sorted(os.listdir(tmp_path / "killed")) == ["web.json", "web.parquet"]
