"""Each finding of verify, with the damage that makes it."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shardkit
from shardkit import NotFoundError, UsageError, pack, verify
from shardkit.checksums import crc32c, joined_crc
from shardkit.location import Location, locate
from shardkit.shards.findings import CURES
from shardkit.shards.index import ShardRows, write_index
from shardkit.shards.manifest import IndexEntry
from shardkit.shards.open import IndexFile
from shardkit.storage.store import open_store


@pytest.fixture
def packed(tree: Path, tmp_path: Path) -> Path:
    """12 images in 3 shards: 5 blue, 7 red."""
    pack(tree, tmp_path / "d" / "train", workers=1, max_count=4)
    return tmp_path / "d" / "train"


def kinds(source: Any, **options: Any) -> set[str]:
    return {item.kind for item in verify(source, **options).findings}


def shard(packed: Path, number: int = 0) -> Path:
    return Path(f"{packed}-{number:06}.tar")


def edit_manifest(packed: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = Path(f"{packed}.json")
    manifest = json.loads(path.read_text("utf-8"))
    edit(manifest)
    path.write_text(json.dumps(manifest), "utf-8")


def edit_index(packed: Path, edit: Callable[[list[ShardRows]], object]) -> None:
    """Write the index again, as `edit` leaves it, with its right CRC in the manifest."""
    place = Path(f"{packed}.parquet")
    index = IndexFile(Location("", str(place)), None)
    shards = []
    for group, name in enumerate(index.shards):
        rows = index.rows(group)
        assert rows is not None
        shards.append(ShardRows(name, rows.keys, rows.paths, {n: np.array(c) for n, c in rows.numbers.items()}))
    edit(shards)
    sink = io.BytesIO()
    write_index(sink, shards)
    put_index(packed, sink.getvalue(), len(shards))


def put_index(packed: Path, data: bytes, shards: int) -> None:
    Path(f"{packed}.parquet").write_bytes(data)
    entry = IndexEntry(f"{packed.name}.parquet", shards, len(data), f"{google_crc32c.value(data):08x}")
    entry_json = {name: getattr(entry, name) for name in entry.__struct_fields__}
    edit_manifest(packed, lambda manifest: manifest.update(index=[entry_json]))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def make_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def test_a_packed_dataset_is_sound(packed: Path) -> None:
    result = verify(packed, decode=True)
    assert result.findings == ()
    assert (result.sound, result.checksums, result.shards, result.samples, result.decoded) == (True, True, 3, 12, 12)
    assert result.bytes == sum(shard(packed, n).stat().st_size for n in range(3))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_findings_do_not_depend_on_the_threads(packed: Path, workers: int) -> None:
    flip(shard(packed, 0), 600)
    flip(shard(packed, 2), 600)
    expected = verify(packed, workers=1).findings
    assert verify(packed, workers=workers).findings == expected
    assert {Path(item.shard).name for item in expected} == {"train-000000.tar", "train-000002.tar"}


def test_a_manifest_that_is_none_is_found_and_its_shards_are_still_checked(packed: Path) -> None:
    Path(f"{packed}.json").write_text("{}")
    assert kinds(packed) == {"manifest"}
    assert verify(packed).samples == 12


def test_a_manifest_that_is_no_utf_8_is_found(packed: Path) -> None:
    path = Path(f"{packed}.json")
    path.write_bytes(path.read_bytes().replace(b'"blue"', b'"bl\xffe"'))
    assert kinds(packed) == {"manifest"}


def test_an_unknown_format_of_shards_is_found(packed: Path) -> None:
    edit_manifest(packed, lambda manifest: manifest.update(shard_format="zip"))
    assert kinds(packed) == {"manifest"}


def test_a_missing_shard_is_found(packed: Path) -> None:
    shard(packed, 1).unlink()
    [found] = verify(packed).findings
    assert (found.kind, found.shard) == ("shard-missing", str(shard(packed, 1)))
    assert kinds(packed) == {"shard-missing"}


def test_a_shard_that_the_manifest_does_not_know_is_found(packed: Path) -> None:
    shutil.copy(shard(packed), shard(packed, 9))
    assert kinds(packed) == {"shard-unknown"}


def test_a_shard_that_can_not_be_read_is_found(packed: Path) -> None:
    shard(packed).unlink()
    shard(packed).mkdir()
    assert kinds(packed) == {"shard-unreadable"}


def test_a_shard_of_another_size_is_found(packed: Path) -> None:
    with shard(packed).open("ab") as file:
        file.write(bytes(512))
    assert kinds(packed) == {"shard-size"}


def test_an_empty_shard_is_found(packed: Path) -> None:
    shard(packed).write_bytes(b"")
    assert kinds(packed) == {"shard-damaged"}


def test_a_damaged_image_is_found_with_its_byte_and_key(packed: Path) -> None:
    flip(shard(packed), 600)
    crc, image = verify(packed).findings
    assert (crc.kind, crc.byte, crc.key) == ("shard-crc", None, None)
    assert (image.kind, image.byte) == ("image-crc", 512)
    with tarfile.open(shard(packed)) as file:
        assert image.key == file.getnames()[0].removesuffix(".jpg")
    assert "repair" in image.cure
    assert kinds(packed) == {"shard-crc", "image-crc"}


def test_a_damaged_header_is_found_with_its_byte(packed: Path) -> None:
    with tarfile.open(shard(packed)) as file:
        second = file.getmembers()[1].offset
    flip(shard(packed), second + 3)
    found = {item.kind: item for item in verify(packed).findings}
    assert found["shard-damaged"].byte == second
    assert kinds(packed) == {"shard-crc", "shard-damaged"}


def test_a_wrong_number_of_samples_is_found(packed: Path) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["shards"][0]["samples"] += 1
        manifest["samples"] += 1

    edit_manifest(packed, edit)
    assert kinds(packed) == {"shard-samples"}


def test_a_missing_index_is_found(packed: Path) -> None:
    Path(f"{packed}.parquet").unlink()
    assert kinds(packed) == {"index-missing"}
    edit_manifest(packed, lambda manifest: manifest.update(index=[]))
    assert kinds(packed) == {"index-missing"}


def test_an_index_with_another_crc_is_found(packed: Path) -> None:
    with Path(f"{packed}.parquet").open("ab") as file:
        file.write(b"x")
    assert "index-crc" in kinds(packed)


def test_an_index_that_is_none_is_found(packed: Path) -> None:
    put_index(packed, b"PAR1 nothing PAR1", 3)
    assert kinds(packed) == {"index-damaged"}


def test_an_index_without_a_column_is_found(packed: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table({"shard": ["a"], "key": ["b"]}), sink)
    put_index(packed, sink.getvalue(), 3)
    assert kinds(packed) == {"index-damaged"}


def test_index_rows_of_another_shard_are_found(packed: Path) -> None:
    edit_index(packed, lambda shards: shards.reverse())
    assert kinds(packed) == {"index-rows"}


def test_too_few_row_groups_are_found(packed: Path) -> None:
    edit_index(packed, lambda shards: shards.pop())
    edit_manifest(packed, lambda manifest: manifest["index"][0].update(shards=3))
    assert kinds(packed) == {"index-rows"}


@pytest.mark.parametrize("column", ["offset", "size", "image_offset", "image_size"])
def test_an_index_row_that_is_wrong_is_found_with_the_sample(packed: Path, column: str) -> None:
    def edit(shards: list[ShardRows]) -> None:
        shards[1].numbers[column][2] += 512

    edit_index(packed, edit)
    [found] = verify(packed).findings
    assert (found.kind, found.shard) == ("index-row", f"{packed}.parquet")
    assert column in found.fact
    assert found.key is not None


def test_an_index_row_with_another_key_or_label_is_found(packed: Path) -> None:
    def edit(shards: list[ShardRows]) -> None:
        keys = list(shards[0].keys)
        keys[1] = "else"
        shards[0] = msgspec.structs.replace(shards[0], keys=keys)
        shards[1].numbers["label"][0] ^= 1

    edit_index(packed, edit)
    assert {"index-row"} <= kinds(packed)
    facts = [item.fact for item in verify(packed).findings if item.kind == "index-row"]
    assert any("'else'" in fact for fact in facts)
    assert any("label" in fact for fact in facts)


def test_the_size_of_an_image_is_held_against_the_index_when_it_is_decoded(packed: Path) -> None:
    def edit(shards: list[ShardRows]) -> None:
        shards[0].numbers["width"][0] += 1

    edit_index(packed, edit)
    assert kinds(packed) == set()
    assert kinds(packed, decode=True) == {"image-size"}


def test_an_image_whose_size_the_index_does_not_know_is_sound(packed: Path) -> None:
    def edit(shards: list[ShardRows]) -> None:
        shards[0].numbers["width"][0] = shards[0].numbers["height"][0] = 0

    edit_index(packed, edit)
    assert kinds(packed, decode=True) == set()


def test_samples_of_the_first_label_alone_are_held_against_a_manifest_without_classes(
    tmp_path: Path, draw_tree: Any
) -> None:
    pack(draw_tree(tmp_path / "tree", {"blue": 2}), tmp_path / "d" / "train", workers=1)
    assert kinds(tmp_path / "d" / "train") == set()
    edit_manifest(tmp_path / "d" / "train", lambda manifest: manifest.update(classes=[]))
    assert kinds(tmp_path / "d" / "train") == {"class-count"}


def test_counts_names_and_fields_of_the_manifest_are_held_against_the_shards(packed: Path) -> None:
    edit_manifest(packed, lambda manifest: manifest["classes"][0].update(count=6))
    assert kinds(packed) == {"class-count"}
    edit_manifest(packed, lambda manifest: manifest["classes"][0].update(count=5, name="blau"))
    assert kinds(packed) == {"class-name"}
    edit_manifest(packed, lambda manifest: manifest["classes"][0].update(name="blue"))
    edit_manifest(packed, lambda manifest: manifest.update(fields=["cls", "png"]))
    assert kinds(packed) == {"fields"}
    edit_manifest(packed, lambda manifest: manifest.update(fields=["cls", "jpg"], classes=[]))
    assert kinds(packed) == {"class-count"}


def test_a_label_that_the_manifest_has_no_class_for_is_found(packed: Path) -> None:
    edit_manifest(packed, lambda manifest: manifest["classes"].pop())
    found = [item for item in verify(packed).findings if item.kind == "label"]
    assert len(found) == 7
    assert all(item.byte is not None and item.key is not None for item in found)
    assert kinds(packed) == {"label"}


def test_a_key_that_two_shards_have_is_found(tmp_path: Path, draw_image: Any) -> None:
    image = draw_image()
    first = make_tar(tmp_path / "a-0.tar", [("x.jpg", image), ("y.jpg", image)])
    second = make_tar(tmp_path / "a-1.tar", [("y.jpg", image), ("z.jpg", image)])
    [found] = verify([first, second]).findings
    assert (found.kind, found.key, found.shard, found.byte) == ("key-twice", "y", str(second), 0)
    assert str(first) in found.fact
    assert kinds([first, second]) == {"key-twice"}


def test_a_list_of_skipped_files_that_is_missing_or_too_short_is_found(tree: Path, tmp_path: Path) -> None:
    (tree / "red" / "bad.jpg").write_bytes(b"no image")
    pack(tree, tmp_path / "s", workers=1, on_error="skip")
    assert kinds(tmp_path / "s") == set()
    listed = tmp_path / "s.skipped.json"
    listed.write_text("[]")
    assert kinds(tmp_path / "s") == {"skipped-list"}
    listed.unlink()
    assert kinds(tmp_path / "s") == {"skipped-list"}


def test_without_a_manifest_structure_labels_and_image_headers_are_checked(tmp_path: Path, draw_image: Any) -> None:
    image = draw_image()
    path = tmp_path / "o-0.tar"
    make_tar(path, [("a.jpg", image), ("a.cls", b"3"), ("b.jpg", image), ("b.cls", b"4")])
    result = verify(path)
    assert (result.findings, result.checksums, result.samples) == ((), False, 2)
    make_tar(path, [("a.jpg", image), ("a.cls", b"cat"), ("b.jpg", image[:-20])])
    assert {(item.kind, item.key) for item in verify(path).findings} == {("label", "a"), ("image-damaged", "b")}
    make_tar(path, [("a.jpg", image), ("b.jpg", image), ("a.cls", b"3")])
    assert kinds(path) == {"shard-damaged"}
    path.write_bytes(path.read_bytes()[:1000])
    assert kinds(path) == {"shard-damaged"}


def test_decode_finds_an_image_whose_header_is_good_and_whose_pixels_are_not(tmp_path: Path, draw_image: Any) -> None:
    image = draw_image(3, size=(64, 64))
    bad = image[:-60] + image[-2:]
    path = make_tar(tmp_path / "o-0.tar", [("a.jpg", image), ("b.jpg", bad)])
    assert kinds(path) == set()
    [found] = verify(path, decode=True).findings
    assert (found.kind, found.key) == ("image-damaged", "b")
    assert kinds(path, decode=True) == {"image-damaged"}


def test_gzip_shards_are_checked(tmp_path: Path, draw_image: Any) -> None:
    plain = make_tar(tmp_path / "p.tar", [("a.jpg", draw_image()), ("a.cls", b"3")])
    packed = tmp_path / "g-0.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert verify(packed).samples == 1
    packed.write_bytes(packed.read_bytes()[:-30])
    assert kinds(packed) == {"shard-damaged"}


def test_a_part_of_a_dataset_is_checked_against_its_part_of_the_manifest(packed: Path) -> None:
    flip(shard(packed, 2), 600)
    assert kinds(shard(packed, 1)) == set()
    assert verify(shard(packed, 1)).samples == 4
    assert "shard-crc" in kinds([shard(packed, 1), shard(packed, 2)])


def test_what_is_no_dataset_is_an_error_and_no_finding(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        verify(tmp_path / "nothing")
    with pytest.raises(UsageError, match="class directory"):
        verify(tree)
    with pytest.raises(UsageError, match="workers: 0"):
        verify(tree, workers=0)


def test_progress_is_told_to_the_end(packed: Path) -> None:
    told: list[Any] = []
    verify(packed, progress=told.append)
    assert (told[-1].step, told[-1].done, told[-1].total) == ("verify", 12, 12)
    assert told[-1].bytes_done == told[-1].bytes_total


def test_the_text_of_a_finding_has_place_fact_and_cure(packed: Path) -> None:
    flip(shard(packed), 600)
    text = str(verify(packed).findings[1])
    assert text.startswith(f"{shard(packed)}: at byte 512: sample ")
    assert "CRC-32C" in text
    assert text.endswith(CURES["image-crc"])


@given(st.lists(st.binary(max_size=600), max_size=12))
def test_the_crc_of_the_whole_is_that_of_its_parts(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    crcs = np.array([google_crc32c.value(part) for part in parts], np.uint32)
    joined = joined_crc(crcs, np.array([len(part) for part in parts], np.int64))
    assert joined == google_crc32c.value(whole) == crc32c(whole)


def test_long_parts_are_joined_as_well() -> None:
    parts = [bytes([n]) * size for n, size in enumerate((3_000_001, 1, 0, 2_000_000))]
    crcs = np.array([google_crc32c.value(part) for part in parts], np.uint32)
    lengths = np.array([len(part) for part in parts], np.int64)
    assert joined_crc(crcs, lengths) == google_crc32c.value(b"".join(parts))


def test_a_shard_elsewhere_that_was_replaced_is_told_by_its_version(tmp_path: Path) -> None:
    folder = locate(f"memory://{os.urandom(6).hex()}")
    for value in (b"1", b"2"):
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w") as file:
            info = tarfile.TarInfo("a.cls")
            info.size = 1
            file.addfile(info, io.BytesIO(value))
        open_store(folder).put("x-000000.tar", io.BytesIO(sink.getvalue()))
        if value == b"1":
            shardkit.index_shards(f"{folder}/x-000000.tar", out=tmp_path / "mine")
            assert kinds(tmp_path / "mine") == set()
    assert kinds(tmp_path / "mine") == {"shard-version"}


def test_every_kind_of_finding_is_made_in_a_test() -> None:
    """Above, or for corrections in the tests of versions."""
    versions = [
        Path(__file__).parents[1] / "corrections" / name for name in ("test_versions.py", "test_field_lists.py")
    ]
    source = "".join(path.read_text("utf-8") for path in (Path(__file__), *versions))
    assert {kind for kind in CURES if f'"{kind}"' not in source} == set()


@pytest.mark.parametrize("name", ["a\\b", "\\", "a\\x41"])
def test_a_class_with_a_backslash_in_its_name_is_sound_and_keeps_it(name: str, tree: Path, tmp_path: Path) -> None:
    (tree / "red").rename(tree / name)
    manifest = shardkit.pack(tree, tmp_path / "out" / "train", workers=1)
    assert shardkit.verify(tmp_path / "out" / "train").sound
    (tmp_path / "out" / "train.json").unlink()
    (tmp_path / "out" / "train.parquet").unlink()
    assert shardkit.index_shards(tmp_path / "out" / "train").class_names == manifest.class_names
