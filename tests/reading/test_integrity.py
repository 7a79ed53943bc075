"""What a reader sees of bytes that are not what they were, and of files that change under it."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import shutil
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.errors import DamagedError, DatasetError, ManifestError, NotFoundError, StorageError
from shardkit.reading.blocks import source as blocks
from shardkit.reading.blocks import stream
from shardkit.shards import buffers
from shardkit.storage import mapped
from shardkit.storage import mapping as mapping_module
from shardkit.storage.mapping import let_go, map_file, view_of

Run = Callable[..., Any]
BLOCK = 8


def spoiled_image(prefix: Path, row: int) -> tuple[str, str, int]:
    """Flip a bit in the middle of an image. (its shard, key, first byte)."""
    catalog: Any = shardkit.dataset(prefix).content.catalog
    block = catalog.block(np.array([row]))
    (shard,), (start,), (end,) = block.spans.shards, block.spans.starts, block.spans.ends
    with open(catalog.files()[shard].location.path, "r+b") as file:
        file.seek((start + end) // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    return os.path.basename(catalog.urls[shard]), block.keys[0], int(start)


@pytest.fixture(params=["tar", "tfrecord", "fields-tar", "fields-tfrecord"])
def own(request: pytest.FixtureRequest, pairs: Any, tmp_path: Path) -> Path:
    """A copy of 97 samples of its own, in each format, with and without other fields; the prefix."""
    prefix = Path(pairs[request.param][0])
    for path in prefix.parent.glob(prefix.name + "*"):
        shutil.copy(path, tmp_path)
    return tmp_path / prefix.name


@pytest.fixture
def copy(cars: str, tmp_path: Path) -> Path:
    """A copy of the 97 cars of its own; the prefix."""
    for path in Path(cars).parent.glob("cars*"):
        shutil.copy(path, tmp_path)
    return tmp_path / "cars"


DECODED: dict[str, Callable[[shardkit.Dataset], Any]] = {
    "batches": lambda ds: ds.decode(size=8).batch(10),
    "samples": lambda ds: ds.decode(size=8),
    "mapped": lambda ds: ds.decode(size=8).map(dict).batch(10),
    "exact": lambda ds: ds.decode(size=8, exact=True).batch(10),
    "concatenated": lambda ds: shardkit.concat([ds, ds]).decode(size=8).batch(10),
}


@pytest.mark.parametrize("row", [0, 33, 96])
@pytest.mark.parametrize("kind", DECODED)
def test_an_image_whose_bytes_have_changed_is_never_decoded(own: Path, kind: str, row: int) -> None:
    shard, key, start = spoiled_image(own, row)
    with pytest.raises(DamagedError, match="the checksum of") as told:
        list(DECODED[kind](shardkit.dataset(own)))
    assert told.value.place.endswith(shard)
    assert told.value.key in (key, None) and (told.value.key is None or told.value.offset == start)


@pytest.mark.parametrize("kind", ["batches", "samples", "mapped"])
def test_a_damaged_image_can_be_skipped_as_a_bad_one(own: Path, kind: str) -> None:
    _, key, _ = spoiled_image(own, 33)
    steps = {
        "batches": lambda ds: ds.decode(size=8, on_error="skip").batch(10),
        "samples": lambda ds: ds.decode(size=8, on_error="skip").batch(1),
        "mapped": lambda ds: ds.decode(size=8, on_error="skip").map(dict).batch(10),
    }[kind]
    batches = list(steps(shardkit.dataset(own)))
    keys = [k for batch in batches for k in (batch["__key__"] if isinstance(batch, dict) else batch.keys)]
    assert len(keys) == 96 and key not in keys
    with pytest.raises(DatasetError, match="skip_limit is 0"):
        list(shardkit.dataset(own).decode(size=8, on_error="skip", skip_limit=0).batch(10))


@pytest.mark.parametrize("by", ["manifest", "shards alone"])
def test_an_image_of_a_tfrecord_is_checked_while_iterating_without_decode(pairs: Any, tmp_path: Path, by: str) -> None:
    source = Path(pairs["tfrecord"][0])
    for path in source.parent.glob(source.name + "*"):
        shutil.copy(path, tmp_path)
    prefix = tmp_path / source.name
    spoiled_image(prefix, 33)
    if by == "shards alone":
        for name in (".json", ".parquet"):
            prefix.with_name(prefix.name + name).unlink()
    shards: Any = sorted(tmp_path.glob("*.tfrecord")) if by == "shards alone" else prefix
    with pytest.raises(DamagedError, match="the checksum of"):
        list(shardkit.dataset(shards))


def test_a_sample_by_its_number_is_checked_too(own: Path) -> None:
    _, key, _ = spoiled_image(own, 33)
    with pytest.raises(DamagedError, match="the checksum of"):
        shardkit.dataset(own).decode(size=8)[key]


def test_verify_says_whether_images_of_tar_are_checked(copy: Path) -> None:
    spoiled_image(copy, 33)
    assert sum(len(batch.keys) for batch in shardkit.dataset(copy, verify=False).decode(size=8).batch(10)) == 97
    with pytest.raises(ManifestError, match="CRC-32C"):
        list(shardkit.dataset(copy, verify=True))


@pytest.mark.parametrize("row", [0, -1])
def test_raw_samples_of_another_shard_are_refused(small_tree: Path, copy: Path, tmp_path: Path, row: int) -> None:
    """The first and the last sample of each shard are compared with the index."""
    expected = [sample["__key__"] for sample in shardkit.dataset(copy)]
    first = json.loads(Path(f"{copy}.json").read_text("utf-8"))["shards"][0]
    data = bytearray(Path(copy.parent, first["name"]).read_bytes())
    key = expected[0 if row == 0 else first["samples"] - 1].encode()
    at = data.index(key + b".jpg")
    data[at] ^= 1  # of the key, with the checksum of its header
    total = int(bytes(data[at + 148 : at + 154]), 8) + (data[at] - (data[at] ^ 1))
    data[at + 148 : at + 154] = b"%06o" % total
    label = data.index(key + b".cls")
    data[label] ^= 1
    total = int(bytes(data[label + 148 : label + 154]), 8) + (data[label] - (data[label] ^ 1))
    data[label + 148 : label + 154] = b"%06o" % total
    Path(copy.parent, first["name"]).write_bytes(data)
    with pytest.raises(ManifestError, match="not the shard of the index"):
        list(shardkit.dataset(copy))


def test_a_shard_that_is_cut_while_it_is_read_is_an_error(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_SAMPLES", BLOCK)
    monkeypatch.setattr(buffers, "LOOK_SECONDS", 0.0)
    samples = iter(shardkit.dataset(copy))
    for _ in range(BLOCK):
        next(samples)
    os.truncate(f"{copy}-000000.tar", 4096)
    with pytest.raises(
        StorageError, match=r"cars-000000\.tar: the file became shorter .* it has 4096 of its \d+ bytes"
    ):
        next(samples)


def test_a_stream_that_is_cut_while_it_is_read_is_an_error(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(stream, "BLOCK_SAMPLES", BLOCK)
    Path(f"{copy}.json").unlink()
    samples = iter(shardkit.dataset(str(copy) + "-000000.tar"))
    for _ in range(BLOCK):
        next(samples)
    os.truncate(f"{copy}-000000.tar", 4096)
    with pytest.raises(StorageError, match=r"cars-000000\.tar: the file became shorter"):
        next(samples)


def test_a_shard_that_is_written_to_in_place_is_looked_at_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_SAMPLES", BLOCK)
    monkeypatch.setattr(buffers, "LOOK_SECONDS", 0.0)
    samples = iter(shardkit.dataset(copy))
    for _ in range(BLOCK):
        next(samples)
    path = Path(f"{copy}-000000.tar")
    other = Path(f"{copy}-000001.tar").read_bytes()
    with open(path, "r+b") as file:
        file.write(other[: path.stat().st_size].ljust(path.stat().st_size, b"\0"))
    os.utime(path, ns=(1, 1))
    with pytest.raises(DatasetError, match=r"cars-000000\.tar"):
        next(samples)


def test_a_reader_keeps_the_files_that_it_began_with(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_SAMPLES", BLOCK)
    monkeypatch.setattr(buffers, "LOOK_SECONDS", 0.0)
    ds = shardkit.dataset(copy)
    expected = [sample["__key__"] for sample in ds]
    again = shardkit.dataset(copy, shuffle=20)
    samples = iter(again)
    found = {next(samples)["__key__"]}
    for thread in threading.enumerate():
        if thread.name == "shardkit-map":
            thread.join()
    for path in copy.parent.glob("cars-*.tar"):
        path.unlink()
        path.write_bytes(b"another")
    found |= {sample["__key__"] for sample in samples}
    assert found == set(expected)
    assert {sample["__key__"] for sample in again} == set(expected)  # and in the epochs to come


def test_mapped_shards_need_no_file_descriptors(by_shards: dict[int, str], run_python: Run, tmp_path: Path) -> None:
    code = (
        "import os, resource, shardkit\n"
        f"ds = shardkit.dataset({by_shards[64]!r}, shuffle=True, threads=1)\n"
        "import simplejpeg, pyarrow.parquet\n"
        "limit = len(os.listdir('/dev/fd')) + 16\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))\n"
        "print(sum(1 for _ in ds), sum(len(b.keys) for b in ds.decode(size=4).batch(8)))\n"
    )
    assert run_python("-c", code, cwd=tmp_path).stdout.split() == ["190", "190"]


def test_shards_that_are_not_in_use_give_their_pages_back_and_stay_mapped(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let: list[int] = []
    monkeypatch.setattr(buffers, "let_go", lambda mapping: let.append(len(mapping)) or let_go(mapping))
    files = shardkit.dataset(copy).content.catalog.files()
    shards = buffers.MappedShards(files, verify=False, limit=2)
    whole = [bytes(shards.buffer(number)) for number in range(len(files))]
    assert len(let) == len(files) - 2
    for path in copy.parent.glob("cars-*.tar"):
        path.unlink()
    assert [bytes(shards.buffer(number)) for number in range(len(files))] == whole
    monkeypatch.setattr(buffers, "MAPPED_SHARDS", 0)
    with pytest.raises(DatasetError, match="the shard is missing"):
        buffers.MappedShards(files, verify=False, limit=2).buffer(0)


def test_a_mapping_is_as_the_file_and_outlives_its_descriptor(tmp_path: Path) -> None:
    path, data = tmp_path / "x", os.urandom(10_000)
    path.write_bytes(data)
    with open(path, "rb") as file:
        mapping = map_file(file.fileno(), len(data))
    view = view_of(mapping)
    assert len(mapping) == len(data) and mapping[5:-5] == data[5:-5] and type(mapping[:1]) is bytes
    let_go(mapping)
    del mapping
    assert view == data and view.readonly
    path.write_bytes(b"")
    with open(path, "rb") as file:
        assert len(map_file(file.fileno(), 0)) == 0


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="this system has no such advice")
@pytest.mark.parametrize("python", [(3, 11), (3, 13)])
def test_the_pages_of_a_mapping_are_let_go(python: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, ...]] = []
    if python < (3, 13):
        library = SimpleNamespace(madvise=lambda *arguments: told.append(arguments))
        monkeypatch.setattr(mapping_module, "_library", lambda: library)
        mapping: Any = (ctypes.c_char * 5)()
        expected: tuple[int, ...] = (ctypes.addressof(mapping), 5, mmap.MADV_DONTNEED)
    else:

        class Recorded(mmap.mmap):
            def madvise(self, *arguments: int) -> None:
                told.append(arguments)

        mapping, expected = Recorded(-1, 5), (mmap.MADV_DONTNEED,)
    let_go(mapping)
    assert told == [expected]


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_packed_shard_that_unpacks_to_more_or_less_than_it_should_is_refused(
    pairs: Any, tmp_path: Path, wrong: int
) -> None:
    prefix = Path(pairs["gzip"][0])
    for path in prefix.parent.glob(prefix.name + "*"):
        shutil.copy(path, tmp_path)
    manifest = json.loads(Path(tmp_path, "x.json").read_bytes())
    manifest["options"]["unpacked_bytes"][0] += wrong * 4
    Path(tmp_path, "x.json").write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match="unpacked, the shard has"):
        list(shardkit.dataset(tmp_path / "x"))


def test_packed_records_of_tensorflow_are_read_by_their_index(cars: str, tmp_path: Path) -> None:
    prefix = tmp_path / "x"
    shardkit.convert(cars, prefix, format="tfrecord", workers=1)
    expected = [sample["__key__"] for sample in shardkit.dataset(prefix)]
    (tmp_path / "z").mkdir()
    for path in tmp_path.glob("x-*.tfrecord"):
        (tmp_path / "z" / path.name).write_bytes(zlib.compress(path.read_bytes()))
    shardkit.index_shards(str(tmp_path / "z" / "x-*.tfrecord"))
    assert [sample["__key__"] for sample in shardkit.dataset(tmp_path / "z" / "x")] == expected


def replace_dataset(prefix: Path) -> None:
    """As `pack --overwrite` leaves it: files of the next generation, a manifest that names them, none of the old."""
    for path in prefix.parent.glob("cars[-.]*"):
        if path.suffix != ".json":
            path.rename(path.with_name(path.name.replace("cars", "cars-g2", 1)))
    manifest = Path(f"{prefix}.json")
    text = manifest.read_text("utf-8").replace("cars-0", "cars-g2-0").replace("cars.parquet", "cars-g2.parquet")
    manifest.write_text(text, "utf-8")


@pytest.mark.parametrize("what", ["shard", "index"])
def test_a_file_that_is_gone_since_the_dataset_was_replaced_is_told_as_that(
    copy: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(buffers.MappedShards, "keeps", False)
    ds = shardkit.dataset(copy)
    assert len(ds) == 97
    if what == "shard":
        ds.content.catalog.labels()  # the index is open
    replace_dataset(copy)
    with pytest.raises(NotFoundError, match=f"the {what} is gone: the dataset was replaced .*open the dataset again"):
        list(ds)


def test_epochs_go_on_while_the_dataset_is_replaced(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_SAMPLES", BLOCK)
    monkeypatch.setattr(buffers, "LOOK_SECONDS", 0.0)
    ds = shardkit.dataset(copy, shuffle=20)
    expected = sorted((sample["__key__"], sample["cls"]) for sample in ds)
    for thread in threading.enumerate():
        if thread.name == "shardkit-map":
            thread.join()
    replace_dataset(copy)
    assert sorted((sample["__key__"], sample["cls"]) for sample in ds) == expected
