"""JPEGs as they are found: what is read of odd ones, and what is refused with its kind's name."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images.jpegs import (
    DHT,
    DQT,
    EOI,
    SOF0,
    SOI,
    SOS,
    TRAILER,
    lossless,
    of_441,
    photo,
    segment,
    with_bytes_before,
    with_precision,
    without,
)
from PIL import Image

from shardkit.images import jpeg
from shardkit.images.header import check_image, image_header
from shardkit.images.pixels import jpeg_size

PHOTO = photo()
STRAY = {
    "before the first segment": SOI + b"\1\2\3" + PHOTO[2:],
    "before the frame": with_bytes_before(PHOTO, SOF0, b"\x12\x34\0"),
    "before the scan": with_bytes_before(PHOTO, SOS, b"\x12"),
    "with an escaped FF": with_bytes_before(PHOTO, SOF0, b"\xff\0\x12"),
    "fill bytes": with_bytes_before(PHOTO, SOF0, b"\xff\xff\xff"),
    "a marker without a length": with_bytes_before(PHOTO, SOF0, b"\xff\x01"),
    "before the tables": with_bytes_before(PHOTO, DQT, bytes(5)),
}
NO_END = {
    "nothing after it": PHOTO[:-2],
    "a trailer": PHOTO[:-2] + TRAILER,
    "a file": PHOTO[:-2] + TRAILER + PHOTO[:50],
}
NOT_DECODED = {
    "12-bit JPEG": with_precision(12),
    "7-bit JPEG": with_precision(7),
    "lossless JPEG of 2 bits": lossless(8, 8, bits=2),
    "lossless JPEG of 7 bits": lossless(8, 8, bits=7),
    "lossless JPEG of 16 bits": lossless(8, 8, bits=16),
    "lossless JPEG with arithmetic coding": lossless(8, 8, marker=0xCB),
    "hierarchical JPEG": lossless(8, 8, marker=0xC7),
    "JPEG of 2 components": lossless(8, 8, names=b"AB"),
    "no quantisation table": without(PHOTO, DQT),
    "unknown marker": with_bytes_before(PHOTO, SOF0, segment(0xF0, b"abc")),
}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("check", [image_header, check_image])
@pytest.mark.parametrize("place", STRAY)
def test_bytes_between_segments_are_skipped_as_libjpeg_does(place: str, check: object) -> None:
    assert check(STRAY[place]) == ("JPEG", 120, 80)  # type: ignore[operator]
    np.testing.assert_array_equal(pixels(jpeg.tidy(STRAY[place])), pixels(PHOTO))


@pytest.mark.parametrize("place", [DQT, SOF0, SOS])
def test_a_segment_may_be_empty_and_not_shorter(place: int) -> None:
    empty = segment(0xFE, b"")
    data = with_bytes_before(PHOTO, place, empty)
    assert image_header(data) == ("JPEG", 120, 80)
    assert jpeg.tidy(data) is data
    at = data.index(empty)
    for length in (0, 1):
        shorter = data.replace(empty, empty[:2] + length.to_bytes(2, "big"))
        with pytest.raises(ValueError, match=f"damaged JPEG: a segment of {length} bytes at byte {at}"):
            jpeg.tidy(shorter)


def test_a_jpeg_with_nothing_to_tidy_is_given_back_as_it_is() -> None:
    for data in (PHOTO, photo(progressive=True), PHOTO + TRAILER):
        assert jpeg.tidy(data) is data


@pytest.mark.parametrize("check", [image_header, check_image])
@pytest.mark.parametrize("what", NO_END)
def test_a_jpeg_without_an_end_mark_is_whole_if_its_pixels_are(what: str, check: object) -> None:
    assert check(NO_END[what]) == ("JPEG", 120, 80)  # type: ignore[operator]
    np.testing.assert_array_equal(pixels(jpeg.tidy(NO_END[what])), pixels(PHOTO))


@pytest.mark.parametrize("lost", [1, 2, 20, 500])
@pytest.mark.parametrize("trailer", [b"", b"\xff\xe0" + TRAILER])
def test_a_jpeg_without_an_end_mark_is_cut_if_pixels_are_lost(lost: int, trailer: bytes) -> None:
    with pytest.raises(ValueError, match="JPEG truncated: no end-of-image marker"):
        image_header(PHOTO[: -2 - lost] + trailer)


def test_a_progressive_jpeg_without_an_end_mark_is_cut_since_scans_may_be_missing() -> None:
    data = photo(progressive=True)
    with pytest.raises(ValueError, match="JPEG truncated: no end-of-image marker"):
        image_header(data[:-2])
    with pytest.raises(ValueError, match="JPEG truncated: no end-of-image marker"):
        image_header(data[: data.rindex(b"\xff\xda")])


def test_bytes_after_the_pixels_do_not_hide_that_some_are_lost() -> None:
    data = photo(restart_marker_rows=1)
    assert check_image(data[:-2] + bytes(50) + EOI) == ("JPEG", 120, 80)
    bad = data.replace(b"\xff\xd1", b"\xff\xd5")  # a restart marker that is not the next one
    for after in (b"", bytes(50)):
        with pytest.raises(ValueError, match=r"damaged JPEG: .*instead of RST"):
            check_image(bad[:-2] + after + EOI)


def test_a_jpeg_that_ends_in_its_header_is_cut_wherever_it_ends() -> None:
    frame = jpeg.frame_of(PHOTO)
    end = frame.at + 10 + 3 * frame.components
    for length in range(2, end):
        with pytest.raises(ValueError, match=r"^JPEG truncated inside its header$"):
            jpeg.frame_of(PHOTO[:length])
        assert not jpeg.can_be_scaled(PHOTO[:length])
    assert jpeg.start_of_frame(PHOTO[: frame.at + 10]) == frame.at
    with pytest.raises(ValueError, match=r"^JPEG truncated inside its header$"):
        jpeg.start_of_frame(PHOTO[: frame.at + 9])


@pytest.mark.parametrize("check", [image_header, check_image])
@pytest.mark.parametrize("kind", NOT_DECODED)
def test_what_no_decoder_reads_is_refused_by_the_header_check_with_its_kind(kind: str, check: object) -> None:
    with pytest.raises(ValueError, match=kind):
        check(NOT_DECODED[kind])  # type: ignore[operator]


@pytest.mark.parametrize("sampling", [0x33, 0x44])  # ten blocks for an MCU are the most
def test_a_sampling_that_can_t_be_decoded_is_refused_by_the_header_check(sampling: int) -> None:
    data = bytearray(PHOTO)
    data[data.index(b"\xff\xc0") + 11] = sampling
    with pytest.raises(ValueError, match="damaged JPEG"):
        image_header(bytes(data))


@pytest.mark.parametrize("check", [image_header, check_image])
def test_rare_kinds_that_are_decoded_pass(check: object) -> None:
    for data, size in ((of_441(), (8, 32)), (lossless(48, 64), (64, 48)), (lossless(48, 64, names=b"\1"), (64, 48))):
        assert check(data) == ("JPEG", *size)  # type: ignore[operator]


def test_a_jpeg_without_huffman_tables_is_a_motion_jpeg_frame_with_the_standard_ones() -> None:
    data = photo()
    assert check_image(without(data, DHT)) == ("JPEG", 120, 80)


@pytest.mark.parametrize("buffer", [None, np.zeros(480 * 640 * 3, np.uint8)])
def test_a_lossless_jpeg_is_never_decoded_at_a_smaller_scale(buffer: np.ndarray | None) -> None:
    """libjpeg-turbo would write all of it, over whatever is behind the memory for a smaller one."""
    data = lossless(480, 640)
    assert not jpeg.can_be_scaled(data)
    assert jpeg.turbo_pixels(data, "RGB", least=(60, 80), buffer=buffer) is None
    assert jpeg.turbo_pixels(data, "RGB").shape == (480, 640, 3)  # type: ignore[union-attr]
    assert jpeg.can_be_scaled(PHOTO)


def test_a_lossless_frame_behind_stray_bytes_is_seen_as_libjpeg_sees_it() -> None:
    data = lossless(480, 640)
    assert not jpeg.can_be_scaled(SOI + b"\0\xff\xc0\0\x11"[:1] + data[2:])
    assert jpeg.turbo_pixels(SOI + b"\0" + data[2:], "RGB", least=(60, 80)) is None


def test_the_memory_given_is_all_that_is_written() -> None:
    memory = np.full(80 * 120 * 3 + 64, 7, np.uint8)
    assert jpeg.turbo_pixels(PHOTO, "RGB", least=(10, 15), buffer=memory) is not None
    assert (memory[10 * 15 * 3 :] == 7).all()
    assert jpeg.turbo_pixels(PHOTO, "RGB", buffer=memory[:100]) is None


@given(st.binary(max_size=30), st.sampled_from([SOF0, SOS, DQT, DHT]))
def test_any_bytes_between_segments_are_read_or_refused(extra: bytes, marker: int) -> None:
    data = with_bytes_before(PHOTO, marker, extra)
    try:
        assert image_header(data)[0] == "JPEG"
        jpeg.tidy(data)
    except ValueError:
        return


def test_what_simplejpeg_may_decode_is_told_from_what_pillow_has_to_look_at() -> None:
    with Image.open(io.BytesIO(PHOTO)) as image:
        size = image.size[::-1]
        sink = io.BytesIO()
        image.convert("CMYK").save(sink, "JPEG")
    assert jpeg_size(PHOTO, 1 << 30) == size
    assert jpeg_size(sink.getvalue(), 1 << 30) is None
    assert jpeg_size(lossless(*size), 1 << 30) is None
