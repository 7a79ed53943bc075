"""The contract, for each store and each server that can be had here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from storage.servers import AZURITE_ACCOUNT, AZURITE_KEY, make_container
from storage.store_contract import Fill, ReadContract, StoreContract, content

from shardkit.errors import StorageError
from shardkit.location import locate
from shardkit.storage.store import Store, open_store
from shardkit.storage.stores.slow_and_faulty import Faults, FaultyStore, Slowness, SlowStore


def new_name() -> str:
    return f"t{os.urandom(6).hex()}"


class TestLocalStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store(locate(tmp_path / "a folder"))


class TestMemoryStore(StoreContract):
    keeps_crc32c = True

    @pytest.fixture
    def store(self) -> Store:
        return open_store(locate(f"memory://{new_name()}/train"))


class TestS3Store(StoreContract):
    keeps_crc32c = True

    @pytest.fixture
    def store(self, s3_server: Any) -> Store:
        return open_store(locate(f"{s3_server.url}/some folder/train"), s3_server.options)


class TestS3StoreAtTheTopOfABucket(StoreContract):
    """On another implementation of S3, which signs as the real one does."""

    keeps_crc32c = True
    replaces_at_once = False
    has_conditions = False  # s3rver 3.7

    def test_the_first_byte_alone_is_read(self, store: Store, fill: Fill) -> None:
        fill("a.tar", b"0123456789")
        with pytest.raises(StorageError, match=r"a different range than requested \(Requested 0\.\.1, got 0\.\.10\)"):
            content(store, "a.tar", 0, 1)  # s3rver 3.7 takes `bytes=0-0` for the whole object

    @pytest.fixture
    def store(self, s3rver_endpoint: str) -> Store:
        boto3 = pytest.importorskip("boto3")
        bucket, keys = new_name(), {"aws_access_key_id": "S3RVER", "aws_secret_access_key": "S3RVER"}
        boto3.client("s3", endpoint_url=s3rver_endpoint, region_name="us-east-1", **keys).create_bucket(Bucket=bucket)
        options = {"endpoint_url": s3rver_endpoint, "key": "S3RVER", "secret": "S3RVER", "region": "us-east-1"}
        return open_store(locate(f"s3a://{bucket}"), options)


class TestAzureStore(StoreContract):
    keeps_crc32c = True

    @pytest.fixture
    def store(self, azurite_endpoint: str) -> Store:
        container = new_name()
        make_container(azurite_endpoint, container)
        options = {
            "account_name": AZURITE_ACCOUNT,
            "account_key": AZURITE_KEY,
            "endpoint": f"{azurite_endpoint}/{AZURITE_ACCOUNT}",
        }
        return open_store(locate(f"az://{container}/some folder/train"), options)


class TestHttpStore(ReadContract):
    tells_folders = False

    @pytest.fixture
    def store(self, http_folder: Any) -> Store:
        return open_store(locate(http_folder.url + "/some%20folder"))

    @pytest.fixture
    def fill(self, http_folder: Any) -> Fill:
        def write(name: str, data: bytes) -> None:
            path = http_folder.folder / "some folder" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

        return write


class TestHttpStoreWithoutNginx(ReadContract):
    """On the small server that stands in where nginx is not installed."""

    tells_folders = False

    @pytest.fixture
    def store(self, plain_folder: tuple[str, Path]) -> Store:
        return open_store(locate(plain_folder[0]))

    @pytest.fixture
    def fill(self, plain_folder: tuple[str, Path]) -> Fill:
        def write(name: str, data: bytes) -> None:
            path = plain_folder[1] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

        return write


class TestFsspecStore(StoreContract):
    """On fsspec's own file system in memory."""

    @pytest.fixture
    def store(self) -> Store:
        pytest.importorskip("fsspec")
        from shardkit.storage.stores.fsspec import FsspecStore

        return FsspecStore(locate(f"memory://{new_name()}/some folder"), {})


class TestFsspecStoreOnFiles(StoreContract):
    has_conditions = False

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        pytest.importorskip("fsspec")
        return open_store(locate(f"local://{tmp_path}/some folder"))


class TestSlowStore(StoreContract):
    keeps_crc32c = True

    @pytest.fixture
    def store(self) -> Store:
        slowness = Slowness(latency_seconds=0.0001, bytes_per_second=1e9)
        return SlowStore(open_store(locate(f"memory://{new_name()}")), slowness)


class TestFaultyStoreWithoutFaults(StoreContract):
    keeps_crc32c = True

    @pytest.fixture
    def store(self) -> Store:
        return FaultyStore(open_store(locate(f"memory://{new_name()}")), Faults())
