"""What one look at an image says of it, for an index: a perceptual hash, brightness, sharpness and entropy.

All are of its luma at about 1/8 of its size: at 1/8, 1/4 or 1/2 if at least GRID pixels are left each way, else whole.
The scales are libjpeg's, by DCT scaling; images of other formats are averaged. The C decoder (pixels/quality.h) gives
the same bits for JPEGs, several times as fast; what it does not take, Pillow does.

    phash       the image's 64 bits: the signs of the lowest frequencies of its DCT over GRID x GRID cells, in the order
                of their sum, the mean left out; bit 0 first. Images that look alike differ in few bits (the idea of
                pHash: Zauner 2010, "Implementation and benchmarking of perceptual image hash functions"). 0 if all is
                one colour
    brightness  the mean, 0 (black) to 1 (white)
    sharpness   how much rougher neighbours are than a smooth surface: (4 a / b - 1) / 3 with the mean squared
                differences a of neighbours and b of the pixels two apart. 0 for a smooth ramp, 1 for noise; contrast
                does not matter
    entropy     of the distribution of the 256 values, in bits: 0 for one colour, 8 at most
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from shardkit.images.header import image_header
from shardkit.images.jpeg import MAX_SCANS, can_be_scaled, tidy
from shardkit.images.orientation import orientation_by_pillow, orientation_in
from shardkit.images.pillow import MAX_PIXELS, eight_bit, open_image
from shardkit.native import load

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

Buffer = bytes | memoryview

GRID = 32
HASH_BITS = 64
HASH_SIDE = 11
CELL_SCALE = 16
COSINE = 4096
"""As in native/include/pixels/quality.h."""

SCALES = (8, 4, 2, 1)


class Quality(NamedTuple):
    """Of one image; what each is, is above. phash: 0 to 2⁶⁴ - 1. The others are 32-bit floats."""

    phash: int
    brightness: float
    sharpness: float
    entropy: float


def quality(data: Buffer) -> Quality:
    """The quality of an image file. ValueError with a short reason if it can't be decoded."""
    found = _by_c(data, grid=False)
    return plain_quality(bytes(data)) if found is None else Quality(*found)


def _by_c(data: Buffer, *, grid: bool) -> Any:
    """What the C decoder says of a JPEG; None if it is not there, or does not take the image."""
    module = load("jpeg")[0]
    if module is None or data[:2] != b"\xff\xd8":
        return None
    found = module.quality(data, orientation_in(data) or 1, float(MAX_PIXELS), MAX_SCANS, grid)
    return None if isinstance(found, str) else found


def grid_of(data: Buffer) -> NDArray[np.uint16]:
    """The grid that an image's hash is made from, upright: the means of GRID x GRID cells in whole 1/CELL_SCALE, shape
    (GRID, GRID). ValueError as `quality`."""
    import numpy as np

    found = _by_c(data, grid=True)
    if found is not None:
        return np.frombuffer(found, np.uint16).reshape(GRID, GRID)
    picture, scale, size, orientation = small_gray(bytes(data))
    cells = _upright(_grid(np.asarray(picture, np.int64), scale, size), orientation)
    return np.asarray(cells, np.uint16)


def plain_quality(data: bytes) -> Quality:
    """As `quality`, without the C extension."""
    picture, scale, size, orientation = small_gray(data)
    return quality_of(picture, scale, size, orientation)


def small_gray(data: bytes) -> tuple[Any, int, tuple[int, int], int]:
    """(the luma at a scale, uint8 (rows, columns); the scale 1, 2, 4 or 8; the image's (height, width) as stored; its
    orientation). ValueError as `quality`."""
    import numpy as np

    content = data
    if image_header(content, decode_rare=False)[0] == "JPEG":
        content = tidy(content)
    with open_image(content) as image:
        width, height = image.size
        scale = scale_of(height, width)
        if can_be_scaled(content):
            image.draft("L", (GRID, GRID))
        image.load()
        told = orientation_in(data)
        if told is None:  # Pillow has turned a TIFF
            told = 1 if image.format == "TIFF" else orientation_by_pillow(image)
        if image.format == "TIFF":
            width, height = image.size
        gray = _gray(image)
        if gray.size == (width, height):
            gray = gray.reduce(scale)
        return np.asarray(gray), scale, (height, width), told


def scale_of(height: int, width: int) -> int:
    """The divisor of the small picture of an image."""
    return next(scale for scale in SCALES if min(height, width) >= scale * GRID or scale == 1)


def _gray(image: Image.Image) -> Image.Image:
    plain = eight_bit(image)
    return plain if plain.mode == "L" else plain.convert("RGB").convert("L")


def quality_of(picture: Any, scale: int, size: tuple[int, int], orientation: int = 1) -> Quality:
    """The quality of a small gray picture, uint8 (rows, columns), whose image has the (height, width) `size`."""
    import numpy as np

    values = np.asarray(picture, np.int64)
    counts = np.bincount(values.reshape(-1), minlength=256).tolist()
    count = values.size
    total = sum(value * times for value, times in enumerate(counts))
    information = 0.0
    for times in counts:
        if times:
            information += times * math.log2(times)
    return Quality(
        hash_of(_grid(values, scale, size), orientation),
        float(np.float32(float(total) / float(255 * count))),
        float(np.float32(_sharpness(values))),
        float(np.float32(math.log2(count) - information / count)),
    )


def _sharpness(values: Any) -> float:
    near, far = _roughness(values, 1), _roughness(values, 2)
    if far <= 0:
        return 1.0 if near > 0 else 0.0
    return min(max((4 * near / far - 1) / 3, 0.0), 1.0)


def _roughness(values: Any, step: int) -> float:
    """The mean squared difference of pixels `step` apart in rows and in columns of three or more, added."""
    found = 0.0
    for lines in (values, values.T):
        if lines.shape[1] > 2:
            differences = lines[:, step:] - lines[:, :-step]
            found += float((differences * differences).sum()) / float(differences.size)
    return found


def _grid(values: Any, scale: int, size: tuple[int, int]) -> Any:
    """The mean of each of GRID x GRID cells of the image, in whole 1/CELL_SCALE."""
    (height, width), (rows, columns) = size, values.shape
    return _shares(rows, scale, height) @ values @ _shares(columns, scale, width).T * CELL_SCALE // (height * width)


def _shares(pixels: int, scale: int, size: int) -> Any:
    """What cells (rows of the result) and pixels (columns) have in common of `size` rows of the image, times GRID."""
    import numpy as np

    begin = np.arange(pixels, dtype=np.int64) * scale * GRID
    end = np.minimum(begin + scale * GRID, size * GRID)
    low = np.arange(GRID, dtype=np.int64)[:, None] * size
    return np.maximum(np.minimum(end, low + size) - np.maximum(begin, low), 0)


def hash_of(grid: Any, orientation: int = 1) -> int:
    """The perceptual hash of a grid, int64 (GRID, GRID), of an image with this EXIF orientation."""
    import numpy as np

    upright = _upright(grid, orientation)
    waves = np.array(
        [[_cosine((2 * x + 1) * u) for x in range(GRID)] for u in range(HASH_SIDE)],
        np.int64,
    )
    values = waves @ upright @ waves.T
    signs = [int(values[u, sum_ - u] > 0) for sum_ in range(1, HASH_SIDE) for u in range(sum_ + 1)]
    return sum(sign << bit for bit, sign in enumerate(signs[:HASH_BITS]))


def _upright(grid: Any, orientation: int) -> Any:
    found = grid.T if orientation >= 5 else grid
    if orientation in (3, 4, 7, 8):
        found = found[::-1]
    return found[:, ::-1] if orientation in (2, 3, 6, 7) else found


def _cosine(steps: int) -> int:
    return round(COSINE * math.cos(math.pi * steps / (2 * GRID)))
