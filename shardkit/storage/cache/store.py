"""Around a store: what is read of its objects is kept on this machine."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from shardkit.storage.cache.entry import Entry
from shardkit.storage.mapped import MappedFile
from shardkit.storage.store import ObjectInfo, Readable, read

if TYPE_CHECKING:
    from typing_extensions import Buffer

KEPT_OPEN = 32
"""Files of the cache that are kept open without being in use: those can't be removed to make room."""
REFUSED_SECONDS = 10.0
"""How long an object for which the cache has no room is not offered to it again."""


class Keeps(Protocol):
    """What keeps objects."""

    def entry(self, url: str, size: int, crc: int) -> Entry | None:
        """The entry of an object; None if there is no room."""
        ...


class Content(NamedTuple):
    """What an object must be; the cache knows it by all of this. crc32c -1: not known."""

    url: str
    bytes: int
    crc32c: int


class Cached:
    """Reads a store through a cache: what is not there is fetched in whole chunks, and kept.

    contents: by name, what an object must be. Nothing of others is kept: without it, an object that was replaced could
    not be told from the one that is in the cache. Who made it may add to it. Thread safe.
    """

    def __init__(self, store: Readable, cache: Keeps, contents: Mapping[str, Content]) -> None:
        self.store, self.cache, self.contents = store, cache, contents
        self.root = store.root
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._refused: dict[str, float] = {}
        self._summed: set[str] = set()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Cached({self.store!r})"

    def info(self, name: str) -> ObjectInfo:
        """What the store knows of an object."""
        return self.store.info(name)

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[Buffer]:
        """The bytes start … end - 1; without an end, from the store in any case."""
        entry = None if end is None else self._entry(name)
        if end is None or entry is None:
            return self.store.pieces(name, start, end)
        return iter((entry.read(start, end, lambda first, stop: read(self.store, name, first, stop)),))

    def keeps(self, name: str) -> bool:
        """Whether the cache takes what is read of an object."""
        return self._entry(name) is not None

    def mapped(self, name: str, *, check: bool = False) -> MappedFile | None:
        """All of an object as a buffer; None where the cache does not have all of it. check: sum it the first time."""
        entry = self._entry(name)
        copy = None if entry is None else entry.mapped(check=check and name not in self._summed)
        if copy is not None:
            self._summed.add(name)
        return copy

    def replace_damaged(self, name: str, start: int, data: Buffer) -> None:
        """These bytes, which differ from what was read here, are right."""
        entry = self._entry(name)
        if entry is not None:
            entry.replace_damaged(start, data)

    def _entry(self, name: str) -> Entry | None:
        """The object in the cache. None where nothing of it is kept."""
        content = self.contents.get(name)
        if content is None:
            return None
        with self._lock:
            found = self._entries.get(name)
            if found is not None and found.usable:
                self._entries.move_to_end(name)
                return found
            if time.monotonic() - self._refused.get(name, -REFUSED_SECONDS) < REFUSED_SECONDS:
                return None
        made = self.cache.entry(*content)
        with self._lock:
            if made is None:
                self._refused[name] = time.monotonic()
                return None
            self._entries[name] = made
            while len(self._entries) > KEPT_OPEN:
                self._entries.popitem(last=False)
        return made
