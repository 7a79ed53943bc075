"""Columns of samples as buffers, without a Python object for each sample: from a plan to its tasks, and from a finished
shard to the index. They need no NumPy, and are sent as MessagePack as they are.

Numbers are native int64 as bytes; `int64s` is a view of them.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, islice

import msgspec

from shardkit.native import load
from shardkit.sample import field_of, text_of_path

_SPAN = struct.Struct("=qq")
_SIGNED = 7 if sys.byteorder == "little" else 0  # the byte of a number that has its sign


def int64s(column: bytes) -> memoryview[int]:
    """The numbers of a column."""
    return memoryview(column).cast("q")


def has_negative(column: bytes) -> bool:
    """Whether one of the numbers of a column is negative."""
    return not column[_SIGNED::8].isascii()


class Strings(msgspec.Struct, frozen=True, array_like=True):
    """n byte strings. String i is `data[offsets[i]:offsets[i + 1]]`; offsets: n + 1 numbers from 0 to the length of
    `data`. The items are bytes, which are made when they are asked for."""

    data: bytes = b""
    offsets: bytes = bytes(8)

    @classmethod
    def of(cls, values: Iterable[bytes]) -> Strings:
        """The column of some values."""
        found = list(values)
        return cls(b"".join(found), array("q", chain((0,), accumulate(map(len, found)))).tobytes())

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> Strings:
        """The column of some texts, as UTF-8."""
        joined = "".join(texts)
        if not joined.isascii():
            return cls.of(text.encode() for text in texts)
        return cls(joined.encode(), array("q", chain((0,), accumulate(map(len, texts)))).tobytes())

    def __len__(self) -> int:
        return len(self.offsets) // 8 - 1

    def __getitem__(self, number: int) -> bytes:
        """Item `number`, 0 … n - 1; IndexError beyond."""
        if not 0 <= number < len(self):
            raise IndexError(f"item {number} of {len(self)}")
        start, end = _SPAN.unpack_from(self.offsets, 8 * number)  # in half the time of a view
        return self.data[start:end]

    def __iter__(self) -> Iterator[bytes]:
        return map(self.data.__getitem__, self._slices())

    def texts(self) -> list[str]:
        """The items as texts, which they must be."""
        if not self.data.isascii():
            return [item.decode() for item in self]
        return list(map(self.data.decode().__getitem__, self._slices()))

    def replaced(self, new: Mapping[int, bytes]) -> Strings:
        """With other items at some places."""
        return Strings.of(new.get(number, item) for number, item in enumerate(self)) if new else self

    def at(self, numbers: Iterable[int]) -> Strings:
        """Some of the items."""
        return Strings.of(map(self.__getitem__, numbers))

    def _slices(self) -> Iterator[slice]:
        offsets = int64s(self.offsets)
        return map(slice, offsets, islice(offsets, 1, None))


class GrowingStrings:
    """Byte strings that are added one by one, or many at a time."""

    __slots__ = ("_data", "_offsets")

    def __init__(self) -> None:
        self._data, self._offsets = bytearray(), array("q", (0,))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def length(self) -> int:
        """The bytes of all of them."""
        return len(self._data)

    def add(self, item: bytes) -> None:
        """Add one."""
        self._data += item
        self._offsets.append(len(self._data))

    def extend(self, data: bytes, ends: bytes) -> None:
        """Add those that are joined in `data`. ends: where each ends (native int64), counted from the first byte of
        all."""
        self._data += data
        self._offsets.frombytes(ends)

    def strings(self) -> Strings:
        """The column of them."""
        return Strings(bytes(self._data), self._offsets.tobytes())


Texts = Strings | Sequence[str]
"""Texts, or their UTF-8."""


def as_strings(texts: Texts) -> Strings:
    """The UTF-8 of texts."""
    return texts if isinstance(texts, Strings) else Strings.of_texts(texts)


def as_texts(texts: Texts) -> Sequence[str]:
    """Texts as str."""
    return texts.texts() if isinstance(texts, Strings) else texts


def texts_of_paths(paths: Strings) -> Strings:
    """`text_of_path` of each path, as UTF-8: the same column if all are plain."""
    if paths.data.isascii() and b"\\" not in paths.data:
        return paths
    return Strings.of(text_of_path(path).encode() for path in paths)


class Fields:
    """The field of each of some files. places: that of each file in `names`, as native int32."""

    __slots__ = ("names", "places")

    def __init__(self, places: memoryview[int], names: list[str]) -> None:
        self.places, self.names = places, names

    def __getitem__(self, number: int) -> str:
        return self.names[self.places[number]]

    def counts(self, start: int, stop: int) -> Mapping[str, int]:
        """The files of each field among those from `start` up to `stop`."""
        if len(self.names) == 1:
            return {self.names[0]: stop - start}
        return Counter(map(self.names.__getitem__, self.places[start:stop]))


def fields_of(paths: Strings) -> Fields:
    """The field of each file, by what is behind the last dot of its path."""
    native = load("tree")[0]
    found = None if native is None else native.extensions(paths.data, paths.offsets)
    if found is None:
        known: dict[bytes, int] = {}
        places = array("i", (known.setdefault(path[path.rfind(b".") + 1 :], len(known)) for path in paths)).tobytes()
        extensions = list(known)
    else:
        places, extensions = found
    return Fields(memoryview(places).cast("i"), [field_of(text_of_path(extension)) for extension in extensions])
