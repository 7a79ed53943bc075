"""A sound dataset from a damaged one, and the source as it was."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shardkit import DatasetError, DestinationError, dataset, index_shards, pack, repair, unpack, verify
from shardkit.reading.blocks.block import index_table
from shardkit.tools.repair import repair as repair_module
from shardkit.tools.repair.salvaged import Salvage, Salvaged

Files = dict[str, bytes]


def make_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def content(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def samples(prefix: Path) -> dict[str, tuple[bytes, int]]:
    return {s["__key__"]: (bytes(s["jpg"]), s["cls"]) for s in dataset(prefix)}


@pytest.fixture
def packed(tree: Path, tmp_path: Path) -> Path:
    """12 images in 3 shards."""
    pack(tree, tmp_path / "d" / "train", workers=1, max_count=4)
    return tmp_path / "d" / "train"


@pytest.fixture
def mended(tmp_path: Path) -> Path:
    return tmp_path / "mended" / "train"


def header_of(shard: Path, number: int) -> int:
    with tarfile.open(shard) as file:
        return file.getmembers()[number].offset


def damage(path: Path, at: int, size: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + size] = bytes(byte ^ 0x55 for byte in data[at : at + size])
    path.write_bytes(data)


def test_a_sound_dataset_comes_out_as_it_was(packed: Path, mended: Path) -> None:
    before = content(packed.parent)
    result = repair(packed, mended)
    assert (result.left_out, result.renamed, result.joined, result.notes) == ((), (), (), ())
    assert content(packed.parent) == before
    assert {n: d for n, d in content(mended.parent).items() if n.endswith((".tar", ".parquet"))} == {
        n: d for n, d in before.items() if n.endswith((".tar", ".parquet"))
    }
    assert verify(mended, decode=True).sound


def test_a_damaged_image_is_left_out_and_listed(packed: Path, mended: Path, tmp_path: Path) -> None:
    truth = samples(packed)
    damage(Path(f"{packed}-000000.tar"), 600)
    before = content(packed.parent)
    result = repair(packed, mended)
    [lost] = result.left_out
    assert "CRC-32C" in lost.reason
    assert samples(mended) == {key: value for key, value in truth.items() if key != lost.key}
    assert (result.manifest.samples, result.manifest.skipped) == (11, 1)
    [listed] = json.loads(Path(f"{mended}.skipped.json").read_text())
    assert listed["path"] == lost.path == lost.key + ".jpg"
    assert "train-000000.tar at byte 0: the image is damaged" in listed["reason"]
    assert verify(mended, decode=True).sound
    assert content(packed.parent) == before


def test_a_damaged_header_costs_no_sample_where_there_is_an_index(packed: Path, mended: Path) -> None:
    truth = samples(packed)
    shard = Path(f"{packed}-000001.tar")

    starts = [header_of(shard, number) for number in (0, 2, 3)]
    for start in starts:
        damage(shard, start + 2)
    result = repair(packed, mended)
    assert result.left_out == ()
    assert samples(mended) == truth
    assert len(result.notes) >= 2
    assert verify(mended).sound


def test_a_shard_whose_bytes_moved_is_read_by_its_headers(packed: Path, mended: Path) -> None:
    truth = samples(packed)
    shard = Path(f"{packed}-000002.tar")
    data = shard.read_bytes()
    at = header_of(shard, 2)
    shard.write_bytes(data[:at] + b"stray" + data[at:])
    result = repair(packed, mended)
    assert result.left_out == ()
    assert samples(mended) == truth


def test_a_cut_shard_gives_what_is_left_of_it(packed: Path, mended: Path) -> None:
    truth = samples(packed)
    shard = Path(f"{packed}-000000.tar")
    shard.write_bytes(shard.read_bytes()[: header_of(shard, 4) + 700])
    result = repair(packed, mended)
    assert len(result.left_out) == 2
    assert samples(mended) == {k: v for k, v in truth.items() if k not in {item.key for item in result.left_out}}
    assert verify(mended).sound


def test_a_missing_shard_is_listed_sample_by_sample(packed: Path, mended: Path) -> None:
    Path(f"{packed}-000001.tar").unlink()
    result = repair(packed, mended)
    assert [item.byte for item in result.left_out] == [None] * 4
    assert all("the shard is missing" in item.reason for item in result.left_out)
    assert (result.manifest.samples, len(result.manifest.shards)) == (8, 2)
    assert verify(mended).sound


def test_a_damaged_manifest_is_made_anew_with_names_and_paths_from_the_index(
    packed: Path, mended: Path, tree: Path, tmp_path: Path
) -> None:
    Path(f"{packed}.json").write_text("{ damaged")
    result = repair(packed, mended)
    assert [(entry.name, entry.count) for entry in result.manifest.classes] == [("blue", 5), ("red", 7)]
    assert unpack(mended, tmp_path / "again").samples == 12
    assert {p.name for p in (tmp_path / "again").iterdir()} == {"blue", "red"}
    assert verify(mended).sound


@pytest.mark.parametrize("damaged", [b"", b"PAR1 none PAR1"])
def test_a_damaged_index_is_made_anew(packed: Path, mended: Path, damaged: bytes) -> None:
    truth = samples(packed)
    Path(f"{packed}.parquet").write_bytes(damaged)
    assert repair(packed, mended).left_out == ()
    assert samples(mended) == truth
    assert verify(mended, decode=True).sound


def test_without_an_index_a_sample_that_lost_a_member_is_left_out(packed: Path, mended: Path) -> None:
    truth = samples(packed)
    Path(f"{packed}.parquet").unlink()
    Path(f"{packed}.json").unlink()
    shard = Path(f"{packed}-000000.tar")
    with tarfile.open(shard) as file:
        lost = file.getnames()[2].removesuffix(".jpg")
    damage(shard, header_of(shard, 3) + 1)
    result = repair(f"{packed}-*.tar", mended)
    assert [(item.key, item.reason) for item in result.left_out] == [
        (lost, "one of its members was lost in the damage next to it")
    ]
    assert samples(mended) == {key: value for key, value in truth.items() if key != lost}
    assert verify(mended).sound


def test_members_of_a_sample_are_brought_together(tmp_path: Path, mended: Path, draw_image: Any) -> None:
    images = [draw_image(n) for n in range(3)]
    make_tar(tmp_path / "a-0.tar", [("x.jpg", images[0]), ("y.jpg", images[1]), ("x.cls", b"1"), ("z.jpg", images[2])])
    make_tar(tmp_path / "a-1.tar", [("y.cls", b"0"), ("z.cls", b"1")])
    result = repair(f"{tmp_path}/a-*.tar", mended)
    assert sorted(result.joined) == ["x", "y", "z"]
    assert samples(mended) == {"x": (images[0], 1), "y": (images[1], 0), "z": (images[2], 1)}
    assert verify(mended, decode=True).sound


def test_what_is_brought_together_keeps_the_label_and_the_path_of_the_part_with_the_image(
    tmp_path: Path, mended: Path, draw_image: Any
) -> None:
    images = {name: draw_image(number) for number, name in enumerate("xyz")}
    first = [("a/x.jpg", images["x"]), ("a/x.cls", b"0"), ("a/y.txt", b"y"), ("a/z.jpg", images["z"])]
    then = [("a/z.cls", b"0"), ("a/x.txt", b"x"), ("a/y.jpg", images["y"]), ("a/y.cls", b"0"), ("a/z.txt", b"z")]
    make_tar(tmp_path / "a-0.tar", first)
    make_tar(tmp_path / "a-1.tar", then)
    result = repair(f"{tmp_path}/a-*.tar", mended)
    assert sorted(result.joined) == ["a/x", "a/y", "a/z"]  # each once, though z is in three places
    assert samples(mended) == {f"a/{name}": (images[name], 0) for name in "xyz"}
    paths = index_table(dataset(mended).content.catalog)["path"].to_pylist()
    assert sorted(paths) == ["a/x.jpg", "a/y.jpg", "a/z.jpg"]


def test_double_keys_get_another_key(tmp_path: Path, mended: Path, draw_image: Any) -> None:
    images = [draw_image(n) for n in range(3)]
    make_tar(tmp_path / "a-0.tar", [("x.jpg", images[0]), ("x.cls", b"0"), ("x-2.jpg", images[1]), ("x-2.cls", b"1")])
    make_tar(tmp_path / "a-1.tar", [("x.jpg", images[2]), ("x.cls", b"1")])
    result = repair(f"{tmp_path}/a-*.tar", mended)
    assert [(item.key, item.new_key) for item in result.renamed] == [("x", "x-3")]
    assert samples(mended) == {"x": (images[0], 0), "x-2": (images[1], 1), "x-3": (images[2], 1)}
    assert verify(mended).sound
    assert unpack(mended, tmp_path / "out").files == 3


def test_a_key_that_is_no_utf_8_gets_one_that_is_and_keeps_its_path(
    tmp_path: Path, mended: Path, draw_image: Any
) -> None:
    make_tar(tmp_path / "a-0.tar", [("c/b\udce9.jpg", draw_image()), ("c/b\udce9.cls", b"0")])
    result = repair(tmp_path / "a-0.tar", mended)
    assert [(item.key, item.new_key) for item in result.renamed] == [("c/b\\xe9", "c/b\\xe9")]
    assert verify(mended).sound
    unpack(mended, tmp_path / "out")
    assert [path.name.encode("utf-8", "surrogateescape") for path in (tmp_path / "out" / "c").iterdir()] == [
        b"b\xe9.jpg"
    ]


def test_bad_labels_and_bad_images_are_left_out_without_an_index(tmp_path: Path, mended: Path, draw_image: Any) -> None:
    image = draw_image(1, size=(64, 64))
    members = [
        ("a.jpg", image),
        ("a.cls", b"0"),
        ("b.jpg", image),
        ("b.cls", b"cat"),
        ("c.jpg", image[:-9]),
        ("c.cls", b"0"),
    ]
    members += [("d.jpg", image[:-60] + image[-2:]), ("d.cls", b"0")]
    make_tar(tmp_path / "a-0.tar", members)
    result = repair(tmp_path / "a-0.tar", mended)
    assert [item.key for item in result.left_out] == ["b", "c"]
    assert verify(mended).sound
    result = repair(tmp_path / "a-0.tar", mended, decode=True, overwrite=True)
    assert [item.key for item in result.left_out] == ["b", "c", "d"]
    assert verify(mended, decode=True).sound


def test_other_fields_come_along_and_are_named_where_nothing_proves_them(
    tmp_path: Path, mended: Path, draw_image: Any
) -> None:
    members = [("a.jpg", draw_image()), ("a.json", b'{"n": 1}'), ("a.cls", b"0")]
    shard = make_tar(tmp_path / "a-0.tar", members)
    index_shards(shard)
    assert repair(shard, mended).notes == ()
    [sample] = dataset(mended)
    assert bytes(sample["json"]) == b'{"n": 1}' or sample["json"] == {"n": 1}
    with tarfile.open(shard) as file:
        damage(shard, file.getmember("a.json").offset_data)
    result = repair(shard, mended, overwrite=True)
    assert any("the fields json have none" in note for note in result.notes)


def test_samples_that_the_index_does_not_know_are_kept(packed: Path, mended: Path, draw_image: Any) -> None:
    members = [("red/new.jpg", draw_image(99)), ("red/new.cls", b"1")]
    make_tar(Path(f"{packed}-000001.tar"), members)
    result = repair(packed, mended)
    assert len(result.left_out) == 4
    assert samples(mended)["red/new"] == (members[0][1], 1)
    assert verify(mended).sound


def test_the_source_is_never_the_destination(packed: Path, tmp_path: Path) -> None:
    before = content(packed.parent)
    for dest in (packed, packed.parent):
        with pytest.raises(DestinationError):
            repair(packed, dest, overwrite=True)
    assert content(packed.parent) == before


def test_a_destination_that_is_taken_is_kept_unless_it_is_to_be_replaced(packed: Path, mended: Path) -> None:
    repair(packed, mended)
    before = content(mended.parent)
    with pytest.raises(DestinationError, match="another dataset is there"):
        repair(packed, mended)
    assert content(mended.parent) == before
    assert repair(packed, mended, overwrite=True).manifest.samples == 12


def test_where_nothing_is_whole_nothing_is_written(tmp_path: Path, mended: Path) -> None:
    make_tar(tmp_path / "a-0.tar", [("a.jpg", b"no image")])
    with pytest.raises(DatasetError, match=r"none of its samples is intact \(1 are damaged\)"):
        repair(tmp_path / "a-0.tar", mended)
    assert not mended.parent.exists() or content(mended.parent) == {}


@pytest.mark.parametrize("indexed", [(False, False), (True, False), (False, True), (True, True)])
def test_parts_of_a_sample_are_joined_where_the_index_describes_neither(indexed: tuple[bool, bool]) -> None:
    parts = [[(0, "jpg", 512, 5)], [(1, "json", 512, 2)]]
    samples = [
        Salvaged("a", "cat/a.jpg", -1, 0, part, indexed=known) for part, known in zip(parts, indexed, strict=True)
    ]
    salvages = [Salvage([sample]) for sample in samples]
    joined = repair_module._join(salvages)
    together = not any(indexed)
    assert joined == ["a"] * together
    assert [len(salvage.samples) for salvage in salvages] == ([1, 0] if together else [1, 1])
    assert samples[0].names == ({"jpg", "json"} if together else {"jpg"})


def test_classes_are_named_by_their_folder_where_each_has_one() -> None:
    paths = ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "x/1.jpg", "y/1.jpg"]
    labels = [0, 0, 1, 2, 2]
    samples = [Salvaged(path, path, label, 0, []) for path, label in zip(paths, labels, strict=True)]
    for plan, names in (("planned", ["cat", "dog", "third", "fourth"]), ("", ["first", "second", "third", "fourth"])):
        manifest = SimpleNamespace(class_names=["first", "second", "third", "fourth"], plan=plan)
        opened: Any = SimpleNamespace(manifest=manifest)
        found = repair_module._classes(opened, [Salvage(samples)])
        assert [(entry.name, entry.count) for entry in found] == list(zip(names, [2, 1, 2, 0], strict=True))
