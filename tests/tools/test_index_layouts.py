"""Layouts in which others publish shards, rebuilt here, are indexed from outside and read as webdataset reads them."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shards.indexing.in_store import Members, tar_of

import shardkit
from shardkit import DamagedError, dataset, index_shards
from shardkit.location import locate
from shardkit.storage.store import open_store

COUNT = 6


def imagenet(image: Callable[..., bytes], first: int) -> Members:
    """As the test data of webdataset: a PNG, its number, its WordNet id and an XML file, by number."""
    return [
        (f"{n}.{name}", data)
        for n in range(first, first + COUNT)
        for name, data in (
            ("cls", b"%d" % (n % 5)),
            ("png", image(n, format="PNG")),
            ("wnid", b"n%08d" % n),
            ("xml", b"<annotation/>"),
        )
    ]


def jpg_and_cls(image: Callable[..., bytes], first: int) -> Members:
    """As its examples of ImageNet: KEY.jpg, KEY.cls and KEY.json."""
    return [
        (f"{n:06}.{name}", data)
        for n in range(first, first + COUNT)
        for name, data in (("cls", b"%d" % n), ("jpg", image(n).ljust(40_000, b"\0")), ("json", b"{}"))
    ]


def nested(image: Callable[..., bytes], first: int) -> Members:
    """Folders, with entries of their own, below `./`."""
    members = [("./", b""), ("./train/", b""), (f"./train/n{first:08}/", b"")]
    return members + [
        (f"./train/n{first:08}/{n}.{name}", data)
        for n in range(first, first + COUNT)
        for name, data in (("jpg", image(n)), ("cls", b"%d" % (n % 2)))
    ]


def dots(image: Callable[..., bytes], first: int) -> Members:
    """Several images of a sample, told apart behind the first dot of the name."""
    return [
        (f"scene_{n}.{name}", data)
        for n in range(first, first + COUNT)
        for name, data in (
            ("left.jpg", image(n)),
            ("right.jpg", image(n + 100)),
            ("seg.v2.png", image(n, format="PNG")),
            ("calib.json", b"{}"),
        )
    ]


def img2dataset(image: Callable[..., bytes], first: int) -> Members:
    """KEY.jpg, KEY.json and KEY.txt, where KEY is the number of the shard and the image; a Parquet file is beside."""
    members: Members = []
    for n in range(first, first + COUNT):
        key = f"{first // COUNT:05}{n:04}"
        told = {"caption": f"picture {n}", "url": f"https://host/{n}.jpg", "key": key, "status": "success"}
        members += [
            (f"{key}.jpg", image(n).ljust(30_000, b"\0")),
            (f"{key}.json", json.dumps(told).encode()),
            (f"{key}.txt", f"picture {n}".encode()),
        ]
    return members


LAYOUTS = [imagenet, jpg_and_cls, nested, dots, img2dataset]


def published(folder: str, layout: Callable[..., Members], image: Callable[..., bytes], *, packed: bool) -> str:
    """Two shards of a layout in a folder or store; their pattern."""
    store, ending = open_store(locate(folder)), "tgz" if packed else "tar"
    for number in range(2):
        data = tar_of(layout(image, number * COUNT), tarfile.GNU_FORMAT)
        store.put(f"{number:05}.{ending}", io.BytesIO(gzip.compress(data, mtime=0) if packed else data))
        if layout is img2dataset:
            store.put(f"{number:05}.parquet", io.BytesIO(b"PAR1 of img2dataset PAR1"))
            store.put(f"{number:05}_stats.json", io.BytesIO(b'{"count": 6}'))
    return f"{folder}/{{00000..00001}}.{ending}"


@pytest.mark.parametrize("packed", [False, True], ids=["tar", "tgz"])
@pytest.mark.parametrize("kind", ["folder", "store"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_published_layout_is_indexed_from_outside(
    layout: Callable[..., Members], kind: str, packed: bool, tmp_path: Path, draw_image: Any
) -> None:
    wds = pytest.importorskip("webdataset")
    pattern = published(str(tmp_path / "theirs"), layout, draw_image, packed=packed)
    if kind == "store":
        pattern = published(f"memory://{os.urandom(6).hex()}", layout, draw_image, packed=packed)
    before = sorted(os.listdir(tmp_path / "theirs"))
    manifest = index_shards(pattern, out=tmp_path / "mine" / "them")
    data = dataset(tmp_path / "mine" / "them")
    assert (len(data), manifest.samples) == (2 * COUNT, 2 * COUNT)
    reference: list[dict[str, Any]] = []
    for path in sorted((tmp_path / "theirs").glob("*.t[ag][rz]")):
        with path.open("rb") as file:
            members = wds.tariterators.tar_file_iterator(file)
            reference += wds.tariterators.group_by_keys({**each, "__url__": str(path)} for each in members)
    theirs = [{name: value for name, value in sample.items() if not name.startswith("__")} for sample in reference]
    keys = [sample["__key__"] for sample in reference]
    found = list(data)
    assert [sample["__key__"] for sample in found] == keys
    for ours, other in zip(found, theirs, strict=True):
        fields = {name: value for name, value in ours.items() if not name.startswith("__")}
        assert fields.keys() == other.keys()
        assert {n: v for n, v in fields.items() if n != "cls"} == {n: v for n, v in other.items() if n != "cls"}
        assert "cls" not in other or fields["cls"] == int(other["cls"])
    assert dataset(tmp_path / "mine" / "them").take(3) is not None and data[2 * COUNT - 1]["__key__"] == keys[-1]
    assert shardkit.verify(tmp_path / "mine" / "them", read=True).sound
    assert sorted(os.listdir(tmp_path / "theirs")) == before


def test_an_index_named_like_the_parquet_of_others_is_not_written_over_it(tmp_path: Path, draw_image: Any) -> None:
    pattern = published(str(tmp_path), img2dataset, draw_image, packed=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(shardkit.DestinationError, match="is not a shardkit index"):
        index_shards(pattern.replace("{00000..00001}", "00000"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("kind", ["folder", "store"])
def test_members_that_are_not_in_order_are_told(kind: str, tmp_path: Path, draw_image: Any) -> None:
    members = jpg_and_cls(draw_image, 0)
    place = str(tmp_path / "theirs") if kind == "folder" else f"memory://{os.urandom(6).hex()}"
    by_field = sorted(members, key=lambda member: member[0].rpartition(".")[2])
    open_store(locate(place)).put("x-0.tar", io.BytesIO(tar_of(by_field)))
    with pytest.raises(DamagedError, match="the members of this sample are not next to each other") as caught:
        index_shards(f"{place}/x-0.tar", out=tmp_path / "mine" / "x")
    assert "shardkit repair" in caught.value.cure
