"""index, verify, unpack and repair on TFRecord shards: those of pack, and those of others."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardkit import DamagedError, DatasetError, UsageError, convert, dataset, index_shards, pack, unpack, verify
from shardkit.formats.tfrecord.example import bytes_entry_head, entry_name, int64_entry, varint
from shardkit.formats.tfrecord.samples import masked_crc, read_samples
from shardkit.location import Location
from shardkit.reading.blocks.block import index_table
from shardkit.shards.manifest import ClassEntry
from shardkit.shards.names import stem_of_shard
from shardkit.shards.open import IndexFile

Draw = Callable[..., bytes]


@pytest.fixture
def packed(tree: Path, tmp_path: Path) -> Path:
    """12 images in 3 TFRecord shards: 5 blue, 7 red."""
    pack(tree, tmp_path / "d" / "train", format="tfrecord", workers=1, max_count=4)
    return tmp_path / "d" / "train"


def record(features: dict[str, bytes | int]) -> bytes:
    """A record as TensorFlow writes it."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, int):
            entries += int64_entry(entry_name(name), value)
        else:
            entries += bytes_entry_head(entry_name(name), len(value)) + value
    data = b"\x0a" + varint(len(entries)) + entries
    length = len(data).to_bytes(8, "little")
    return length + masked_crc(length) + data + masked_crc(data)


def imagenet(draw: Draw, rows: list[tuple[int, str, str]], **more: bytes | int) -> bytes:
    """Records with (label, class name, file name), as the scripts for ImageNet name their features."""
    return b"".join(
        record(
            {
                "image/encoded": draw(n),
                "image/format": b"JPEG",
                "image/filename": file.encode(),
                "image/class/label": label,
                "image/class/text": text.encode(),
                "image/height": 24,
                **more,
            }
        )
        for n, (label, text, file) in enumerate(rows)
    )


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def kinds(source: Any, **options: Any) -> set[str]:
    return {item.kind for item in verify(source, **options).findings}


def flip(path: Path, byte: int) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 0x40
    path.write_bytes(data)


# ---- index


def test_the_index_of_packed_tfrecord_is_the_one_that_was_packed(tree: Path, packed: Path) -> None:
    def rows() -> list[Any]:
        index = IndexFile(Location("", f"{packed}.parquet"), None)
        found = [index.rows(group) for group in range(3)]
        return [(r.keys, r.paths, {n: c.tolist() for n, c in r.numbers.items()}) for r in found if r is not None]

    before, images = rows(), [sample["jpg"] for sample in dataset(packed)]
    made = index_shards(packed, overwrite=True)
    assert len(before) == 3
    assert rows() == before
    assert made.shard_format == "tfrecord"
    assert made.classes == (ClassEntry("blue", 5), ClassEntry("red", 7))
    assert made.fields == ("cls", "jpg")
    assert verify(packed, decode=True).sound
    assert [sample["jpg"] for sample in dataset(packed)] == images


@pytest.mark.parametrize("packing", ["", "gz", "zlib"])
def test_shards_of_tensorflow_become_a_dataset(tmp_path: Path, draw_image: Draw, packing: str) -> None:
    rows = [(2, "dog", "a.JPEG"), (1, "cat", "b.JPEG"), (2, "dog", "c.JPEG")]
    data = imagenet(draw_image, rows)
    data = {"": data, "gz": gzip.compress(data), "zlib": zlib.compress(data)}[packing]
    (tmp_path / "train-00000-of-00002").write_bytes(data)
    (tmp_path / "train-00001-of-00002").write_bytes(b"" if packing else imagenet(draw_image, [(1, "cat", "d.JPEG")]))
    source = str(tmp_path / "train-00000-of-*") if packing else str(tmp_path / "train-*-of-*")
    manifest = index_shards(source, workers=2)
    assert manifest.classes[0] == ClassEntry("0", 0)
    assert [entry.name for entry in manifest.classes] == ["0", "cat", "dog"]
    assert manifest.samples == (3 if packing else 4)
    assert (tmp_path / "train.json").is_file()
    if not packing:
        assert verify(tmp_path / "train", decode=True).sound
        found = [(sample["jpg"], sample["cls"]) for sample in dataset(tmp_path / "train")]
        assert found[:3] == [(draw_image(n), label) for n, (label, _, _) in enumerate(rows)]


def test_given_class_names_win_over_those_in_the_records(tmp_path: Path, draw_image: Draw) -> None:
    (tmp_path / "x-0.tfrecord").write_bytes(imagenet(draw_image, [(0, "cat", "a.jpg"), (1, "dog", "b.jpg")]))
    assert [entry.name for entry in index_shards(tmp_path / "x", classes=["k", "h"]).classes] == ["k", "h"]


def test_one_name_for_two_labels_gives_numbers(
    tmp_path: Path, draw_image: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "x-0.tfrecord").write_bytes(imagenet(draw_image, [(0, "crane", "a.jpg"), (1, "crane", "b.jpg")]))
    assert [entry.name for entry in index_shards(tmp_path / "x").classes] == ["0", "1"]
    assert caplog.messages == ["labels 0 and 1 are both called 'crane', so classes are named by number"]


@pytest.mark.parametrize("packing", ["", "gz", "zlib"])
def test_two_names_for_one_label_in_a_shard_are_refused_at_the_record(
    tmp_path: Path, draw_image: Draw, packing: str
) -> None:
    rows = [(0, "cat", "a.jpg"), (1, "dog", "b.jpg")]
    joined = imagenet(draw_image, rows) + imagenet(draw_image, [(0, "bird", "c.jpg")])
    source = tmp_path / "x-0.tfrecord"
    source.write_bytes({"": joined, "gz": gzip.compress(joined), "zlib": zlib.compress(joined)}[packing])
    fact = "label 0 is 'bird' here, and 'cat' before; these are two datasets"
    with pytest.raises(DatasetError, match=fact) as found:
        index_shards(source)
    assert found.value.offset == len(imagenet(draw_image, rows))
    with pytest.raises(DatasetError, match=fact):
        convert(source, tmp_path / "out" / "x", workers=1)
    assert [entry.name for entry in index_shards(source, classes=["x", "y"]).classes] == ["x", "y"]


def test_a_label_that_is_no_class_number_is_an_error(tmp_path: Path, draw_image: Draw) -> None:
    (tmp_path / "x-0.tfrecord").write_bytes(imagenet(draw_image, [(-1, "", "a.jpg")]))
    with pytest.raises(DatasetError, match="its cls is not a class number"):
        index_shards(tmp_path / "x")
    assert kinds(tmp_path / "x-0.tfrecord") == {"label"}


def test_a_key_that_comes_twice_in_a_shard_is_an_error(tmp_path: Path, draw_image: Draw) -> None:
    one = record({"image/key": b"k", "image/encoded": draw_image(), "image/format": b"jpeg"})
    (tmp_path / "x-0.tfrecord").write_bytes(one + one)
    with pytest.raises(DatasetError, match="keys must be unique") as found:
        index_shards(tmp_path / "x")
    assert found.value.offset == len(one)
    assert kinds(tmp_path / "x-0.tfrecord") == {"key-twice"}


def test_shards_of_two_formats_are_not_indexed_together(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "x", workers=1)
    (tmp_path / "x-000001.tfrecord").write_bytes(b"")
    with pytest.raises(UsageError, match=r"x-000000\.tar is tar, and x-000001\.tfrecord is tfrecord"):
        index_shards(f"{tmp_path}/x-*.t*", overwrite=True)


def test_an_index_of_damaged_tfrecord_names_the_byte(packed: Path) -> None:
    flip(Path(f"{packed}-000000.tfrecord"), 3)
    with pytest.raises(DamagedError, match="checksum of a record's length is wrong") as found:
        index_shards(packed, overwrite=True)
    assert found.value.offset == 0


@pytest.mark.parametrize(
    "name",
    [
        "cars-000001.tfrecord",
        "cars.tfrecord",
        "cars.tfrecord-00001-of-00010",
        "cars-00001-of-00010",
        "cars-00001-of-00010.tfrecord.gz",
        "cars-1.tar.gz",
        "cars.tgz",
    ],
)
def test_a_shards_name_begins_with_its_stem(name: str) -> None:
    assert stem_of_shard(name) == "cars"


# ---- verify


def test_sound_tfrecord_has_no_findings(packed: Path) -> None:
    found = verify(packed, decode=True)
    assert (found.sound, found.samples, found.decoded, found.checksums) == (True, 12, 12, True)
    assert verify(f"{packed}-000001.tfrecord").samples == 4


def test_every_damaged_byte_of_a_tfrecord_shard_is_found_at_its_record(packed: Path) -> None:
    path = Path(f"{packed}-000001.tfrecord")
    whole = path.read_bytes()
    samples = list(read_samples(whole, place="x"))
    for byte in [0, 9, 14, samples[1].offset + 8, samples[2].offset + 200, len(whole) - 1]:
        flip(path, byte)
        found = [item for item in verify(packed).findings if item.kind == "shard-damaged"]
        record = next(sample for sample in reversed(samples) if sample.offset <= byte)
        assert len(found) == 1
        assert found[0].byte in (record.offset, record.offset + 12)
        assert "shard-crc" in kinds(packed)
        path.write_bytes(whole)


def test_a_cut_an_emptied_and_a_missing_tfrecord_shard_are_found(packed: Path) -> None:
    path = Path(f"{packed}-000001.tfrecord")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert kinds(packed) == {"shard-size", "shard-damaged"}
    path.write_bytes(whole[: list(read_samples(whole, place="x"))[2].offset])
    assert {"shard-size", "shard-samples", "index-rows"} <= kinds(packed)
    path.write_bytes(b"")
    assert {"shard-size", "shard-samples", "index-rows"} <= kinds(packed)
    path.unlink()
    found = verify(packed).findings
    assert [item.kind for item in found] == ["shard-missing"]


def test_records_in_another_order_than_the_index_are_found(packed: Path) -> None:
    path = Path(f"{packed}-000000.tfrecord")
    data = path.read_bytes()
    first, second = list(read_samples(data, place="x"))[:2]
    path.write_bytes(data[second.offset :][: second.size] + data[: first.size] + data[second.offset + second.size :])
    assert {"shard-crc", "index-row"} <= kinds(packed)


def test_an_unknown_shard_beside_is_found_if_it_is_of_the_same_format(packed: Path) -> None:
    Path(f"{packed}-000009.tar").write_bytes(b"")
    assert verify(packed).sound
    Path(f"{packed}-000009.tfrecord").write_bytes(b"")
    assert kinds(packed) == {"shard-unknown"}


# ---- unpack


@pytest.mark.parametrize("indexed", [True, False])
def test_what_was_packed_as_tfrecord_comes_out_as_the_tree(
    tree: Path, packed: Path, tmp_path: Path, indexed: bool
) -> None:
    if not indexed:
        Path(f"{packed}.json").unlink()
    done = unpack(packed if indexed else f"{packed}-*.tfrecord", tmp_path / "out", workers=2)
    assert done.samples == 12
    assert files(tmp_path / "out") == files(tree)


def test_a_part_of_tfrecord_is_unpacked(packed: Path, tmp_path: Path) -> None:
    assert unpack(packed, tmp_path / "out", classes=["red"]).samples == 7
    assert {name.partition("/")[0] for name in files(tmp_path / "out")} == {"red"}


@pytest.mark.parametrize("indexed", [True, False])
def test_records_of_others_come_out_under_their_class_and_file_name(
    tmp_path: Path, draw_image: Draw, indexed: bool
) -> None:
    rows = [(1, "dog", "a.JPEG"), (0, "cat", "a.JPEG"), (0, "cat", "sub/b.jpg")]
    (tmp_path / "x-0.tfrecord").write_bytes(imagenet(draw_image, rows, note=b"hello"))
    if indexed:
        index_shards(tmp_path / "x")
    unpack(tmp_path / ("x" if indexed else "x-0.tfrecord"), tmp_path / "out")
    assert files(tmp_path / "out") == {
        "dog/a.JPEG": draw_image(0), "dog/a.note": b"hello",
        "cat/a.JPEG": draw_image(1), "cat/a.note": b"hello",
        "cat/sub/b.jpg": draw_image(2), "cat/sub/b.note": b"hello",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["../../evil.jpg", "/evil.jpg"])
def test_a_file_name_that_leaves_the_folder_is_never_written(tmp_path: Path, draw_image: Draw, name: str) -> None:
    (tmp_path / "x-0.tfrecord").write_bytes(imagenet(draw_image, [(0, "cat", name)]))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DatasetError, match=r"leaves the folder|is absolute"):
        unpack(tmp_path / "x-0.tfrecord", tmp_path / "out")
    assert set(tmp_path.rglob("*")) == before


def test_damaged_tfrecord_is_not_unpacked(packed: Path, tmp_path: Path) -> None:
    path = Path(f"{packed}-000000.tfrecord")
    flip(path, 700)
    with pytest.raises(DamagedError, match="CRC-32C is not the one in the index"):
        unpack(packed, tmp_path / "out")
    Path(f"{packed}.json").unlink()
    with pytest.raises(DamagedError, match="checksum of a record's"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_class_without_a_name_above_the_others_is_named_by_its_number(tmp_path: Path, draw_image: Draw) -> None:
    rows = [(1, "cat", "a.jpg"), (3, "", "b.jpg"), (0, "dog", "c.jpg")]
    (tmp_path / "x.tfrecord").write_bytes(imagenet(draw_image, rows))
    manifest = convert(tmp_path / "x.tfrecord", tmp_path / "out" / "x", workers=1)
    assert [(entry.name, entry.count) for entry in manifest.classes] == [("dog", 1), ("cat", 1), ("2", 0), ("3", 1)]


def test_a_file_name_of_others_is_a_path_in_the_index_as_indexing_has_it(tmp_path: Path, draw_image: Draw) -> None:
    names = ["n01/a\\b.jpg", "n01/plain.jpg", "n01/tab\t.JPEG"]
    (tmp_path / "x.tfrecord").write_bytes(imagenet(draw_image, [(0, "n01", name) for name in names]))
    index_shards(tmp_path / "x.tfrecord")
    paths = index_table(dataset(tmp_path / "x.json").content.catalog)["path"].to_pylist()
    assert paths == ["n01/a\\\\b.jpg", "n01/plain.jpg", "n01/tab\t.JPEG"]
    (tmp_path / "x.json").unlink()
    convert(tmp_path / "x.tfrecord", tmp_path / "out" / "x", workers=1)
    assert index_table(dataset(tmp_path / "out" / "x").content.catalog)["path"].to_pylist() == paths
