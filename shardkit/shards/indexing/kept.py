"""What was read of shards elsewhere, kept in the user's cache: the next index of them reads only those that changed.

    ~/.cache/shardkit/indexed/DIGEST      a spool (spool.py)

DIGEST is of the folder of the shards, the word that their names begin with, and what is looked for in them. The file is
replaced as a whole, and none is needed: without it, or where the cache can't be written to, all shards are read. Files
that were not used for UNUSED_SECONDS are removed when another one is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence

from shardkit.errors import ShardkitError
from shardkit.shards.indexing.spool import Spool
from shardkit.shards.names import stem_of_shard
from shardkit.storage.files import whole_file
from shardkit.system import cache_home

KEPT_BYTES = 1 << 30
"""A larger file is not kept."""


UNUSED_SECONDS = 90 * 86400.0


def kept_file(elsewhere: str, shard: str, *looks: object) -> str:
    """The file for shards in a folder, a path or URL, one of which is `shard`. looks: what is looked for in them."""
    text = json.dumps([elsewhere, stem_of_shard(shard), *looks])
    digest = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return os.path.join(os.path.abspath(cache_home()), "shardkit", "indexed", digest)


def take_kept(kept: str, spool: str) -> None:
    """Begin a spool, the file at `spool`, with what is kept, unless it was begun already."""
    with contextlib.suppress(OSError, ShardkitError):
        if not os.path.lexists(spool):
            with open(kept, "rb") as before, whole_file(spool) as file:
                shutil.copyfileobj(before, file)
            os.utime(kept)


def keep_read(spool: Spool, numbers: Sequence[int], kept: str) -> None:
    """Keep these shards of a spool, in place of what was kept before."""
    folder = os.path.dirname(kept)
    with contextlib.suppress(OSError, ShardkitError):
        os.makedirs(folder, exist_ok=True)
        if spool.bytes_of(numbers) <= KEPT_BYTES:
            with whole_file(kept) as file:
                spool.copy(numbers, file)
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if time.time() - os.path.getmtime(path) > UNUSED_SECONDS:
                os.unlink(path)
