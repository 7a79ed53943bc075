"""Samples: a key with fields (named byte strings), and how a file name maps to a key and a field.

The rule for members is WebDataset's: the key is the name up to the first dot of its base name, the field is what
follows, in lower case; a member or top folder whose whole name is `__x__` is metadata and holds no samples.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AnySample = dict[str, Any]
"""`__key__` (str), `__url__` (str, the shard), and each field by its name: bytes, or the value that its decoder
returned."""

if TYPE_CHECKING:
    # The sample is a dict, whose other fields a TypedDict would refuse; so a type checker gets a dict with the types
    # of its fields, and help() a TypedDict that describes them.

    class Sample(dict[str, Any]):
        """A sample that is not decoded: see its description below."""

        @overload
        def __getitem__(self, field: Literal["__key__", "__url__"], /) -> str: ...
        @overload
        def __getitem__(self, field: Literal["cls"], /) -> int: ...
        @overload
        def __getitem__(self, field: str, /) -> Any: ...
        def __getitem__(self, field: str, /) -> Any:
            """A field of the sample."""

        def __or__(self, fields: Mapping[str, Any], /) -> Sample:  # type: ignore[override]
            """The sample with these fields."""

    class DecodedSample(dict[str, Any]):
        """A decoded sample: see its description below."""

        @overload
        def __getitem__(self, field: Literal["__key__", "__url__"], /) -> str: ...
        @overload
        def __getitem__(
            self, field: Literal["jpg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm"], /
        ) -> NDArray[Any]: ...
        @overload
        def __getitem__(self, field: str, /) -> Any: ...
        def __getitem__(self, field: str, /) -> Any:
            """A field of the sample."""

        def __or__(self, fields: Mapping[str, Any], /) -> DecodedSample:  # type: ignore[override]
            """The sample with these fields."""

else:

    class Sample(TypedDict, total=False):
        """A sample as it is stored: a dict with its key, the shard that it is in, its label, and its fields as bytes.

        `__key__` and `__url__` (str) are in every sample. cls: the class number, if it has one. Each other field has
        the name of its extension: `jpg`, `png`, `json`, `txt` …. `__repeat__`: True in a repeated sample that fills up
        a rank's part.
        """

        __key__: str
        __url__: str
        __repeat__: bool
        cls: int
        jpg: bytes
        json: bytes
        txt: bytes

    class DecodedSample(TypedDict, total=False):
        """A sample after `decode()`: a dict as before, with the image as an array and other fields decoded.

        The image is (height, width, channels), or (channels, height, width) with layout="chw". cls: an int, or the
        array that `decode(label=)` asks for. json: what the document holds; txt: a str; npy: an array. Fields without a
        decoder remain bytes.
        """

        __key__: str
        __url__: str
        __repeat__: bool
        cls: int | NDArray[np.float32]
        jpg: NDArray[Any]
        json: Any
        txt: str


DEFAULT_EXTENSIONS = (
    "apng", "avif", "avifs", "blp", "bmp", "bw", "cur", "dcx", "dds", "dib", "fit", "fits", "flc", "fli", "ftc",
    "ftu", "gbr", "gif", "icb", "icns", "ico", "im", "j2c", "j2k", "jfif", "jp2", "jpc", "jpe", "jpeg",
    "jpf", "jpg", "jpx", "msp", "pbm", "pcd", "pcx", "pfm", "pgm", "png", "pnm", "ppm", "psd", "pxr", "qoi",
    "ras", "rgb", "rgba", "sgi", "tga", "tif", "tiff", "vda", "vst", "webp", "xbm", "xpm",
)  # fmt: skip
"""The extensions of the image types that are decoded (images/pillow.py), without a dot; not those that Pillow only
identifies, or reads with the help of other programs (bufr, emf, eps, grib, h5, hdf, iim, mpeg, ps, wmf). A test
compares the list with Pillow's.
"""

IMAGE_FIELDS = frozenset(DEFAULT_EXTENSIONS)
"""The fields that hold an image. shardkit writes `jpg` for `jpeg`; shards from other tools may have either."""


MAX_LABEL = 10_000_000
"""A larger label is treated as damage: a class map of that size would not fit in a manifest."""

MAX_KEY_BYTES = 8000
"""The longest key that is written. Twice as many bytes, if each is a backslash that a path doubles, fit the limit of
`shards/index.TEXT_BYTES` for readers; the path of a file has 4,096 at most."""


NO_LABEL, BAD_LABEL = -1, -2
"""Values in a label column: the sample has no label; its `cls` is not a label."""


def label_number(value: object) -> int | None:
    """Parse a `cls` value as a class number; None if it is not a label.

    Bytes: ASCII decimal digits, with white space around them and zeros before them allowed, without a sign. Numbers:
    int. Both from 0 to MAX_LABEL. Every reader, tool and writer uses this function, so that all see the same labels.
    """
    if isinstance(value, int):
        return value if 0 <= value <= MAX_LABEL else None
    if not isinstance(value, (bytes, bytearray, memoryview)):
        return None
    digits = bytes(value).strip()
    if not digits.isdigit():
        return None
    digits = digits.lstrip(b"0")
    if len(digits) > len(str(MAX_LABEL)):  # int() raises for thousands of digits
        return None
    return label_number(int(digits or b"0"))


def field_of(extension: str) -> str:
    """The field for a file extension (without its dot): lower case, with `jpg` for `jpeg`."""
    lower = extension.lower()
    return "jpg" if lower == "jpeg" else lower


def split_member_name(name: str) -> tuple[str, str] | None:
    """(key, field) of a tar member by WebDataset's rule; None for a name without a dot in its base name.

    >>> split_member_name("train/cat/7.seg.PNG")
    ('train/cat/7', 'seg.png')
    """
    slash = name.rfind("/") + 1
    dot = name.find(".", slash)
    if dot <= slash:  # no dot, or nothing before it
        return None
    return name[:dot], name[dot + 1 :].lower()


def key_of_path(path: str) -> str:
    """The key of a file: its path below the root, without its extension and with `_` for every `.`.

    >>> key_of_path("cat/cat.0.jpg")
    'cat/cat_0'
    """
    stem, dot, extension = path.rpartition(".")
    if not dot or "/" in extension:
        stem = path
    return stem.replace(".", "_")


def path_of_member(key: str, image: str) -> str:
    """The escaped path for a key: the member name of its image, or the key itself if it has no image."""
    return text_of_path((f"{key}.{image}" if image else key).encode("utf-8", "surrogateescape"))


def text_of_path(path: bytes) -> str:
    r"""A path as valid UTF-8 text: backslashes doubled, invalid bytes as `\xNN`. `path_of_text` is the inverse."""
    text = path.decode("utf-8", "surrogateescape")
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if text.isascii():
        return text
    return "".join(f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else c for c in text)


def path_of_text(text: str) -> bytes:
    """The inverse of `text_of_path`. Raises ValueError for any other text."""
    if "\\" not in text:
        return text.encode()
    out = bytearray()
    rest = text
    while rest:
        plain, slash, rest = rest.partition("\\")
        out += plain.encode()
        if not slash:
            break
        if rest.startswith("\\"):
            out += b"\\"
            rest = rest[1:]
        elif rest.startswith("x"):
            out.append(int(rest[1:3], 16))
            rest = rest[3:]
        else:
            raise ValueError(f"not an escaped path: {text!r}")
    return bytes(out)


def fs_text(path: str | bytes | os.PathLike[str]) -> str:
    """A file system path as text for a message, with invalid UTF-8 bytes escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def label_of(value: object) -> int:
    """The class number in a `cls`; BAD_LABEL if it is not a label."""
    label = label_number(value)
    return BAD_LABEL if label is None else label
