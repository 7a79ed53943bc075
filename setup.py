"""The one part that pyproject.toml can't say: the optional C extension.

It is built where a C compiler and the headers of libjpeg-turbo 2.1 or later are. Where they are not, setuptools goes on
without it (`optional`), and shardkit decodes with simplejpeg. `JPEG_PREFIX` names a libjpeg-turbo of one's own, whose
static library is then linked in; scripts/build_wheels.sh uses that.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Extension, setup


def jpeg_extension() -> Extension:
    """The fused decoder."""
    prefix = os.environ.get("JPEG_PREFIX")
    found = {"libraries": ["jpeg"]}
    if prefix:
        library = next(iter(sorted(Path(prefix).glob("lib*/libjpeg.a"))))
        found = {"include_dirs": [str(Path(prefix) / "include")], "extra_objects": [str(library)]}
    return Extension(
        "shardkit.reading._jpeg",
        ["shardkit/reading/_jpeg.c"],
        # no fused multiply-add: random crops must be the same boxes as in Python, on every machine
        extra_compile_args=["-O3", "-ffp-contract=off", "-fvisibility=hidden"],
        optional=True,
        **found,
    )


setup(ext_modules=[jpeg_extension()])
