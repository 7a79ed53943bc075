"""JPEGs rewritten without loss: progressive to baseline, and restart markers. By the optional C extension `_jpegtran`.

No Python package offers this, and decoding and encoding again would lose quality; so there is no other way here.
"""

from __future__ import annotations

from shardkit.errors import UsageError
from shardkit.images.jpeg import MAX_SCANS, tidied
from shardkit.images.pillow import MAX_PIXELS
from shardkit.native import load

MAX_BYTES = 5 << 28
"""Of memory for an image's coefficients: MAX_PIXELS without subsampling, six bytes each, and a quarter more."""


def available() -> bool:
    """Whether the extension was built, and loads."""
    return load("jpegtran")[0] is not None


def require_available(option: str) -> None:
    """UsageError, in the name of the option that needs it, where the extension is missing."""
    module, reason = load("jpegtran")
    if module is None:
        fact = f"JPEGs are rewritten without loss by a part in C, which is not there ({reason})"
        cure = "install a C compiler and libjpeg-turbo's headers (libjpeg62-turbo-dev), and then shardkit again"
        raise UsageError(option, fact, cure)


def rewrite(data: bytes, *, restart_rows: int = 0) -> bytes:
    """The JPEG as one sequential scan with Huffman tables of its own; its coefficients, and so its pixels, are equal.

    restart_rows: rows of blocks (of 8 or 16 pixels) between restart markers, 0 for none. Gives up the GIL.
    ValueError for damage, and for what libjpeg can't read (lossless JPEG, more than 8 bits). Only where `available`.
    """
    try:
        result: bytes = load("jpegtran")[0].rewrite(tidied(data), restart_rows, float(MAX_PIXELS), MAX_SCANS, MAX_BYTES)
    except ValueError as exc:
        raise ValueError(f"the JPEG can't be rewritten: {exc}") from exc
    return result
