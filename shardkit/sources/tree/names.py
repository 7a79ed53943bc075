"""The names of a folder's images, without an object for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload


class JoinedNames(Sequence[str]):
    """`count` names in one text, each followed by a slash, which no name has."""

    __slots__ = ("_count", "joined")

    def __init__(self, joined: str, count: int) -> None:
        self.joined, self._count = joined, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return iter(self.joined.split("/")[:-1])

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        """One name or several; all are split for it."""
        return self.joined.split("/")[:-1][at]


def joined(names: Sequence[str]) -> str:
    """Names in one text, each followed by a slash."""
    return names.joined if isinstance(names, JoinedNames) else "/".join([*names, ""])
