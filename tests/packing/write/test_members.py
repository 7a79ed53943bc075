"""Members that an archive stores as they are take the fast way in C, with the bytes and errors of the way in Python."""

from __future__ import annotations

import os
import tarfile
import zipfile
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from images.jpegs import EOI

import shardkit
from shardkit.errors import BadFileError
from shardkit.formats.tar import fast_write
from shardkit.packing.write.plain import is_native
from shardkit.sources import readers

pytestmark = pytest.mark.skipif(fast_write.extension() is None, reason="the C extension is not built here")

Draw = Callable[..., bytes]
Content = Callable[[Path], dict[str, bytes]]
KINDS = ("stored.zip", "deflated.zip", "ustar.tar", "pax.tar")


def archived(tree: Path, kind: str) -> Path:
    """An archive of a tree, of which some members have names and images that are left to Python."""
    path = tree.parent / kind
    files = sorted(file for file in tree.rglob("*") if file.is_file())
    if kind.endswith(".zip"):
        method = zipfile.ZIP_DEFLATED if kind == "deflated.zip" else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", method) as archive:
            for file in files:
                archive.writestr(zipfile.ZipInfo(str(file.relative_to(tree))), file.read_bytes(), method)
    else:
        form = tarfile.PAX_FORMAT if kind == "pax.tar" else tarfile.USTAR_FORMAT
        with tarfile.open(path, "w", format=form) as archive:
            for file in files:
                archive.add(file, str(file.relative_to(tree)))
    return path


@pytest.fixture
def odd_tree(tree: Path, draw_image: Draw) -> Path:
    """The tree with a few more images: of several sizes, and some that are left to Python."""
    for number in range(40):
        (tree / "red" / f"more{number}.jpg").write_bytes(draw_image(number % 5)[:-2] + bytes(number) + EOI)
    (tree / "red" / "a.b.jpg").write_bytes(draw_image(1))
    (tree / "red" / "picture.png").write_bytes(draw_image(2, format="PNG"))
    (tree / "red" / "trailing.jpg").write_bytes(draw_image(3) + b"more")
    (tree / "blue" / "large.jpg").write_bytes(draw_image(4)[:-2] + bytes(2 << 20) + EOI)
    return tree


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_packs_to_the_bytes_of_its_tree_both_ways(
    kind: str, workers: int, odd_tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch, content_of: Content
) -> None:
    given = archived(odd_tree, kind)

    def packed(source: Path, name: str) -> dict[str, bytes]:
        shardkit.pack(source, out / name / "d", workers=workers, max_count=30)
        return {path: data for path, data in content_of(out / name).items() if path.endswith(".tar")}

    fast = packed(given, "archive")
    assert fast == packed(odd_tree, "tree")
    assert len(fast) == 2
    monkeypatch.setattr(fast_write, "extension", lambda: None)
    assert packed(given, "in_python") == fast


@pytest.mark.parametrize("kind", KINDS)
def test_threads_write_what_is_stored_and_processes_what_is_compressed(
    kind: str, tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def noted(task: Any) -> bool:
        asked.append(is_native(task))
        return asked[-1]

    monkeypatch.setattr("shardkit.packing.engine.engine.is_native", noted)
    shardkit.pack(archived(tree, kind), out / "train", workers=2)
    assert asked == [kind != "deflated.zip"]


def test_the_extension_takes_stored_members_of_all_lengths(
    tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch, draw_image: Draw
) -> None:
    small = draw_image(1)
    for number in range(200):  # the CRC-32 is folded over 64 and 16 bytes, and goes on in steps of 8 and 1
        (tree / "red" / f"more{number}.jpg").write_bytes(small[:-2] + b"\0" * number + EOI)
    given = archived(tree, "stored.zip")

    def refused(*_: Any) -> bytes:
        raise AssertionError("a stored member was left to Python")

    monkeypatch.setattr(readers._Zipped, "read", refused)
    (packed,) = shardkit.pack(given, out / "train", workers=1).values()
    assert packed.manifest.samples == 212


@pytest.mark.parametrize("in_python", [False, True])
def test_a_stored_member_with_another_crc_is_named(
    tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *, in_python: bool
) -> None:
    if in_python:
        monkeypatch.setattr(fast_write, "extension", lambda: None)
    path = archived(tree, "stored.zip")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("red/0003.jpg")
    data[member.header_offset + 30 + len(member.filename) + member.file_size - 10] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadFileError, match=r"stored\.zip/red/0003\.jpg: its CRC-32 is not the one in"):
        shardkit.pack(path, out / "train", workers=1)
    (packed,) = shardkit.pack(path, out / "train", workers=1, on_error="skip").values()
    assert packed.manifest.samples == 11


@pytest.mark.parametrize("change", [b"PK\3\5", b"\0\0\0\0"], ids=["signature", "zeros"])
def test_a_stored_member_without_its_local_header_is_named(tree: Path, out: Path, change: bytes) -> None:
    path = archived(tree, "stored.zip")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("blue/0001.jpg").header_offset
    data[at : at + 4] = change
    path.write_bytes(data)
    with pytest.raises(BadFileError, match=r"blue/0001\.jpg: there is no local header"):
        shardkit.pack(path, out / "train", workers=1)


def test_the_descriptor_of_the_archive_is_closed(tree: Path, out: Path) -> None:
    path = archived(tree, "ustar.tar")
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    shardkit.pack(path, out / "train", workers=1)
    after = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    assert len(after) <= len(before) + 2  # what is opened once, such as by Arrow


@pytest.mark.parametrize("members", [b"", bytes(32)])
def test_fewer_members_than_files_are_refused(members: bytes) -> None:
    two = (b"ab", array("q", [0, 1, 2]).tobytes())
    columns = [two, two, bytes(8), (b"jpg",), bytes(16), array("q", [3, 3]).tobytes()]
    with pytest.raises(ValueError, match="fewer members than files"):
        fast_write.extension().write(0, 0, 0, 0, bytes(512), *columns, 0, 2, 1 << 20, 1000, 500, 5000, members)
