"""What tests of whole datasets in the memory store share. The fixture `no_objects` of tests/conftest.py empties it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shardkit.errors import ShardkitError
from shardkit.storage.stores import memory


def objects(folder: str) -> dict[str, bytes]:
    """Name -> bytes of the objects below `memory://folder`."""
    base = f"{folder}/"
    return {path.removeprefix(base): data for path, data in memory._OBJECTS.items() if path.startswith(base)}


def files(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of the files in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def refused(kind: type[ShardkitError], call: Callable[[], object]) -> str:
    """The text of the error that the call ends with, which has a cure."""
    with pytest.raises(kind) as raised:
        call()
    assert raised.value.cure
    return str(raised.value)
