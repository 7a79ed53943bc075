"""The only access to Pillow's decoders: a list of allowed formats, no warnings, and errors as ValueErrors.

Only formats that Pillow decodes inside the process are opened. `Image.open` would try every plugin, whatever the file
is called: EPS starts Ghostscript, IPTC opens whatever it contains (EPS too), and BUFR, GRIB, HDF5, MPEG and WMF are
identified but not decoded. The plugins in `Image.OPEN` are tried here in turn, as `Image.open` does, since that drops
the reason why a plugin gave up ("unknown pixel mode") and has one pixel limit for the whole process.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from shardkit.errors import reason_of
from shardkit.images.kinds import band_count, other_kind, undecoded_kind
from shardkit.images.png import damage_in_png, without_notes

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 178_956_970
"""The maximum number of pixels: twice 89,478,485, above which Pillow refuses an image as a decompression bomb."""

FORMATS = (
    "BMP", "GIF", "JPEG", "PPM", "PNG", "DIB", "AVIF", "BLP", "CUR", "PCX", "DCX", "DDS", "FITS", "FLI", "FTEX", "GBR",
    "JPEG2000", "ICNS", "ICO", "TIFF", "MSP", "PIXAR", "PSD", "QOI", "SGI", "SUN", "WEBP", "XBM", "XPM",
    "XVTHUMB", "MCIDAS", "HEIF", "JXL", "IM", "IMT", "PCD", "SPIDER", "TGA",
)  # fmt: skip
"""The formats that may be opened: the usual ones first, those without a magic number last. HEIF and JPEG XL are
available only if the user has registered a plugin (pillow-heif, pillow-jxl-plugin)."""

_GIVES_UP = (SyntaxError, IndexError, TypeError, struct.error)  # a plugin that does not know the file after all
_TO_RGB = frozenset(("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F"))


@contextmanager
def open_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open an image with Pillow; its pixels are not yet decoded. In the block, Pillow's warnings are suppressed, and
    its exceptions become ValueErrors.

    ValueError with a short reason if it is not an image, is of a kind that is not decoded, is damaged, or has more
    than `max_pixels` pixels. A PNG is opened without its texts and colour profile, which could be too large.
    """
    with quiet_pillow(max_pixels):
        image = _open(without_notes(data), data, max_pixels)
        with image:
            try:
                yield image
            except MemoryError as exc:
                what = f"{image.format} of {image.width} x {image.height} pixels"
                raise ValueError(f"{what}: more memory is needed than is available") from exc
            except Exception as exc:  # Pillow's plugins raise nearly anything on damaged data
                reason = damage_in_png(data) or reason_of(exc)
                name = "JPEG" if image.format == "MPO" else image.format
                raise ValueError(f"damaged {name}: {reason}") from exc


def _open(content: bytes, original: bytes, max_pixels: int) -> Image.Image:
    from PIL import Image

    if kind := other_kind(original):
        raise ValueError(kind)
    try:
        found = _known(content)
    except Image.DecompressionBombError as exc:
        raise ValueError(f"decompression bomb: {reason_of(exc)}") from exc
    except Exception as exc:  # as above
        raise ValueError(f"damaged image: {damage_in_png(original) or reason_of(exc)}") from exc
    if isinstance(found, tuple):
        raise ValueError(_unknown(original, *found))
    if not 0 < found.width * found.height <= max_pixels:
        raise ValueError(bad_size(found.format or "image", found.width, found.height, max_pixels))
    if found.mode not in _TO_RGB and not found.mode.startswith(("I;", "BGR;")):
        raise ValueError(f"{found.format} in {found.mode} colours, which can't be converted to RGB")
    return found


def _known(content: bytes) -> Image.Image | tuple[str, str]:
    """The image, or (the format that gave up on the data, "" for none; the reason)."""
    from PIL import Image

    Image.preinit()
    failed = "", ""
    for name in FORMATS:
        if name not in Image.OPEN:
            Image.init()
        if name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[name]
        accepted: Any = False
        try:
            accepted = accept is None or accept(content[:16])
            if isinstance(accepted, str):  # the plugin is installed, but its library is missing
                failed = name, accepted
            elif accepted:
                image: Image.Image = factory(io.BytesIO(content), "")
                return image
        except _GIVES_UP as exc:
            if accepted and accept is not None:
                failed = name, reason_of(exc)
    return failed


def _unknown(data: bytes, name: str, reason: str) -> str:
    if kind := undecoded_kind(data):
        return kind
    if name == "PNG":
        return f"damaged PNG: {damage_in_png(data) or reason}"
    if name == "TIFF" and (bands := band_count(data)):
        return f"TIFF of {bands} band{'' if bands == 1 else 's'}, of a kind that can't be decoded ({reason})"
    if name:
        return f"{name} that can't be decoded ({reason})"
    return f"not an image (starts with {data[:8]!r})" if data.strip(b"\0") else "not an image (zero bytes only)"


def eight_bit(image: Image.Image) -> Image.Image:
    """Convert 16-bit gray by its high byte, as Pillow reads 16-bit RGB; Pillow's conversion to L would clip at 255.

    Older Pillows use mode I for 16 bits, with the same range. Floats (mode F) are clipped to 0 … 255.
    """
    import numpy as np
    from PIL import Image

    if image.mode == "F":
        return image.convert("L")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    return Image.fromarray((values.clip(0, 0xFFFF) >> 8).astype(np.uint8))


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Turn a Pillow image upright."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }  # fmt: skip
    return image if orientation == 1 else image.transpose(turns[orientation])


def bad_size(name: str, width: int, height: int, max_pixels: int) -> str:
    """Why an image of this size is refused."""
    if width <= 0 or height <= 0:
        return f"{name} of {width} x {height} pixels"
    return f"{name} of {width} x {height} pixels, more than {max_pixels:,}: a decompression bomb"


_quiet_lock = threading.Lock()
_quiet_depth = 0
_own_limit: int | None = None  # Pillow's MAX_IMAGE_PIXELS while it is raised


@contextmanager
def quiet_pillow(max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Ignore Pillow's warnings (odd metadata, many pixels) in the block. Several threads may be in it at once.

    `warnings.catch_warnings` would replace the process's whole list of filters, which threads would restore in the
    wrong order. Here one filter, for Pillow's modules only, is active while any thread is in the block. max_pixels:
    some plugins check Pillow's own limit, which is raised to this value meanwhile; `open_image` checks each by its
    own.
    """
    global _quiet_depth, _own_limit
    with _quiet_lock:
        _quiet_depth += 1
        # not only at the first entry: a test runner may have replaced the list since
        warnings.filterwarnings("ignore", module=r"PIL\.")
        entry = warnings.filters[0]
        if max_pixels > MAX_PIXELS:
            _raise_limit(max_pixels)
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                with suppress(ValueError):
                    warnings.filters.remove(entry)  # type: ignore[attr-defined]
                if _own_limit is not None:
                    from PIL import Image

                    Image.MAX_IMAGE_PIXELS, _own_limit = _own_limit, None


def _raise_limit(max_pixels: int) -> None:
    """Raise Pillow's own limit; Pillow refuses images above twice that limit."""
    from PIL import Image

    global _own_limit
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        _own_limit = Image.MAX_IMAGE_PIXELS if _own_limit is None else _own_limit
        Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)
