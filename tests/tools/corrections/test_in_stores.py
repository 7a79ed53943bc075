"""Corrections of a dataset in real servers of S3 and Azure: versions, purging, and two writers at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import shardkit

KEYS = [f"{name}/{number:04}" for name in ("cat", "dog", "fox") for number in range(4)]


@pytest.fixture(params=["s3", "s3rver", "azure"])
def stored(request: pytest.FixtureRequest, train: str) -> tuple[str, dict[str, Any]]:
    """The dataset in a bucket: where it is, and how to get there."""
    url, options = request.getfixturevalue(f"{request.param}_bucket")
    shardkit.upload(train, f"{url}/train", storage_options=options)
    return f"{url}/train", options


@pytest.fixture
def s3_bucket(s3_server: Any) -> tuple[str, dict[str, Any]]:
    return f"{s3_server.url}/{os.urandom(6).hex()}", s3_server.options


@pytest.fixture
def s3rver_bucket(s3rver_endpoint: str) -> tuple[str, dict[str, Any]]:
    boto3 = pytest.importorskip("boto3")
    bucket, keys = f"b{os.urandom(6).hex()}", {"aws_access_key_id": "S3RVER", "aws_secret_access_key": "S3RVER"}
    boto3.client("s3", endpoint_url=s3rver_endpoint, region_name="us-east-1", **keys).create_bucket(Bucket=bucket)
    options = {"endpoint_url": s3rver_endpoint, "key": "S3RVER", "secret": "S3RVER", "region": "us-east-1"}
    return f"s3://{bucket}/data", options


@pytest.fixture
def azure_bucket(azurite_endpoint: str) -> tuple[str, dict[str, Any]]:
    from storage.servers import AZURITE_ACCOUNT, AZURITE_KEY, make_container

    container = f"c{os.urandom(6).hex()}"
    make_container(azurite_endpoint, container)
    endpoint = f"{azurite_endpoint}/{AZURITE_ACCOUNT}"
    return f"az://{container}/data", {
        "account_name": AZURITE_ACCOUNT,
        "account_key": AZURITE_KEY,
        "endpoint": endpoint,
    }


def read(source: str, options: dict[str, Any]) -> dict[str, str]:
    data = shardkit.dataset(source, storage_options=options)
    return {sample["__key__"]: data.classes[sample["cls"]] for sample in data}


def test_each_version_of_a_dataset_in_a_store_can_be_read(stored: tuple[str, dict[str, Any]]) -> None:
    train, options = stored
    packed = read(train, options)
    assert sorted(packed) == KEYS
    shardkit.relabel(train, {KEYS[0]: "dog"}, storage_options=options)
    shardkit.delete(train, [KEYS[5]], storage_options=options)
    corrected = {key: name for key, name in (packed | {KEYS[0]: "dog"}).items() if key != KEYS[5]}
    assert read(train, options) == corrected
    assert read(f"{train}@2", options) == packed | {KEYS[0]: "dog"}
    shardkit.revert(train, 1, storage_options=options)
    assert read(train, options) == read(f"{train}@1", options) == packed
    assert [entry.version for entry in shardkit.log(train, storage_options=options)] == [1, 2, 3, 4]
    assert read(f"{train}@3", options) == corrected
    assert shardkit.diff(f"{train}@1", f"{train}@3", storage_options=options).table.num_rows == 2
    assert shardkit.verify(train, storage_options=options).findings == ()


def test_purged_samples_are_in_no_version_of_the_store(stored: tuple[str, dict[str, Any]]) -> None:
    train, options = stored
    shardkit.relabel(train, {KEYS[1]: "fox"}, storage_options=options)
    shardkit.delete(train, [KEYS[0]], purge=True, storage_options=options)
    assert sorted(read(train, options)) == KEYS[1:]
    assert read(train, options)[KEYS[1]] == "fox"
    assert shardkit.verify(train, storage_options=options).findings == ()


@pytest.mark.parametrize("stored", ["s3", "azure"], indirect=True)  # s3rver ignores the conditions of a request
def test_writers_at_once_in_a_store_lose_nothing(stored: tuple[str, dict[str, Any]]) -> None:
    train, options = stored
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: shardkit.relabel(train, {key: "fox"}, storage_options=options), KEYS[:4]))
    assert set(read(train, options).values()) == {"dog", "fox"}
