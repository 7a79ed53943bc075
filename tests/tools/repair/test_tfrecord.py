"""A sound TFRecord dataset from a damaged one, and the source as it was."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from shardkit import DatasetError, UsageError, dataset, index_shards, pack, repair, unpack, verify
from shardkit.formats.tfrecord.example import (
    bytes_entry_head,
    entry_name,
    int64_entry,
    parse_example,
    varint,
    with_text,
)
from shardkit.formats.tfrecord.salvage import next_head, salvage
from shardkit.formats.tfrecord.samples import FRAME, HEAD, framed_record, read_samples
from shardkit.shards.scan import ShardBytes

Draw = Callable[..., bytes]
Samples = dict[str, tuple[bytes, int]]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def samples(prefix: Path) -> Samples:
    return {s["__key__"]: (bytes(s["jpg"]), s["cls"]) for s in dataset(prefix)}


def without(truth: Samples, *keys: str) -> Samples:
    return {key: value for key, value in truth.items() if key not in keys}


def record(features: dict[str, Any]) -> bytes:
    entries = b""
    for name, value in features.items():
        if isinstance(value, int):
            entries += int64_entry(entry_name(name), value)
        else:
            entries += bytes_entry_head(entry_name(name), len(value)) + value
    return framed_record(b"\x0a" + varint(len(entries)) + entries)


@pytest.fixture
def packed(tree: Path, tmp_path: Path) -> Path:
    """12 images in 3 TFRecord shards."""
    pack(tree, tmp_path / "d" / "train", format="tfrecord", workers=1, max_count=4)
    return tmp_path / "d" / "train"


@pytest.fixture
def mended(tmp_path: Path) -> Path:
    return tmp_path / "mended" / "train"


def shard(packed: Path, number: int = 0) -> Path:
    return Path(f"{packed}-{number:06}.tfrecord")


def records(path: Path) -> list[Any]:
    return list(read_samples(path.read_bytes(), place="x"))


def damage(path: Path, at: int, size: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + size] = bytes(byte ^ 0x55 for byte in data[at : at + size])
    path.write_bytes(data)


def forget_index(packed: Path) -> str:
    """Only the shards stay: the source, as a glob."""
    Path(f"{packed}.json").unlink()
    Path(f"{packed}.parquet").unlink()
    return f"{packed}-*.tfrecord"


def test_a_sound_dataset_comes_out_as_it_was(packed: Path, mended: Path) -> None:
    before = content(packed.parent)
    result = repair(packed, mended)
    assert (result.left_out, result.renamed, result.joined, result.notes) == ((), (), (), ())
    assert content(packed.parent) == before
    after = content(mended.parent)
    assert {n: d for n, d in after.items() if n != "train.json"} == {
        n: d for n, d in before.items() if n != "train.json"
    }
    assert result.manifest.shard_format == "tfrecord"
    assert verify(mended, decode=True).sound


def test_the_same_without_an_index_comes_out_with_one(packed: Path, mended: Path) -> None:
    truth, shards = samples(packed), {n: d for n, d in content(packed.parent).items() if n.endswith(".tfrecord")}
    result = repair(forget_index(packed), mended)
    assert (result.left_out, result.notes) == ((), ())
    assert {n: d for n, d in content(mended.parent).items() if n.endswith(".tfrecord")} == shards
    assert samples(mended) == truth
    assert [(entry.name, entry.count) for entry in result.manifest.classes] == [("blue", 5), ("red", 7)]
    assert verify(mended, decode=True).sound


def test_an_image_with_damage_is_left_out_and_listed(packed: Path, mended: Path) -> None:
    truth, path = samples(packed), shard(packed)
    victim = records(path)[1]
    damage(path, victim.fields["jpg"][0] + 300)
    before = content(packed.parent)
    [lost] = repair(packed, mended).left_out
    assert (lost.key, lost.byte, lost.reason) == (victim.key, victim.offset, "its record is damaged or missing")
    assert samples(mended) == without(truth, victim.key)
    assert Path(f"{mended}.skipped.json").exists()
    assert verify(mended, decode=True).sound
    assert content(packed.parent) == before


@pytest.mark.parametrize("at", ["length", "length's CRC", "data's CRC", "label", "key"])
def test_damage_beside_an_image_costs_no_sample_where_there_is_an_index(packed: Path, mended: Path, at: str) -> None:
    truth, path = samples(packed), shard(packed, 1)
    victim = records(path)[2]
    start, size = victim.fields["jpg"]
    places = {"length": 2, "length's CRC": 9, "data's CRC": victim.size - 2, "key": HEAD + 20}
    damage(path, victim.offset + places[at] if at in places else start + size + 20)
    result = repair(packed, mended)
    assert (result.left_out, len(result.notes)) == ((), 1)
    assert "checksum" in result.notes[0]
    assert samples(mended) == truth
    assert verify(mended, decode=True).sound
    again = {s.key: (s.path, s.text, s.size) for s in records(shard(mended, 1))}
    assert again[victim.key] == (victim.path, victim.text, victim.size)


@pytest.mark.parametrize("at", ["length", "length's CRC", "data's CRC", "data"])
def test_without_an_index_a_damaged_record_is_left_out_and_the_next_is_found(
    packed: Path, mended: Path, at: str
) -> None:
    truth, path = samples(packed), shard(packed, 1)
    _, victim, after, _ = records(path)
    places = {"length": 1, "length's CRC": 9, "data's CRC": victim.size - 2, "data": victim.size // 2}
    damage(path, victim.offset + places[at])
    source = forget_index(packed)
    before = content(packed.parent)
    result = repair(source, mended)
    [lost] = result.left_out
    assert (lost.byte, lost.key) == (victim.offset, victim.key)
    assert "checksum" in lost.reason
    assert lost.reason.endswith(f"the next intact record is at byte {after.offset}")
    assert samples(mended) == without(truth, victim.key)
    assert result.manifest.skipped == 1
    assert verify(mended, decode=True).sound
    assert content(packed.parent) == before


@pytest.mark.parametrize("indexed", [True, False])
def test_a_cut_shard_gives_the_records_before_the_cut(packed: Path, mended: Path, indexed: bool) -> None:
    truth, path = samples(packed), shard(packed)
    found = records(path)
    path.write_bytes(path.read_bytes()[: found[2].offset + 100])
    result = repair(packed if indexed else forget_index(packed), mended)
    assert samples(mended) == without(truth, found[2].key, found[3].key)
    assert "the file ends inside a record" in result.notes[0]
    assert len(result.left_out) == (2 if indexed else 1)  # without an index nobody knows of the last
    assert verify(mended).sound


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("change", ["stray bytes", "missing bytes", "zeros", "a record gone"])
def test_records_that_moved_are_found_again(packed: Path, mended: Path, change: str, indexed: bool) -> None:
    truth, path = samples(packed), shard(packed)
    data, found = path.read_bytes(), records(path)
    at = found[1].offset + 200
    path.write_bytes(
        {
            "stray bytes": data[:at] + b"stray" + data[at:],
            "missing bytes": data[:at] + data[at + 7 :],
            "zeros": data[:at] + bytes(300) + data[at + 300 :],
            "a record gone": data[: found[1].offset] + data[found[2].offset :],
        }[change]
    )
    result = repair(packed if indexed else forget_index(packed), mended)
    assert samples(mended) == without(truth, found[1].key)
    assert len(result.left_out) == (0 if change == "a record gone" and not indexed else 1)
    assert verify(mended).sound


def test_a_shard_without_one_sound_record_is_left_out_whole(packed: Path, mended: Path) -> None:
    path = shard(packed)
    lost = {sample.key for sample in records(path)}
    path.write_bytes(random.Random(0).randbytes(len(path.read_bytes())))
    result = repair(packed, mended)
    assert {item.key for item in result.left_out} == lost
    assert len(result.manifest.shards) == 2
    assert verify(mended).sound


def test_an_example_without_an_image_is_left_out_where_the_others_have_one(
    tmp_path: Path, mended: Path, draw_image: Draw
) -> None:
    good = [record({"image/key": b"%d" % n, "image/encoded": draw_image(n), "image/class/label": n}) for n in range(3)]
    empty = record({"image/key": b"none", "image/class/label": 1})
    other = framed_record(b"\x0b no Example")
    (tmp_path / "x-0.tfrecord").write_bytes(good[0] + empty + good[1] + other + good[2])
    result = repair(tmp_path / "x-0.tfrecord", mended)
    assert [(item.key, item.reason.partition(":")[0]) for item in result.left_out] == [
        ("none", "it has no image, and the others have one"),
        ("(not known)", "the record is not a tf.train.Example"),
    ]
    assert set(samples(mended)) == {"0", "1", "2"}
    assert verify(mended, decode=True).sound


def test_records_that_never_had_images_are_kept(tmp_path: Path, mended: Path) -> None:
    (tmp_path / "x-0.tfrecord").write_bytes(b"".join(record({"text": b"%d" % n}) for n in range(4)))
    damage(tmp_path / "x-0.tfrecord", 20)
    assert repair(tmp_path / "x-0.tfrecord", mended).manifest.samples == 3
    assert [sample["text"] for sample in dataset(mended)] == [b"1", b"2", b"3"]


def test_bad_images_and_labels_are_left_out_without_an_index(tmp_path: Path, mended: Path, draw_image: Draw) -> None:
    image = draw_image(1, size=(64, 64))
    cases = [(image, 0), (image[:-9], 0), (image, -4), (image[:-60] + image[-2:], 0)]
    (tmp_path / "x-0.tfrecord").write_bytes(
        b"".join(
            record({"image/key": b"%d" % n, "image/encoded": data, "image/class/label": label})
            for n, (data, label) in enumerate(cases)
        )
    )
    result = repair(tmp_path / "x-0.tfrecord", mended)
    assert [item.key for item in result.left_out] == ["1", "2"]
    assert "label is not a class number" in result.left_out[1].reason
    result = repair(tmp_path / "x-0.tfrecord", mended, decode=True, overwrite=True)
    assert [item.key for item in result.left_out] == ["1", "2", "3"]
    assert verify(mended, decode=True).sound


def test_double_keys_get_another_key_and_all_else_of_the_record_stays(
    tmp_path: Path, mended: Path, draw_image: Draw
) -> None:
    def one(n: int, key: bytes) -> bytes:
        more = {"image/class/label": n, "image/class/text": b"c%d" % n, "field/json": b"{}", "height": 30}
        return record({"image/encoded": draw_image(n), "image/key": key, **more})

    (tmp_path / "x-0.tfrecord").write_bytes(one(0, b"k") + one(1, b"k-2"))
    (tmp_path / "x-1.tfrecord").write_bytes(one(2, b"k"))
    result = repair(f"{tmp_path}/x-*.tfrecord", mended)
    assert [(item.key, item.new_key) for item in result.renamed] == [("k", "k-3")]
    assert samples(mended) == {key: (draw_image(n), n) for n, key in enumerate(("k", "k-2", "k-3"))}
    assert [entry.name for entry in result.manifest.classes] == ["c0", "c1", "c2"]
    [renamed] = records(shard(mended, 1))
    features = parse_example(renamed.data)
    assert sorted(features) == sorted(parse_example(one(2, b"k")[HEAD : HEAD - FRAME]))
    assert (features["height"].values, renamed.text, renamed.names.count("json")) == ([30], "c2", 1)
    assert verify(mended, decode=True).sound


def test_a_key_that_is_no_utf_8_gets_one_that_is(tmp_path: Path, mended: Path, draw_image: Draw) -> None:
    (tmp_path / "x-0.tfrecord").write_bytes(record({"image/key": b"b\xe9", "image/encoded": draw_image()}))
    result = repair(tmp_path / "x-0.tfrecord", mended)
    assert [(item.key, item.new_key) for item in result.renamed] == [("b\\xe9", "b\\xe9")]
    assert verify(mended).sound


@pytest.mark.parametrize("indexed", [True, False])
def test_records_of_others_keep_every_feature_and_their_file_names(
    tmp_path: Path, mended: Path, draw_image: Draw, indexed: bool
) -> None:
    def one(n: int, label: int, text: bytes, name: bytes) -> bytes:
        more = {"image/class/label": label, "image/class/text": text, "image/filename": name, "image/height": n}
        return record({"image/encoded": draw_image(n), **more})

    rows = [one(0, 1, b"dog", b"a.JPEG"), one(1, 0, b"cat", b"a.JPEG"), one(2, 0, b"cat", b"b.JPEG")]
    path = tmp_path / "train-00000-of-00001"
    path.write_bytes(b"".join(rows))
    if indexed:
        index_shards(path)
    damage(path, len(rows[0]) + 100)
    result = repair(tmp_path / "train" if indexed else path, mended)
    assert shard(mended).read_bytes() == rows[0] + rows[2]
    assert [entry.name for entry in result.manifest.classes] == ["cat", "dog"]
    assert (len(result.left_out), result.renamed) == (1, ())
    assert verify(mended, decode=True).sound
    unpack(mended, tmp_path / "out")
    names = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.JPEG")}
    assert names == {"dog/a.JPEG", "cat/b.JPEG"}


def test_fields_that_no_index_knows_are_not_given_up_silently(packed: Path, mended: Path, draw_image: Draw) -> None:
    rows = [record({"image/key": b"%d" % n, "image/encoded": draw_image(n), "field/json": b"{}"}) for n in range(2)]
    path = packed.parent / "other-0.tfrecord"
    path.write_bytes(b"".join(rows))
    index_shards(path)
    damage(path, 2)
    [lost] = repair(packed.parent / "other", mended).left_out
    assert lost.reason == "its record is damaged, and with it fields that are not in the index"


def test_a_cut_gzip_shard_gives_what_can_be_unpacked(packed: Path, mended: Path) -> None:
    truth, path = samples(packed), shard(packed)
    data = path.read_bytes()
    packed_data = gzip.compress(data)
    packing = packed.parent / "x-0.tfrecord.gz"
    packing.write_bytes(packed_data[: len(packed_data) // 2])
    result = repair(packing, mended)
    kept = samples(mended)
    assert 1 <= len(kept) < 4
    assert all(truth[key] == value for key, value in kept.items())
    assert any("cut" in note or "ends" in note for note in result.notes)
    assert verify(mended).sound


def test_where_nothing_is_whole_nothing_is_written(tmp_path: Path, mended: Path) -> None:
    (tmp_path / "x-0.tfrecord").write_bytes(b"no records at all, but some bytes")
    with pytest.raises(DatasetError, match="none of its samples is intact"):
        repair(tmp_path / "x-0.tfrecord", mended)
    assert not mended.parent.exists() or content(mended.parent) == {}


def test_shards_of_two_formats_are_not_repaired_together(tree: Path, packed: Path, mended: Path) -> None:
    pack(tree, packed.parent / "other", workers=1)
    with pytest.raises(UsageError, match="more than one format"):
        repair([str(shard(packed)), f"{packed.parent}/other-000000.tar"], mended)


def test_random_damage_never_gives_a_wrong_sample(packed: Path, mended: Path) -> None:
    truth, path = samples(packed), shard(packed)
    whole = path.read_bytes()
    for seed in range(60):
        chance = random.Random(seed)
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 3])):
            at, size = chance.randrange(len(data)), chance.choice([1, 8, 64, 700])
            match chance.choice(["flip", "delete", "insert", "zero", "copy"]):
                case "flip":
                    data[at] ^= 1 << chance.randrange(8)
                case "delete":
                    del data[at : at + size]
                case "insert":
                    data[at:at] = chance.randbytes(size)
                case "zero":
                    data[at : at + size] = bytes(len(data[at : at + size]))
                case "copy":
                    data[at:at] = whole[at : at + size]
        path.write_bytes(data)
        result = repair(packed, mended, overwrite=True, workers=1)
        assert verify(mended, workers=1).sound, seed
        kept = samples(mended)
        assert all(truth[key] == value for key, value in kept.items()), seed
        assert len(kept) + len(result.left_out) == len(truth), seed


@pytest.mark.parametrize("labels", [(1, 2), (b"1", b"2")])
def test_labels_are_read_from_every_record(labels: Sequence[int | bytes]) -> None:
    data = b"".join(record({"cls": label, "text": b"x"}) for label in labels)
    found = salvage(ShardBytes("x", data, len(data)))
    assert [one.record.label for one in found.samples if one.record is not None] == [1, 2]
    assert found.gaps == []


def test_the_next_record_is_found_wherever_it_is() -> None:
    one = record({"text": b"x" * 50})

    def found(data: bytes, at: int = 0) -> int | None:
        return next_head(ShardBytes("x", data, len(data)), at, len(data))

    noise = random.Random(1).randbytes(3000)
    places: Sequence[int] = (0, 1, 17, 2999, (1 << 20) - 12, (1 << 20) - 1, 1 << 20, (1 << 20) + 5)
    for place in places:
        for filling in (noise * 400, bytes(1_200_000)):
            assert found(filling[:place] + one) == place
            assert found(filling[:place] + one + noise, place) == place
    assert found(one[:-1]) is None  # its length does not fit the file
    assert found(noise) is None
    assert found(b"") is None
    assert found(framed_record(b"")) == 0


def test_a_feature_is_replaced_and_the_others_stay() -> None:
    data = record({"a": b"1", "image/key": b"old", "n": 5})[HEAD : HEAD - FRAME]
    new = with_text(data, "image/key", "new ü")
    features = parse_example(new)
    assert {name: feature.kind for name, feature in features.items()} == {
        "image/key": "bytes",
        "a": "bytes",
        "n": "int64",
    }
    [(first, size)] = features["image/key"].values
    assert new[first : first + size] == "new ü".encode()
    assert features["n"].values == [5]
    assert with_text(with_text(data, "image/key", "x"), "image/key", "new ü") == new
