"""What a user writes means the same on a disk and in a store."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from shardkit.errors import NotFoundError, StorageError, UsageError
from shardkit.location import Location, locate
from shardkit.shards.find.files import TRIES, Disk, Files, Stores
from shardkit.shards.find.find import resolve
from shardkit.shards.find.found import Found
from shardkit.shards.manifest import Manifest, ShardEntry, encode_manifest
from shardkit.shards.names import marker_name
from shardkit.storage.access import Remote
from shardkit.storage.store import open_store

Put = Callable[..., str]


def manifest_of(shards: Sequence[str]) -> bytes:
    entries = tuple(ShardEntry(name, 1, 2048, "00000000") for name in shards)
    return encode_manifest(Manifest(samples=len(shards), bytes=2048 * len(shards), shards=entries))


@pytest.fixture(params=["disk", "store"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, on a disk and in a store."""
    return str(tmp_path / "some") if request.param == "disk" else f"memory://{os.urandom(6).hex()}/some"


@pytest.fixture
def put(base: str) -> Put:
    """Makes empty files of these names, and manifests, which are given with their shards; gives the folder."""

    def make(*files: str, **manifests: Sequence[str]) -> str:
        store = open_store(locate(base))
        for name in files:
            store.put(name, io.BytesIO())
        for name, shards in manifests.items():
            store.put(f"{name}.json", io.BytesIO(manifest_of(shards)))
        return base

    return make


def said(found: Found, base: str) -> list[str]:
    """The shards by their names below a folder."""
    return [str(place).removeprefix(f"{base}/") for place in found.places]


@pytest.mark.parametrize(
    ("files", "source", "shards"),
    [
        (["a/x-0.tar", "a/b/x-1.tar", "x-2.tar"], "**/x-*.tar", ["a/b/x-1.tar", "a/x-0.tar", "x-2.tar"]),
        (["a/x-0.tar", "b/x-1.tar", "x-2.tar"], "*/x-*.tar", ["a/x-0.tar", "b/x-1.tar"]),
        (["x-0.tar", ".x-1.tar", ".hidden/x-2.tar"], "**/*.tar", ["x-0.tar"]),
        (["part-0", "part-1", "part-0.json", "part-0.parquet", "part-2.tmp"], "part-*", ["part-0", "part-1"]),
        (["part-0", "part-1.tar"], "part-*", ["part-1.tar"]),
        (["shard"], "shard", ["shard"]),
        (["shard", "shard-0.tar"], "shard", ["shard"]),
        (["x[1]/t-0.tar", "x1/t-0.tar"], "x[1]", ["x[1]/t-0.tar"]),
        (["x[1]/t-0.tar", "x1/t-0.tar"], "x[1]/", ["x[1]/t-0.tar"]),
        (["x[1]/t-0.tar", "x1/t-0.tar"], "x[1]/t", ["x[1]/t-0.tar"]),
        (["x[1]/t-0.tar", "x1/t-0.tar"], "x[1]/t-*.tar", ["x[1]/t-0.tar"]),
        (["x{0,1}/t-0.tar", "x1/t-0.tar"], "x{0,1}/t-{0..0}.tar", ["x{0,1}/t-0.tar"]),
        (["x[1]/t[2]-0.tar", "x[1]/t2-0.tar"], "x[1]/t[2]-*.tar", ["x[1]/t2-0.tar"]),
        (["x[1]/t[2]-0.tar"], "x[1]/t[2]-*.tar", ["x[1]/t[2]-0.tar"]),
        (["a-0.tar", "a-1.tar", "b-0.tar"], "{a,b}-0.tar", ["a-0.tar", "b-0.tar"]),
        (["a-0.tar", "a-1.tar", "b[1].tar"], "{a-*,b[1]}.tar", ["a-0.tar", "a-1.tar", "b[1].tar"]),
        (["x.tfrecord-0-of-2", "x.tfrecord-1-of-2"], "", ["x.tfrecord-0-of-2", "x.tfrecord-1-of-2"]),
        (["t/x-0.tar", "t-0.tar"], "t", ["t/x-0.tar"]),
        (["t/0.jpg", "u-0.tar"], "u", ["u-0.tar"]),
    ],
)
def test_shards_without_a_manifest_are_found_alike(
    put: Put, base: str, files: list[str], source: str, shards: list[str]
) -> None:
    put(*files)
    for given in (f"{base}/{source}", [f"{base}/{source}"]):
        found = resolve(given, Remote())
        assert found.manifest is None
        assert said(found, base) == shards


@pytest.mark.parametrize(
    "source",
    ["a[1]", "a[1].json", "a[1]-*.tar", "a[1]-00000?.tar", "a[1]-{000000..000009}.tar", "a[[]1]-*.tar", ""],
)
def test_a_dataset_with_the_name_of_a_pattern_is_found_alike(put: Put, base: str, source: str) -> None:
    shards = [f"a[1]-{number:06}.tar" for number in range(3)]
    put(*shards, **{"a[1]": shards})
    for given in (f"{base}/{source}", [f"{base}/{source}"]):
        found = resolve(given, Remote())
        assert found.manifest is not None
        assert found.numbers is None
        assert said(found, base) == shards


@pytest.mark.parametrize("source", ["foo.tar", ""])
def test_a_dataset_may_be_called_as_a_shard_without_a_number(put: Put, base: str, source: str) -> None:
    put("foo.tar-000000.tar", **{"foo.tar": ["foo.tar-000000.tar"]})
    assert said(resolve(f"{base}/{source}", Remote()), base) == ["foo.tar-000000.tar"]


@pytest.mark.parametrize("source", ["x-000000.tar", "x-00000{0,1}.tar", "x-*.tar"])
def test_a_json_file_with_the_name_of_a_numbered_shard_is_no_manifest(put: Put, base: str, source: str) -> None:
    put("x-000000.tar", "x-000001.tar", "x-000000.tar.json", "x-000001.tar.json")
    assert said(resolve(f"{base}/{source}", Remote()), base)[0] == "x-000000.tar"


@pytest.mark.parametrize("source", ["x-g2-*.tar", "x-g2-{000000..000001}.tar", "x-*.tar", "x", "x-g2"])
def test_shards_of_a_generation_belong_to_the_dataset(put: Put, base: str, source: str) -> None:
    shards = [f"x-g2-{number:06}.tar" for number in range(2)]
    put(*shards, "x-000000.tar", x=shards)
    found = resolve(f"{base}/{source}", Remote())
    assert found.manifest is not None
    assert said(found, base) == shards


def test_a_manifest_is_found_in_a_folder_by_shards_as_tensorflow_names_them(put: Put, base: str) -> None:
    shards = ["x.tfrecord-00000-of-00002", "x.tfrecord-00001-of-00002"]
    put(*shards, "notes.json", x=shards)
    assert resolve(base, Remote()).manifest is not None


def test_several_datasets_of_a_folder_are_named(put: Put, base: str) -> None:
    put("a-000000.tar", "b[1]-000000.tar", **{"a": ["a-000000.tar"], "b[1]": ["b[1]-000000.tar"]})
    with pytest.raises(UsageError, match=r"the folder holds 2 datasets: a, b\[1\]; name one, such as '.*/some/a'"):
        resolve(base, Remote())
    with pytest.raises(UsageError, match="more than one dataset"):
        resolve(f"{base}/*.tar", Remote())


@pytest.mark.parametrize(
    ("source", "fact"),
    [
        ("nothing", "there is no dataset here: no manifest"),
        ("nothing/", "there is no dataset here: no manifest"),
        ("nothing.json", "there is no such manifest"),
        ("nothing-*.tar", "no file matches"),
        ("x-0*.parquet", r"no shard matches, only .*x-0\.parquet and the like"),
        ("x-0.tar.json", "there is no such manifest"),
    ],
)
def test_what_is_not_there_is_told_alike(put: Put, base: str, source: str, fact: str) -> None:
    put("x-0.tar", "x-0.parquet")
    with pytest.raises(NotFoundError, match=fact) as caught:
        resolve(f"{base}/{source}", Remote())
    assert str(caught.value).startswith(base)


def test_a_dataset_that_was_begun_is_told_where_nothing_of_it_is_there(put: Put, base: str) -> None:
    put(marker_name("train"), "other-0.tar")
    with pytest.raises(NotFoundError, match="a packing was interrupted there, or an upload or download"):
        resolve(f"{base}/train", Remote())
    with pytest.raises(NotFoundError, match="there is no dataset here") as caught:
        resolve(f"{base}/val", Remote())
    assert "interrupted" not in str(caught.value)


def test_a_folder_alone_is_a_class_directory_on_a_disk_only(put: Put, base: str) -> None:
    put("red/0.jpg", "blue/0.jpg")
    if locate(base).is_local:
        assert resolve(base, Remote()) == Found(tree=locate(base))
        with pytest.raises(UsageError, match="a list must name shards, but this folder has none"):
            resolve([base], Remote())
    else:
        for given in (base, [base]):
            with pytest.raises(NotFoundError, match="a class directory is packed first: shardkit pack"):
                resolve(given, Remote())


def test_a_shard_of_a_pattern_like_name_that_is_lost_is_not_passed_over(tmp_path: Path) -> None:
    shards = [f"a[1]-{number:06}.tar" for number in range(3)]
    for name in (shards[0], shards[2]):
        (tmp_path / name).touch()
    (tmp_path / "a[1].json").write_bytes(manifest_of(shards))
    for source in ("a[1]-*.tar", "a[1]-00000?.tar", "a[[]1]-*.tar"):
        with pytest.raises(
            NotFoundError, match=r"a\[1\]-000001\.tar: the manifest names this shard, but it is missing"
        ):
            resolve(f"{tmp_path}/{source}")
    assert len(resolve(f"{tmp_path}/a[1]-00000[02].tar").places) == 2


def test_a_bucket_is_a_folder(put: Put, base: str) -> None:
    if locate(base).is_local:
        pytest.skip("a bucket is of a store")
    bucket = base.removesuffix("/some")
    open_store(locate(bucket)).put("x-0.tar", io.BytesIO())
    for source in (bucket, f"{bucket}/"):
        assert [place.name for place in resolve(source, Remote()).places] == ["x-0.tar"]
    with pytest.raises(NotFoundError, match="there is no dataset here"):
        resolve(f"memory://{os.urandom(6).hex()}", Remote())


def test_a_folder_that_may_not_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(StorageError, match="Permission denied"):
        resolve(tmp_path)


def test_a_name_of_any_length_is_no_dataset(tmp_path: Path) -> None:
    for name in ("x" * 5000, "{" + ",".join(map(str, range(200))) + "}.tar", f"{'x' * 300}-*.tar"):
        with pytest.raises(NotFoundError):
            resolve(f"{tmp_path}/{name}")


@pytest.mark.parametrize("place", [Location("http", "localhost:9/data"), Location("slow+https", "localhost:9/data")])
def test_a_web_server_has_no_lists_and_is_not_asked_for_one(place: Location) -> None:
    files = Stores(Remote())
    assert not files.lists(place)
    assert not files.is_folder(place)
    assert files.names(place) == []
    with pytest.raises(UsageError, match="a web server has no lists to match a pattern with"):
        files.matching(place.child("*"), "/x-*.tar")


def test_a_name_is_looked_up_again_on_a_disk_only() -> None:
    kinds: list[Files] = [Disk(), Stores(Remote())]
    assert [kind.tries for kind in kinds] == [TRIES, 0]
