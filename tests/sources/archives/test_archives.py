"""Archives that are hostile, damaged or odd: each is named, with what to do."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.errors import MissingExtraError, SourceError
from shardkit.shards.manifest import Manifest
from shardkit.sources import listing
from shardkit.sources.archives import members as archive_members
from shardkit.sources.archives import tar, zip
from shardkit.sources.archives.members import MAX_NAME_BYTES, Members, MembersBuilder
from shardkit.sources.open import read_members
from shardkit.sources.tree.walk import MAX_DEPTH

Pack = Callable[..., Manifest]


@pytest.fixture(autouse=True, params=["by the C extension, where it is built", "by Python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test is for both ways of reading members and of finding folders."""
    if request.param == "by Python":
        for module in (archive_members, listing):
            monkeypatch.setattr(module, "load", lambda name: (None, "not wanted"))


def zipped(path: Path, members: dict[str, bytes], *, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, members: dict[str, bytes], *infos: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> Path:
    mode = "w:gz" if path.name.endswith("gz") else "w"
    with tarfile.open(path, mode, format=form) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in infos:
            archive.addfile(info)
    return path


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def names(members: Members) -> list[str]:
    return [name.decode() for name in members.names]


def read(path: Path, *, skip_bad: bool = False) -> Members:
    kinds = {".zip": "zip", ".tar": "tar", ".gz": "gz", ".bz2": "bz2", ".xz": "xz", ".zst": "zst", ".7z": "7z"}
    return read_members(str(path), kinds[path.suffix], skip_bad=skip_bad)


# ---- names


@pytest.mark.parametrize("bad", ["../a.jpg", "cat/../../a.jpg", "/etc/a.jpg", "C:/a.jpg", "cat/../dog/a.jpg"])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_name_that_leads_out_is_refused_or_left_out(bad: str, kind: str, tmp_path: Path) -> None:
    make = zipped if kind == "zip" else tarred
    path = make(tmp_path / f"x.{kind}", {"cat/a.jpg": b"a", bad: b"b"})
    with pytest.raises(SourceError, match=rf"x\.{kind}/.*its name (is absolute|leads out).*`on_error=.skip.`"):
        read(path)
    members = read(path, skip_bad=True)
    assert (names(members), [name for name, _ in members.refused]) == (["cat/a.jpg"], [bad])


def test_dots_and_double_slashes_are_cleaned(tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", {"./cat/a.jpg": b"a", "cat//b.jpg": b"b", "cat/./c.jpg": b"c"})
    assert names(read(path)) == ["cat/a.jpg", "cat/b.jpg", "cat/c.jpg"]


def test_two_members_of_one_name_are_refused(tmp_path: Path, draw_image: Callable[..., bytes], pack_one: Pack) -> None:
    path = tarred(tmp_path / "x.tar", {"cat/a.jpg": draw_image(1), "./cat/a.jpg": draw_image(2), "dog/a.jpg": b"x"})
    with pytest.raises(SourceError, match=r"x\.tar/cat/a\.jpg: two files have this name"):
        pack_one(path, tmp_path / "out")


def test_names_in_code_page_437_are_read_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = zipped(tmp_path / "x.zip", {"cat/gr?n.jpg": b"a"})
    data = path.read_bytes().replace(b"gr?n", b"gr\x81n")  # ü in 437, and no UTF-8
    at = data.find(b"PK\1\2")
    path.write_bytes(data[: at + 5] + b"\0" + data[at + 6 :])  # made on DOS
    assert names(read(path)) == ["cat/grün.jpg"]
    assert "1 names are not marked as UTF-8 and were read as code page 437" in caplog.text


@pytest.mark.parametrize("marked", [True, False])
def test_utf8_names_are_read_with_and_without_the_mark(marked: bool, tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"cat/grün.jpg": b"a"})
    if not marked:
        data = bytearray(path.read_bytes())
        at = data.find(b"PK\1\2")
        data[at + 5] = 0
        data[at + 9] &= ~0x08
        path.write_bytes(data)
    assert names(read(path)) == ["cat/grün.jpg"]


@pytest.mark.parametrize(
    ("told", "of", "expected"),
    [
        ("cat/neu grün.jpg", b"cat/gr\x81n.jpg", "cat/neu grün.jpg"),
        ("c", b"cat/gr\x81n.jpg", "c"),
        ("cat/neu grün.jpg", b"cat/gr?n.jpg", "cat/grün.jpg"),  # of another name: the member was renamed since
        ("", b"cat/gr\x81n.jpg", "cat/grün.jpg"),
    ],
)
def test_the_unicode_name_of_info_zip_is_read_among_other_extra_fields(
    told: str, of: bytes, expected: str, tmp_path: Path
) -> None:
    info = zipfile.ZipInfo("cat/gr?n.jpg")
    field = struct.pack("<BL", 1, zlib.crc32(of)) + told.encode()
    times = struct.pack("<2HBL", 0x5455, 5, 1, 0)
    info.extra = times + struct.pack("<2H", 0x7075, len(field)) + field + struct.pack("<2H4s", 0x7875, 4, b"user")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, b"a")
    data = (tmp_path / "x.zip").read_bytes().replace(b"gr?n", b"gr\x81n")
    at = data.find(b"PK\1\2")
    (tmp_path / "x.zip").write_bytes(data[: at + 5] + b"\0" + data[at + 6 :])  # made on DOS
    assert names(read(tmp_path / "x.zip")) == [expected]


def test_backslashes_of_windows_are_slashes(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"cat\\a.jpg": b"a"})
    data = path.read_bytes()
    at = data.find(b"PK\1\2")
    path.write_bytes(data[: at + 5] + b"\0" + data[at + 6 :])
    assert names(read(path)) == ["cat/a.jpg"]


@pytest.mark.parametrize("host", sorted(zip._WINDOWS))
@pytest.mark.parametrize("marked", [True, False])
def test_backslashes_of_windows_are_slashes_whatever_letters_are_beside_them(
    host: int, marked: bool, tmp_path: Path
) -> None:
    raw = "Hündin\\ä.jpg".encode("utf-8" if marked else "cp437")
    path = zipped(tmp_path / "x.zip", {"?" * len(raw): b"a"})
    data = path.read_bytes().replace(b"?" * len(raw), raw)
    at = data.find(b"PK\1\2")
    path.write_bytes(data[: at + 5] + bytes([host]) + data[at + 6 : at + 9] + bytes([8 * marked]) + data[at + 10 :])
    assert names(read(path)) == ["Hündin/ä.jpg"]


def test_a_backslash_that_may_be_half_a_letter_stays_where_slashes_separate(tmp_path: Path) -> None:
    raw = "表.jpg".encode("shift-jis")  # 0x95 0x5C
    assert b"\\" in raw
    path = zipped(tmp_path / "x.zip", {"?" * len(raw): b"a", "cat/a.jpg": b"b"})
    data = path.read_bytes().replace(b"?" * len(raw), raw)
    for at in (data.find(b"PK\1\2"), data.rfind(b"PK\1\2")):
        data = data[: at + 5] + b"\0" + data[at + 6 :]
    path.write_bytes(data)
    assert names(read(path)) == [raw.decode("cp437"), "cat/a.jpg"]


def test_long_names_of_gnu_and_pax_are_read(tmp_path: Path) -> None:
    long = "cat/" + "x" * 300 + "/ü.jpg"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert names(read(tarred(tmp_path / "x.tar", {long: b"a", "b.jpg": b""}, form=form))) == [long, "b.jpg"]


# ---- links and devices


@pytest.mark.parametrize("target", ["a.jpg", "/etc/passwd", "../../x"])
def test_a_symbolic_link_is_refused(target: str, tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", {"cat/a.jpg": b"a"}, link("cat/b.jpg", target, tarfile.SYMTYPE))
    with pytest.raises(SourceError, match=r"x\.tar/cat/b\.jpg: it is a symbolic link to .*; pack the tree"):
        read(path)
    assert names(read(path, skip_bad=True)) == ["cat/a.jpg"]


def test_a_symbolic_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("cat/b.jpg")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, "a.jpg")
    with pytest.raises(SourceError, match=r"x\.zip/cat/b\.jpg: it is a symbolic link"):
        read(tmp_path / "x.zip")


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_a_hard_link_is_the_file_that_it_leads_to(
    kind: str, tmp_path: Path, draw_image: Callable[..., bytes], pack_one: Pack,
    samples_of: Callable[[Path], dict[str, bytes]],
) -> None:  # fmt: skip
    image = draw_image(1)
    path = tarred(
        tmp_path / f"x.{kind}", {"./cat/a.jpg": image, "dog/a.jpg": draw_image(2)},
        link("dog/b.jpg", "./cat/a.jpg", tarfile.LNKTYPE),
    )  # fmt: skip
    pack_one(path, tmp_path / "out" / "x")
    found = samples_of(tmp_path / "out")
    assert found["dog/b.jpg"] == found["cat/a.jpg"] == image


def test_a_hard_link_to_what_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", {"cat/a.jpg": b"a"}, link("cat/b.jpg", "cat/none.jpg", tarfile.LNKTYPE))
    with pytest.raises(
        SourceError, match=r"x\.tar/cat/b\.jpg: it is a hard link to cat/none\.jpg, which is not a file"
    ):
        read(path)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_device_is_refused(kind: bytes, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"x\.tar/cat/b\.jpg: it is a device or a pipe"):
        read(tarred(tmp_path / "x.tar", {}, link("cat/b.jpg", "", kind)))


# ---- bombs


def test_a_member_that_unpacks_to_far_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_members, "BOMB_BYTES", 1_000_000)
    path = zipped(tmp_path / "x.zip", {"cat/a.jpg": bytes(2_000_000)}, method=zipfile.ZIP_DEFLATED)
    with pytest.raises(SourceError, match=r"x\.zip/cat/a\.jpg: its \d+ bytes unpack to 2000000, over 1000 times"):
        read(path)


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz", "tar.zst"])
def test_a_stream_that_unpacks_to_far_too_much_is_stopped(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bz2
    import lzma

    monkeypatch.setattr(archive_members, "BOMB_BYTES", 1_000_000)
    monkeypatch.setattr(archive_members, "BOMB_RATIO", 100)
    data = tarred(tmp_path / "x.tar", {"cat/a.jpg": bytes(30_000_000)}).read_bytes()
    pack = {"tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}.get(kind)
    pack = pack or pytest.importorskip("zstandard").compress
    (tmp_path / f"x.{kind}").write_bytes(pack(data))
    with pytest.raises(SourceError, match=rf"x\.{kind}: \d+ bytes of it unpack to over"):
        read(tmp_path / f"x.{kind}")


def test_a_gzip_stream_with_a_wrong_checksum_is_damaged(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(tarred(tmp_path / "x.tar", {"cat/a.jpg": b"a" * 100}).read_bytes() + bytes(4 << 20)))
    (tmp_path / "x.tar.gz").write_bytes(data)
    read(tmp_path / "x.tar.gz")
    data[-8] ^= 1  # of the CRC-32, which comes behind all that is unpacked
    (tmp_path / "x.tar.gz").write_bytes(data)
    with pytest.raises(SourceError, match=r"x\.tar\.gz"):
        read(tmp_path / "x.tar.gz")


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"cat/a.jpg": b"a" * 100, "cat/b.jpg": b"b" * 100})
    data = bytearray(path.read_bytes())
    first = data.find(b"PK\1\2")
    second = data.find(b"PK\1\2", first + 1)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]  # both begin where the first does
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"x\.zip/cat/b\.jpg: its data overlaps that of another member"):
        read(path)


def test_a_member_with_more_bytes_than_its_directory_says_is_no_image(
    tmp_path: Path, draw_image: Callable[..., bytes], pack_one: Pack
) -> None:
    image = draw_image(1)
    path = zipped(tmp_path / "x.zip", {"cat/a.jpg": image, "dog/b.jpg": image}, method=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<L", len(image) - 10)
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"x\.zip/cat/a\.jpg: it does not unpack to the \d+ bytes"):
        pack_one(path, tmp_path / "out")


# ---- encrypted, cut, nested


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"cat/a.jpg": b"a"})
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\1\2")
    data[at + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"x\.zip/cat/a\.jpg: it is encrypted; unpack the archive with its password"):
        read(path)


def test_an_encrypted_7z_is_refused(tmp_path: Path) -> None:
    py7zr = pytest.importorskip("py7zr")
    for header in (False, True):
        with py7zr.SevenZipFile(tmp_path / "x.7z", "w", password="secret", header_encryption=header) as archive:
            archive.writestr(b"a", "cat/a.jpg")
        with pytest.raises(SourceError, match=r"x\.7z: it is encrypted; unpack the archive with its password"):
            read(tmp_path / "x.7z")


@pytest.mark.parametrize(("method", "name"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "LZMA")])
def test_a_zip_with_another_compression_is_refused(method: int, name: str, tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"cat/a.jpg": b"a" * 100}, method=method)
    with pytest.raises(SourceError, match=rf"x\.zip/cat/a\.jpg: it is compressed by {name}; only stored and deflated"):
        read(path)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "7z"])
def test_a_cut_archive_is_never_taken_for_a_whole_one(kind: str, tmp_path: Path) -> None:
    import bz2
    import lzma

    files = {f"cat/{n}.jpg": np.random.default_rng(n).bytes(700) for n in range(3)}
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        zipped(path, files)
    elif kind == "7z":
        py7zr = pytest.importorskip("py7zr")
        with py7zr.SevenZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(content, name)
    else:
        data = tarred(tmp_path / "x.tar", files).read_bytes()[: 3 * 1536 + 1024]  # with its end mark, and no more
        packers: dict[str, Callable[[bytes], bytes]] = {
            "tar": bytes, "tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress,
        }  # fmt: skip
        path.write_bytes((packers.get(kind) or pytest.importorskip("zstandard").compress)(data))
    whole = path.read_bytes()
    assert len(read(path).names) == 3
    ends = {"tar": len(whole) - 512}.get(kind, len(whole) - (20 if kind == "tar.zst" else 0))
    for size in sorted({*range(0, ends, 97), ends - 1}):
        path.write_bytes(whole[:size])
        with pytest.raises(SourceError):
            read(path)


def damaged_directory(path: Path, changed: Callable[[bytearray], int]) -> int:
    """A zip of two members whose central directory is changed; the byte of the file that the change says is damaged."""
    zipped(path, {"cat/a.jpg": b"a" * 100, "dog/b.jpg": b"b" * 100})
    data = path.read_bytes()
    first, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    directory, tail = bytearray(data[first:end]), bytearray(data[end:])
    at = changed(directory)
    tail[12:16] = struct.pack("<L", len(directory))
    path.write_bytes(data[:first] + directory + tail)
    return first + at


def _other_mark(directory: bytearray) -> int:
    second = directory.index(b"PK\1\2", 1)
    directory[second] ^= 1
    return second


def _long_name(directory: bytearray) -> int:
    second = directory.index(b"PK\1\2", 1)
    directory[second + 28 : second + 30] = struct.pack("<H", len("dog/b.jpg") + 1)
    return second + 46


def _cut_entry(kept: int) -> Callable[[bytearray], int]:
    def changed(directory: bytearray) -> int:
        end = len(directory)
        directory += directory[:kept]
        return end

    return changed


@pytest.mark.parametrize("changed", [_other_mark, _long_name, _cut_entry(1), _cut_entry(4), _cut_entry(45)])
def test_a_damaged_directory_of_a_zip_is_told_with_its_byte(
    changed: Callable[[bytearray], int], tmp_path: Path
) -> None:
    at = damaged_directory(tmp_path / "x.zip", changed)
    with pytest.raises(SourceError, match="its central directory is damaged; download it again") as caught:
        read(tmp_path / "x.zip")
    assert caught.value.offset == at


def test_a_zip_that_is_one_part_of_several_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"cat/a.jpg": b"a"})
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\5\6")
    for first in (0, 1):  # the directory may begin in the last part, or in an earlier one
        data[at + 4], data[at + 6] = 1, first
        path.write_bytes(data)
        with pytest.raises(SourceError, match=r"x\.zip: it is one part of an archive in several files"):
            read(path)


@pytest.mark.parametrize("name", ["x.zip.001", "x.7z.002", "x.tar.gz.part01", "x.tar.gz.aa", "x.z01"])
def test_a_part_of_an_archive_is_refused_by_its_name(name: str, tmp_path: Path, pack_one: Pack) -> None:
    (tmp_path / name).write_bytes(b"PK\3\4")
    with pytest.raises(SourceError, match=f"{re.escape(name)}: it is one part of an archive.*join the parts"):
        pack_one(tmp_path / name, tmp_path / "out" / "train")


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.7z"])
@pytest.mark.parametrize(
    ("start", "fact"),
    [(b"\n<!DOCTYPE html><html>", "an HTML page"), (b"<HTML><body>", "an HTML page"), (b"Rar!\x1a\x07", "a RAR file")],
)
def test_what_is_no_archive_for_all_its_name_is_named(
    name: str, start: bytes, fact: str, tmp_path: Path, pack_one: Pack
) -> None:
    (tmp_path / name).write_bytes(start)
    with pytest.raises(SourceError, match=f"{name}: it is {fact}"):
        pack_one(tmp_path / name, tmp_path / "out" / "train")


def test_a_zip_behind_another_program_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"cat/a.jpg": b"a"})
    path.write_bytes(b"#!/bin/sh\nexit\n" + path.read_bytes())
    members = read(path)
    assert names(members) == ["cat/a.jpg"]
    assert path.read_bytes()[int(members.offsets[0]) :].startswith(b"PK\3\4")


def test_a_zip_with_zip64_records_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive, archive.open("cat/a.jpg", "w", force_zip64=True) as file:
        file.write(b"abc")
    assert read(tmp_path / "x.zip").sizes.tolist() == [3]
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 0, 0, 0, zlib.crc32(b"ab"), 0xFFFFFFFF, 0xFFFFFFFF,
                        9, 28, 0, 0, 0, 0, 0xFFFFFFFF)  # fmt: skip
    entry += b"cat/a.jpg" + struct.pack("<2H3Q", 1, 24, 2, 2, 0)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 0, zlib.crc32(b"ab"), 2, 2, 9, 0) + b"cat/a.jpg" + b"ab"
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(entry), len(local))
    end += struct.pack("<4sLQL", b"PK\6\7", 0, len(local) + len(entry), 1)
    end += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (tmp_path / "y.zip").write_bytes(local + entry + end)
    members = read(tmp_path / "y.zip")
    assert (members.sizes.tolist(), members.offsets.tolist()) == ([2], [0])


def test_archives_inside_an_archive_are_left_out_and_said(
    tmp_path: Path, draw_image: Callable[..., bytes], pack_one: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"cat/a.jpg": draw_image(1), "cat/more.zip": b"PK", "dog/b.jpg": draw_image(2), "old.tar.gz": b"x"}
    manifest = pack_one(zipped(tmp_path / "x.zip", files), tmp_path / "out")
    assert manifest.samples == 2
    assert "left out: archives inside it: 2 (old.tar.gz, cat/more.zip)" in caplog.text


def test_a_file_that_is_no_archive_is_said(tmp_path: Path) -> None:
    for kind in ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz"):
        path = tmp_path / f"x.{kind}"
        path.write_bytes(b"this is text, and neither of these" * 40)
        with pytest.raises(SourceError, match=rf"x\.{kind}: "):
            read(path)
        path.write_bytes(b"")
        with pytest.raises(SourceError, match=rf"x\.{kind}: "):
            read(path)


def test_an_archive_without_images_is_said(tmp_path: Path, pack_one: Pack) -> None:
    path = zipped(tmp_path / "x.zip", {"notes.txt": b"x"})
    with pytest.raises(SourceError, match=r"x\.zip: there is no class folder in it"):
        pack_one(path, tmp_path / "out")


@pytest.mark.parametrize(("module", "name"), [("zstandard", "x.zst"), ("py7zr", "x.7z")])
def test_a_missing_package_is_named_with_its_extra(
    module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=r'pip install "shardkit\[archives\]"'):
        read(tmp_path / name)


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", {}, link("cat/a.jpg", "", tarfile.GNUTYPE_SPARSE))
    with pytest.raises(SourceError, match="sparse file, which can't be read; make the tar again without"):
        read(path)


# ---- fuzz


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8))
def test_damage_anywhere_gives_members_or_an_error_of_ours(damage: list[tuple[int, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        files = {f"cat/{n}.jpg": bytes([n]) * 50 for n in range(3)}
        for path in (
            zipped(base / "x.zip", files, method=zipfile.ZIP_DEFLATED), tarred(base / "x.tar", files),
            tarred(base / "x.tar.gz", files),
        ):  # fmt: skip
            data = bytearray(path.read_bytes())
            for at, value in damage:
                data[at % len(data)] = value
            path.write_bytes(data)
            try:
                assert isinstance(read(path), Members)
            except SourceError as exc:
                assert str(path) in str(exc)


@given(st.binary(max_size=30))
def test_a_clean_name_stays_below(name: bytes) -> None:
    clean = MembersBuilder("x", skip_bad=True).clean(name)
    if clean is not None:
        parts = clean.split(b"/")
        assert not {b"", b".", b".."} & set(parts)
        assert os.path.normpath(b"/r/" + clean) == b"/r/" + clean


def test_an_xz_that_asks_for_too_much_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lzma

    monkeypatch.setattr(tar, "_XZ_BYTES", 1 << 16)
    (tmp_path / "x.xz").write_bytes(lzma.compress(bytes(1000)))
    with pytest.raises(SourceError, match=r"the xz data is truncated or damaged .*[Mm]emory"):
        read(tmp_path / "x.xz")


# ---- tar files joined end to end


@pytest.mark.parametrize("packed", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_tar_files_joined_end_to_end_are_read_to_the_last(
    packed: str, tmp_path: Path, draw_image: Callable[..., bytes], pack_one: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    compress = {"tar": bytes, "tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}[packed]
    parts = [
        tarred(tmp_path / "p.tar", {f"{name}/{n}.jpg": draw_image(n) for n in range(2)}).read_bytes()
        for name in ("ant", "bee", "cat")
    ]
    path = tmp_path / f"all.{packed}"
    path.write_bytes(b"".join(map(compress, parts)))
    manifest = pack_one(path, tmp_path / "out" / "all")
    assert (manifest.class_names, manifest.samples) == (["ant", "bee", "cat"], 6)
    assert f"3 concatenated tar files (the second begins at byte {len(parts[0])})" in caplog.text


@pytest.mark.parametrize("rest", [b"not a tar file" * 40, b"x"])
def test_data_after_the_end_mark_that_are_no_tar_file_are_an_error(rest: bytes, tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", {"cat/a.jpg": b"a"})
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + rest)
    with pytest.raises(SourceError, match="the data after its end mark") as caught:
        read(path)
    assert caught.value.offset == size


def test_a_further_tar_file_that_is_cut_is_an_error(tmp_path: Path) -> None:
    data = tarred(tmp_path / "x.tar", {"cat/a.jpg": b"a" * 2000}).read_bytes()
    (tmp_path / "x.tar").write_bytes(data + data[:1500])
    with pytest.raises(SourceError, match="ends inside this member"):
        read(tmp_path / "x.tar")


# ---- deep paths


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_path_that_is_far_too_deep_is_refused_or_left_out(kind: str, tmp_path: Path) -> None:
    deepest = "a/" * MAX_DEPTH + "x.jpg"
    make = zipped if kind == "zip" else tarred
    path = make(tmp_path / f"x.{kind}", {deepest: b"a", "b/" + deepest: b"b"})
    with pytest.raises(SourceError, match=f"its path is over {MAX_DEPTH} folders deep"):
        read(path)
    assert names(read(path, skip_bad=True)) == [deepest]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_path_that_is_too_long_is_refused_or_left_out(kind: str, tmp_path: Path) -> None:
    longest = "a/" + "n" * (MAX_NAME_BYTES - len("a/.jpg")) + ".jpg"
    make = zipped if kind == "zip" else tarred
    path = make(tmp_path / f"x.{kind}", {longest: b"a", longest.replace("a/", "bb/"): b"b"})
    with pytest.raises(SourceError, match="its path has 4,097 bytes"):
        read(path)
    assert names(read(path, skip_bad=True)) == [longest]


def test_the_deepest_path_is_packed(tmp_path: Path, draw_image: Callable[..., bytes], pack_one: Pack) -> None:
    path = tarred(tmp_path / "x.tar", {"a/" * MAX_DEPTH + "x.jpg": draw_image(1), "b/y.jpg": draw_image(2)})
    assert pack_one(path, tmp_path / "out" / "x").samples == 2


@pytest.mark.parametrize(
    ("attributes", "is_file"),
    [(0x8000 | 0o644 << 16, True), (0x8000 | 0o100644 << 16, True), (0x20, True), (0x8000 | 0o120777 << 16, False),
     (0x8000 | 0o010644 << 16, False), (0x400, False)],
)  # fmt: skip
def test_the_mode_of_a_7z_member_says_what_it_is(
    attributes: int, is_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    py7zr = pytest.importorskip("py7zr")
    with py7zr.SevenZipFile(tmp_path / "x.7z", "w") as archive:
        archive.writestr(b"a", "cat/a.jpg")
    real = py7zr.py7zr.ArchiveFile.file_properties
    monkeypatch.setattr(
        py7zr.py7zr.ArchiveFile, "file_properties", lambda self: {**real(self), "attributes": attributes}
    )
    members = read(tmp_path / "x.7z", skip_bad=True)
    assert (names(members), len(members.refused)) == ((["cat/a.jpg"], 0) if is_file else ([], 1))
