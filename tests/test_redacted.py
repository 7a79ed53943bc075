"""No credential in any text: errors, places, and what a traceback shows."""

from __future__ import annotations

import pickle

import pytest

from shardkit.errors import StorageError, redacted
from shardkit.location import Location, locate

SECRET = "s3cr3tValue"


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{SECRET}@host/train/a.tar",
        f"https://{SECRET}@host:8443/a.tar",
        f"http://user:{SECRET}:x@127.0.0.1:9000/a",
        f"s3://AKIA0123:{SECRET}/with+slash@bucket/train",
        f"hf://user:{SECRET}@datasets/x",
        f"https://bucket.s3.amazonaws.com/a.tar?X-Amz-Algorithm=AWS4&X-Amz-Signature={SECRET}&x=1",
        f"https://account.blob.core.windows.net/c/a.tar?sv=2022&sig={SECRET}%3D",
        f"https://storage.googleapis.com/b/a?X-Goog-Signature={SECRET}",
        f"Error performing GET https://host/a?token={SECRET}: 403",
        f'uri: Some("https://host/a?sig={SECRET}")',
        f"train-000.tar?X-Amz-Security-Token={SECRET}&a=b",
        f"AccountName=x;AccountKey={SECRET}==;EndpointSuffix=y",
        f"Authorization: Bearer {SECRET}",
        f"authorization: Basic {SECRET}==",
    ],
)
def test_credentials_do_not_stay_in_a_text(text: str) -> None:
    assert SECRET not in redacted(text)
    assert "***" in redacted(text)
    assert redacted(redacted(text)) == redacted(text)
    for error in (StorageError(text, "it broke", "try"), StorageError("a", text), StorageError("a", "b", text)):
        assert SECRET not in str(error) + repr(error) + repr(error.args)
        assert SECRET.encode() not in pickle.dumps(error)


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/train-000000.tar",
        "abfss://container@account.dfs.core.windows.net/train",
        "http://127.0.0.1:9000/bucket/a@b",
        "hdfs://namenode:8020/data/a@b.tar",
        "data/sig=3/token=4/a.jpg",
        "s3://bucket/a@b:c",
        "basic training, bearer of news",
        "https://host/train-{000..002}.tar",
        "",
    ],
)
def test_what_holds_none_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_a_place_shows_no_credentials_and_keeps_them() -> None:
    url = f"https://user:{SECRET}@host/train/a.tar"
    place = locate(url)
    for each in (place, place.parent, place.sibling("b.tar"), place.parent.child("x")):
        assert SECRET not in str(each) + repr(each) + f"{each}" + repr([each])
    assert place.url == url
    assert locate(place.url) == place
    assert pickle.loads(pickle.dumps(place)) == place


def test_a_path_of_this_machine_is_shown_as_it_is() -> None:
    path = "data/http://user:x@y?a=b"
    assert str(Location("", path)) == Location("", path).url == path
