"""The parts written in C, and the one way to load them. Each is optional, and has a plain twin or a clear refusal.

| part        | what it does                                             | needs                        | without it            |
|-------------|----------------------------------------------------------|------------------------------|-----------------------|
| `checksums` | CRC-32C of buffers                                       | a processor with CRC-32C     | google_crc32c         |
| `sums`      | CRC-32C of all parts of a shard in one pass              | a processor with CRC-32C     | google_crc32c         |
| `gather`    | opens, checks, sums and copies plain JPEGs into a shard  | a processor with CRC-32C     | a loop in Python      |
| `jpeg`      | decodes, crops and resizes JPEGs into a batch            | libjpeg-turbo                | simplejpeg and OpenCV |
| `jpegtran`  | rewrites JPEGs without loss                              | libjpeg-turbo                | an error with a cure  |

setup.py builds them. A part is loaded at its first use, never when shardkit is imported.
"""

from __future__ import annotations

import importlib
from functools import cache, lru_cache
from typing import Any


@cache
def load(name: str) -> tuple[Any, str]:
    """(the part, "") or (None, the reason): it was not built, or this processor lacks what it needs."""
    try:
        part = importlib.import_module(f"shardkit.native.{name}")
    except ImportError as exc:
        return None, str(exc)
    if not getattr(part, "available", True):
        return None, "this processor has no instruction for CRC-32C"
    return part, ""
