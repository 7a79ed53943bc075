"""Rewrite JPEGs without loss: progressive to baseline, and restart markers. Needs the optional C extension `jpegtran`.

No Python package offers this, and decoding and encoding again would lose quality, so there is no fallback.
"""

from __future__ import annotations

from shardkit.errors import UsageError
from shardkit.images.jpeg import MAX_SCANS, tidy
from shardkit.images.pillow import MAX_PIXELS
from shardkit.native import load

MAX_BYTES = 5 << 28
"""The memory limit for an image's coefficients: MAX_PIXELS without subsampling, six bytes each, plus a quarter."""


def available() -> bool:
    """Whether the extension was built and can be loaded."""
    return load("jpegtran")[0] is not None


def require_available(option: str) -> None:
    """UsageError that names the option which needs the extension, if the extension is missing."""
    module, reason = load("jpegtran")
    if module is None:
        fact = f"it rewrites JPEGs without loss, which needs a C extension that is not available ({reason})"
        cure = "install a C compiler and libjpeg-turbo's headers (libjpeg62-turbo-dev), then reinstall shardkit"
        raise UsageError(option, fact, cure)


def rewrite(data: bytes, *, restart_rows: int = 0) -> bytes:
    """Rewrite a JPEG as one sequential scan with optimised Huffman tables; its coefficients, and so its pixels, stay
    equal.

    restart_rows: rows of blocks (of 8 or 16 pixels) between restart markers, 0 for none. Releases the GIL.
    ValueError for damage, and for JPEGs that libjpeg can't read (lossless, more than 8 bits). Only if `available`.
    """
    try:
        result: bytes = load("jpegtran")[0].rewrite(tidy(data), restart_rows, float(MAX_PIXELS), MAX_SCANS, MAX_BYTES)
    except ValueError as exc:
        raise ValueError(f"the JPEG can't be rewritten: {exc}") from exc
    return result
