"""An index of shards that are in another folder or in a store, which may be read-only."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

import shardkit
from shardkit import DestinationError, ManifestError, UsageError, dataset, index_shards
from shardkit.cli.main import run
from shardkit.location import locate
from shardkit.shards.manifest import ELSEWHERE_VERSION, decode_manifest, encode_manifest
from shardkit.shards.names import work_name
from shardkit.storage.store import open_store


def tar_of(members: list[tuple[str, bytes]]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def captioned(draw_image: Any, shard: int, samples: int = 4) -> bytes:
    """Several fields, in the way of WebDataset: jpg, cls, json, txt."""
    members = []
    for number in range(shard * samples, (shard + 1) * samples):
        key = f"{number:05}"
        members += [
            (f"{key}.jpg", draw_image(number)),
            (f"{key}.cls", b"%d" % (number % 3)),
            (f"{key}.json", json.dumps({"key": key}).encode()),
            (f"{key}.txt", f"caption {number}".encode()),
        ]
    return tar_of(members)


@pytest.fixture(params=["folder", "store"])
def foreign(request: pytest.FixtureRequest, tmp_path: Path, draw_image: Any) -> str:
    """The pattern of three shards that somebody else made."""
    shards = {f"web-{number:06}.tar": captioned(draw_image, number) for number in range(3)}
    if request.param == "folder":
        (tmp_path / "theirs").mkdir()
        for name, data in shards.items():
            (tmp_path / "theirs" / name).write_bytes(data)
        return f"{tmp_path}/theirs/web-{{000000..000002}}.tar"
    folder = f"memory://{os.urandom(6).hex()}/theirs"
    store = open_store(locate(folder))
    for name, data in shards.items():
        store.put(name, io.BytesIO(data))
    return f"{folder}/web-{{000000..000002}}.tar"


def test_an_index_elsewhere_makes_a_dataset_of_shards_that_are_only_read(foreign: str, tmp_path: Path) -> None:
    manifest = index_shards(foreign, out=tmp_path / "mine")
    assert manifest.version == ELSEWHERE_VERSION and manifest.samples == 12
    assert sorted(os.listdir(tmp_path))[:1] == ["mine.json"]
    found = dataset(tmp_path / "mine")
    assert len(found) == 12 and manifest.fields == ("cls", "jpg", "json", "txt")
    plain = [sample["__key__"] for sample in dataset(foreign)]
    assert [sample["__key__"] for sample in found] == plain
    assert found[7]["txt"] == b"caption 7"
    assert shardkit.verify(tmp_path / "mine").sound
    assert shardkit.info(tmp_path / "mine").samples == 12


def test_its_samples_are_shuffled_dealt_to_ranks_selected_and_resumed(foreign: str, tmp_path: Path) -> None:
    index_shards(foreign, out=f"{tmp_path}/mine/")
    found = dataset(tmp_path / "mine", shuffle=5, seed=1)  # the folder is the dataset
    parts = [
        [s["__key__"] for s in dataset(tmp_path / "mine", shuffle=5, seed=1, rank=rank, world_size=2)]
        for rank in range(2)
    ]
    assert sorted(parts[0] + parts[1]) == sorted(s["__key__"] for s in found) and len(parts[0]) == len(parts[1]) == 6
    assert len(found.select([0])) == 4
    walk = iter(found)
    first = [next(walk)["__key__"] for _ in range(5)]
    state = found.state_dict()
    again = dataset(tmp_path / "mine", shuffle=5, seed=1)
    again.load_state_dict(state)
    whole = [s["__key__"] for s in dataset(tmp_path / "mine", shuffle=5, seed=1)]
    assert first + [s["__key__"] for s in again] == whole


def test_it_is_converted_to_a_dataset_of_its_own(foreign: str, tmp_path: Path) -> None:
    if "://" in foreign:  # objects in memory are of one process; test_far_sources.py has others
        return
    index_shards(foreign, out=tmp_path / "mine")
    shardkit.convert(tmp_path / "mine", tmp_path / "own")
    manifest = decode_manifest((tmp_path / "own.json").read_bytes(), place="own")
    assert not manifest.elsewhere and manifest.version < ELSEWHERE_VERSION and manifest.samples == 12
    assert shardkit.verify(tmp_path / "own").sound


def test_what_needs_the_files_together_refuses_it(foreign: str, tmp_path: Path) -> None:
    index_shards(foreign, out=tmp_path / "mine")
    with pytest.raises(UsageError):
        shardkit.upload(tmp_path / "mine", f"memory://{os.urandom(6).hex()}/mine")
    with pytest.raises(UsageError, match="an index of shards elsewhere"):
        shardkit.export(tmp_path / "mine", kinds=["timm"])
    with pytest.raises(UsageError, match="an index of shards elsewhere"):
        shardkit.merge([str(tmp_path / "mine"), str(tmp_path / "mine")], tmp_path / "both")


def test_shards_that_changed_since_are_told_when_they_are_read(foreign: str, tmp_path: Path, draw_image: Any) -> None:
    index_shards(foreign, out=tmp_path / "mine")
    changed = captioned(draw_image, 7)
    place = locate(foreign.replace("{000000..000002}", "000001"))
    open_store(place.parent).put(place.name, io.BytesIO(changed))
    with pytest.raises((ManifestError, shardkit.DamagedError)):
        list(dataset(tmp_path / "mine"))
    assert not shardkit.verify(tmp_path / "mine").sound


def test_the_version_that_a_store_has_tells_that_a_shard_of_the_same_size_was_replaced(
    tmp_path: Path, draw_image: Any
) -> None:
    folder = f"memory://{os.urandom(6).hex()}/theirs"
    store, data = open_store(locate(folder)), captioned(draw_image, 0)
    store.put("web-0.tar", io.BytesIO(data))
    index_shards(f"{folder}/web-0.tar", out=tmp_path / "mine")
    store.put("web-0.tar", io.BytesIO(data.replace(b"caption 1", b"caption X")))
    with pytest.raises(ManifestError, match="the shard was replaced since it was indexed"):
        list(dataset(tmp_path / "mine"))


def test_an_index_is_written_over_nothing_that_is_not_its_own(foreign: str, tmp_path: Path, draw_tree: Any) -> None:
    draw_tree(tmp_path / "tree", {"a": 2, "b": 2})
    shardkit.pack(tmp_path / "tree", tmp_path / "train", workers=1)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("train*")}
    for overwrite in (False, True):
        with pytest.raises(DestinationError):
            index_shards(foreign, out=tmp_path / "train", overwrite=overwrite)
    (tmp_path / "train.json").unlink()
    with pytest.raises(DestinationError, match="there are shards of this name, and the index is of those in"):
        index_shards(foreign, out=tmp_path / "train")
    (tmp_path / "train.json").write_bytes(before["train.json"])
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DestinationError, match="is not a shardkit manifest"):
        index_shards(foreign, out=tmp_path / "other", overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("train*")} == before
    index_shards(foreign, out=tmp_path / "mine")
    with pytest.raises(DestinationError, match="a manifest already exists"):
        index_shards(foreign, out=tmp_path / "mine")
    assert index_shards(foreign, out=tmp_path / "mine", overwrite=True).samples == 12
    assert sorted(path.name for path in tmp_path.glob("mine*")) == ["mine.json", "mine.parquet"]


def test_packing_over_an_index_leaves_the_shards_elsewhere(tmp_path: Path, draw_image: Any, draw_tree: Any) -> None:
    (tmp_path / "theirs").mkdir()
    shard = tmp_path / "theirs" / "web-000000.tar"
    shard.write_bytes(captioned(draw_image, 0))
    index_shards(shard, out=tmp_path / "web")
    draw_tree(tmp_path / "tree", {"a": 2, "b": 2})
    with pytest.raises(DestinationError):
        shardkit.pack(tmp_path / "tree", tmp_path / "web", workers=1)
    with pytest.raises(UsageError, match="an index of shards elsewhere"):
        shardkit.pack(tmp_path / "tree", tmp_path / "web", append=True, workers=1)
    shardkit.pack(tmp_path / "tree", tmp_path / "web", overwrite=True, workers=1)
    assert shard.exists() and len(dataset(tmp_path / "web")) == 4 and shardkit.verify(tmp_path / "web").sound


def test_shards_in_a_store_need_a_folder_on_a_disk_and_no_secret_in_their_url(tmp_path: Path) -> None:
    folder = f"memory://{os.urandom(6).hex()}"
    open_store(locate(folder)).put("web-0.tar", io.BytesIO(tar_of([("a.txt", b"a")])))
    with pytest.raises(UsageError, match="the shards are in a store, and an index is written to a disk"):
        index_shards(f"{folder}/web-0.tar")
    with pytest.raises(DestinationError, match="memory:// is not one"):
        index_shards(f"{folder}/web-0.tar", out=f"{folder}/mine")
    with pytest.raises(UsageError, match="a query or a password, which a manifest must not keep"):
        index_shards("https://127.0.0.1:9/web-0.tar?sig=secret", out=tmp_path / "mine")
    assert os.listdir(tmp_path) == []


def test_a_manifest_of_shards_elsewhere_is_read_from_a_disk_only(tmp_path: Path, draw_image: Any) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "web-0.tar").write_bytes(captioned(draw_image, 0))
    index_shards(tmp_path / "theirs" / "web-0.tar", out=tmp_path / "mine")
    folder = f"memory://{os.urandom(6).hex()}"
    open_store(locate(folder)).put("mine.json", io.BytesIO((tmp_path / "mine.json").read_bytes()))
    with pytest.raises(ManifestError, match="which is read from a disk only"):
        len(dataset(f"{folder}/mine"))


@pytest.mark.parametrize(
    "told",
    [
        None,
        3,
        {},
        {"folder": ""},
        {"folder": 3},
        {"folder": "/x", "versions": [""] * 2},
        {"folder": "/x", "versions": [3]},
    ],
    ids=["none", "number", "no-folder", "empty", "no-text", "too-many", "no-version"],
)
def test_a_manifest_that_does_not_say_where_its_shards_are_is_refused(
    told: Any, tmp_path: Path, draw_image: Any
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "web-0.tar").write_bytes(captioned(draw_image, 0))
    manifest = index_shards(tmp_path / "theirs" / "web-0.tar", out=tmp_path / "mine")
    options = {} if told is None else {"elsewhere": told}
    data = encode_manifest(msgspec.structs.replace(manifest, options=options))
    with pytest.raises(ManifestError):
        decode_manifest(data, place="mine.json")
    first = msgspec.structs.replace(manifest, version=1)
    with pytest.raises(ManifestError, match="in which folder its shards are"):
        decode_manifest(encode_manifest(first), place="mine.json")


def test_the_command_indexes_shards_of_a_folder_that_is_never_written_to(
    tmp_path: Path, draw_image: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    members = [(f"{n:05}.{end}", draw_image(n) if end == "jpg" else b"{}") for n in range(5) for end in ("jpg", "json")]
    (theirs / "00000.tar").write_bytes(tar_of(members))  # in the way of img2dataset: no cls
    before = theirs.stat().st_mtime_ns
    theirs.chmod(0o555)
    assert run(["index", str(theirs / "00000.tar"), "--out", f"{tmp_path}/mine/"]) == 0
    assert run(["info", str(tmp_path / "mine")]) == 0
    assert "5" in capsys.readouterr().out
    assert theirs.stat().st_mtime_ns == before and os.listdir(theirs) == ["00000.tar"]
    assert len(dataset(tmp_path / "mine")) == 5


def test_the_shards_are_named_with_their_index(foreign: str, tmp_path: Path) -> None:
    index_shards(foreign, out=tmp_path / "mine")
    found = dataset(foreign, index=tmp_path / "mine")
    assert len(found) == 12 and len(pickle.loads(pickle.dumps(found))) == 12
    some = dataset(foreign.replace("{000000..000002}", "{000001..000002}"), index=tmp_path / "mine")
    assert [s["__key__"] for s in some] == [f"{number:05}" for number in range(4, 12)]


def test_an_index_of_other_shards_is_refused(foreign: str, tmp_path: Path, draw_image: Any) -> None:
    index_shards(foreign.replace("{000000..000002}", "{000000..000001}"), out=tmp_path / "mine")
    with pytest.raises(UsageError, match=r"an index of other shards: .*web-000002\.tar is not among them"):
        len(dataset(foreign, index=tmp_path / "mine"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.tar").write_bytes(captioned(draw_image, 0))
    with pytest.raises(UsageError, match="there is no index at"):
        len(dataset(foreign, index=tmp_path / "other" / "x.tar"))


def test_shards_of_a_web_server_are_indexed_and_those_it_replaced_are_told(
    plain_folder: tuple[str, Path], tmp_path: Path, draw_image: Any
) -> None:
    url, folder = plain_folder
    for number in range(2):
        (folder / f"web-{number:06}.tar").write_bytes(captioned(draw_image, number))
    pattern = f"{url}/web-{{000000..000001}}.tar"
    manifest = index_shards(pattern, out=tmp_path / "mine")
    assert all(manifest.shard_versions)
    assert [s["__key__"] for s in dataset(tmp_path / "mine")] == [f"{number:05}" for number in range(8)]
    os.utime(folder / "web-000001.tar", ns=(1, 1))  # which is in this server's ETag
    with pytest.raises(ManifestError, match="the shard was replaced since it was indexed"):
        list(dataset(tmp_path / "mine"))
    (folder / "web-000001.tar").write_bytes((folder / "web-000001.tar").read_bytes()[:-3000])
    with pytest.raises(shardkit.DamagedError):
        index_shards(pattern, out=tmp_path / "again")
    assert sorted(os.listdir(tmp_path)) == [
        work_name("again"),
        "mine.json",
        "mine.parquet",
    ]  # with the shard that was read
