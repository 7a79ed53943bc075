"""The one part that pyproject.toml can't say: the optional C extensions.

The decoder of JPEGs and what rewrites them are built where a C compiler and the headers of libjpeg-turbo 2.1 or later
are, the decoder of WebPs where those of libwebp are, all else (the decoder of PNGs, the packer's loop, the checksums)
where a compiler is. Where they are not, setuptools goes on without them (`optional`), and shardkit decodes with
simplejpeg and Pillow, packs and checks in Python, and refuses to rewrite JPEGs.

    JPEG_PREFIX     the place of a libjpeg-turbo of your own, linked in statically (scripts/libjpeg_turbo.sh makes one)
    WEBP_PREFIX     that of a libwebp of your own (scripts/libwebp.sh)
    SHARDKIT_PARTS  "all": a part that can't be built is an error. "none": leave them out. Wheels are built with these
    SHARDKIT_ABI3   "1": build for the stable ABI of Python 3.11, so that the wheel serves all later ones
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from setuptools import Extension, setup

PARTS = os.environ.get("SHARDKIT_PARTS", "")
ABI3 = os.environ.get("SHARDKIT_ABI3") == "1"
FLAGS: dict[str, Any] = {
    # no fused multiply-add: random crops must be the same boxes as in Python, on every machine
    "extra_compile_args": ["-O3", "-ffp-contract=off", "-fvisibility=hidden"],
    "optional": PARTS != "all",
    "py_limited_api": ABI3,
    "define_macros": [("Py_LIMITED_API", "0x030b0000")] if ABI3 else [],
}


INCLUDE = Path("shardkit/native/include")


def headers(parts: tuple[str, ...]) -> list[str]:
    """What a part includes, to be built again when it changes: single headers, and folders of them."""
    return [str(path) for part in parts for path in sorted((INCLUDE / part).glob("*.h")) or [INCLUDE / part]]


def plain_extension(name: str, *parts: str, **found: list[str]) -> Extension:
    """One that needs a compiler only, unless `found` has more. parts: the headers and folders that it includes."""
    return Extension(
        f"shardkit.native.{name}",
        [f"shardkit/native/{name}.c"],
        depends=headers(parts),
        **FLAGS,
        **found,
    )


def library_extension(name: str, *parts: str, library: str, place: str, archive: str) -> Extension:
    """One that needs a library: the system's, or the static one (archive) at the place that the environment names."""
    prefix = os.environ.get(place)
    found: dict[str, list[str]] = {"libraries": [library]}
    if prefix:
        static = next(iter(sorted(Path(prefix).glob(f"lib*/{archive}"))))
        found = {"include_dirs": [str(Path(prefix) / "include")], "extra_objects": [str(static)]}
        if sys.platform == "linux":  # other packages bring a library of their own: keep the names of this one inside
            found["extra_link_args"] = ["-Wl,--exclude-libs,ALL"]
    return plain_extension(name, *parts, **found)


JPEG = {"library": "jpeg", "place": "JPEG_PREFIX", "archive": "libjpeg.a"}
WEBP = {"library": "webp", "place": "WEBP_PREFIX", "archive": "libwebpdecoder.a"}

EXTENSIONS = [
    library_extension("jpeg", "pixels", "jpeg", **JPEG),
    plain_extension("png", "pixels", "png"),
    library_extension("webp", "pixels", "webp_decoder.h", **WEBP),
    library_extension("jpegtran", **JPEG),
    plain_extension("gather", "crc32c.h", "framing", "scan", "string_column.h"),
    plain_extension("framing", "crc32c.h", "framing"),
    plain_extension("samples", "columns.h", "crc32c.h", "sample_copies.h"),
    plain_extension("lookup", "columns.h"),
    plain_extension("sums", "crc32c.h"),
    plain_extension("tree", "scan", "string_column.h"),
    plain_extension("archives", "archives"),
    plain_extension("lists", "lists", "framing"),
    plain_extension("checksums", "crc32c.h"),
    plain_extension("augment", "augment_warp.h"),
    plain_extension("near", "near_pairs.h"),
]

setup(
    ext_modules=[] if PARTS == "none" else EXTENSIONS,
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
)
