"""A dataset back as files: byte for byte, and safe whatever the archive says."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shardkit import (
    DamagedError,
    DatasetError,
    DestinationError,
    NotFoundError,
    UsageError,
    convert,
    index_shards,
    pack,
    unpack,
)
from shardkit.tools.unpack import paths as paths_module

Member = tuple[str, bytes] | tarfile.TarInfo


def make_tar(path: Path, members: list[Member]) -> Path:
    with tarfile.open(path, "w") as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            file.addfile(info, io.BytesIO(member[1]))
    return path


def files(root: Path) -> dict[bytes, bytes]:
    """Path below `root` -> content, of every file."""
    top = os.fsencode(root)
    return {
        os.path.relpath(os.path.join(folder, name), top): Path(os.fsdecode(os.path.join(folder, name))).read_bytes()
        for folder, _, names in os.walk(top)
        for name in names
    }


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.fixture
def odd_tree(tree: Path, draw_image: Any) -> Path:
    """A tree with names of every kind."""
    names = [
        b"red/cat.0.jpg",
        b"red/cat.1.jpg",
        b"red/A.JPG",
        b"red/a.jpg",
        b"red/x.png",
        b"red/x.jpg",
        b"blue/a b.jpeg",
    ]
    names += ["blue/ñandú 鳥.JPEG".encode(), b"blue/new\nline.jpg", b"blue/back\\slash.jpg", b"red/deep.er/e.jpg"]
    names += [b"blue/" + b"n" * 200 + b".jpg"]
    if sys.platform == "linux":
        names += [b"red/latin\xe9.jpg", b"\xff\xfe/a.jpg"]
    for number, name in enumerate(names):
        path = os.path.join(os.fsencode(tree), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(draw_image(number, format="PNG" if name.endswith(b".png") else "JPEG"))
    return tree


@pytest.mark.parametrize("workers", [1, 3])
def test_the_tree_comes_back_byte_for_byte_with_its_names(odd_tree: Path, tmp_path: Path, workers: int) -> None:
    pack(odd_tree, tmp_path / "d" / "train", workers=1, max_count=5)
    result = unpack(tmp_path / "d" / "train", tmp_path / "again", workers=workers)
    expected = files(odd_tree)
    assert files(tmp_path / "again") == expected
    assert (result.samples, result.files) == (len(expected), len(expected))
    assert result.bytes == sum(map(len, expected.values()))


def test_a_subset_by_class_or_key_comes_out_alone(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "train", workers=1)
    unpack(tmp_path / "train", tmp_path / "reds", classes=["red"])
    assert set(files(tmp_path / "reds")) == {b"red/%04d.jpg" % n for n in range(7)}
    unpack(tmp_path / "train", tmp_path / "some", keys=["*/0001", "blue/000[34]"])
    assert set(files(tmp_path / "some")) == {b"red/0001.jpg", b"blue/0001.jpg", b"blue/0003.jpg", b"blue/0004.jpg"}
    unpack(tmp_path / "train", tmp_path / "both", classes="blue", keys="*/0001")
    assert set(files(tmp_path / "both")) == {b"blue/0001.jpg"}


def test_a_subset_that_is_empty_is_an_error_and_leaves_nothing(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "train", workers=1)
    with pytest.raises(UsageError, match="there is no class 'green'; the classes are blue, red"):
        unpack(tmp_path / "train", tmp_path / "out", classes=["green"])
    with pytest.raises(NotFoundError, match="no sample matches these"):
        unpack(tmp_path / "train", tmp_path / "out", keys=["nothing*"])
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_shards_of_others_come_out_below_their_class(tmp_path: Path, draw_image: Any) -> None:
    image = draw_image()
    shard = make_tar(tmp_path / "o-0.tar", [("a.jpg", image), ("a.cls", b"1"), ("a.json", b"{}"), ("b.jpg", image)])
    unpack(shard, tmp_path / "plain")
    assert files(tmp_path / "plain") == {b"1/a.jpg": image, b"1/a.json": b"{}", b"b.jpg": image}
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    index_shards(shard, classes=tmp_path / "names.txt")
    unpack(shard, tmp_path / "named")
    assert files(tmp_path / "named") == {b"dog/a.jpg": image, b"dog/a.json": b"{}", b"b.jpg": image}
    unpack(shard, tmp_path / "dogs", classes=["dog"])
    assert set(files(tmp_path / "dogs")) == {b"dog/a.jpg", b"dog/a.json"}


def test_the_first_label_is_a_class_as_the_others_are(tmp_path: Path, draw_image: Any) -> None:
    image = draw_image()
    shard = make_tar(tmp_path / "o-0.tar", [("a.jpg", image), ("a.cls", b"0"), ("b.jpg", image), ("b.cls", b"1")])
    unpack(shard, tmp_path / "plain")
    assert files(tmp_path / "plain") == {b"0/a.jpg": image, b"1/b.jpg": image}
    index_shards(shard, classes=["cat", "dog"])
    unpack(shard, tmp_path / "named")
    assert files(tmp_path / "named") == {b"cat/a.jpg": image, b"dog/b.jpg": image}


@pytest.mark.parametrize("way", ["as they are", "indexed", "tar", "tfrecord"])
@pytest.mark.parametrize("beside", [["png", "cls"], ["png"], ["json"]])
def test_every_file_of_a_sample_comes_out(way: str, beside: list[str], tmp_path: Path, draw_image: Any) -> None:
    data = {"jpg": draw_image(1), "png": draw_image(2, format="PNG"), "json": b"{}", "cls": b"0"}
    source = make_tar(tmp_path / "o-0.tar", [(f"cat/a.{name}", data[name]) for name in ("jpg", *beside)])
    if way != "as they are":
        index_shards(source, classes=["cat"])
    if way in ("tar", "tfrecord"):
        convert(tmp_path / "o", tmp_path / "new" / "o", format=way, workers=1)  # type: ignore[arg-type]
        source = tmp_path / "new" / "o"
    unpack(source, tmp_path / "out")
    assert files(tmp_path / "out") == {b"cat/a.jpg": data["jpg"], f"cat/a.{beside[0]}".encode(): data[beside[0]]}


def test_samples_without_an_image_come_out_too(tmp_path: Path) -> None:
    shard = make_tar(tmp_path / "t-0.tar", [("a/x.txt", b"one"), ("a/x.json", b"{}"), ("a/y.cls", b"4")])
    expected = {b"a/x.txt": b"one", b"a/x.json": b"{}", b"a/y.cls": b"4"}
    unpack(shard, tmp_path / "plain")
    assert files(tmp_path / "plain") == expected


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("/etc/evil.jpg", "absolute"),
        ("../evil.jpg", "leaves the folder"),
        ("a/../../evil.jpg", "leaves the folder"),
        ("a//evil.jpg", "empty part"),
        ("./evil.jpg", "empty part"),
    ],
)
def test_a_name_that_would_leave_the_folder_is_refused(tmp_path: Path, draw_image: Any, name: str, what: str) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    shard = make_tar(inside / "h-0.tar", [("good.jpg", draw_image()), (name, draw_image())])
    before = everything(tmp_path)
    with pytest.raises(DatasetError, match=what):
        unpack(shard, inside / "out" / "deep")
    assert everything(tmp_path) == before
    index_shards(shard)
    with pytest.raises(DatasetError, match=what):
        unpack(shard, inside / "out" / "deep")
    assert not (inside / "out").exists()


def test_a_nul_in_a_name_is_refused(tmp_path: Path, draw_image: Any) -> None:
    from shardkit.formats.tar.headers import pax_record, ustar_block

    image = draw_image()
    records = pax_record(b"path", b"a\0b.jpg")
    data = ustar_block(b"p", len(records), b"x", b"") + records.ljust(512, b"\0")
    data += ustar_block(b"short.jpg", len(image), b"0", b"") + image + bytes(-len(image) % 512 + 1024)
    (tmp_path / "n-0.tar").write_bytes(data)
    with pytest.raises(DatasetError, match="damaged path"):
        unpack(tmp_path / "n-0.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_devices_and_folders_are_never_made(tmp_path: Path, draw_image: Any) -> None:
    special: list[Member] = []
    for name, kind in (("l.jpg", tarfile.SYMTYPE), ("h.jpg", tarfile.LNKTYPE), ("c.jpg", tarfile.CHRTYPE),
                       ("f.jpg", tarfile.FIFOTYPE), ("d.jpg", tarfile.DIRTYPE)):  # fmt: skip
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "../../etc/passwd"
        special.append(info)
    shard = make_tar(tmp_path / "s-0.tar", [*special, ("a/good.jpg", draw_image())])
    unpack(shard, tmp_path / "out")
    assert everything(tmp_path / "out") == {"a", "a/good.jpg"}


def test_a_file_below_a_link_of_the_archive_is_a_plain_file(tmp_path: Path, draw_image: Any) -> None:
    link = tarfile.TarInfo("a")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    shard = make_tar(tmp_path / "s-0.tar", [link, ("a/x.jpg", draw_image())])
    unpack(shard, tmp_path / "out")
    assert not (tmp_path / "out" / "a").is_symlink()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("names", [("a.jpg", "a.jpg/b.jpg"), ("a.jpg/b.jpg", "a.jpg")])
def test_a_name_that_is_a_file_and_a_folder_is_refused(tmp_path: Path, draw_image: Any, names: tuple[str, str]) -> None:
    shard = make_tar(tmp_path / "s-0.tar", [(name, draw_image()) for name in names])
    with pytest.raises(DatasetError, match="both a file and a folder"):
        unpack(shard, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_too_long_for_the_disk_is_refused(tmp_path: Path, draw_image: Any) -> None:
    shard = make_tar(tmp_path / "s-0.tar", [("n" * 300 + ".jpg", draw_image())])
    with pytest.raises(DatasetError, match="too long"):
        unpack(shard, tmp_path / "out")


def test_two_samples_with_one_path_are_refused(tmp_path: Path, draw_image: Any) -> None:
    one = make_tar(tmp_path / "s-0.tar", [("a.jpg", draw_image(1))])
    two = make_tar(tmp_path / "s-1.tar", [("a.jpg", draw_image(2))])
    with pytest.raises(DatasetError, match="already exists"):
        unpack([one, two], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_image_is_an_error_with_its_key_and_leaves_nothing(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "train", workers=1)
    shard = tmp_path / "train-000000.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamagedError, match=r"at byte 512: sample .*CRC-32C") as caught:
        unpack(tmp_path / "train", tmp_path / "out")
    assert caught.value.key is not None
    shard.write_bytes(data[:-512])
    with pytest.raises(DamagedError, match="its manifest says"):
        unpack(tmp_path / "train", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"tree", "train-000000.tar", "train.json", "train.parquet"}


def test_a_destination_that_is_taken_is_refused_and_stays_as_it_is(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "train", workers=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(DestinationError, match="not empty"):
        unpack(tmp_path / "train", tmp_path / "full")
    assert everything(tmp_path / "full") == {"mine"}
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DestinationError, match="a file or link exists there"):
        unpack(tmp_path / "train", tmp_path / "file")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty", target_is_directory=True)
    with pytest.raises(DestinationError, match="a file or link exists there"):
        unpack(tmp_path / "train", tmp_path / "link")
    assert everything(tmp_path / "empty") == set()
    assert unpack(tmp_path / "train", tmp_path / "empty").samples == 12


def test_a_dataset_without_its_index_has_no_paths(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "train", workers=1)
    (tmp_path / "train.parquet").unlink()
    with pytest.raises(DatasetError, match="no readable index"):
        unpack(tmp_path / "train", tmp_path / "out")


def test_progress_is_told_to_the_end(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "train", workers=1, max_count=5)
    told: list[Any] = []
    unpack(tmp_path / "train", tmp_path / "out", progress=told.append)
    assert (told[-1].step, told[-1].done, told[-1].total) == ("unpack", 12, 12)
    assert told[-1].bytes_done == sum(path.stat().st_size for path in tree.rglob("*.jpg"))


@pytest.mark.parametrize("part", [{"classes": ["red"]}, {"keys": ["red/*"]}])
def test_progress_of_a_part_has_no_total(tree: Path, tmp_path: Path, part: dict[str, Any]) -> None:
    pack(tree, tmp_path / "train", workers=1)
    told: list[Any] = []
    unpack(tmp_path / "train", tmp_path / "out", progress=told.append, **part)
    assert (told[-1].done, told[-1].total) == (7, 0)


def test_progress_of_some_shards_has_no_total(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "train", workers=1, max_count=4)
    told: list[Any] = []
    unpack([tmp_path / "train-000000.tar", tmp_path / "train-000001.tar"], tmp_path / "out", progress=told.append)
    assert (told[-1].done, told[-1].total) == (8, 0)


def test_without_a_manifest_classes_are_asked_for_by_number(tmp_path: Path, draw_image: Any) -> None:
    image = draw_image()
    shard = make_tar(tmp_path / "o-0.tar", [("a.jpg", image), ("a.cls", b"0"), ("b.jpg", image), ("b.cls", b"1")])
    unpack(shard, tmp_path / "out", classes=["1"])
    assert files(tmp_path / "out") == {b"1/b.jpg": image}
    with pytest.raises(UsageError, match="'dog': these shards have no manifest, so no class names"):
        unpack(shard, tmp_path / "dogs", classes=["dog"])


@pytest.mark.parametrize("path", [b"c:x.jpg", b"cat/a\\b.jpg"])
def test_what_means_something_else_on_windows_is_refused_there_alone(
    path: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for system, names in (("posix", [path, b"cat/x.jpg"]), ("nt", [b"cat/x.jpg"])):
        monkeypatch.setattr(paths_module, "os", SimpleNamespace(name=system))
        assert [paths_module.checked_path(name) for name in names] == names
    with pytest.raises(ValueError, match="Windows"):
        paths_module.checked_path(path)
