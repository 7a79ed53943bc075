from __future__ import annotations

import bz2
import gzip
import io
import lzma
import mmap
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.errors import DamagedError
from shardkit.formats.tar.headers import MAX_EXTENSION_BYTES, ustar_block
from shardkit.formats.tar.samples import END, encode_sample, read_samples, stream_samples

Samples = dict[str, dict[str, bytes]]


def mapped(data: bytes, **options: Any) -> Samples:
    samples = read_samples(data, place="s.tar", **options)
    return {s.key: {f: data[a : a + n] for f, (a, n) in s.fields.items()} for s in samples}


def streamed(data: bytes, **options: Any) -> Samples:
    return dict(stream_samples(io.BytesIO(data), place="s.tar", **options))


READERS = pytest.mark.parametrize("read", [mapped, streamed])
LONG = "d/" + "long" * 30


def small_shard() -> bytes:
    samples = [
        ("cat/0", [("jpg", b"J" * 600), ("cls", b"0")]),
        (LONG, [("jpg", b"pax"), ("cls", b"1")]),
        ("é", [("jpg", b"x" * 512), ("cls", b"2")]),
    ]
    return b"".join(b"".join(encode_sample(key, fields)[0]) for key, fields in samples) + END


def block(name: bytes, typeflag: bytes, data: bytes = b"") -> bytes:
    return ustar_block(name, len(data), typeflag, b"") + data + bytes(-len(data) % 512)


def damage(read: Callable[..., Samples], data: bytes, **options: Any) -> DamagedError:
    with pytest.raises(DamagedError) as caught:
        read(data, **options)
    assert caught.value.place == "s.tar"
    assert caught.value.cure
    return caught.value


def header_blocks(data: bytes) -> Iterator[int]:
    """Where the header blocks of a shard of our own begin, those of PAX headers too."""
    at = 0
    while any(data[at : at + 512]):
        yield at
        at += 512 + -(-int(data[at + 124 : at + 135], 8) // 512) * 512


# ---- cut


@READERS
def test_a_shard_cut_at_any_byte_is_reported(read: Callable[..., Samples]) -> None:
    data = small_shard()
    for length in range(len(data)):
        error = damage(read, data[:length])
        assert error.offset is not None
        assert error.offset <= length
        assert "the file ends" in error.fact or "empty" in error.fact


@READERS
def test_the_samples_in_front_of_a_cut_are_given_and_no_part_of_a_sample(read: Callable[..., Samples]) -> None:
    data = small_shard()
    whole = mapped(data)
    second = list(read_samples(data, place="s.tar"))[1]
    for length in range(second.offset, second.offset + second.size + 512):
        given: Samples = {}
        with pytest.raises(DamagedError):
            if read is streamed:
                for key, fields in stream_samples(io.BytesIO(data[:length]), place="s.tar"):
                    given[key] = fields
            else:
                for sample in read_samples(data[:length], place="s.tar"):
                    given[sample.key] = {f: data[a : a + n] for f, (a, n) in sample.fields.items()}
        assert given.items() <= {key: whole[key] for key in ("cat/0", LONG)}.items()
        assert list(given) in ([], ["cat/0"])


@pytest.mark.parametrize(
    ("length", "offset", "fact"),
    [
        (0, 0, "the file is empty"),
        (100, 0, "inside a header"),
        (512, 0, "the file ends at byte 512, inside a member, whose 600 bytes begin at 512"),
        (1536, 1536, "without its end mark"),
        (1600, 1536, "the file ends at byte 1600, inside a header"),
        (2560, 2560, "without its end mark"),
        (3072, 3072, "without its end mark"),
    ],
)
@READERS
def test_the_error_says_where_the_file_is_cut(
    read: Callable[..., Samples], length: int, offset: int, fact: str
) -> None:
    data = b"".join(encode_sample("a", [("jpg", b"J" * 600), ("cls", b"0"), ("txt", b"")])[0]) + END
    error = damage(read, data[:length])
    assert (error.offset, fact in error.fact) == (offset, True)


@READERS
def test_a_lone_block_of_zeros_is_no_end_mark(read: Callable[..., Samples]) -> None:
    error = damage(read, small_shard()[:-512])
    assert "inside its end mark" in error.fact
    assert error.offset == len(small_shard()) - 1024


@READERS
def test_an_end_mark_may_be_padded_with_zeros_and_nothing_else(read: Callable[..., Samples]) -> None:
    data = small_shard() + bytes(3_000_000)
    assert read(data) == mapped(small_shard())
    error = damage(read, data + b"x")
    assert (error.offset, "after the end mark" in error.fact) == (len(data), True)


def test_a_mapped_file_can_be_closed_after_an_error() -> None:
    data = mmap.mmap(-1, 4096)
    data[:4096] = b"x" * 4096
    with pytest.raises(DamagedError) as caught, data:
        list(read_samples(data, place="s.tar"))
    assert data.closed
    assert caught.value.offset == 0


@READERS
def test_an_archive_with_another_one_behind_it_is_reported(read: Callable[..., Samples]) -> None:
    assert damage(read, small_shard() + small_shard()).offset == len(small_shard())


def test_part_of_a_sample_is_no_sample() -> None:
    data = small_shard()
    for end in range(1, 1024 + 1024):
        if end != 1536:
            assert damage(mapped, data, start=0, end=end).offset is not None


def test_a_range_beyond_the_file_is_reported() -> None:
    data = small_shard()
    assert damage(mapped, data, start=0, end=len(data) + 1).offset == len(data)
    assert "were requested" in damage(mapped, data, start=len(data) + 512).fact


def test_zeros_within_a_range_are_reported() -> None:
    data = small_shard()
    assert damage(mapped, data, start=0, end=len(data)).offset == len(data) - 1024


# ---- flipped


@READERS
@pytest.mark.parametrize("mask", [0x01, 0x10, 0x80, 0xFF])
def test_a_flipped_byte_in_a_header_is_found_or_does_no_harm(read: Callable[..., Samples], mask: int) -> None:
    data = small_shard()
    whole = mapped(data)
    harmless = 0
    for begin in header_blocks(data):
        for at in range(begin, begin + 512):
            flipped = bytearray(data)
            flipped[at] ^= mask
            try:
                assert read(bytes(flipped)) == whole
                harmless += 1
                assert 148 <= at - begin < 156  # in the checksum itself: a space for a zero, or what follows it
            except DamagedError as error:
                assert error.offset is not None
    assert harmless < 4 * len(list(header_blocks(data)))


@READERS
def test_a_flipped_byte_in_the_end_mark_is_found(read: Callable[..., Samples]) -> None:
    data = small_shard()
    for at in range(len(data) - 1024, len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1
        assert damage(read, bytes(flipped)).offset is not None


@READERS
@pytest.mark.parametrize("mask", [0x01, 0x10, 0x80, 0xFF])
def test_a_flipped_byte_in_the_records_of_a_pax_header_is_found(read: Callable[..., Samples], mask: int) -> None:
    data = small_shard()
    at = data.index(b"path=") - 4
    for place in range(at, data.index(b"\n", at) + 1):
        flipped = bytearray(data)
        flipped[place] ^= mask
        assert "CRC-32C" in damage(read, bytes(flipped)).fact


@given(st.data())
def test_no_bytes_raise_anything_but_a_damaged_error(drawn: st.DataObject) -> None:
    data = bytearray(small_shard())
    for _ in range(drawn.draw(st.integers(1, 8))):
        data[drawn.draw(st.integers(0, len(data) - 1))] = drawn.draw(st.integers(0, 255))
    begin = drawn.draw(st.sampled_from(list(header_blocks(small_shard()))))
    data[begin + 148 : begin + 156] = b" " * 8  # make the checksum fit, so that the fields behind it are read
    data[begin + 148 : begin + 156] = b"%06o\0 " % sum(data[begin : begin + 512])
    results: list[object] = []
    for read in (mapped, streamed):
        try:
            results.append(read(bytes(data)))
        except DamagedError as error:
            results.append((error.fact, error.offset, error.key))
    assert results[0] == results[1]


@given(st.binary(max_size=2000))
def test_what_is_no_tar_is_reported(data: bytes) -> None:
    if data.strip(b"\0") == b"":
        data = b"x" + data
    assert damage(mapped, data).offset is not None


@READERS
def test_a_file_that_is_no_tar_is_called_so(read: Callable[..., Samples]) -> None:
    assert "this is not a tar file" in damage(read, b"<html>" * 200).fact


def test_a_gzip_file_in_memory_is_called_so() -> None:
    assert "gzip" in damage(mapped, gzip.compress(small_shard() + bytes(range(256)) * 99)).fact


# ---- damaged or hostile fields


def rewritten(data: bytes, at: int, value: bytes) -> bytes:
    head = bytearray(data[:512])
    head[at : at + len(value)] = value
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data[512:]


@READERS
@pytest.mark.parametrize(
    "size", [b"0000000000x\0", b"-0000000512\0", b"+0000000000\0", b"0_000000000\0", b"00000000008\0", b"\xff" * 12]
)
def test_a_size_that_is_no_number_is_reported(read: Callable[..., Samples], size: bytes) -> None:
    first = block(b"a.jpg", b"0", b"J")
    error = damage(read, first + rewritten(block(b"a.cls", b"0"), 124, size) + END)
    assert (error.offset, "size" in error.fact) == (1024, True)


@READERS
@pytest.mark.parametrize("size", [b"77777777777\0", b"\x80" + b"\xff" * 11, b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7])
def test_a_size_beyond_the_file_is_reported(read: Callable[..., Samples], size: bytes) -> None:
    assert "inside a member" in damage(read, rewritten(block(b"a.jpg", b"0"), 124, size) + END).fact


@READERS
@pytest.mark.parametrize("typeflag", [b"x", b"g", b"L", b"K"])
def test_a_huge_extended_header_is_refused(read: Callable[..., Samples], typeflag: bytes) -> None:
    data = rewritten(block(b"pax", typeflag), 124, b"%011o" % (MAX_EXTENSION_BYTES + 1)) + bytes(1 << 21)
    assert f"at most {MAX_EXTENSION_BYTES}" in damage(read, data).fact


@READERS
@pytest.mark.parametrize(
    "records",
    [
        b"hello",
        b"0 path=x\n",
        b"9999999 path=x\n",
        b"12345678901234567890 path=x\n",
        b"9 path=x\r",
        b"8 pathx\n",
        b"-9 path=x\n",
        b"11 path=x\0.\n",
        b"12 size=0x10\n",
        b"12 size=-512\n",
        b"9 path=x\n8 path",
    ],
)
def test_a_damaged_pax_record_is_reported(read: Callable[..., Samples], records: bytes) -> None:
    error = damage(read, block(b"pax", b"x", records) + block(b"a.jpg", b"0") + END)
    assert "PAX" in error.fact
    assert error.offset is not None
    assert 512 <= error.offset < 1024


@READERS
def test_an_extended_header_without_a_member_is_reported(read: Callable[..., Samples]) -> None:
    assert "no member after it" in damage(read, block(b"pax", b"x", b"9 path=x\n") + END).fact
    assert "inside an extended header" in damage(read, block(b"pax", b"x", b"9 path=x\n")).fact


@READERS
def test_ten_thousand_extended_headers_in_a_row_are_read(read: Callable[..., Samples]) -> None:
    data = block(b"pax", b"x", b"14 path=a.jpg\n") * 10_000 + block(b"b.png", b"0", b"J") + END
    assert read(data) == {"a": {"jpg": b"J"}}


@READERS
@pytest.mark.parametrize(
    "member", [block(b"a.jpg", b"S"), block(b"pax", b"x", b"22 GNU.sparse.major=1\n") + block(b"a.jpg", b"0")]
)
def test_a_sparse_file_is_refused(read: Callable[..., Samples], member: bytes) -> None:
    assert "sparse" in damage(read, member + END).fact


# ---- samples that do not fit together


@READERS
def test_a_field_twice_in_one_sample_is_reported(read: Callable[..., Samples]) -> None:
    error = damage(read, block(b"a.jpg", b"0") + block(b"a.cls", b"0") + block(b"a.JPG", b"0") + END)
    assert (error.key, error.offset, error.fact) == ("a", 1024, "the field jpg occurs twice")


@READERS
def test_members_of_a_sample_that_are_not_adjacent_are_reported(read: Callable[..., Samples]) -> None:
    data = block(b"a.jpg", b"0") + block(b"b.jpg", b"0") + block(b"a.cls", b"0") + END
    error = damage(read, data)
    assert (error.key, error.offset) == ("a", 1024)
    assert "not next to each other" in error.fact


@pytest.mark.parametrize("stream", [False, True])
def test_adjacency_is_checked_by_choice(stream: bool) -> None:
    data = block(b"a.jpg", b"0") + block(b"b.jpg", b"0") + block(b"a.cls", b"0") + END
    if stream:
        keys = [key for key, _ in stream_samples(io.BytesIO(data), place="s.tar", check_adjacent=False)]
    else:
        keys = [s.key for s in read_samples(data, place="s.tar", check_adjacent=False)]
    assert keys == ["a", "b", "a"]


@READERS
@pytest.mark.parametrize("field", [b"__key__", b"__url__", b"__KEY__"])
def test_a_field_with_a_name_of_the_samples_own_is_reported(read: Callable[..., Samples], field: bytes) -> None:
    assert damage(read, block(b"a." + field, b"0") + END).key == "a"


@READERS
@pytest.mark.parametrize(("pack", "name"), [(bz2.compress, "bzip2"), (lzma.compress, "xz")])
@pytest.mark.parametrize("size", [10, 4096])
def test_a_shard_of_another_compression_is_called_so_with_the_cure(
    read: Callable[..., Samples], pack: Callable[[bytes], bytes], name: str, size: int
) -> None:
    error = damage(read, pack(random.Random(0).randbytes(size)))
    assert name in error.fact and "gzip" in error.cure and error.offset == 0


# ---- gzip


def test_a_gzip_shard_cut_at_any_byte_is_reported() -> None:
    data = gzip.compress(small_shard())
    for length in range(len(data)):
        with pytest.raises(DamagedError) as caught:
            streamed(data[:length])
        assert caught.value.offset is not None


def test_a_cut_gzip_shard_is_reported_with_the_length_of_the_file() -> None:
    data = gzip.compress(small_shard())
    error = damage(streamed, data[:-5])
    assert (error.offset, "gzip" in error.fact) == (len(data) - 5, True)


def test_a_flipped_byte_in_a_gzip_shard_is_found_or_does_no_harm() -> None:
    data = gzip.compress(small_shard(), mtime=0)
    whole = mapped(small_shard())
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 0x10
        try:
            assert streamed(bytes(flipped)) == whole
        except DamagedError as error:
            assert error.offset is not None


def test_damage_in_gzip_data_names_its_place_in_the_file() -> None:
    payload = random.Random(0).randbytes(200_000)
    data = bytearray(gzip.compress(b"".join([*encode_sample("a", [("bin", payload)])[0], END])))
    data[100_000:100_050] = bytes(50)
    error = damage(streamed, bytes(data))
    assert error.offset is not None
    assert "gzip data is damaged" in error.fact


def test_data_after_gzip_data_are_reported() -> None:
    data = gzip.compress(small_shard())
    error = damage(streamed, data + b"\0\0junk")
    assert (error.offset, "after the end of the gzip data" in error.fact) == (len(data) + 2, True)


def test_damage_of_a_tar_within_gzip_counts_unpacked_bytes() -> None:
    with pytest.raises(DamagedError) as caught:
        streamed(gzip.compress(small_shard()[:-1024]))
    assert caught.value.place == "s.tar (unpacked)"
    assert caught.value.offset == len(small_shard()) - 1024
