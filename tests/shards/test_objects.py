"""Files of a dataset by location: a path and a URL are read alike."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from shardkit.errors import NotFoundError, StorageError
from shardkit.location import Location, locate
from shardkit.shards.objects import Objects
from shardkit.storage.access import Remote
from shardkit.storage.patient import Patient, Timed
from shardkit.storage.store import open_store
from shardkit.storage.stores.cloud import RemoteStore
from shardkit.storage.stores.local import LocalStore


@pytest.fixture(params=["disk", "store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """A folder with x-0.tar, x-1.tar, y.json, and a folder `x-more` with a file."""
    place = locate(tmp_path) if request.param == "disk" else locate(f"memory://{os.urandom(6).hex()}/train")
    store = open_store(place)
    for name in ("x-1.tar", "x-0.tar", "y.json", "x-more/z"):
        store.put(name, io.BytesIO(f"this is {name}".encode()))
    return place


def test_a_file_is_read_as_a_whole_and_in_parts(folder: Location) -> None:
    objects, place = Objects(), folder.child("x-0.tar")
    assert objects.info(place).bytes == 15
    assert objects.small(place) == objects.read(place) == b"this is x-0.tar"
    assert bytes(objects.span(place, 5, 11)) == b"is x-0"
    for size, most in ((15, 15), (15, 4), (15, 5), (3, 2), (99, 9)):  # the last two are not its size
        assert objects.whole(place, size, most) == b"this is x-0.tar"


def test_the_names_of_a_folder_are_not_those_below_it(folder: Location) -> None:
    names = [name for name in Objects().names(folder, "x-") if name != "x-more"]  # a folder is a name on a disk alone
    assert names == ["x-0.tar", "x-1.tar"]
    assert Objects().names(folder.child("absent"), "") == []


def test_what_is_not_there_is_not_found(folder: Location) -> None:
    objects = Objects()
    for act in (objects.info, objects.small, objects.read):
        with pytest.raises(NotFoundError):
            act(folder.child("absent.tar"))
    with pytest.raises(NotFoundError, match=r"x-9\.tar: the shard is missing"), objects.opened(folder.child("x-9.tar")):
        objects.small(folder.child("x-9.tar"))


def test_a_path_has_the_bare_local_store_and_a_url_a_patient_one_with_a_time_limit() -> None:
    objects, here, there = Objects(), Location("", "/tmp"), locate("memory://x/y")
    assert isinstance(objects.store(here), LocalStore)
    assert isinstance(objects.store(there), Timed)
    assert isinstance(objects.patient(there), Patient)
    assert objects.store(there) is objects.store(there)
    assert objects.patient(here) is objects.store(here)


def test_a_web_server_has_no_names() -> None:
    assert Objects().names(locate("http://127.0.0.1:9/x"), "") == []


def test_a_folder_that_can_not_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(StorageError, match="Permission denied"):
        Objects().names(locate(tmp_path), "")


def test_the_names_of_a_bucket_are_listed_without_all_that_is_below(
    s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = locate(f"{s3_server.url}/some")
    store = open_store(folder, s3_server.options)
    for name in ("x-0.tar", "x.json", "deep/y-0.tar", "deep/deeper/z-0.tar"):
        store.put(name, io.BytesIO(b"x"))
    objects = Objects(Remote(s3_server.options))
    assert objects.names(folder, "x-") == ["x-0.tar"]
    assert objects.names(folder.child("absent"), "") == []
    monkeypatch.setattr(RemoteStore, "list", None)
    assert objects.names(folder, "") == ["x-0.tar", "x.json"]
