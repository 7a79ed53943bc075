"""An object of a store as a file that can be sought in."""

from __future__ import annotations

import io
from collections import OrderedDict

from shardkit.storage.store import Store, read


class RangedFile(io.RawIOBase):
    """An object as a file that Parquet's reader can seek in. The latest blocks that were read are kept."""

    BLOCK = 1 << 20
    KEPT = 16

    def __init__(self, store: Store, name: str, size: int) -> None:
        self._store, self._name = store, name
        self._size, self._at = size, 0
        self._blocks: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def size(self) -> int:
        """Its length."""
        return self._size

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Read from there on. The new position."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes: whole blocks are fetched, neighbours in one request."""
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        start, self._at = self._at, max(self._at, end)
        if start >= end:
            return b""
        first, stop = start // self.BLOCK, -(-end // self.BLOCK)
        data = self._blocks.get((first, stop))
        if data is None:
            low, high = first * self.BLOCK, min(stop * self.BLOCK, self._size)
            data = self._blocks[first, stop] = bytes(read(self._store, self._name, low, high))
            while len(self._blocks) > self.KEPT:
                self._blocks.popitem(last=False)
        return data[start - first * self.BLOCK : end - first * self.BLOCK]
