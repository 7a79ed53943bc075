"""The C extension reads members as Python does, whatever is in an archive."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardkit.errors import SourceError
from shardkit.formats.tar.headers import BLOCK, MAX_EXTENSION_BYTES, pad_size, pax_record, ustar_block
from shardkit.native import load
from shardkit.sources.archives import members as archive_members
from shardkit.sources.archives import tar
from shardkit.sources.archives.members import MAX_NAME_BYTES, Members
from shardkit.sources.open import read_members
from shardkit.sources.tree.walk import MAX_DEPTH

native = load("archives")[0]
pytestmark = pytest.mark.skipif(native is None, reason="the C extension is not built here")

ODD_NAMES = [
    "",
    ".",
    "./",
    "/a",
    "a/",
    "a//b",
    "./a",
    "a/./b",
    "a/../b",
    "..",
    "a.",
    "a./b",
    ".a",
    "a:b",
    "C:/a",
    "a\\b",
]
LONG = ["d/" * 60 + "a.jpg", "e" * 100 + ".jpg", "f" * 101, "g/" * (MAX_DEPTH + 1) + "a", "h" * (MAX_NAME_BYTES + 1),
        "./" + "i/" * MAX_DEPTH + "a"]  # fmt: skip
NAMES = st.one_of(
    st.text("ab/.é", min_size=1, max_size=8), st.sampled_from(ODD_NAMES), st.sampled_from(LONG), st.text(max_size=4)
)
SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def both_ways(read: Callable[[], Any], module: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The result of `read`, which must be the same without the C extension."""
    found = read()
    with monkeypatch.context() as patch:
        patch.setattr(module, "load", lambda name: (None, "not wanted"))
        assert read() == found
    return found


def outcome(path: Path, kind: str, *, skip_bad: bool) -> Any:
    """What is read of an archive, or the text of the error."""
    try:
        found = read_members(str(path), kind, skip_bad=skip_bad)
    except SourceError as exc:
        return str(exc)
    return columns_of(found)


def columns_of(found: Members) -> Any:
    numbers = (found.sizes, found.offsets, found.packed, found.methods, found.crcs)
    return [*found.names], [each.tolist() for each in numbers], found.folders, found.refused


def compared(path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    return [
        both_ways(lambda skip=skip: outcome(path, kind, skip_bad=skip), archive_members, monkeypatch)  # type: ignore[misc]
        for skip in (False, True)
    ]


# ---- tar

FORMS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
KINDS = [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, b"g"]


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """A tar of some members of any kind, perhaps with bytes changed or the end cut off."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=draw(st.sampled_from(FORMS))) as archive:
        for name in draw(st.lists(NAMES, max_size=6)):
            info = tarfile.TarInfo(name.replace("\0", ""))
            info.type = draw(st.sampled_from([tarfile.REGTYPE] * 5 + KINDS))
            info.mtime, info.linkname = draw(st.sampled_from([0, 1.5])), "a"
            data = bytes(draw(st.sampled_from([0, 1, BLOCK, 700])))
            info.size = len(data)
            try:
                archive.addfile(info, io.BytesIO(data))
            except ValueError:  # the format has no room for the name
                continue
    data = bytearray(held.getvalue())
    for _ in range(draw(st.integers(0, 2))):
        data[draw(st.integers(0, min(len(data), 8 * BLOCK) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.sampled_from([len(data)] * 3 + [BLOCK, 3 * BLOCK, len(data) - 700]))])


@SETTINGS
@given(data=tars())
def test_a_tar_is_read_as_by_python(
    data: bytes, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.tar"
    path.write_bytes(data)
    compared(path, "tar", monkeypatch)


def headed(kind: bytes, payload: bytes, *, size: int | None = None) -> bytes:
    """An extended header."""
    block = ustar_block(b"x", len(payload) if size is None else size, kind, b"")
    return block + payload.ljust(pad_size(len(payload)), b"\0")


FILE = ustar_block(b"cat/a.jpg", 3, b"0", b"") + b"abc".ljust(BLOCK, b"\0")
END = bytes(2 * BLOCK)
RECORDS = [
    pax_record(b"path", b"dog/b.jpg"), pax_record(b"path", b""), pax_record(b"path", b"dog/"),
    pax_record(b"path", b"d\0g"),
    pax_record(b"path", b"x" * MAX_NAME_BYTES), pax_record(b"size", b"2"), pax_record(b"size", b""),
    pax_record(b"size", b"0"), pax_record(b"size", b"-1"), pax_record(b"size", b"9" * 20),
    pax_record(b"size", b"9" * 21), pax_record(b"size", b"600"), pax_record(b"mtime", b"1.5"),
    pax_record(b"linkpath", b"a"), pax_record(b"GNU.sparse.major", b"1"),
    b"9 path=a\n", b"12 path=a\n", b"path=a\n", b"8 path\n\n", b"3 \n",
    b"\0junk", b"00000012 path=a", b"0012 path=a\n", b" 9 path=a\n",
]  # fmt: skip


@pytest.mark.parametrize("kind", [b"x", b"X", b"g", b"L", b"K"])
@pytest.mark.parametrize("first", range(len(RECORDS)))
def test_extended_headers_are_read_as_by_python(
    kind: bytes, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.tar"
    for second in (b"", *RECORDS):
        path.write_bytes(FILE + headed(kind, RECORDS[first] + second) + FILE + FILE + END)
        compared(path, "tar", monkeypatch)
        path.write_bytes(headed(kind, RECORDS[first]) + headed(b"x", second) + FILE + END)
        compared(path, "tar", monkeypatch)


def test_a_size_beyond_all_files_is_a_cut_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(headed(b"x", pax_record(b"size", b"9" * 20)) + FILE + END)
    assert compared(path, "tar", monkeypatch)[1].startswith(f"{path}/cat/a.jpg: at byte 1536: the archive ends inside")
    block = bytearray(ustar_block(b"cat/a.jpg", 0, b"0", b""))
    block[124:136] = b"\x80" + b"\xff" * 11
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    path.write_bytes(FILE + block + END)
    assert "the archive ends inside this member" in compared(path, "tar", monkeypatch)[1]


@pytest.mark.parametrize("size", [1 << 16, MAX_EXTENSION_BYTES, MAX_EXTENSION_BYTES + 1, 8**11 - 1])
def test_large_extended_headers_are_left_to_python(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(FILE + headed(b"L", b"dog/b.jpg".ljust(min(size, 1 << 21), b"\0"), size=size) + FILE + END)
    compared(path, "tar", monkeypatch)


def test_members_around_what_is_not_plain_are_read_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = ustar_block(b"cat//c.jpg", 0, b"0", b"")
    folder, joined = ustar_block(b"cat/", 0, b"5", b""), ustar_block(b"a" * 100, 0, b"0", b"p" * 155)
    path = tmp_path / "x.tar"
    path.write_bytes(folder + FILE + odd + FILE + joined + END + FILE + odd + END)
    first, _ = compared(path, "tar", monkeypatch)
    assert first[0] == [
        b"cat/a.jpg",
        b"cat/c.jpg",
        b"cat/a.jpg",
        b"p" * 155 + b"/" + b"a" * 100,
        b"cat/a.jpg",
        b"cat/c.jpg",
    ]


def test_many_extended_headers_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Counted:
        @staticmethod
        def tar(*args: Any) -> Any:
            calls.append(args[1])
            return native.tar(*args)

    monkeypatch.setattr(archive_members, "load", lambda name: (Counted, ""))
    path = tmp_path / "x.tar"
    path.write_bytes(FILE + 50 * headed(b"x", pax_record(b"mtime", b"1.5")) + ustar_block(b"a//b", 0, b"0", b"") + END)
    assert [*read_members(str(path), "tar", skip_bad=False).names] == [b"cat/a.jpg", b"a/b"]
    assert len(calls) == 2


def test_the_scan_of_a_tar_tells_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_members, "AT_ONCE", 10)
    path, told = tmp_path / "x.tar", []
    path.write_bytes(3 * tar._TELL_MEMBERS * FILE + END)
    tar.read_tar(str(path), "", skip_bad=False, progress=lambda now: told.append(now.done))
    assert len(told) == 2 and told == sorted(told)


# ---- zip


EXTRAS = [b"", struct.pack("<2HBL", 0x5455, 5, 1, 0), struct.pack("<2H5s", 0x7075, 5, b"")]


@st.composite
def zips(draw: st.DrawFn) -> bytes:
    """A zip of some members, perhaps with bytes of its directory changed."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in draw(st.lists(NAMES.filter(lambda name: 0 < len(name) < 300), max_size=6, unique=True)):
            info = zipfile.ZipInfo(name)
            info.compress_type = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
            info.create_system = draw(st.sampled_from([0, 3, 10, 19]))
            info.external_attr = draw(st.sampled_from([0, 0o100644, 0o40755, 0o120777, 0o10644])) << 16
            info.extra = draw(
                st.sampled_from([b"", struct.pack("<2HBL", 0x5455, 5, 1, 0), struct.pack("<2H5s", 0x7075, 5, b"")])
            )
            archive.writestr(info, draw(st.sampled_from([b"", b"abc", bytes(300)])))
    data = bytearray(held.getvalue())
    first = data.find(b"PK\1\2")
    for _ in range(draw(st.integers(0, 2)) if first >= 0 else 0):
        data[draw(st.integers(first, len(data) - 1))] = draw(st.sampled_from([0, 1, 8, 47, 92, 200, 255]))
    return bytes(data)


@SETTINGS
@given(data=zips())
def test_a_zip_is_read_as_by_python(
    data: bytes, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.zip"
    path.write_bytes(data)
    compared(path, "zip", monkeypatch)


# ---- what the functions were not made for


def test_wrong_arguments_are_refused() -> None:
    limits = (1, 1, 1, 1, 1)
    wrong = [
        (native.zip, b"abc", 4, 0, *limits),
        (native.zip, b"abc", -1, 0, *limits),
        (native.zip, b"abc", 0, 0, 1, MAX_NAME_BYTES + 1, 1, 1, 1),
        (native.zip, b"abc", 0, 0, -1, 1, 1, 1, 1),
        (native.tar, 0, 0, 0, 1, 1, 1, 1, 0),
    ]
    for function, *args in wrong:
        with pytest.raises(ValueError, match=r"outside|limits"):
            function(*args)
    assert native.tar(-1, 0, BLOCK, *limits) == (0, b"", b"", b"")
