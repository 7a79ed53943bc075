from __future__ import annotations

import io
import mmap
import pickle
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from shardkit.errors import DecodeError, UsageError
from shardkit.images import pixels as images
from shardkit.images.crops import center_box, random_box
from shardkit.images.decoder import DecodeOptions, ImageDecoder

CROPS = ("resize", "center", "random")
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}


def scene(width: int, height: int) -> Image.Image:
    """Smooth waves, with a white and a black rectangle: something to see in every corner."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = [np.sin(9 * x + 3 * y), np.cos(8 * y - 2 * x), np.sin(11 * x * y)]
    pixels = np.stack([128 + 90 * wave for wave in waves], axis=2).astype(np.uint8)
    pixels[height // 8 : height // 4, width // 8 : width // 2] = 255
    pixels[height // 2 : height * 3 // 4, width * 3 // 4 : width * 7 // 8] = 0
    return Image.fromarray(pixels)


def encoded(image: Image.Image, name: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, name, **options)
    return stream.getvalue()


def decoded(data: bytes, position: int = 0, **options: Any) -> np.ndarray:
    decoder = ImageDecoder(DecodeOptions(**options))
    draws = decoder.draws(7, np.array([position]))
    return decoder.array(data, None if draws is None else draws[0])


def by_pillow(data: bytes, mode: str = "RGB") -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert(mode)).reshape(
        *reversed(Image.open(io.BytesIO(data)).size), -1
    )


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


PHOTO = encoded(scene(500, 375), quality=92)
SMALL = encoded(scene(32, 32))


# exact


@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("interpolation", FILTERS)
def test_exact_is_bit_equal_to_pillow(interpolation: str, crop: str, color: str) -> None:
    options = DecodeOptions(size=(90, 120), crop=crop, interpolation=interpolation, color=color, exact=True)
    decoder = ImageDecoder(options)
    draws = decoder.draws(7, np.array([5]))
    row = None if draws is None else draws[0]
    box = {
        "resize": lambda: (0, 0, 375, 500),
        "center": lambda: center_box(375, 500, (90, 120)),
        "random": lambda: random_box(375, 500, draws[0, 1:].tolist()),
    }[crop]()
    top, left, height, width = box
    image = Image.open(io.BytesIO(PHOTO)).convert("L" if color == "gray" else "RGB")
    expected = image.resize((120, 90), FILTERS[interpolation], box=(left, top, left + width, top + height))
    assert np.array_equal(decoder.array(PHOTO, row), np.asarray(expected).reshape(90, 120, -1))


def test_exact_without_size_is_pillow_s_whole_image() -> None:
    assert np.array_equal(decoded(PHOTO, exact=True), by_pillow(PHOTO))


# fast


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", [24, 60, 100, 224, (60, 300), 700])
def test_fast_differs_little_from_exact(size: Any, interpolation: str, crop: str) -> None:
    options = {"size": size, "crop": crop, "interpolation": interpolation}
    for position in range(3):
        fast = decoded(PHOTO, position, **options)
        assert mean_difference(fast, decoded(PHOTO, position, **options, exact=True)) < 2


@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
@pytest.mark.parametrize("crop", ["resize", "center"])
def test_geometry_does_not_shift_when_a_jpeg_is_decoded_at_a_smaller_scale(crop: str, divisor: int) -> None:
    """A bright spot's centre of mass lies where geometry says, to a fifth of a pixel, on a size no divisor divides."""
    height, width, size = 64 * divisor + 5, 96 * divisor + 7, 40
    pixels = np.zeros((height, width, 3), np.uint8)
    y, x = height // 2 - 9 * divisor, width // 2 + 11 * divisor
    pixels[y - 2 * divisor : y + 2 * divisor, x - 2 * divisor : x + 2 * divisor] = 255
    image = decoded(encoded(Image.fromarray(pixels), quality=95), size=size, crop=crop)[:, :, 1].astype(float)
    top, left, box_height, box_width = (
        (0, 0, height, width) if crop == "resize" else center_box(height, width, (40, 40))
    )
    image[image < 20] = 0  # ringing
    rows, columns = np.mgrid[0:size, 0:size] + 0.5
    assert (image * rows).sum() / image.sum() == pytest.approx((y - top) * size / box_height, abs=0.2)
    assert (image * columns).sum() / image.sum() == pytest.approx((x - left) * size / box_width, abs=0.2)


def test_an_image_of_the_target_size_is_its_own_pixels() -> None:
    assert np.array_equal(decoded(SMALL, size=32), by_pillow(SMALL))
    assert np.array_equal(decoded(SMALL, size=32, color="gray"), decoded(SMALL, color="gray"))


def test_without_size_the_whole_image_is_given() -> None:
    assert np.array_equal(decoded(PHOTO), by_pillow(PHOTO))
    assert decoded(PHOTO, layout="chw").shape == (3, 375, 500)
    assert decoded(PHOTO, color="gray").shape == (375, 500, 1)


@pytest.mark.parametrize("size", [1, 3, 500])
@pytest.mark.parametrize("pixels", [(1, 1), (1, 40), (40, 1), (3, 2)])
@pytest.mark.parametrize("crop", CROPS)
def test_very_small_images_are_decoded(crop: str, pixels: tuple[int, int], size: int) -> None:
    data = encoded(Image.new("RGB", pixels, (200, 100, 50)))
    assert np.abs(decoded(data, size=size, crop=crop).astype(int) - (200, 100, 50)).max() <= 3


# flip and chance


def test_a_flip_mirrors_every_second_image_or_so() -> None:
    plain = decoded(SMALL, size=32)
    decoder = ImageDecoder(DecodeOptions(size=32, flip=True))
    draws = decoder.draws(1, np.arange(1000))
    out = np.empty((1000, *decoder.shape), np.uint8)
    assert decoder.batch_into([SMALL] * 1000, out, draws) == []
    mirrored = (out == plain[:, ::-1]).all(axis=(1, 2, 3))
    assert ((out == plain).all(axis=(1, 2, 3)) ^ mirrored).all()
    assert np.array_equal(mirrored, draws[:, 0] < 0.5)
    assert 430 < mirrored.sum() < 570


@pytest.mark.parametrize("options", [{"size": 50}, {}, {"size": 50, "exact": True}, {"size": 50, "layout": "chw"}])
def test_a_flip_is_the_mirrored_image_in_every_mode(options: dict[str, Any]) -> None:
    plain = ImageDecoder(DecodeOptions(**options)).array(PHOTO, None)
    flipped = ImageDecoder(DecodeOptions(**options, flip=True)).array(PHOTO, np.array([0.4]))
    assert np.array_equal(flipped, np.flip(plain, 2 if "layout" in options else 1))
    assert np.array_equal(ImageDecoder(DecodeOptions(**options, flip=True)).array(PHOTO, np.array([0.5])), plain)


def test_draws_are_a_function_of_key_and_position_only() -> None:
    decoder = ImageDecoder(DecodeOptions(size=32, crop="random", flip=True))
    every = decoder.draws(3, np.arange(100))
    assert np.array_equal(decoder.draws(3, np.array([70, 5, 70])), every[[70, 5, 70]])
    assert not (decoder.draws(4, np.arange(100)) == every).any()
    assert len(np.unique(every)) == every.size
    assert decoder.draws(3, np.array([10**12])).shape == (1, every.shape[1])
    only_flip = ImageDecoder(DecodeOptions(flip=True))
    assert np.array_equal(only_flip.draws(3, np.arange(100))[:, 0], every[:, 0])
    assert ImageDecoder(DecodeOptions(size=32)).draws(3, np.arange(100)) is None


def test_the_first_draws_are_pinned() -> None:
    draws = ImageDecoder(DecodeOptions(size=32, crop="random")).draws(1, np.array([0, 1]))
    assert draws.shape == (2, 23)
    assert draws[:, :3].round(6).tolist() == [[0.566562, 0.745782, 0.971003], [0.397169, 0.438987, 0.253273]]


def test_threads_and_order_do_not_change_an_image() -> None:
    decoder = ImageDecoder(DecodeOptions(size=64, crop="random", flip=True))
    datas = [encoded(scene(100 + 7 * i, 90 + 5 * i)) for i in range(12)] * 4
    draws = decoder.draws(2, np.arange(48))
    together = np.empty((48, 64, 64, 3), np.uint8)
    assert decoder.batch_into(datas, together, draws) == []
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(decoder.array, reversed(datas), draws[::-1]))
    assert np.array_equal(together, np.stack(alone[::-1]))


# dtype and layout


@pytest.mark.parametrize("data", [PHOTO, SMALL])
@pytest.mark.parametrize("layout", ["hwc", "chw"])
@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize(
    ("dtype", "rescale"),
    [("uint8", None), ("float16", None), ("float32", None), ("float16", 1 / 255), ("float32", 1 / 255)],
)
def test_every_dtype_and_layout_holds_the_same_image(
    data: bytes, layout: str, color: str, dtype: str, rescale: float | None
) -> None:
    plain = decoded(data, size=(32, 48), color=color)
    found = decoded(data, size=(32, 48), color=color, layout=layout, dtype=dtype, rescale=rescale)
    expected = plain if layout == "hwc" else plain.transpose(2, 0, 1)
    if rescale:
        expected = expected.astype(np.float32) * np.float32(rescale)
    assert found.dtype == dtype
    assert found.flags.c_contiguous
    assert np.array_equal(found, expected.astype(dtype))
    assert ImageDecoder(DecodeOptions(size=(32, 48), color=color, layout=layout)).shape == found.shape


def test_rescale_implies_float32() -> None:
    image = decoded(SMALL, size=32, rescale=1 / 255)
    assert image.dtype == np.float32
    assert 0 <= image.min() < image.max() <= 1


# other formats and odd images


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("JPEG", "CMYK", {}),
        ("JPEG", "L", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "RGB", {"subsampling": 0}),
        ("JPEG", "RGB", {"keep_rgb": True}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("PNG", "P", {}),
        ("PNG", "P", {"transparency": b"\0\x80\xff"}),
        ("PNG", "1", {}),
        ("GIF", "P", {"save_all": True, "append_images": [Image.new("P", (500, 375), 7)]}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGB", {"save_all": True, "append_images": [Image.new("RGB", (500, 375), 7)]}),
        ("TIFF", "RGB", {}),
        ("TIFF", "CMYK", {}),
        ("BMP", "RGB", {}),
    ],
)
def test_an_odd_image_is_what_pillow_s_convert_makes_of_it(name: str, mode: str, options: dict[str, Any]) -> None:
    image = scene(500, 375).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((500, 375)))
    data = encoded(image.convert(mode), name, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = by_pillow(data)
    assert np.array_equal(decoded(data), expected)
    assert np.array_equal(decoded(data, exact=True), expected)
    sized = decoded(data, size=80)
    assert mean_difference(sized, decoded(data, size=80, exact=True)) < 2.5


def test_an_odd_jpeg_of_the_target_size_among_others_is_still_seen() -> None:
    datas = [SMALL, encoded(scene(32, 32).convert("CMYK")), SMALL, encoded(scene(32, 32), "PNG"), SMALL]
    out = np.empty((5, 32, 32, 3), np.uint8)
    assert ImageDecoder(DecodeOptions(size=32)).batch_into(datas, out, None) == []
    for data, image in zip(datas, out, strict=True):
        assert np.array_equal(image, by_pillow(data))


@pytest.mark.parametrize("name", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_and_not_clipped(name: str) -> None:
    ramp = np.linspace(0, 65535, 256 * 16).round().astype(np.uint16).reshape(16, 256)
    data = encoded(Image.fromarray(ramp), name)
    for options in ({}, {"exact": True}, {"size": (16, 256)}):
        found = decoded(data, **options)
        assert np.array_equal(found, np.repeat((ramp >> 8).astype(np.uint8)[:, :, None], 3, axis=2))
    assert np.array_equal(decoded(data, color="gray")[:, :, 0], ramp >> 8)


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured_where_asked(orientation: int, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(scene(120, 80), name, exif=exif)
    image = Image.open(io.BytesIO(data))
    upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(decoded(data, orientation=True), upright)
    assert np.array_equal(decoded(data, orientation=True, exact=True), upright)
    assert np.array_equal(decoded(data), np.asarray(image))
    for size in ((80, 120), 30):  # the stored size, and one by DCT scaling
        fast = decoded(data, orientation=True, size=size)
        assert mean_difference(fast, decoded(data, orientation=True, size=size, exact=True)) < 2.5


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
def test_damaged_exif_data_means_no_rotation(exif: bytes) -> None:
    data = encoded(scene(40, 30), exif=exif) if exif else encoded(scene(40, 30))
    assert decoded(data, orientation=True).shape == (30, 40, 3)


# damage


def png_claiming(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def jpeg_claiming(width: int, height: int) -> bytes:
    at = SMALL.index(b"\xff\xc0") + 5
    return SMALL[:at] + struct.pack(">HH", height, width) + SMALL[at + 4 :]


NOISE = encoded(Image.effect_noise((64, 64), 90))
DAMAGED = [
    (b"", "empty file"),
    (b"<html>not found</html>", "HTML, not an image"),
    (b"some text", "not an image (starts with b'some tex')"),
    (bytes(1000), "not an image (zero bytes only)"),
    (PHOTO[:-20], "JPEG truncated: no end-of-image marker"),
    (PHOTO[:5000], "JPEG truncated: no end-of-image marker"),
    (PHOTO[:100], "JPEG truncated inside its header"),
    (encoded(scene(64, 64), "PNG")[:-30], "PNG truncated: no end chunk (IEND)"),
    (png_claiming(50_000, 50_000), "PNG of 50000 x 50000 pixels, more than 178,956,970: a decompression bomb"),
    (jpeg_claiming(50_000, 50_000), "JPEG of 50000 x 50000 pixels, more than 178,956,970: a decompression bomb"),
]


@pytest.mark.parametrize("options", [{}, {"size": 32}, {"size": 224, "crop": "center"}, {"size": 32, "exact": True}])
@pytest.mark.parametrize(("data", "reason"), DAMAGED)
def test_what_can_t_be_decoded_is_an_error_with_the_reason(data: bytes, reason: str, options: dict[str, Any]) -> None:
    with pytest.raises(DecodeError) as caught:
        decoded(data, **options)
    assert caught.value.fact == reason
    assert caught.value.place == ""
    assert "on_error" in caught.value.cure


def test_a_jpeg_cut_inside_its_pixels_is_an_error_even_with_an_end_mark() -> None:
    with pytest.raises(DecodeError, match=r"damaged JPEG: .*remature end"):
        decoded(NOISE[: len(NOISE) // 2] + b"\xff\xd9", size=32)


def test_a_png_cut_inside_its_pixels_is_an_error() -> None:
    data = encoded(Image.effect_noise((64, 64), 90), "PNG")
    with pytest.raises(DecodeError, match="damaged PNG"):
        decoded(data[: len(data) // 2] + data[-12:], size=32)


def test_a_smaller_limit_of_pixels_holds_for_every_format() -> None:
    for name in ("JPEG", "PNG", "TIFF"):
        data = encoded(scene(40, 30), name)
        with pytest.raises(DecodeError, match=r"40 x 30 pixels, more than 1,199"):
            decoded(data, size=32, max_pixels=1199)
        assert decoded(data, size=32, max_pixels=1200).shape == (32, 32, 3)


def test_harmless_bytes_between_segments_are_no_damage() -> None:
    at = PHOTO.index(b"\xff\xda")
    assert np.array_equal(decoded(PHOTO[:at] + b"\0\0" + PHOTO[at:]), by_pillow(PHOTO))


def test_a_batch_tells_which_images_failed_and_decodes_the_others() -> None:
    decoder = ImageDecoder(DecodeOptions(size=32))
    datas = [SMALL, b"", SMALL[:-10], SMALL, SMALL[:300] + SMALL[320:], SMALL]
    out = np.zeros((6, 32, 32, 3), np.uint8)
    failures = decoder.batch_into(datas, out, None)
    assert [i for i, _ in failures][:2] == [1, 2]
    assert all(isinstance(error, DecodeError) for _, error in failures)
    for i in (0, 3, 5):
        assert np.array_equal(out[i], by_pillow(SMALL))


def test_any_damaged_byte_gives_an_image_or_a_decode_error() -> None:
    rng = np.random.default_rng(1)
    decoder = ImageDecoder(DecodeOptions(size=32, orientation=True))
    out = np.empty((1, 32, 32, 3), np.uint8)
    failed = 0
    for name in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        whole = encoded(scene(40, 40), name)
        for _ in range(60):
            data = bytearray(whole)
            data[rng.integers(0, min(len(data), 300))] = rng.integers(0, 256)
            failures = decoder.batch_into([bytes(data)], out, None)
            failed += len(failures)
            assert all(isinstance(error, DecodeError) for _, error in failures)
    assert failed > 0


# input and values


def test_a_view_of_a_mapped_file_is_decoded_as_bytes_are(tmp_path: Path) -> None:
    for name in ("JPEG", "PNG"):
        data = encoded(scene(32, 32), name)
        path = tmp_path / name
        path.write_bytes(b"xxx" + data * 2 + b"yyy")
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as view,
        ):
            for options in ({"size": 32}, {"size": 20, "orientation": True}, {"size": 20, "exact": True}):
                decoder = ImageDecoder(DecodeOptions(**options))
                out = np.empty((2, *decoder.shape), np.uint8)
                # mmap.close, at the end, refuses to run while anything holds a view
                with view[3 : 3 + len(data)] as first, view[3 + len(data) : -3] as second:
                    assert decoder.batch_into([first, second], out, None) == []
                assert np.array_equal(out[0], decoded(data, **options))
                assert np.array_equal(out[0], out[1])


def test_a_decoder_survives_pickling() -> None:
    decoder = pickle.loads(pickle.dumps(ImageDecoder(DecodeOptions(size=20, dtype="float16", layout="chw"))))
    assert decoder.shape == (3, 20, 20)
    assert decoder.array(PHOTO, None).dtype == np.float16


def test_shape_and_dtype_are_known_beforehand() -> None:
    assert ImageDecoder(DecodeOptions()).shape is None
    assert ImageDecoder(DecodeOptions(size=(10, 20))).shape == (10, 20, 3)
    assert ImageDecoder(DecodeOptions(size=(10, 20), layout="chw", color="gray")).shape == (1, 10, 20)
    assert ImageDecoder(DecodeOptions(size=8, rescale=1 / 255)).dtype == np.float32


def test_a_slot_needs_a_size() -> None:
    with pytest.raises(UsageError, match="without a size"):
        ImageDecoder(DecodeOptions()).into(SMALL, np.empty((32, 32, 3), np.uint8), None)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 0}, "size: 0 is neither a number of pixels nor"),
        ({"size": -5}, "size: -5"),
        ({"size": 2.5}, "size: 2.5"),
        ({"size": True}, "size: True"),
        ({"size": (1, 2, 3)}, r"size: \(1, 2, 3\)"),
        ({"size": "224"}, "size: '224'"),
        ({"crop": "middle", "size": 3}, "crop: 'middle' is not one of 'resize', 'center', 'cover', 'random'"),
        ({"crop": "center"}, "crop: 'center' needs a size"),
        ({"crop": []}, r"crop: \[\]"),
        (
            {"interpolation": "linear"},
            "interpolation: .*'nearest', 'bilinear', 'bicubic', 'area', 'hamming', 'lanczos'",
        ),
        ({"color": "bgr"}, "color: .*'rgb', 'gray'"),
        ({"dtype": "int8"}, "dtype: .*'uint8', 'float16', 'bfloat16', 'float32'"),
        ({"dtype": "uint8", "rescale": 0.5}, "rescale: dtype=.uint8. has no room"),
        ({"rescale": 0}, "rescale: 0"),
        ({"rescale": float("nan")}, "rescale: nan"),
        ({"rescale": "1/255"}, "rescale: '1/255' is not a number"),
        ({"layout": "nchw"}, "layout: .*'hwc', 'chw'"),
        ({"label": "categorical"}, "label: .*'int', 'onehot', 'binary'"),
        ({"on_error": "ignore"}, "on_error: .*'raise', 'skip'"),
        ({"skip_limit": -1}, "skip_limit: -1"),
        ({"max_pixels": 0}, "max_pixels: 0"),
        ({"flip": "yes"}, "flip: 'yes' is not True or False"),
        ({"flip": np.array(["vertical", "both"])}, "flip: array.* is not True or False"),
        ({"crop": np.array(["pad", "center"]), "size": 3}, "crop: array.* is not one of"),
        ({"crop": "pad", "size": 3, "padding": 1, "fill": np.array([1, 2, 3])}, "fill: array.* is neither a value"),
        ({"crop": "random", "size": 3, "ratio": (1, 10**400)}, "ratio: .* is not \\(low, high\\)"),
        ({"mean": [[1, 2], [3]]}, r"mean: \[\[1, 2\], \[3\]\] is neither a number nor one for each of 3 channels"),
        ({"rescale": 10**400}, "rescale: 10+ would make all values equal"),
        ({"rescale": 1e-50}, "rescale: 1e-50 makes all values equal in float32"),
        ({"rescale": 1e39}, "rescale: .* gives values that float32 can't hold; give other numbers for rescale"),
        ({"rescale": 1000, "dtype": "float16"}, "rescale: 1000 gives values that float16 can't hold"),
        ({"mean": 1e6, "dtype": "float16"}, "mean: .* gives values that float16 can't hold"),
        ({"mean": 0.5, "std": 1e-50}, "std: .* can't hold; give other numbers for mean, std, or another dtype"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_with_what_is_allowed(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        DecodeOptions(**options)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("shrink", [0.4, 1.0, 1.25, 2.5, 4.0])
@pytest.mark.parametrize(("top", "left"), [(16.25, 9.75), (0.25, 0.5), (3.25, 3.5), (31.75, 39.5)])
def test_a_box_gets_the_surroundings_that_its_filter_reaches(
    interpolation: str, shrink: float, top: float, left: float
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    box, out = (top, left, 8 * shrink, 6 * shrink), np.zeros((8, 6, 3), np.uint8)
    images.resize_into(pixels, box, out, interpolation)
    whole = images.resize_exact(Image.fromarray(pixels), box, (8, 6), interpolation)
    assert np.abs(out.astype(int) - whole).max() <= 1


@pytest.mark.parametrize("interpolation", FILTERS)
def test_a_box_of_the_target_size_is_copied(interpolation: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 1), np.uint8)
    out = np.zeros((8, 6, 1), np.uint8)
    images.resize_into(pixels, (3, 5, 8, 6), out, interpolation)
    assert (out == pixels[3:11, 5:11]).all()


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("crop", CROPS)
def test_only_a_jpeg_decoded_at_a_smaller_scale_differs_from_exact(interpolation: str, crop: str) -> None:
    picture = encoded(Image.open(io.BytesIO(PHOTO)).convert("RGB"), "PNG")
    options = {"size": (60, 90), "crop": crop, "interpolation": interpolation, "flip": True}
    assert (decoded(picture, **options) == decoded(picture, **options, exact=True)).all()


@pytest.mark.parametrize("shape", [(3, 4, 3), (3, 5, 1), (1, 1, 3)])
def test_a_flip_is_in_place(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    flipped = pixels.copy()
    images.flip(flipped)
    assert (flipped == pixels[:, ::-1]).all()


def test_without_random_numbers_nothing_is_flipped() -> None:
    data = encoded(Image.effect_noise((32, 32), 90).convert("RGB"))
    for crop in ("resize", "center"):
        plain, out = np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 32, 32, 3), np.uint8)
        assert ImageDecoder(DecodeOptions(size=32, crop=crop)).batch_into([data] * 2, plain, None) == []
        assert ImageDecoder(DecodeOptions(size=32, crop=crop, flip=True)).batch_into([data] * 2, out, None) == []
        assert (out == plain).all()


def test_a_jpeg_that_goes_straight_into_its_slot_has_the_exact_transform_and_smooth_colours() -> None:
    import simplejpeg

    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    data = encoded(Image.fromarray(pixels), quality=95, subsampling="4:2:0")
    slot = np.zeros((32, 48, 3), np.uint8)
    assert images.straight_decoder(gray=False)(data, slot)
    expected = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    assert (slot == expected).all()
    for faster in ({"fastdct": True}, {"fastupsample": True}):
        assert (simplejpeg.decode_jpeg(data, "RGB", **faster) != expected).any()
