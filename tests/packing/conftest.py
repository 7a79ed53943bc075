"""What the tests of packing share: packing with one process, and looking at what is in a folder."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit.manifest import Manifest

Content = dict[str, bytes]


def content_of(folder: Path) -> Content:
    """Path below `folder` -> bytes of every file, hidden ones too; a folder that does not exist has none."""
    found = {}
    for top, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(top, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = file.read()
    return found


def samples_of(folder: Path) -> dict[str, bytes]:
    """Member name -> bytes, of all shards of a folder in their order."""
    found: dict[str, bytes] = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                assert member.name not in found
                file = tar.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found


def pack_one(source: Path, dest: str | Path, **options: Any) -> Manifest:
    """`shardkit.pack` of a tree of classes, in this process if not said otherwise."""
    manifest = shardkit.pack(source, dest, **{"workers": 1} | options)
    assert isinstance(manifest, Manifest)
    return manifest


@pytest.fixture(name="content_of", scope="session")
def fixture_content_of() -> Callable[[Path], Content]:
    """The function `content_of`."""
    return content_of


@pytest.fixture(name="samples_of", scope="session")
def fixture_samples_of() -> Callable[[Path], dict[str, bytes]]:
    """The function `samples_of`."""
    return samples_of


@pytest.fixture(name="pack_one", scope="session")
def fixture_pack_one() -> Callable[..., Manifest]:
    """The function `pack_one`."""
    return pack_one


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder for the result, which is not there yet."""
    return tmp_path / "out"
