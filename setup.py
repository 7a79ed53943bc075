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
from runpy import run_path
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


NATIVE = "shardkit/native"
SOURCES = run_path(f"{NATIVE}/sources.py")


def plain_extension(name: str, **found: list[str]) -> Extension:
    """One that needs a compiler only, unless `found` has more. It is built again when a header of it changes, and keeps
    the digest of its sources."""
    sources = SOURCES["sources_of"](name, NATIVE)
    flags = FLAGS | {"define_macros": [*FLAGS["define_macros"], ("PART_DIGEST", SOURCES["digest_of"](sources))]}
    return Extension(f"{NATIVE}/{name}".replace("/", "."), sources[:1], depends=sources[1:], **flags, **found)


def library_extension(name: str, *, library: str, place: str, archive: str) -> Extension:
    """One that needs a library: the system's, or the static one (archive) at the place that the environment names."""
    prefix = os.environ.get(place)
    found: dict[str, list[str]] = {"libraries": [library]}
    if prefix:
        static = next(iter(sorted(Path(prefix).glob(f"lib*/{archive}"))))
        found = {"include_dirs": [str(Path(prefix) / "include")], "extra_objects": [str(static)]}
        if sys.platform == "linux":  # other packages bring a library of their own: keep the names of this one inside
            found["extra_link_args"] = ["-Wl,--exclude-libs,ALL"]
    return plain_extension(name, **found)


JPEG = {"library": "jpeg", "place": "JPEG_PREFIX", "archive": "libjpeg.a"}
WEBP = {"library": "webp", "place": "WEBP_PREFIX", "archive": "libwebpdecoder.a"}

EXTENSIONS = [
    library_extension("jpeg", **JPEG),
    plain_extension("png"),
    library_extension("webp", **WEBP),
    library_extension("jpegtran", **JPEG),
    plain_extension("gather"),
    plain_extension("framing"),
    plain_extension("samples"),
    plain_extension("lookup"),
    plain_extension("sums"),
    plain_extension("tree"),
    plain_extension("archives"),
    plain_extension("lists"),
    plain_extension("checksums"),
    plain_extension("augment"),
    plain_extension("near"),
]

setup(
    ext_modules=[] if PARTS == "none" else EXTENSIONS,
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
)
