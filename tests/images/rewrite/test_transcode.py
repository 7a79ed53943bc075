"""Images made smaller, turned, stripped and rewritten: one at a time (`transcode`) and packed (`pack`)."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from images import jpegs
from images.test_jpeg import NO_END, PHOTO, STRAY
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import shardkit
from shardkit import Images
from shardkit.errors import BadFileError, UsageError
from shardkit.images import jpeg
from shardkit.images.header import image_header
from shardkit.images.orientation import orientation_of, turned_exif
from shardkit.images.rewrite import lossless as jpegtran
from shardkit.images.rewrite.metadata import STRIPS, Notes, is_incomplete, is_srgb, jpeg_with, notes_of_jpeg, segments
from shardkit.images.rewrite.recode import shrunk_size
from shardkit.images.rewrite.transcode import Transcoded, Transcoding, coarseness, transcode
from shardkit.packing.pack import PackPlan
from shardkit.packing.plan import estimate
from shardkit.packing.plan.estimate import expected_sizes, transcoded_sizes
from shardkit.sources.columns import PathColumn
from shardkit.sources.left_out import LeftOut
from shardkit.sources.source import Source

ORIENTATION, GPS, MAKE = 0x0112, 0x8825, 0x010F
in_c = pytest.mark.skipif(not jpegtran.available(), reason="the extension that rewrites JPEGs is not built")


def smooth(width: int, height: int, *, seed: int = 0, mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def file_of(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format, **options)
    return sink.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(opened(data).convert("RGB")).astype(int)


def difference(left: Any, right: Any) -> float:
    return float(np.abs(np.asarray(left, int) - np.asarray(right, int)).mean())


def exif(orientation: int | None = None, *, place: bool = False) -> bytes:
    tags = Image.Exif()
    tags[MAKE] = "a camera"
    if orientation is not None:
        tags[ORIENTATION] = orientation
    if place:
        tags.get_ifd(GPS)[1] = "N"
    return tags.tobytes()


def made(data: bytes, **asked: Any) -> Transcoded:
    return transcode(data, Transcoding(**asked))


class TestSize:
    @pytest.mark.parametrize(
        ("size", "shorter", "longer", "expected"),
        [
            ((400, 300), 256, None, (341, 256)),
            ((300, 400), 256, None, (256, 341)),
            ((400, 256), 256, None, (400, 256)),
            ((100, 90), 256, None, (100, 90)),
            ((400, 300), None, 200, (200, 150)),
            ((1000, 300), 256, 512, (512, 154)),
            ((320, 300), 256, 512, (273, 256)),
            ((1000, 1), None, 100, (100, 1)),
        ],
    )
    def test_the_shorter_and_the_longer_side_are_limited_and_never_grow(
        self, size: tuple[int, int], shorter: int | None, longer: int | None, expected: tuple[int, int]
    ) -> None:
        assert shrunk_size(size, shorter, longer) == expected

    def test_a_smaller_image_is_copied_byte_for_byte(self) -> None:
        data = file_of(smooth(80, 60), exif=exif(6, place=True), comment=b"hello")
        result = made(data, resize=60, max_side=80)
        assert (result.data, result.how, result.field) == (data, "copied", None)

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
    def test_a_larger_image_keeps_its_format_and_has_the_size(self, format: str) -> None:
        result = made(file_of(smooth(300, 200), format), resize=100)
        assert image_header(result.data) == (format, 150, 100)
        assert (result.how, result.field) == ("re-encoded", {"JPEG": "jpg"}.get(format, format.lower()))

    def test_the_pixels_are_those_of_pillows_lanczos(self) -> None:
        image = smooth(640, 480)
        data = file_of(image, quality=95)
        result = made(data, resize=100, quality=100, subsampling=444)  # decoded at half its size
        exact = opened(data).resize((133, 100), Image.Resampling.LANCZOS)
        assert difference(pixels(result.data), exact) < 0.6

    def test_a_lossless_webp_stays_one_and_a_lossy_one_too(self) -> None:
        for lossless in (True, False):
            result = made(file_of(smooth(90, 60), "WEBP", lossless=lossless), resize=30)
            assert (b"VP8L" in result.data) is lossless


class TestQuality:
    def test_a_finer_jpeg_is_encoded_again_and_a_coarser_one_is_copied(self) -> None:
        image = smooth(200, 150, seed=3)
        fine, coarse = file_of(image, quality=95), file_of(image, quality=60)
        assert made(coarse, quality=80).data is coarse
        result = made(fine, quality=80)
        assert result.how == "re-encoded" and len(result.data) < len(fine)
        assert made(result.data, quality=80).how == "copied"

    @pytest.mark.parametrize("quality", [1, 30, 50, 75, 90, 100])
    def test_the_steps_of_a_quality_are_those_of_libjpeg(self, quality: int) -> None:
        table = opened(file_of(smooth(8, 8), quality=quality)).quantization  # type: ignore[attr-defined]
        assert sum(table[0]) == coarseness(quality)

    def test_images_of_other_formats_are_not_touched_by_it(self) -> None:
        for format in ("PNG", "WEBP", "BMP"):
            data = file_of(smooth(20, 20), format)
            assert made(data, quality=10).data is data

    def test_the_colours_keep_their_subsampling_unless_another_is_asked_for(self) -> None:
        def factors(data: bytes) -> tuple[int, int]:
            return opened(data).layer[0][1:3]  # type: ignore[attr-defined,no-any-return]

        image = smooth(100, 80)
        full, half = file_of(image, subsampling="4:4:4"), file_of(image, subsampling="4:2:0")
        assert (factors(made(full, resize=40).data), factors(made(half, resize=40).data)) == ((1, 1), (2, 2))
        assert factors(made(full, subsampling=420).data) == (2, 2)
        assert made(half, subsampling=420).how == "copied"
        gray = file_of(smooth(100, 80, mode="L"))
        assert made(gray, subsampling=420).data is gray


class TestFormat:
    @pytest.mark.parametrize("to", ["jpeg", "webp", "png"])
    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
    def test_every_format_becomes_the_one_asked_for(self, format: str, to: Any) -> None:
        data = file_of(smooth(60, 40), format)
        result = made(data, to=to)
        assert image_header(result.data) == (to.upper(), 60, 40)
        assert difference(pixels(result.data), pixels(data)) < 6
        assert (result.how == "copied") is (format == to.upper())
        assert not result.first_of

    @pytest.mark.parametrize("format", ["BMP", "TIFF", "GIF"])
    def test_a_rarer_format_becomes_png_when_it_has_to_change(self, format: str) -> None:
        data = file_of(smooth(60, 40), format)
        assert made(data, resize=40).data is data
        result = made(data, resize=20)
        assert (image_header(result.data), result.field) == (("PNG", 30, 20), "png")

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
    def test_png_and_webp_keep_alpha_and_jpeg_drops_it_as_decode_does(self, mode: str) -> None:
        image = smooth(60, 40).convert("RGBA")
        image.putalpha(Image.linear_gradient("L").resize((60, 40)))
        data = file_of(image.convert(mode), "PNG")
        for to in ("png", "webp"):
            result = opened(made(data, to=to, resize=20).data)
            assert result.has_transparency_data and result.convert("RGBA").getextrema()[3][0] < 30
        flat = made(data, to="jpeg")
        assert difference(pixels(flat.data), opened(data).convert("RGBA").convert("RGB")) < 8

    def test_sixteen_bits_stay_in_gray_png_and_become_eight_elsewhere(self) -> None:
        values = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
        data = file_of(Image.fromarray(values), "PNG")
        small = opened(made(data, resize=15).data)
        assert small.mode.startswith("I") and small.size == (20, 15) and small.getextrema()[1] > 60_000
        assert difference(pixels(made(data, to="jpeg").data)[:, :, 0], values >> 8) < 2

    def test_cmyk_becomes_rgb_when_it_is_encoded_again(self) -> None:
        data = file_of(smooth(60, 40).convert("CMYK"))
        assert made(data, resize=40).data is data
        result = opened(made(data, resize=20).data)
        assert (result.mode, result.size) == ("RGB", (30, 20))
        assert difference(result, opened(data).convert("RGB").resize((30, 20))) < 8

    def test_the_black_ink_of_a_cmyk_image_is_not_lost(self) -> None:
        inks = [smooth(64, 48, seed=seed, mode="L") for seed in range(4)]
        data = file_of(Image.merge("CMYK", inks), quality=100, subsampling="4:4:4")
        expected = opened(data).convert("RGB")
        for asked in ({"to": "png"}, {"resize": 24, "quality": 100, "subsampling": 444}):
            result = opened(made(data, **asked).data)
            assert difference(result, expected.resize(result.size, Image.Resampling.LANCZOS)) < 1

    def test_of_an_animation_the_first_image_stays_and_is_told(self) -> None:
        frames = [smooth(60, 40, seed=n) for n in range(3)]
        for format in ("GIF", "WEBP"):
            data = file_of(frames[0], format, save_all=True, append_images=frames[1:])
            assert made(data, resize=40).data is data
            result = made(data, resize=20)
            assert result.first_of
            assert not getattr(opened(result.data), "is_animated", False)

    def test_gray_and_bilevel_images_stay_gray(self) -> None:
        assert opened(made(file_of(smooth(60, 40, mode="L")), resize=20).data).mode == "L"
        assert opened(made(file_of(smooth(60, 40, mode="1"), "PNG"), resize=20).data).mode == "L"

    def test_noise_that_hardly_compresses_is_written_too(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
        result = made(file_of(Image.fromarray(noise), "PNG"), to="jpeg", quality=100, subsampling=444)
        assert image_header(result.data) == ("JPEG", 600, 600)

    def test_an_image_too_wide_for_webp_is_an_error_that_says_so(self) -> None:
        with pytest.raises(ValueError, match="can't be written as WEBP"):
            made(file_of(Image.new("RGB", (16_500, 2)), "PNG"), to="webp")


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_turned_pixels_are_those_that_a_viewer_shows(self, orientation: int) -> None:
        from PIL import ImageOps

        data = file_of(smooth(64, 48, seed=1), quality=95, exif=exif(orientation))
        shown = ImageOps.exif_transpose(opened(data))
        result = made(data, orient=True, quality=95)
        assert orientation_of(notes_of_jpeg(result.data).exif) == 1
        assert image_header(result.data)[1:] == shown.size
        assert difference(pixels(result.data), shown) < 3
        assert (result.how == "copied") is (orientation == 1)

    @pytest.mark.parametrize("strip", [False, True])
    @pytest.mark.parametrize("to", ["jpeg", "png", "webp"])
    def test_without_it_the_tag_stays_and_the_pixels_are_as_stored(self, to: Any, *, strip: bool) -> None:
        data = file_of(smooth(64, 48, seed=1), quality=95, exif=exif(6))
        result = opened(made(data, to=to, resize=24, strip=strip).data)
        assert result.size == (32, 24)
        assert result.getexif()[ORIENTATION] == 6
        assert (MAKE in result.getexif()) is not strip

    @pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
    def test_other_formats_are_turned_too(self, format: str) -> None:
        tags = Image.Exif()
        tags[ORIENTATION] = 6
        result = opened(made(file_of(smooth(64, 48, seed=1), format, exif=tags), orient=True).data)
        assert result.size == (48, 64)
        assert result.getexif().get(ORIENTATION, 1) == 1
        assert difference(result.convert("RGB"), smooth(64, 48, seed=1).transpose(Image.Transpose.ROTATE_270)) < 4


def noted(format: str, **options: Any) -> bytes:
    """An image with a location, a comment and XMP."""
    if format == "JPEG":
        options |= {"comment": b"a secret"}
    if format == "PNG":
        text = PngInfo()
        text.add_text("Comment", "a secret")
        text.add_itxt("XML:com.adobe.xmp", "<x>a secret</x>")
        options |= {"pnginfo": text}
    if format == "WEBP":
        options |= {"xmp": b"<x>a secret</x>"}
    data = file_of(smooth(64, 48), format, **{"exif": exif(1, place=True)} | options)
    assert b"a secret" in data and b"a camera" in data
    return data


class TestStrip:
    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
    def test_nothing_is_left_and_the_pixels_are_equal_to_the_bit(self, format: str) -> None:
        data = noted(format) + b"a secret behind the end"
        result = made(data, strip=True)
        assert result.how == "rewritten"
        assert b"secret" not in result.data and b"camera" not in result.data
        assert not opened(result.data).getexif()
        assert np.array_equal(pixels(result.data), pixels(data))
        assert made(result.data, strip=True).data is result.data

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
    def test_encoding_again_keeps_the_notes_or_strips_them(self, format: str) -> None:
        data = noted(format)
        kept, bare = made(data, resize=24), made(data, resize=24, strip=True)
        assert opened(kept.data).getexif()[MAKE] == "a camera"
        assert (b"<x>a secret</x>" in kept.data) is (format != "JPEG")
        assert b"secret" not in bare.data and b"camera" not in bare.data
        assert image_header(kept.data)[1:] == image_header(bare.data)[1:] == (32, 24)

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
    def test_the_orientation_stays_told(self, format: str) -> None:
        data = noted(format, exif=exif(8, place=True))
        tags = opened(made(data, strip=True).data).getexif()
        assert dict(tags) == {ORIENTATION: 8}

    def test_a_progressive_jpeg_with_notes_between_its_scans_is_stripped(self) -> None:
        data = file_of(smooth(64, 48), progressive=True)
        second = data.index(b"\xff\xc4", data.index(b"\xff\xda"))
        secret = b"\xff\xfe\0\x08secret"
        between = data[:second] + secret + data[second:]
        assert made(between, strip=True).data == made(data, strip=True).data
        assert np.array_equal(pixels(made(between, strip=True).data), pixels(data))

    @pytest.mark.parametrize(
        ("marker", "body", "stays"),
        [
            (0xE0, b"JFXX\0\x13\2\2thumbnail123", False),
            (0xE0, b"JFIF", False),
            (0xE3, b"JFIF\0\1\1\0\0\1\0\1\0\0", False),
            (0xFE, b"JFIF\0\1\1\0\0\1\0\1\0\0", False),
            (0xE0, b"ICC_PROFILE\0\1\1none", False),
            (0xE1, b"ICC_PROFILE\0\1\1none", False),
            (0xFE, b"ICC_PROFILE\0\1\1none", False),
            (0xE2, b"MPF\0", False),
            (0xEF, b"", False),
            (0xEE, b"Adobe\0\x64\0\0\0\0\1", True),
        ],
    )
    def test_of_the_segments_those_of_the_pixels_alone_stay(self, marker: int, body: bytes, *, stays: bool) -> None:
        data = file_of(smooth(64, 48), icc_profile=bytes(200))
        assert STRIPS["JPEG"](data) == data
        segment = b"\xff%c" % marker + (len(body) + 2).to_bytes(2, "big") + body
        for at in (data.index(b"\xff\xdb"), data.index(b"\xff\xc4"), data.index(b"\xff\xda")):
            more = data[:at] + segment + data[at:]
            assert STRIPS["JPEG"](more) == (more if stays else data)

    def test_what_stays_of_the_notes_is_behind_the_jfif_segment_where_there_is_one(self) -> None:
        data = file_of(smooth(64, 48), exif=exif(6, place=True), comment=b"a secret")
        bare = file_of(smooth(64, 48))
        told = turned_exif(6)
        noted = b"\xff\xe1" + (2 + 6 + len(told)).to_bytes(2, "big") + b"Exif\0\0" + told
        assert STRIPS["JPEG"](data) == bare[:20] + noted + bare[20:]
        assert STRIPS["JPEG"](data[:2] + data[20:]) == bare[:2] + noted + bare[20:]

    def test_a_thumbnail_in_the_jfif_segment_goes(self) -> None:
        data = file_of(smooth(64, 48))
        assert data[2:4] == b"\xff\xe0"
        thumbnail = b"\xff\xe0" + (16 + 12).to_bytes(2, "big") + data[6:18] + b"\2\2" + b"thumbnail123"
        result = made(data[:2] + thumbnail + data[20:], strip=True)
        assert result.data == data

    def test_comments_of_a_gif_go_and_its_frames_stay(self) -> None:
        frames = [smooth(60, 40, seed=n) for n in range(3)]
        options = {"save_all": True, "append_images": frames[1:], "loop": 5, "duration": 70}
        data = file_of(frames[0], "GIF", comment=b"a secret", **options)
        result = made(data + b"a secret", strip=True)
        assert result.how == "rewritten" and b"secret" not in result.data
        before, after = opened(data), opened(result.data)
        assert (after.info["loop"], after.info["duration"], getattr(after, "n_frames", 1)) == (5, 70, 3)
        for number in range(3):
            before.seek(number)
            after.seek(number)
            assert np.array_equal(np.asarray(before.convert("RGB")), np.asarray(after.convert("RGB")))
        assert made(result.data, strip=True).data is result.data

    def test_a_format_that_cannot_be_stripped_in_place_is_encoded_again_and_a_bare_one_is_copied(self) -> None:
        tiff, bmp = file_of(smooth(64, 48), "TIFF", exif=exif(place=True)), file_of(smooth(64, 48), "BMP")
        assert made(bmp, strip=True).data is bmp
        result = made(tiff, strip=True)
        assert result.field == "png" and b"camera" not in result.data
        assert np.array_equal(pixels(result.data), pixels(tiff))

    def test_a_colour_profile_stays_unless_it_is_srgbs(self) -> None:
        from PIL import ImageCms

        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        other = srgb.replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be")).replace(b"sRGB", b"wide")
        other = other.ljust(100_000, b"\0")  # two segments of a JPEG
        assert is_srgb(srgb) and not is_srgb(other) and not is_srgb(b"")
        for format in ("JPEG", "PNG", "WEBP"):
            for profile, kept in ((srgb, b""), (other, other)):
                data = file_of(smooth(64, 48), format, icc_profile=profile)
                assert opened(made(data, resize=24).data).info["icc_profile"] == profile
                for asked in ({"strip": True}, {"strip": True, "resize": 24}):
                    assert opened(made(data, **asked).data).info.get("icc_profile", b"") == kept

    def test_a_profile_of_inks_does_not_go_into_an_rgb_image(self) -> None:
        profile = bytearray(400)
        profile[16:20] = b"CMYK"
        data = file_of(smooth(60, 40, mode="CMYK"), icc_profile=bytes(profile))
        assert "icc_profile" not in opened(made(data, resize=20).data).info


@in_c
class TestLossless:
    @pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
    @pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
    def test_a_progressive_jpeg_becomes_baseline_with_equal_pixels(self, mode: str, subsampling: str) -> None:
        image = smooth(101, 75, mode=mode)
        data = file_of(image, progressive=True, subsampling=subsampling, exif=exif(6), comment=b"stays")
        result = made(data, baseline=True)
        assert result.how == "rewritten"
        assert "progressive" not in opened(result.data).info
        assert np.array_equal(np.asarray(opened(result.data)), np.asarray(opened(data)))
        assert opened(result.data).getexif()[ORIENTATION] == 6 and opened(result.data).info["comment"] == b"stays"
        assert made(result.data, baseline=True).data is result.data

    def test_a_baseline_jpeg_is_copied(self) -> None:
        data = file_of(smooth(101, 75))
        assert made(data, baseline=True).data is data

    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_restart_markers_are_written_without_loss(self, mode: str) -> None:
        data = file_of(smooth(101, 75, mode=mode))
        result = made(data, restart_rows=2)
        assert result.data.count(b"\xff\xd0") > data.count(b"\xff\xd0")
        assert np.array_equal(pixels(result.data), pixels(data))
        assert made(result.data, restart_rows=2).data is result.data
        assert made(result.data, restart_rows=3).how == "rewritten"
        assert made(made(data, resize=40, restart_rows=1).data, restart_rows=1).how == "copied"

    def test_everything_at_once_is_done_in_one_go(self) -> None:
        data = file_of(smooth(300, 200), progressive=True, exif=exif(6, place=True))
        result = made(data, resize=100, quality=80, baseline=True, strip=True, orient=True, subsampling=420)
        image = opened(result.data)
        assert (image.size, dict(image.getexif()), "progressive" in image.info) == ((100, 150), {}, False)
        again = made(result.data, resize=100, quality=80, baseline=True, strip=True, orient=True, subsampling=420)
        assert again.data is result.data

    def test_a_damaged_jpeg_is_refused(self) -> None:
        data = bytearray(file_of(smooth(300, 200, seed=4), progressive=True))
        middle = len(data) // 2
        data[middle : middle + 400] = b"\xff\xd9" + bytes(398)
        with pytest.raises(ValueError, match=r"can't be rewritten|cut"):
            made(bytes(data), baseline=True)

    def test_a_jpeg_of_too_many_scans_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = file_of(smooth(64, 48), progressive=True)
        monkeypatch.setattr(jpegtran, "MAX_SCANS", 3)
        monkeypatch.setattr(jpeg, "MAX_SCANS", 3)
        for asked in ({"baseline": True}, {"resize": 20}):
            with pytest.raises(ValueError, match="more than 3 scans: a decompression bomb"):
                made(data, **asked)

    def test_what_is_no_jpeg_is_an_error_and_not_a_crash(self) -> None:
        for data in (b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"GIF89a", file_of(smooth(40, 30))[:200]):
            with pytest.raises(ValueError):
                jpegtran.rewrite(data)


class TestBadInput:
    @pytest.mark.parametrize("asked", [{"resize": 20}, {"strip": True}, {"to": "png"}, {"orient": True}])
    def test_what_is_no_image_or_cut_is_refused(self, asked: dict[str, Any]) -> None:
        whole = file_of(smooth(300, 200, seed=2))
        for data in (b"", b"no image", b"<html></html>", whole[: len(whole) // 2], whole[:30]):
            with pytest.raises(ValueError):
                made(data, **asked)

    def test_damage_in_the_coded_pixels_is_refused_and_not_drawn_gray(self) -> None:
        data = bytearray(file_of(smooth(300, 200, seed=2), quality=95))
        middle = len(data) // 2
        data[middle : middle + 300] = bytes(300)
        for asked in ({"resize": 20}, {"to": "png"}):
            with pytest.raises(ValueError, match="damaged"):
                made(bytes(data), **asked)

    def test_too_many_pixels_are_refused(self) -> None:
        data = bytearray(file_of(smooth(300, 200)))
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
        with pytest.raises(ValueError, match="bomb"):
            made(bytes(data), resize=100)

    def test_flipped_bits_give_an_image_or_a_short_reason(self) -> None:
        random = np.random.default_rng(7)
        wishes = [{"resize": 20}, {"strip": True}, {"orient": True}, {"quality": 30}, {"to": "png", "resize": 10}]
        if jpegtran.available():
            wishes += [{"baseline": True, "restart_rows": 1}]
        for format in ("JPEG", "PNG", "WEBP", "GIF"):
            whole = noted(format) if format != "GIF" else file_of(smooth(64, 48), "GIF")
            for number in range(60):
                data = bytearray(whole)
                for at in random.integers(0, len(data) if number % 2 else min(700, len(data)), 4):
                    data[at] = random.integers(0, 256)
                for wish in wishes:
                    try:
                        image_header(made(bytes(data), **wish).data)
                    except ValueError as exc:
                        assert "\n" not in str(exc)

    def test_cut_files_never_loop_or_crash_the_parsers(self) -> None:
        for format in ("JPEG", "PNG", "WEBP", "GIF"):
            whole = noted(format) if format != "GIF" else file_of(smooth(64, 48), "GIF", comment=b"x")
            for end in range(0, len(whole), 7):
                try:
                    STRIPS[format](whole[:end])
                except ValueError as exc:
                    assert str(exc)


class TestOptions:
    @pytest.mark.parametrize(
        ("asked", "place", "text"),
        [
            ({"resize": 0}, "resize", "whole number from 1"),
            ({"resize": True}, "resize", "whole number"),
            ({"resize": 256, "max_side": 200}, "max_side", "useless"),
            ({"quality": 101}, "quality", "1 to 100"),
            ({"quality": 80, "to": "png"}, "quality", "PNG has none"),
            ({"to": "jpg"}, "to", "keep, jpeg, webp, png"),
            ({"subsampling": 411}, "subsampling", "444, 422, 420"),
            ({"subsampling": 420, "to": "webp"}, "subsampling", "JPEG only"),
            ({"baseline": True, "to": "png"}, "baseline", "JPEG only"),
            ({"restart_rows": 1, "to": "webp"}, "restart_rows", "JPEG only"),
            ({"restart_rows": 0}, "restart_rows", "whole number"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, asked: dict[str, Any], place: str, text: str) -> None:
        with pytest.raises(UsageError, match=text) as caught:
            Transcoding(**asked)
        assert caught.value.place == place

    def test_a_missing_extension_is_named_with_its_cure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jpegtran, "load", lambda _: (None, "No module named 'jpegtran'"))
        for asked in ({"baseline": True}, {"restart_rows": 1}):
            with pytest.raises(UsageError, match=r"C extension.*No module.*libjpeg62-turbo-dev"):
                Transcoding(**asked)
        assert made(file_of(smooth(40, 30)), resize=20).how == "re-encoded"

    def test_they_cross_to_a_worker_as_data(self) -> None:
        wish = Transcoding(resize=256, to="webp", strip=True)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(wish), type=Transcoding) == wish
        assert wish.recorded() == {"resize": 256, "to": "webp", "strip": True}


class TestEstimate:
    def test_sizes_follow_the_bins_and_the_mean_is_rather_high(self) -> None:
        before = np.arange(1000, 2000, 10)
        sizes = expected_sizes(before, before, before // 4)
        assert 1 <= sizes.sum() / (before // 4).sum() < 1.01
        assert expected_sizes(np.array([10, 100_000]), before, before // 4).tolist()[1] > 20_000

    def test_between_and_beyond_the_bins_sizes_are_in_proportion_and_by_two_standard_errors_higher(self) -> None:
        before = np.repeat([100, 200], 4)
        after = np.array([40, 60, 40, 60, 80, 120, 80, 120])  # 50 and 100 in the mean, by 10 and 20 off
        margin = 1 + 2 * 250**0.5 / (75 * 8**0.5)
        found = expected_sizes(np.array([0, 50, 100, 150, 200, 400]), before, after).tolist()
        assert found == [1, *(math.ceil(size * margin) for size in (25, 50, 75, 100, 200))]

    def test_a_bin_has_at_least_four_files_and_there_are_no_more_than_sixteen(self) -> None:
        for count, bins in ((3, 1), (7, 1), (8, 2), (64, 16), (200, 16)):
            before = np.arange(count) * 100
            known = [part.mean() for part in np.array_split(before, bins)]
            found = expected_sizes(np.array([known[0]]), before, 1000 + 3 * before)
            errors = 1000 + 3 * before - estimate._at(before, np.array(known), 1000 + 3 * np.array(known))
            margin = 1 + 2 * errors.std() / ((1000 + 3 * before).mean() * count**0.5)
            assert found.tolist() == [math.ceil((1000 + 3 * known[0]) * margin)]

    @pytest.mark.parametrize(("size", "most"), [(1000, 100), (100_000, estimate.LEAST_FILES), (1, 1 << 20)])
    def test_files_are_tried_up_to_a_number_of_bytes_spread_over_all(
        self, size: int, most: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[list[int]] = []

        def noted(source: Source, rows: Any, wish: Transcoding) -> tuple[Any, Any]:
            tried.append(rows.tolist())
            return rows[:0], rows[:0]

        monkeypatch.setattr(estimate, "_tried", noted)
        paths = PathColumn.of(b"c/%d.jpg" % row for row in range(5000))
        labels = np.zeros(5000, np.int32)
        source = Source(b"/", ("c",), paths, np.full(5000, size, np.int64), labels, {}, LeftOut())
        rows = np.arange(1000, 5000)
        transcoded_sizes(source, rows, Transcoding(resize=8), seed=3)
        monkeypatch.setattr(estimate, "SAMPLED_BYTES", 100_000)
        transcoded_sizes(source, rows, Transcoding(resize=8), seed=3)
        every, some = tried
        assert estimate.SAMPLED_FILES * 0.9 < len(every) <= estimate.SAMPLED_FILES
        assert every == sorted(set(every)) and every[0] < 1100 and every[-1] >= 4900
        assert some == every[:: -(-len(every) // most)]

    def test_without_a_file_that_can_be_tried_sizes_stay(self) -> None:
        none = np.empty(0, np.int64)
        assert expected_sizes(np.array([5, 6]), none, none).tolist() == [5, 6]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two classes: JPEGs of three sizes, turned ones, a progressive one; PNGs beside JPEGs of the same name."""
    root = tmp_path / "mixed"
    for name, first in (("cat", 0), ("dog", 100)):
        (root / name).mkdir(parents=True)
        for n in range(12):
            image = smooth((90, 160, 240)[n % 3], (70, 120, 200)[n % 3], seed=first + n)
            options: dict[str, Any] = {"exif": exif(1 + n % 8, place=True), "progressive": n == 5}
            (root / name / f"{n:02}.jpg").write_bytes(file_of(image, **options))
        (root / name / "00.png").write_bytes(file_of(smooth(100, 90, seed=first, mode="RGBA"), "PNG"))
    return root


ALL: dict[str, Any] = {
    "images": Images(resize=64, to="jpeg", quality=85, strip=True, orient=True), "max_bytes": "40kB",
}  # fmt: skip
Pack = Callable[..., Any]


class TestPack:
    def test_the_bytes_are_the_same_for_any_number_of_workers(self, mixed: Path, out: Path, content_of: Pack) -> None:
        for workers in (1, 2):
            shardkit.pack(mixed, out / str(workers) / "x", workers=workers, **ALL)
        assert content_of(out / "1") == content_of(out / "2")

    def test_every_image_is_as_asked_for_and_the_index_says_so(self, mixed: Path, out: Path, pack_one: Pack) -> None:
        import pyarrow.parquet as pq

        manifest = pack_one(mixed, out / "x", **ALL)
        assert manifest.fields == ("cls", "jpg")
        expected = {"resize": 64, "to": "jpeg", "quality": 85, "strip": True, "orient": True}
        assert {name: manifest.options[name] for name in expected} == expected
        rows = pq.read_table(out / "x.parquet").to_pylist()
        assert {row["path"] for row in rows} == {str(path.relative_to(mixed)) for path in mixed.glob("*/*.*")}
        for row in rows:
            shard = (out / row["shard"]).read_bytes()
            image = opened(shard[row["image_offset"] : row["image_offset"] + row["image_size"]])
            assert (image.format, image.size) == ("JPEG", (row["width"], row["height"]))
            assert min(image.size) == 64 and not image.getexif()
        assert shardkit.verify(out / "x", decode=True).sound

    def test_nothing_is_changed_that_was_not_asked_for(
        self, mixed: Path, out: Path, pack_one: Pack, samples_of: Pack, content_of: Pack
    ) -> None:
        manifest = pack_one(mixed, out / "x")
        assert not set(Transcoding.__struct_fields__) & set(manifest.options)
        stored = {data for name, data in samples_of(out).items() if not name.endswith(".cls")}
        assert stored == set(content_of(mixed).values())

    def test_files_that_need_no_change_are_copied_byte_for_byte(
        self, mixed: Path, out: Path, pack_one: Pack, samples_of: Pack, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, "shardkit"):
            pack_one(mixed, out / "x", images=Images(resize=120))
        samples = samples_of(out)
        for name in ("cat", "dog"):
            for n in range(12):
                data, stored = (mixed / name / f"{n:02}.jpg").read_bytes(), samples[f"{name}/{n:02}.jpg"]
                assert (stored == data) is (n % 3 != 2)
        assert "images copied: 18, re-encoded: 8" in caplog.text

    def test_a_field_is_named_by_what_the_image_has_become(
        self, mixed: Path, out: Path, pack_one: Pack, samples_of: Pack
    ) -> None:
        manifest = pack_one(mixed, out / "x", images=Images(to="webp"))
        assert manifest.fields == ("cls", "webp")
        assert {name.rpartition(".")[2] for name in samples_of(out)} == {"webp", "cls"}
        images = [image for images, _ in shardkit.dataset(out / "x").decode(size=16).batch(13) for image in images]
        assert len(images) == 26

    def test_unpack_gives_the_stored_bytes_under_a_name_that_fits_them(
        self, mixed: Path, out: Path, pack_one: Pack, samples_of: Pack, content_of: Pack
    ) -> None:
        for form in ("tar", "tfrecord"):
            pack_one(mixed, out / form / "x", format=form, **ALL)
            shardkit.unpack(out / form / "x", out / form / "again")
        again = content_of(out / "tar" / "again")
        names = {f"{name}/{n:02}.jpg" for name in ("cat", "dog") for n in range(12)}
        assert set(again) == names | {"cat/00-2.jpg", "dog/00-2.jpg"}
        stored = samples_of(out / "tar")
        assert again == {name: data for name, data in stored.items() if name.endswith(".jpg")}
        assert content_of(out / "tfrecord" / "again") == again

    def test_tfrecord_has_the_same_images_and_names_their_format(self, mixed: Path, out: Path, pack_one: Pack) -> None:
        for form in ("tar", "tfrecord"):
            pack_one(mixed, out / form / "x", format=form, images=Images(to="webp", resize=50))
        tar, tfrecord = (
            {s["__key__"]: s["webp"] for s in shardkit.dataset(out / form / "x")} for form in ("tar", "tfrecord")
        )
        assert tar == tfrecord and len(tar) == 26
        assert b"image/format" in (out / "tfrecord" / "x-000000.tfrecord").read_bytes()

    def test_options_that_differ_are_other_plans(self, tree: Path, out: Path, pack_one: Pack) -> None:
        asked: list[dict[str, Any]] = [
            {}, {"resize": 20}, {"resize": 21}, {"max_side": 20}, {"to": "png"}, {"quality": 50}, {"strip": True},
            {"orient": True}, {"subsampling": 444}, *([{"baseline": True}] if jpegtran.available() else []),
        ]  # fmt: skip
        plans = [pack_one(tree, out / str(n) / "x", images=Images(**images)).plan for n, images in enumerate(asked)]
        assert len(set(plans)) == len(plans)

    def test_a_dataset_made_otherwise_is_not_taken_for_this_one(self, tree: Path, out: Path, pack_one: Pack) -> None:
        pack_one(tree, out / "x", images=Images(resize=20))
        for asked in ({}, {"resize": 21}, {"resize": 20, "strip": True}):
            with pytest.raises(shardkit.errors.DestinationError, match=r"packed with the option (resize|strip)"):
                pack_one(tree, out / "x", images=Images(**asked))

    def test_packed_again_it_writes_nothing_and_sees_a_changed_file(
        self, mixed: Path, out: Path, pack_one: Pack, content_of: Pack
    ) -> None:
        first = pack_one(mixed, out / "x", **ALL)
        before = content_of(out), (out / "x.json").stat().st_mtime_ns
        assert pack_one(mixed, out / "x", **ALL) == first
        assert (content_of(out), (out / "x.json").stat().st_mtime_ns) == before
        path = mixed / "cat" / "01.jpg"
        path.write_bytes(path.read_bytes())
        with pytest.raises(shardkit.errors.DestinationError, match=r"out of date.*cat/01\.jpg"):
            pack_one(mixed, out / "x", **ALL)

    def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(
        self, mixed: Path, out: Path, pack_one: Pack, content_of: Pack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = ALL | {"max_bytes": "15kB"}
        done: list[str] = []

        def stopping(data: bytes, wish: Transcoding) -> Transcoded:
            done.append("")
            if len(done) == 20:
                raise KeyboardInterrupt
            return transcode(data, wish)

        with monkeypatch.context() as patch:
            patch.setattr("shardkit.packing.write.images.transcode", stopping)
            with pytest.raises(KeyboardInterrupt):
                pack_one(mixed, out / "cut" / "x", **asked)
            done.clear()
        kept = sorted(path.name for path in (out / "cut" / ".x.packing").glob("*.receipt"))
        assert kept
        times = {name: (out / "cut" / ".x.packing" / name).stat().st_mtime_ns for name in kept}
        with monkeypatch.context() as patch:
            patch.setattr(
                "shardkit.packing.write.images.transcode", lambda data, wish: done.append("") or transcode(data, wish)
            )
            pack_one(mixed, out / "cut" / "x", **asked)
        assert times and len(done) < 26
        pack_one(mixed, out / "other" / "x", **asked)
        assert content_of(out / "cut") == content_of(out / "other")

    def test_a_shard_of_a_run_with_other_options_is_not_kept(
        self, mixed: Path, out: Path, pack_one: Pack, content_of: Pack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("shardkit.packing.dest.disk.DiskDestination.commit", fails)
            pack_one(mixed, out / "a" / "x", images=Images(resize=64, quality=50))
        pack_one(mixed, out / "a" / "x", images=Images(resize=64, quality=95))
        pack_one(mixed, out / "b" / "x", images=Images(resize=64, quality=95))
        assert content_of(out / "a") == content_of(out / "b")

    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_bad_file_stops_the_run_or_is_skipped_and_listed(self, tree: Path, out: Path, workers: int) -> None:
        whole = file_of(smooth(300, 200, seed=2), quality=95)
        (tree / "red" / "bad.jpg").write_bytes(whole[:3000] + bytes(300) + whole[3300:])
        with pytest.raises(BadFileError, match=r"red/bad\.jpg.*damaged"):
            shardkit.pack(tree, out / "x", images=Images(resize=20), workers=workers)
        manifest = shardkit.pack(tree, out / "y", images=Images(resize=20), workers=workers, on_error="skip")
        assert isinstance(manifest, shardkit.Packed) and (manifest.samples, manifest.skipped) == (12, 1)
        [entry] = json.loads((out / "y.skipped.json").read_text())
        assert entry["path"] == "red/bad.jpg"

    def test_shards_are_planned_by_the_size_that_images_become(self, tmp_path: Path, pack_one: Pack) -> None:
        root = tmp_path / "large"
        for name in ("a", "b"):
            (root / name).mkdir(parents=True)
            for n in range(60):
                (root / name / f"{n}.jpg").write_bytes(file_of(smooth(400, 300, seed=n), quality=95))
        whole = pack_one(root, tmp_path / "whole" / "x", max_bytes="100kB")
        small = pack_one(root, tmp_path / "small" / "x", max_bytes="100kB", images=Images(resize=64))
        assert len(small.shards) < len(whole.shards) / 2
        sizes = [entry.bytes for entry in small.shards]
        assert max(sizes) < 110_000 and min(sizes) > 60_000
        plan = shardkit.plan_pack(root, tmp_path / "dry", max_bytes="100kB", images=Images(resize=64))
        assert isinstance(plan, PackPlan) and len(plan.datasets[0].shards) == len(sizes)

    def test_of_several_fields_the_first_image_is_changed_and_the_others_stay(
        self, mixed: Path, out: Path, pack_one: Pack, samples_of: Pack
    ) -> None:
        for path in mixed.glob("*/*.jpg"):
            path.with_suffix(".json").write_bytes(b'{"n": 1}')
        pack_one(mixed, out / "x", fields="jpg,json", images=Images(to="webp", resize=50))
        samples = samples_of(out)
        assert min(opened(samples["cat/02.webp"]).size) == 50
        assert samples["cat/02.json"] == b'{"n": 1}'
        assert len(samples) == 24 * 3

    @pytest.mark.parametrize("fields", [None, "jpg,json"])
    def test_progress_is_told_in_bytes_of_the_source(self, tmp_path: Path, out: Path, fields: str | None) -> None:
        (tmp_path / "one" / "a").mkdir(parents=True)
        for n in range(20):
            (tmp_path / "one" / "a" / f"{n}.jpg").write_bytes(file_of(smooth(400, 300, seed=n), quality=95))
            (tmp_path / "one" / "a" / f"{n}.json").write_bytes(b"{}")
        told: list[Any] = []
        options: dict[str, Any] = {"ext": "jpg"} if fields is None else {"fields": fields}
        shardkit.pack(tmp_path / "one", out / "x", images=Images(resize=20), workers=1, progress=told.append, **options)
        last = next(each for each in reversed(told) if each.step == "pack")
        assert last.done == last.total == 20
        assert last.bytes_done >= last.bytes_total > 50_000

    def test_masks_that_would_no_longer_fit_are_refused(self, mixed: Path, out: Path, pack_one: Pack) -> None:
        for asked in ({"resize": 50}, {"orient": True}, {"to": "png"}):
            with pytest.raises(UsageError, match="no longer match"):
                pack_one(mixed, out / "x", fields="jpg,seg.png", images=Images(**asked))
        with pytest.raises(UsageError, match="none of the fields"):
            pack_one(mixed, out / "x", fields="txt,json", images=Images(resize=50))
        for name in ("cat", "dog"):
            for n in range(1, 12):
                (mixed / name / f"{n:02}.jpg").unlink()
        pack_one(mixed, out / "x", fields="jpg,png", images=Images(quality=40))

    def test_splits_are_transcoded_too(self, splits: Path, out: Path) -> None:
        found = shardkit.pack(splits, out, images=Images(resize=20), workers=1)
        assert isinstance(found, shardkit.Packed)
        for split in found:
            assert {sample["jpg"].shape[0] for sample in shardkit.dataset(out / split).decode()} == {20}

    def test_a_jpeg_with_fill_bytes_between_its_segments_is_read(self) -> None:
        data = jpeg_with(file_of(smooth(64, 48)), Notes(turned_exif(6)))
        frame = data.index(b"\xff\xc0")
        filled = data[:2] + b"\xff\xff" + data[2:frame] + b"\xff" + data[frame:]
        assert [marker for marker, _, _ in segments(filled)] == [marker for marker, _, _ in segments(data)]
        assert orientation_of(notes_of_jpeg(filled).exif) == 6
        assert np.array_equal(pixels(made(filled, strip=True).data), pixels(data))


def test_a_segment_may_end_with_the_file() -> None:
    comment, scan = b"\xff\xfe\0\2", b"\xff\xda\0\2"
    assert list(segments(b"\xff\xd8" + comment + scan)) == [(0xFE, 2, 6), (0xDA, 6, 10)]


class TestRareJpegs:
    @pytest.mark.parametrize("names", [b"RGB", b"\1"])
    def test_a_lossless_jpeg_is_resized_within_its_memory(self, names: bytes) -> None:
        result = made(jpegs.lossless(480, 640, names=names), resize=32)
        pixels = np.asarray(Image.open(io.BytesIO(result.data)))
        assert pixels.shape[:2] == (32, 43)
        assert set(np.unique(pixels)) == {128}

    def test_a_jpeg_of_an_odd_sampling_is_resized(self) -> None:
        assert Image.open(io.BytesIO(made(jpegs.of_441(), resize=4).data)).size == (4, 16)

    @pytest.mark.parametrize("asked", [{"resize": 20}, {"to": "png"}, {"strip": True}, {"orient": True}])
    @pytest.mark.parametrize("name", [*STRAY, *NO_END])
    def test_what_libjpeg_reads_is_transcoded(self, name: str, asked: dict[str, Any]) -> None:
        data = {**STRAY, **NO_END}[name]
        results = [made(file, **asked).data for file in (data, PHOTO)]
        readable = [data if "to" in asked else jpeg.tidy(data) for data in results]  # what decode() does, Pillow not
        found, expected = (Image.open(io.BytesIO(file)) for file in readable)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))

    @in_c
    @pytest.mark.parametrize("name", [*STRAY, *NO_END])
    def test_what_libjpeg_reads_is_rewritten(self, name: str) -> None:
        assert jpegtran.rewrite({**STRAY, **NO_END}[name]) == jpegtran.rewrite(PHOTO)


@pytest.mark.parametrize(
    ("size", "shorter", "longer", "result"),
    [
        ((100, 100), 20, 30, (20, 20)),
        ((100, 100), 30, 20, (20, 20)),
        ((200, 100), 50, 60, (60, 30)),
        ((200, 100), 20, 60, (40, 20)),
        ((200, 100), 100, 200, (200, 100)),
        ((1000, 1), None, 10, (10, 1)),
    ],
)
def test_of_two_limits_the_stricter_decides(
    size: tuple[int, int], shorter: int | None, longer: int | None, result: tuple[int, int]
) -> None:
    assert shrunk_size(size, shorter, longer) == result


def test_a_progressive_jpeg_that_lacks_one_coefficient_is_incomplete() -> None:
    data = file_of(smooth(64, 48), progressive=True)
    assert not is_incomplete(data)
    ends = [at for at in range(len(data) - 14) if data[at : at + 2] == b"\xff\xda" and data[at + 4] == 1]
    last = [at + 8 for at in ends if data[at + 8] == 63]  # Se, behind the marker, the length, one component, Ss
    assert last
    for at in last:
        data = data[:at] + bytes([62]) + data[at + 1 :]
    assert is_incomplete(data)


CUT_SCANS = [b"", b"\0", b"\0\x08", b"\0\x08\1", b"\0\x08\1\1\0", b"\0\x02", b"\0\x03\1", b"\0\x07\1\1\0\0\x3f"]


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("rest", CUT_SCANS)
def test_a_jpeg_with_a_cut_scan_header_is_incomplete_and_no_crash(rest: bytes, *, progressive: bool) -> None:
    data = file_of(smooth(64, 48), progressive=progressive)
    assert not is_incomplete(data)
    for end in (b"", b"\xff\xd9"):
        assert is_incomplete(data[:-2] + b"\xff\xda" + rest + end)
    cut = data[:-2] + b"\xff\xda" + rest
    if jpegtran.available():
        for file in (cut, cut + b"\xff\xd9"):
            with contextlib.suppress(ValueError):  # libjpeg's, or the image as it is
                assert made(file, restart_rows=1).data == file


def test_a_scan_header_that_has_just_its_bytes_is_whole() -> None:
    data = file_of(smooth(64, 48, mode="L"), progressive=True)
    last = data.rindex(b"\xff\xda")
    assert data[last + 2 : last + 5] == b"\0\x08\1"
    assert is_incomplete(data[:last] + b"\xff\xd9")
    assert not is_incomplete(data[: last + 10])
    assert is_incomplete(data[: last + 9])


def test_notes_are_known_by_their_segment_and_how_it_begins() -> None:
    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body

    parts = {"exif": b"Exif\0\0", "xmp": b"http://ns.adobe.com/xap/1.0/\0"}
    for name, prefix in parts.items():
        for marker in (0xE1, 0xE2, 0xFE):
            data = b"\xff\xd8" + segment(marker, prefix + b"told") + segment(0xDA, b"")
            notes = notes_of_jpeg(data)
            assert (notes.exif, notes.xmp) == tuple(b"told" * (marker == 0xE1 and other == name) for other in parts)
    twice = segment(0xE1, parts["xmp"] + b"first") + segment(0xE1, parts["xmp"] + b"second")
    assert notes_of_jpeg(b"\xff\xd8" + twice + segment(0xDA, b"")).xmp == b"first"
