"""Servers that only the tests of stores need: a second one of S3, one of Azure, and a small web server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage.servers import azurite, node_command, plain, running, s3rver


@pytest.fixture(scope="session")
def s3rver_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of s3rver, another S3 server than moto's."""
    pytest.importorskip("obstore")
    if node_command("s3rver") is None:
        pytest.skip("s3rver is not installed: npm install s3rver, and PATH or SHARDKIT_NPM")
    folder = tmp_path_factory.mktemp("s3rver")
    with running(s3rver(folder), folder.with_name("s3rver-log")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def azurite_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Azurite."""
    pytest.importorskip("obstore")
    if node_command("azurite-blob") is None:
        pytest.skip("Azurite is not installed: npm install azurite, and PATH or SHARDKIT_NPM")
    folder = tmp_path_factory.mktemp("azurite")
    with running(azurite(folder), folder.with_name("azurite-log")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def plain_web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of the small web server of these tests, and the folder that it serves."""
    pytest.importorskip("obstore")
    root = tmp_path_factory.mktemp("plain")
    with running(plain(root), root.with_name("plain-log")) as endpoint:
        yield endpoint, root


@pytest.fixture
def plain_folder(plain_web: tuple[str, Path]) -> tuple[str, Path]:
    """The URL of a new empty folder on it, and the folder."""
    endpoint, root = plain_web
    folder = root / os.urandom(6).hex()
    folder.mkdir()
    return f"{endpoint}/{folder.name}", folder
