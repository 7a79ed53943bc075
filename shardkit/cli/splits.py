"""Commands that take a folder of several splits: they do each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from shardkit.errors import SourceError, UsageError

_T = TypeVar("_T")


def of_splits(
    function: Callable[[str], _T], source: str, storage_options: Mapping[str, Any] | None = None
) -> _T | dict[str, _T]:
    """The function's result for the source; for a folder of splits, which the function refuses, those of each by name.

    Errors are the function's.
    """
    from shardkit.storage.access import Remote
    from shardkit.tools.splits import splits_in

    try:
        return function(source)
    except (UsageError, SourceError):
        parts = splits_in(source, Remote(storage_options), every=True)
        if not parts:
            raise
    return {name: function(part) for name, part in parts.items()}
