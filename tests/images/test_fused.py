"""The decoder in C: the same pixels, the same errors, and what it leaves to the other one."""

from __future__ import annotations

import io
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from images.jpegs import DHT, DQT, lossless, of_441, photo, without
from images.test_jpeg import NO_END, NOT_DECODED, PHOTO, STRAY
from PIL import Image, ImageFile, ImageOps

from shardkit.errors import DecodeError
from shardkit.images import fused
from shardkit.images import pixels as images
from shardkit.images.crops import DEFAULT_RANGE, RANDOM_DRAWS, BoxRange, random_box
from shardkit.images.decoder import DecodeOptions, ImageDecoder, Interpolation
from shardkit.native import load

needs_fused = pytest.mark.skipif(not fused.available("jpeg"), reason="shardkit was built without its JPEG decoder")


def picture(height: int, width: int, *, seed: int = 0, detail: int = 12) -> Image.Image:
    """Smooth colours with edges: noise, enlarged."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(2, height // detail), max(2, width // detail), 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    block, ImageFile.MAXBLOCK = ImageFile.MAXBLOCK, 1 << 22  # Pillow's first guess is too small for some images
    try:
        image.save(file, "JPEG", **{"quality": 90, **options})
    finally:
        ImageFile.MAXBLOCK = block
    return file.getvalue()


def straight(data: bytes, size: tuple[int, int, int], *, crop: str = "resize", headroom: float = 1e9) -> np.ndarray:
    """The image by the decoder in C, which has to take it."""
    out = np.full((1, *size), 99, np.uint8)
    settings = fused.FusedSettings(size, crop, False, headroom, 10**9)
    assert fused.decode_batch(settings, [data], out, None) == []
    return out[0]


def refusal(data: Any, **settings: Any) -> str:
    """Why the decoder in C leaves an image to the other one."""
    asked = {"size": (8, 8, 3), "crop": "resize", "flip": False, "headroom": 1.5, "max_pixels": 10**6, **settings}
    out = np.zeros((1, *asked["size"]), np.uint8)
    ((number, reason),) = fused.decode_batch(fused.FusedSettings(**asked), [data], out, None)
    assert number == 0
    return reason


@pytest.fixture
def short_vectors() -> Iterator[None]:
    """The loops that the decoder in C has for every processor."""
    module, _ = load("jpeg")
    module.allow_vectors(0)
    yield
    module.allow_vectors(2)


@needs_fused
@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("interpolation", get_args(Interpolation))
def test_longer_vectors_give_the_same_bits(interpolation: Any, exact: bool, color: Any, short_vectors: None) -> None:
    sizes = [(1, 1), (7, 5), (31, 6), (120, 117)]
    datas = [jpeg(picture(90 + 130 * i, 300 - 60 * i, seed=i, detail=3)) for i in range(4)]
    module, _ = load("jpeg")
    for size in sizes:
        for crop in ("resize", "random"):
            decoder = ImageDecoder(
                DecodeOptions(size=size, crop=crop, interpolation=interpolation, exact=exact, color=color)  # type: ignore[arg-type]
            )
            draws, found = decoder.draws(5, np.arange(len(datas))), []
            for most in (0, 1, 2):
                module.allow_vectors(most)
                found.append(np.empty((len(datas), *(decoder.shape or ())), np.uint8))
                assert decoder.batch_into(datas, found[-1], draws) == []
            np.testing.assert_array_equal(found[0], found[1])
            np.testing.assert_array_equal(found[0], found[2])


@pytest.fixture(params=["fused", "simplejpeg"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test with the decoder in C, where it is built, and without it."""
    if request.param == "simplejpeg":
        monkeypatch.setattr(fused, "available", lambda part="": False)
    elif not fused.available("jpeg"):
        pytest.skip("shardkit was built without its JPEG decoder")
    return str(request.param)


def test_build_info_says_which_decoder_is_in_use() -> None:
    info = fused.build_info()
    assert info["jpeg decoder"] == ("fused" if fused.available("jpeg") else "simplejpeg")
    assert ("libjpeg-turbo" in info) == fused.available("jpeg")
    assert ("reason" in info) == (not fused.available("jpeg"))


@needs_fused
@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=RANDOM_DRAWS, max_size=RANDOM_DRAWS),
    st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)),
    st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)),
)
def test_a_random_box_is_the_same_in_c_and_in_python(
    height: int, width: int, draws: list[float], scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    module, _ = load("jpeg")
    for limits in (DEFAULT_RANGE, BoxRange(tuple(sorted(scale)), tuple(sorted(ratio)))):  # type: ignore[arg-type]
        found = module.random_box(height, width, fused.box_numbers(limits), np.array(draws))
        assert found == random_box(height, width, draws, limits)


SAMPLINGS = ("444", "422", "420", "440", "411")


@needs_fused
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 9), (16, 16), (33, 65), (100, 61)])
def test_an_image_of_the_slot_s_size_is_decoded_as_libjpeg_does(sampling: str, height: int, width: int) -> None:
    pixels = np.ascontiguousarray(np.asarray(picture(height, width)))
    data = simplejpeg.encode_jpeg(pixels, 90, colorsubsampling=sampling)
    np.testing.assert_array_equal(straight(data, (height, width, 3)), simplejpeg.decode_jpeg(data))
    np.testing.assert_array_equal(straight(data, (height, width, 1)), simplejpeg.decode_jpeg(data, "GRAY"))


CODINGS: tuple[dict[str, Any], ...] = (
    {},
    {"optimize": True, "quality": 100},
    {"progressive": True},
    {"restart_marker_blocks": 1},
    {"restart_marker_blocks": 7, "subsampling": 2},
    {"restart_marker_rows": 1, "progressive": True},
    {"keep_rgb": True},
)


@needs_fused
@pytest.mark.parametrize("coding", CODINGS)
def test_every_coding_is_decoded_as_libjpeg_does(coding: dict[str, Any]) -> None:
    data = jpeg(picture(90, 131, detail=3), **coding)
    np.testing.assert_array_equal(straight(data, (90, 131, 3)), simplejpeg.decode_jpeg(data))
    gray = jpeg(picture(90, 131, detail=3).convert("L"), **{**coding, "subsampling": -1, "keep_rgb": False})
    np.testing.assert_array_equal(straight(gray, (90, 131, 1)), simplejpeg.decode_jpeg(gray, "GRAY"))
    np.testing.assert_array_equal(straight(gray, (90, 131, 3)), simplejpeg.decode_jpeg(gray))


@needs_fused
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("seed", range(12))
def test_a_crop_is_pillow_s_crop_and_antialiased_resize(sampling: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(20, 500, 2))
    size = tuple(int(side) for side in rng.integers(1, 200, 2))
    pixels = np.ascontiguousarray(np.asarray(picture(height, width, seed=seed)))
    data = simplejpeg.encode_jpeg(pixels, 90, colorsubsampling=sampling)
    decoded, draws = simplejpeg.decode_jpeg(data), rng.random((1, 1 + RANDOM_DRAWS))
    top, left, box_height, box_width = random_box(height, width, draws[0, 1:].tolist())
    expected = images.resize_exact(Image.fromarray(decoded), (top, left, box_height, box_width), size, "bilinear")
    if draws[0, 0] < 0.5:
        expected = expected[:, ::-1]
    out = np.empty((1, *size, 3), np.uint8)
    settings = fused.FusedSettings((*size, 3), "random", True, 1e9, 10**9)
    assert fused.decode_batch(settings, [data], out, draws) == []
    assert int(np.abs(out[0].astype(int) - expected).max()) <= 1


@needs_fused
@pytest.mark.parametrize(("size", "divisor"), [(100, 1), (60, 2), (30, 4), (15, 8), (3, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_target_is_decoded_at_a_smaller_scale(size: int, divisor: int, channels: int) -> None:
    data = jpeg(picture(200, 190))
    height, width = -(-200 // divisor), -(-190 // divisor)
    color = "GRAY" if channels == 1 else "RGB"
    decoded = simplejpeg.decode_jpeg(data, color, min_height=height, min_width=width, min_factor=1).squeeze()
    assert decoded.shape[:2] == (height, width)
    box = 0, 0, 200 / divisor, 190 / divisor
    expected = images.resize_exact(Image.fromarray(decoded), box, (size, size), "bilinear")
    found = straight(data, (size, size, channels), headroom=1.5)
    assert int(np.abs(found.astype(int) - expected).max()) <= 1


@needs_fused
def test_no_byte_of_a_slot_is_left_and_none_beside_it_is_touched() -> None:
    data, size = jpeg(picture(50, 70)), (13, 17, 3)
    out = np.full((3, *size), 77, np.uint8)
    settings = fused.FusedSettings(size, "center", False, 1.5, 10**6)
    assert fused.decode_batch(settings, [data], out[1:2], None) == []
    assert (out[0] == 77).all()
    assert (out[2] == 77).all()
    np.testing.assert_array_equal(out[1], straight(data, size, crop="center", headroom=1.5))


ODD: dict[str, tuple[Any, str]] = {
    "no data": (b"", "not a JPEG"),
    "another format": (b"GIF89a" + bytes(50), "not a JPEG"),
    "left out": (None, "left out"),
    "four colours": (jpeg(picture(30, 30).convert("CMYK")), "another colour space"),
    "cut": (jpeg(picture(300, 300))[:-2], "no end-of-image marker"),
    "header only": (jpeg(picture(30, 30))[:30], "no frame header"),
    "too many pixels": (jpeg(picture(30, 50)), "too many pixels"),
    "arithmetic coding": (jpeg(picture(30, 30)).replace(b"\xff\xc0\0\x11", b"\xff\xc9\0\x11"), "another coding"),
    "12 bits": (jpeg(picture(30, 30)).replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), "not 8 bits"),
}


@needs_fused
@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_left_to_the_other_decoder_with_the_reason(name: str) -> None:
    data, reason = ODD[name]
    limit = 1000 if name == "too many pixels" else 10**6
    assert refusal(data, max_pixels=limit) == reason


@needs_fused
def test_a_jpeg_with_too_many_scans_is_refused_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "MAX_SCANS", 3)
    assert refusal(jpeg(picture(100, 100), progressive=True)) == "more than 3 scans"


@needs_fused
def test_arguments_that_do_not_fit_are_refused() -> None:
    data, settings = jpeg(picture(30, 30)), fused.FusedSettings((8, 8, 3), "random", True, 1.5, 1000)
    out = np.empty((1, 8, 8, 3), np.uint8)
    for datas, slots, draws in (
        ([data], out, np.zeros((1, 5))),
        ([data], out, None),
        ([data, data], out, np.zeros((2, 23))),
        ([data], out[:, :, :, :2].copy(), np.zeros((1, 23))),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            fused.decode_batch(settings, datas, slots, draws)
    with pytest.raises(TypeError):
        fused.decode_batch(settings, ["text"], out, np.zeros((1, 23)))  # type: ignore[list-item]


@needs_fused
def test_an_image_is_decoded_alike_after_any_other() -> None:
    """The weights of an image serve the next one that needs the same."""
    datas = [jpeg(picture(*shape, seed=i)) for i, shape in enumerate([(40, 60), (40, 60), (60, 40), (40, 60), (9, 9)])]
    ways: list[dict[str, Any]] = [
        {"size": 24}, {"size": 24, "exact": True}, {"size": 24, "interpolation": "nearest"},
        {"size": (24, 12), "exact": True, "interpolation": "lanczos"}, {"size": 24, "color": "gray", "exact": True},
        {"size": 24, "interpolation": "bicubic", "flip": True}, {"size": 24, "crop": "random"},
    ]  # fmt: skip
    alone, together = [], []
    for way in (*ways, *reversed(ways)):
        decoder = ImageDecoder(DecodeOptions(**way))
        draws = decoder.draws(1, np.arange(len(datas)))
        together.append(np.empty((len(datas), *(decoder.shape or ())), np.uint8))
        assert decoder.batch_into(datas, together[-1], draws) == []
    other = ImageDecoder(DecodeOptions(size=3, interpolation="hamming"))
    for way in (*ways, *reversed(ways)):
        decoder = ImageDecoder(DecodeOptions(**way))
        draws = decoder.draws(1, np.arange(len(datas)))
        for i, data in enumerate(datas):
            other.array(datas[-1], None)
            alone.append(decoder.array(data, None if draws is None else draws[i]))
    for one, two in zip(alone, (image for batch in together for image in batch), strict=True):
        np.testing.assert_array_equal(one, two)


@needs_fused
def test_threads_do_not_disturb_each_other() -> None:
    datas = [jpeg(picture(60 + 7 * i, 90 + 5 * i, seed=i), progressive=i % 3 == 0) for i in range(24)]
    decoder = ImageDecoder(DecodeOptions(size=40, crop="random", flip=True))
    draws = decoder.draws(3, np.arange(24))

    def decoded(_: int) -> np.ndarray:
        out = np.empty((24, *(decoder.shape or ())), np.uint8)
        assert decoder.batch_into(datas, out, draws) == []
        return out

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(decoded, range(12))
    for other in others:
        np.testing.assert_array_equal(first, other)


BAD: dict[str, bytes] = {
    "empty": b"",
    "html": b"<!DOCTYPE html><html></html>",
    "zeros": bytes(2000),
    "cut in the header": jpeg(picture(90, 80))[:100],
    "cut in the pixels": jpeg(picture(90, 80))[:-200],
    "cut in the pixels, with an end mark": jpeg(picture(90, 80, detail=2))[:-2000] + b"\xff\xd9",
    "pixels overwritten": jpeg(picture(90, 80, detail=2))[:2000] + b"\xff\xd3" + jpeg(picture(90, 80, detail=2))[2002:],
    "a bomb of pixels": jpeg(picture(1100, 1000, detail=100)),
    "a bomb of scans": b"".join(
        (
            (data := jpeg(picture(16, 16), progressive=True))[: (scan := data.index(b"\xff\xda"))],
            data[scan : data.index(b"\xff\xc4", scan)] * 501,
            data[scan:],
        )
    ),
}
WORDS = {
    "a bomb of scans": "JPEG of more than 500 scans: a decompression bomb",
    "a bomb of pixels": "JPEG of 1000 x 1100 pixels, more than 1,000,000: a decompression bomb",
    "cut in the pixels": "JPEG truncated: no end-of-image marker",
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("size", [40, 80])
def test_bad_input_gives_the_same_words_either_way(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def words() -> str:
        decoder = ImageDecoder(DecodeOptions(size=size, max_pixels=1_000_000))
        with pytest.raises(DecodeError) as caught:
            decoder.array(BAD[name], None)
        return str(caught.value)

    first = words()
    monkeypatch.setattr(fused, "available", lambda part="": False)
    assert first == words()
    assert WORDS.get(name, "") in first


def test_a_cut_file_is_an_error_even_where_the_crop_has_its_rows(way: str) -> None:
    decoder = ImageDecoder(DecodeOptions(size=20, crop="random"))
    draws = np.zeros(1 + RANDOM_DRAWS)  # the top left corner
    data = jpeg(picture(300, 300, detail=3))
    decoder.array(data, draws)
    with pytest.raises(DecodeError, match="no end-of-image marker"):
        decoder.array(data[:-10], draws)


def test_bad_images_among_good_ones_are_told(way: str) -> None:
    good, decoder = jpeg(picture(60, 70)), ImageDecoder(DecodeOptions(size=32))
    datas = [good, BAD["html"], good, BAD["cut in the pixels"], jpeg(picture(60, 70).convert("CMYK"))]
    out = np.zeros((5, 32, 32, 3), np.uint8)
    assert [number for number, _ in decoder.batch_into(datas, out, None)] == [1, 3]
    np.testing.assert_array_equal(out[0], out[2])
    assert out[4].any()


@pytest.mark.parametrize("crop", ["resize", "center", "cover", "random", "random-cover"])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_either_way_differs_little_from_pillow(way: str, crop: Any, color: Any) -> None:
    datas = [jpeg(picture(150 + 60 * i, 420 - 50 * i, seed=i, detail=24)) for i in range(6)]
    asked: dict[str, Any] = {"size": (48, 56), "crop": crop, "flip": True, "color": color}
    fast, exact = ImageDecoder(DecodeOptions(**asked)), ImageDecoder(DecodeOptions(**asked, exact=True))
    draws = fast.draws(1, np.arange(6))
    found, expected = (np.empty((6, *(fast.shape or ())), np.uint8) for _ in range(2))
    assert fast.batch_into(datas, found, draws) == []
    assert exact.batch_into(datas, expected, draws) == []
    difference = np.abs(found.astype(int) - expected)
    assert difference.mean() < 1.5


@pytest.mark.parametrize("layout", ["hwc", "chw"])
@pytest.mark.parametrize(("dtype", "rescale"), [("uint8", None), (None, 1 / 255), ("float16", 2.0), ("float32", None)])
def test_every_dtype_and_layout_of_a_batch_holds_the_same_images(
    way: str, layout: Any, dtype: Any, rescale: float | None
) -> None:
    datas = [jpeg(picture(50 + i, 60, seed=i)) for i in range(11)]
    asked: dict[str, Any] = {"size": (20, 24), "crop": "random", "flip": True}
    plain = ImageDecoder(DecodeOptions(**asked))
    decoder = ImageDecoder(DecodeOptions(**asked, layout=layout, dtype=dtype, rescale=rescale))
    draws = plain.draws(5, np.arange(11))
    pixels = np.empty((11, 20, 24, 3), np.uint8)
    values = np.empty((11, *(decoder.shape or ())), decoder.dtype)
    assert plain.batch_into(datas, pixels, draws) == []
    assert decoder.batch_into(datas, values, draws) == []
    expected = pixels.astype(np.float32) * np.float32(1 if rescale is None else rescale)
    found = values if layout == "hwc" else values.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(found, expected.astype(decoder.dtype))


def test_images_that_are_to_be_turned_are_turned(way: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = [jpeg(picture(40, 60)), jpeg(picture(40, 60), exif=exif)]
    decoder = ImageDecoder(DecodeOptions(size=30, orientation=True))
    upright, turned = (decoder.array(one, None).astype(int) for one in data)
    assert np.abs(np.rot90(upright, -1) - turned).mean() < 3
    assert np.abs(upright - turned).mean() > 20


def test_one_image_is_decoded_as_in_a_batch(way: str) -> None:
    datas = [jpeg(picture(70, 90, seed=i)) for i in range(3)]
    decoder = ImageDecoder(DecodeOptions(size=33, crop="random", flip=True))
    draws = decoder.draws(9, np.arange(3))
    assert draws is not None
    out = np.empty((3, 33, 33, 3), np.uint8)
    assert decoder.batch_into(datas, out, draws) == []
    for data, row, expected in zip(datas, draws, out, strict=True):
        np.testing.assert_array_equal(decoder.array(data, row), expected)


FIRST = jpeg(picture(60, 70, seed=1), quality=30, optimize=True)


@pytest.mark.parametrize("options", [{"size": 32}, {"size": (60, 70)}, {"size": 32, "exact": True}])
@pytest.mark.parametrize("marker", [DHT, DQT])
@pytest.mark.parametrize("progressive", [False, True])
def test_an_image_without_tables_is_the_same_alone_and_after_another(
    way: str, options: Any, marker: int, progressive: bool
) -> None:
    """A Motion JPEG frame has the standard Huffman tables; without quantisation tables it is damaged."""
    data = without(photo(60, 70, progressive=progressive, quality=80), marker)
    decoder = ImageDecoder(DecodeOptions(**options))

    def told(datas: list[bytes]) -> tuple[str, bytes]:
        out = np.zeros((len(datas), *(decoder.shape or ())), np.uint8)
        failures = dict(decoder.batch_into(datas, out, None))
        assert set(failures) <= {len(datas) - 1}
        return str(failures.get(len(datas) - 1, "")), b"" if failures else out[-1].tobytes()

    alone = told([data])
    assert alone == told([FIRST, data]) == told([jpeg(picture(60, 70, seed=2), quality=99), data])
    assert bool(alone[0]) == (marker == DQT or progressive)
    if not alone[0]:
        difference = np.frombuffer(alone[1], np.uint8).astype(int) - np.frombuffer(told([whole_of(data)])[1], np.uint8)
        assert not difference.any()


def whole_of(frame: bytes) -> bytes:
    """The frame with the standard tables written out, as an encoder does that does not optimise."""
    whole = photo(60, 70, quality=80)
    assert without(whole, DHT) == frame
    return whole


@needs_fused
def test_tables_of_very_many_images_take_no_more_memory() -> None:
    """libjpeg would keep all of them as long as its object."""
    data = jpeg(picture(8, 8))
    straight(data, (8, 8, 3))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(20_000):
        straight(data, (8, 8, 3))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # KiB; 28 MB without


@pytest.mark.parametrize("options", [{}, {"size": 16}, {"size": (48, 64)}, {"size": (48, 64), "orientation": True}])
@pytest.mark.parametrize("names", [b"RGB", b"\1"])
def test_a_lossless_jpeg_is_decoded_within_its_memory(way: str, options: Any, names: bytes) -> None:
    """libjpeg-turbo writes all of its pixels at any scale."""
    data = lossless(48, 64, names=names)
    for exact in (False, True):
        decoder = ImageDecoder(DecodeOptions(**options, exact=exact))
        assert set(np.unique(decoder.array(data, None))) == {128}
    out = np.full((3, 16, 16, 3), 7, np.uint8)
    assert ImageDecoder(DecodeOptions(size=16)).batch_into([data], out[1:2], None) == []
    assert (out[[0, 2]] == 7).all()


@needs_fused
def test_a_lossless_jpeg_is_left_to_the_other_decoder() -> None:
    assert refusal(lossless(48, 64)) == "another coding"


ODD_ONES = {
    **{f"stray bytes {place}": data for place, data in STRAY.items()},
    **{f"no end mark, then {what}": data for what, data in NO_END.items()},
}


@pytest.mark.parametrize("name", ODD_ONES)
@pytest.mark.parametrize("options", [{}, {"size": 40}, {"size": (80, 120)}, {"size": 40, "exact": True}])
def test_what_libjpeg_reads_is_read_as_the_tidy_file_is(way: str, name: str, options: Any) -> None:
    decoder = ImageDecoder(DecodeOptions(**options))
    found, expected = (decoder.array(data, None).astype(int) for data in (ODD_ONES[name], PHOTO))
    assert np.abs(found - expected).mean() < 1.5  # the two fast ways of resizing differ


@pytest.mark.parametrize("options", [{}, {"size": 16}, {"size": (32, 8)}, {"size": 16, "exact": True}])
def test_an_odd_sampling_is_decoded(way: str, options: Any) -> None:
    assert set(np.unique(ImageDecoder(DecodeOptions(**options)).array(of_441(), None))) == {128}


@pytest.mark.parametrize("name", [*NOT_DECODED, *BAD])
def test_fast_and_exact_refuse_the_same_with_the_same_words(way: str, name: str) -> None:
    words = []
    for options in ({"size": 40}, {"size": 40, "exact": True}, {}, {"exact": True}):
        decoder = ImageDecoder(DecodeOptions(**options, max_pixels=1_000_000))  # type: ignore[arg-type]
        with pytest.raises(DecodeError) as caught:
            decoder.array({**NOT_DECODED, **BAD}[name], None)
        words.append(str(caught.value))
    assert len(set(words)) == 1
    assert name not in NOT_DECODED or name in words[0]


@pytest.mark.parametrize("size", [(60, 40), (40, 60)])  # as it is stored, and as it stands upright
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("exact", [False, True])
def test_an_image_of_exactly_the_target_size_is_turned_all_the_same(
    way: str, size: tuple[int, int], orientation: int, exact: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = jpeg(picture(60, 40))
    data = jpeg(picture(60, 40), exif=exif)
    whole = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    decoder = ImageDecoder(DecodeOptions(size=size, orientation=True, exact=exact))
    out = np.empty((3, *size, 3), np.uint8)
    assert decoder.batch_into([plain, data, plain], out, None) == []  # the others go the shortest way
    expected = images.resize_exact(Image.fromarray(whole), (0, 0, *whole.shape[:2]), size, "bilinear")
    assert np.abs(out[1].astype(int) - expected).mean() < 1.5
    np.testing.assert_array_equal(out[0], out[2])
