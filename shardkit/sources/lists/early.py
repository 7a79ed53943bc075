"""Read a list, look at its files, and read the first of them, while the process still loads what packs them: the C
extensions need no GIL for it.

`open_list` takes the list (`taken`), the scan the sizes of its files (`Listed.looked`), and the packer what was read of
them (tree/early.py). The result is the same, whatever was begun.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress

import numpy as np
from msgspec.structs import replace

from shardkit.errors import ShardkitError
from shardkit.sample import DEFAULT_EXTENSIONS
from shardkit.sources.lists.coded import text_column
from shardkit.sources.lists.plain_files import LookedAt, extension, file_sizes, plain_paths
from shardkit.sources.lists.rows import Listed, open_list
from shardkit.sources.options import TableColumns
from shardkit.sources.tree.early import begin_files, end

NOT_LOOKED_AT = -2
"""As in the C extension."""

_begun: list[tuple[str, TableColumns, Listed | ShardkitError]] = []


@contextmanager
def reading_early(path: str, options: TableColumns, *, reading: bool) -> Iterator[None]:
    """Read a list, and begin to look at its files, and to read them if `reading`. Within the block, `taken` has it, or
    raises why it can't be opened. A root that is missing is left to the one who looks at the options."""
    if extension() is not None and (options.root is None or os.path.isdir(options.root)):
        _begun.append((path, options, _opened(path, options, reading=reading)))
    try:
        yield
    finally:
        _begun.clear()
        end()


def taken(path: str, options: TableColumns) -> Listed | None:
    """The list at `path`, once, if it was read with these options. Raises as `open_list`."""
    if not _begun or _begun[-1][:2] != (path, options):
        return None
    found = _begun.pop()[2]
    if isinstance(found, ShardkitError):
        raise found
    return found


def _opened(path: str, options: TableColumns, *, reading: bool) -> Listed | ShardkitError:
    """The list, or why it can't be opened."""
    try:
        listed = open_list(path, options)
    except ShardkitError as exc:
        return exc
    with suppress(ShardkitError):  # the scan raises it
        listed = _looking(listed, reading=reading)
    return listed


def _looking(listed: Listed, *, reading: bool) -> Listed:
    """The list, whose files are looked at in a thread if all are plain."""
    extensions = frozenset(DEFAULT_EXTENSIONS)
    texts = text_column(listed.table[listed.paths])
    paths = None if texts is None else plain_paths(texts, listed.root, extensions)
    if paths is None:
        return listed
    looked = LookedAt(paths, extensions, Future(), begin_files() if reading else None)
    try:
        threading.Thread(target=_look, args=(looked,), daemon=True, name="shardkit-scan").start()
    except RuntimeError:  # no thread can be started
        return listed
    return replace(listed, looked=looked)


def _look(looked: LookedAt) -> None:
    """Find the sizes of the files, and read them if there is what reads them."""
    real, images = looked.paths.real, looked.images
    try:
        if images is None:
            looked.coming.set_result(file_sizes(real, 0, len(real)))
            return
        sizes = np.full(len(real), NOT_LOOKED_AT)
        unread = images.visit(real.blob, real.offsets, sizes, 0)
        looked.coming.set_result(sizes)
    except BaseException as exc:
        looked.coming.set_exception(exc)
        return
    images.visit(real.blob, real.offsets, sizes, unread)
