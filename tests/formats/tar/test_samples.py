from __future__ import annotations

import gzip
import io
import mmap
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from shardkit.formats.tar.headers import ustar_block
from shardkit.formats.tar.samples import END, encode_sample, read_samples, stream_samples

Samples = dict[str, dict[str, bytes]]
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def shard(samples: Iterable[tuple[str, list[tuple[str, bytes]]]]) -> bytes:
    return b"".join(b"".join(encode_sample(key, fields)[0]) for key, fields in samples) + END


def small_shard() -> bytes:
    long = "d/" + "long" * 30
    return shard(
        [
            ("cat/0", [("jpg", b"J" * 600), ("cls", b"0")]),
            (long, [("jpg", b""), ("cls", b"1")]),
            ("é", [("jpg", b"x" * 512), ("seg.png", b"\0" * 5)]),
        ]
    )


def mapped(data: Any, **options: Any) -> Samples:
    view = memoryview(data)
    samples = read_samples(data, place="s.tar", **options)
    return {s.key: {f: bytes(view[a : a + n]) for f, (a, n) in s.fields.items()} for s in samples}


def streamed(data: bytes, **options: Any) -> Samples:
    return dict(stream_samples(io.BytesIO(data), place="s.tar", **options))


READERS = pytest.mark.parametrize("read", [mapped, streamed])


def python_tar(members: list[tuple[str, bytes]], format: int = tarfile.USTAR_FORMAT, **attributes: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for number, (name, data) in enumerate(members):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000 + number
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def by_webdataset(data: bytes) -> Samples:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    samples = group_by_keys(tar_file_expander([{"url": "s.tar", "stream": io.BytesIO(data)}]))
    return {s["__key__"]: {k: v for k, v in s.items() if not k.startswith("__")} for s in samples}


def rewritten(data: bytes, header: int, at: int, value: bytes) -> bytes:
    """`data` with bytes of the header that begins at `header` replaced, and its checksum made to fit."""
    head = bytearray(data[header : header + 512])
    head[at : at + len(value)] = value
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return data[:header] + bytes(head) + data[header + 512 :]


# ---- what is read


@READERS
def test_what_was_written_is_read_back(read: Callable[..., Samples]) -> None:
    assert list(read(small_shard()).values()) == [
        {"jpg": b"J" * 600, "cls": b"0"},
        {"jpg": b"", "cls": b"1"},
        {"jpg": b"x" * 512, "seg.png": b"\0" * 5},
    ]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_read(kind: Callable[[bytes], Any]) -> None:
    assert mapped(kind(small_shard())) == streamed(small_shard())


def test_a_mapped_file_is_read_and_can_be_closed_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(small_shard())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        samples = read_samples(data, place="s.tar")
        keys = [next(samples).key]
        samples.close()  # type: ignore[attr-defined]
        keys += [s.key for s in read_samples(data, place="s.tar")]
    assert keys[:2] == ["cat/0", "cat/0"]


def test_samples_lie_end_to_end_and_each_can_be_read_alone() -> None:
    data = small_shard()
    samples = list(read_samples(data, place="s.tar"))
    assert [s.offset for s in samples] == [0, *(s.offset + s.size for s in samples[:-1])]
    assert samples[-1].offset + samples[-1].size == len(data) - len(END)
    for sample in samples:
        alone = read_samples(data, place="s.tar", start=sample.offset, end=sample.offset + sample.size)
        assert list(alone) == [sample]


def test_several_samples_can_be_read_from_the_middle() -> None:
    data = small_shard()
    samples = list(read_samples(data, place="s.tar"))
    end = samples[2].offset + samples[2].size
    assert list(read_samples(data, place="s.tar", start=samples[1].offset, end=end)) == samples[1:]


@READERS
def test_a_shard_without_samples_is_read(read: Callable[..., Samples]) -> None:
    assert read(END) == read(bytes(10240)) == {}


NAMES = [
    "a.jpg",
    "a.cls",
    "b.c/d.JPG",
    "b.c/d.seg.PNG",
    "e/" * 60 + "f.jpg",
    "g/" + "h" * 120 + ".jpg",
    "./k.jpg",
    "ünï/m.jpg",
    "sp ace/new\nline.jpg",
    "__meta__",
    "__meta__/x.jpg",
    "__n.o__",
    "____",
    "__p__.jpg",
    "q/__r__/s.jpg",
    "nodot",
    ".hidden",
    "t.",
    "u/v..w",
]


@READERS
@pytest.mark.parametrize("format", FORMATS)
def test_archives_of_python_tarfile_read_as_webdataset_reads_them(read: Callable[..., Samples], format: str) -> None:
    names = [name for name in NAMES if format != "ustar" or "h" * 120 not in name]
    data = python_tar([(name, b"%d" % n * n) for n, name in enumerate(names)], FORMATS[format])
    expected = by_webdataset(data)
    assert len(expected) >= 9
    assert read(data) == expected


@READERS
def test_names_that_begin_with_a_dot_below_a_folder_are_passed_over(read: Callable[..., Samples]) -> None:
    assert read(python_tar([("cat/._0.jpg", b"macOS"), ("cat/0.jpg", b"J")])) == {"cat/0": {"jpg": b"J"}}


@READERS
def test_what_webdataset_writes_is_read(read: Callable[..., Samples], tmp_path: Path) -> None:
    from webdataset.writer import TarWriter

    path = tmp_path / "w.tar"
    with TarWriter(str(path)) as writer:
        for n in range(20):
            writer.write({"__key__": f"train/{n:06d}", "jpg": b"J" * n * 100, "cls": b"%d" % n, "json": b"{}"})
    data = path.read_bytes()
    assert read(data) == by_webdataset(data)
    assert len(read(data)) == 20


def block(name: bytes, typeflag: bytes, data: bytes = b"") -> bytes:
    return ustar_block(name, len(data), typeflag, b"") + data + bytes(-len(data) % 512)


@READERS
def test_only_regular_files_count(read: Callable[..., Samples]) -> None:
    data = b"".join(block(b"x%c.jpg" % typeflag, bytes([typeflag])) for typeflag in b"123456")
    data += b"".join(block(b"y.%c" % typeflag, bytes([typeflag]), b"abc") for typeflag in b"0789VDZ")
    data += block(b"z.v7", b"\0", b"v") + block(b"z.d/", b"\0") + END
    assert read(data) == by_webdataset(data) == {"y": {"0": b"abc", "7": b"abc"}, "z": {"v7": b"v"}}


@READERS
def test_members_between_the_fields_of_a_sample_do_not_part_it(read: Callable[..., Samples]) -> None:
    data = (
        block(b"a.jpg", b"0", b"J")
        + block(b"folder/", b"5")
        + block(b"README", b"0", b"r")
        + block(b"a.cls", b"0", b"1")
    )
    assert read(data + END) == {"a": {"jpg": b"J", "cls": b"1"}}
    (sample,) = read_samples(data + END, place="s.tar")
    assert (sample.offset, sample.size) == (0, len(data))


def pax(typeflag: bytes, *records: bytes) -> bytes:
    return block(b"pax", typeflag, b"".join(records))


@READERS
def test_a_pax_header_gives_name_and_size(read: Callable[..., Samples]) -> None:
    data = pax(b"x", b"16 path=n/p.jpg\n", b"9 size=3\n")
    data += block(b"wrong.png", b"0") + b"abc".ljust(512, b"\0") + END
    assert read(data) == {"n/p": {"jpg": b"abc"}}


@READERS
def test_a_global_pax_header_holds_until_taken_back(read: Callable[..., Samples]) -> None:
    data = pax(b"g", b"9 size=3\n", b"17 comment=hello\n")
    data += block(b"a.jpg", b"0") + b"abc".ljust(512, b"\0")
    data += block(b"b.jpg", b"0") + b"def".ljust(512, b"\0")
    data += pax(b"x", b"9 size=1\n") + block(b"b.cls", b"0") + b"7".ljust(512, b"\0")
    data += pax(b"g", b"8 size=\n") + block(b"c.jpg", b"0", b"four") + END
    assert read(data) == {"a": {"jpg": b"abc"}, "b": {"jpg": b"def", "cls": b"7"}, "c": {"jpg": b"four"}}


@READERS
def test_gnu_long_names_and_links_are_read(read: Callable[..., Samples]) -> None:
    name = "folder/" * 40 + "name"
    data = block(b"././@LongLink", b"K", b"somewhere\0") + block(b"././@LongLink", b"L", name.encode() + b".jpg\0")
    data += block(b"short", b"0", b"J") + block(b"next.jpg", b"0", b"K") + END
    assert read(data) == {name: {"jpg": b"J"}, "next": {"jpg": b"K"}}


@READERS
def test_a_size_in_base_256_is_read(read: Callable[..., Samples]) -> None:
    data = rewritten(block(b"a.jpg", b"0", b"J" * 700), 0, 124, b"\x80" + (700).to_bytes(11, "big"))
    assert read(data + END) == {"a": {"jpg": b"J" * 700}}


@READERS
@pytest.mark.parametrize("digits", [b"      12345 ", b"00000012345 ", b"000000012345", b"12345\0 \0junk"])
def test_size_fields_of_other_writers_are_read(read: Callable[..., Samples], digits: bytes) -> None:
    data = b"J" * 0o12345
    header = rewritten(block(b"a.jpg", b"0"), 0, 124, digits)
    second = rewritten(block(b"a.png", b"0"), 0, 124, digits)
    padding = bytes(-len(data) % 512)
    assert read(header + data + padding + second + data + padding + END) == {"a": {"jpg": data, "png": data}}


@READERS
def test_the_prefix_counts_in_ustar_only(read: Callable[..., Samples]) -> None:
    ustar = ustar_block(b"a.jpg", 0, b"0", b"folder")
    gnu = rewritten(ustar_block(b"b.jpg", 0, b"0", b"12345670123"), 0, 257, b"ustar  \0")
    assert read(ustar + gnu + END) == {"folder/a": {"jpg": b""}, "b": {"jpg": b""}}


@READERS
def test_a_name_that_is_no_utf8_reads_as_in_webdataset(read: Callable[..., Samples]) -> None:
    data = block(b"caf\xe9.jpg", b"0", b"1") + block(b"caf\xe9.cls", b"0", b"2") + block(b"d.jpg", b"0") + END
    assert read(data) == by_webdataset(data)
    assert list(read(data)) == ["caf\udce9", "d"]


@READERS
def test_what_follows_a_nul_in_a_name_field_is_no_part_of_the_name(read: Callable[..., Samples]) -> None:
    names = [b"a.jpg", b"a.cls\0junk.png", b"b\0c.jpg", b"d.jpg\0/e.jpg", b"\0f.jpg", b"g.jpg"]
    data = b"".join(block(name, b"0", b"%d" % n) for n, name in enumerate(names)) + END
    assert read(data) == by_webdataset(data)
    assert list(read(data)) == ["a", "d", "g"]
    many = (
        b"".join(block(b"%d.cls\0junk.png" % n, b"0", b"1") for n in range(9)) + END
    )  # what is learned from the first
    assert read(many) == by_webdataset(many) == {f"{n}": {"cls": b"1"} for n in range(9)}


@READERS
def test_checksums_of_signed_bytes_are_accepted(read: Callable[..., Samples]) -> None:
    data = block("é.jpg".encode(), b"0", b"1")
    signed = data[:148] + b"%06o\0 " % (int(data[148:154], 8) - 2 * 256) + data[156:]
    assert read(signed + END) == {"é": {"jpg": b"1"}}


@READERS
def test_many_different_owners_and_times_are_read(read: Callable[..., Samples]) -> None:
    data = b""
    for n in range(200):
        one = rewritten(
            block(b"%d.jpg" % (n // 2) if n % 2 else b"%d.cls" % (n // 2), b"0", b"%d" % n), 0, 136, b"%011o" % (n * 99)
        )
        data += rewritten(one, 0, 108, b"%07o" % (n // 5))
    assert read(data + END) == {f"{n}": {"cls": b"%d" % (2 * n), "jpg": b"%d" % (2 * n + 1)} for n in range(100)}


# ---- gzip


def test_a_gzip_shard_is_read() -> None:
    assert streamed(gzip.compress(small_shard())) == streamed(small_shard())


def test_a_gzip_shard_of_several_members_with_zeros_behind_is_read() -> None:
    data = small_shard()
    packed = gzip.compress(data[:1000]) + gzip.compress(b"") + gzip.compress(data[1000:]) + bytes(100)
    assert streamed(packed) == streamed(data)


def test_a_gzip_shard_that_packs_well_is_read() -> None:
    data = shard([("a", [("bin", bytes(5_000_000))]), ("b", [("bin", b"b" * 3_000_000)])])
    assert streamed(gzip.compress(data)) == mapped(data)


class Dripping(io.BytesIO):
    """A file that gives a few bytes at a time, as a socket may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 7))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_stream_that_gives_less_than_asked_for_is_read(pack: Callable[[bytes], bytes]) -> None:
    assert dict(stream_samples(Dripping(pack(small_shard())), place="s.tar")) == mapped(small_shard())
