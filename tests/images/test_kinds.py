"""What a file is that is no image, told by its first bytes."""

from __future__ import annotations

import struct

import pytest

from shardkit.images.kinds import band_count, other_kind, tiff_number, undecoded_kind


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty file"),
        (b"RIFF\x10\0\0\0AVI LIST", "an AVI video, not an image"),
        (b"RIFF\x10\0\0\0WAVEfmt ", ""),
        (b"\xef\xbb\xbf \r\n<!DOCTYPE html>", "HTML, not an image"),
        (b'{"a": 1}', "JSON, not an image"),
        (b'[{"a": 1}]', "JSON, not an image"),
        (b"<?xml version='1.0'?><svg/>", "SVG, which has no pixels"),
        (b"<?xml version='1.0'?><a/>", "XML, not an image"),
        (b"\xff\xd8\xff", ""),
    ],
)
def test_a_file_that_is_no_image_is_named(data: bytes, kind: str) -> None:
    assert other_kind(data) == kind


@pytest.mark.parametrize("order", "<>")
def test_the_tags_of_the_first_directory_are_read_to_the_last_and_no_further(order: str) -> None:
    entries = [(256, 3, 1, 7), (277, 3, 1, 5), (0x0112, 4, 1, 6)]

    def block(count: int) -> bytes:
        body = b"".join(
            struct.pack(order + "HHI", *entry[:3]) + struct.pack(order + ("HH" if entry[1] == 3 else "I"), *(
                (entry[3], 0) if entry[1] == 3 else (entry[3],)
            ))
            for entry in entries
        )  # fmt: skip
        head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 10) + b"\0\0"
        return head + struct.pack(order + "H", count) + body

    for count in range(len(entries) + 1):
        found = [tiff_number(block(count), tag) for tag, *_ in entries]
        assert found == [value if n < count else None for n, (_, _, _, value) in enumerate(entries)]
    assert (band_count(block(1)), band_count(block(2))) == (0, 5)
    assert tiff_number(block(9), 0x0112) == 6  # a count beyond the file's end
    assert tiff_number(block(9)[:-1], 0x0112) is None


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("kind", "code"), [(3, "H"), (4, "I"), (8, "h"), (9, "i")])
def test_values_of_more_than_four_bytes_stand_apart_from_their_tag(order: str, kind: int, code: str) -> None:
    def block(count: int, behind: bytes, magic: bytes = b"*\0") -> bytes:
        numbers = struct.pack(f"{order}{count}{code}", *range(5, 5 + count))
        head = b"II" + magic if order == "<" else b"MM" + magic[::-1]
        value = numbers.ljust(4, b"\0") if len(numbers) <= 4 else struct.pack(order + "I", 26) + behind + numbers
        return head + struct.pack(order + "IHHHI", 8, 1, 258, kind, count) + value

    most = 4 // struct.calcsize(code)
    for count, behind in ((1, b""), (most, b""), (most + 1, bytes(4)), (3, bytes(4))):
        assert tiff_number(block(count, behind), 258) == 5
    size = struct.calcsize(code)
    assert tiff_number(block(3, bytes(4))[: 26 + size], 258) == 5
    assert tiff_number(block(3, bytes(4))[: 26 + size - 1], 258) == 0  # the tag is there, its value is not
    assert tiff_number(block(1, b"", b"+\0"), 258) is None
    assert tiff_number(b"XX" + block(1, b"")[2:], 258) is None


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
        (b"\0\0\0\x18ftypmp42", "MP4"),
        (b"\0\0\0\x18ftypisom", "MP4"),
        (b"\0\0\0\x18moovmp42", ""),
        (b"\xff\xd8\xff\xe0", ""),
    ],
)
def test_an_image_that_nothing_here_decodes_is_named(data: bytes, kind: str) -> None:
    assert undecoded_kind(data).find(kind) >= 0 and bool(undecoded_kind(data)) is bool(kind)
