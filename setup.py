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


def library_extension(name: str, library: str, place: str, archive: str, parts: tuple[str, ...]) -> Extension:
    """One that needs a library: the system's, or the static one (archive) at the place that the environment names."""
    folder = name.rpartition(".")[0].replace(".", "/")
    prefix = os.environ.get(place)
    found: dict[str, list[str]] = {"libraries": [library]}
    if prefix:
        static = next(iter(sorted(Path(prefix).glob(f"lib*/{archive}"))))
        found = {"include_dirs": [str(Path(prefix) / "include")], "extra_objects": [str(static)]}
        if sys.platform == "linux":  # other packages bring a library of their own: keep the names of this one inside
            found["extra_link_args"] = ["-Wl,--exclude-libs,ALL"]
    return Extension(
        name,
        [name.replace(".", "/") + ".c"],
        depends=[f"{folder}/{part}" for part in parts],
        **FLAGS,
        **found,
    )


def jpeg_extension(name: str, *parts: str) -> Extension:
    """One that needs libjpeg-turbo: the fused decoder, or what rewrites JPEGs without loss. parts: what it includes."""
    return library_extension(name, "jpeg", "JPEG_PREFIX", "libjpeg.a", parts)


def webp_extension(name: str, *parts: str) -> Extension:
    """One that needs libwebp: the decoder of WebPs. parts: what it includes."""
    return library_extension(name, "webp", "WEBP_PREFIX", "libwebpdecoder.a", parts)


def plain_extension(name: str, *parts: str) -> Extension:
    """One that needs a compiler only: the decoder of PNGs, the packer's inner loop for plain JPEGs, the checksums of
    whole shards, or the warp of augmentation, which gives the bits of its twin in NumPy. parts: what it includes."""
    folder = name.rpartition(".")[0].replace(".", "/")
    return Extension(
        name,
        [name.replace(".", "/") + ".c"],
        depends=[f"{folder}/{part}" for part in parts],
        **FLAGS,
    )


JPEG_PARTS = ("avx2", "decoder", "finish", "huffman", "points", "precise", "quality", "resize", "seek", "skip", "view")

PNG_PARTS = ("chunks", "codes", "decoder", "filters", "inflate", "rows")
FRAMING_PARTS = (
    "crc32c.h",
    "frames.h",
    *(f"framing_{part}.h" for part in ("keep", "sample", "write")),
    "key_set.h",
    "plain_jpeg.h",
)
VIEW_PARTS = ("batch.h", *(f"jpeg_{part}.h" for part in ("avx2", "finish", "precise", "resize", "view")))

EXTENSIONS = [
    jpeg_extension("shardkit.native.jpeg", "batch.h", "quality.h", *(f"jpeg_{part}.h" for part in JPEG_PARTS)),
    plain_extension("shardkit.native.png", *VIEW_PARTS, *(f"png_{part}.h" for part in PNG_PARTS)),
    webp_extension("shardkit.native.webp", *VIEW_PARTS, "webp_decoder.h"),
    jpeg_extension("shardkit.native.jpegtran"),
    plain_extension("shardkit.native.gather", "crc32c.h", "frames.h", "plain_jpeg.h", "stored_member.h"),
    plain_extension("shardkit.native.framing", *FRAMING_PARTS),
    plain_extension("shardkit.native.samples", "columns.h", "crc32c.h", "sample_copies.h"),
    plain_extension("shardkit.native.lookup", "columns.h"),
    plain_extension("shardkit.native.sums", "crc32c.h"),
    plain_extension("shardkit.native.tree"),
    plain_extension("shardkit.native.checksums", "crc32c.h"),
    plain_extension("shardkit.native.augment", "augment_warp.h"),
    plain_extension("shardkit.native.near", "near_pairs.h"),
]

setup(
    ext_modules=[] if PARTS == "none" else EXTENSIONS,
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
)
