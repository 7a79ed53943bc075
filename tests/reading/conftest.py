"""Small packed datasets, drawn once, that the tests of reading share. Nothing may write to them."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading.far import Watched, uploaded

import shardkit
from shardkit.location import Location
from shardkit.reading import ahead, remote
from shardkit.storage import store as stores

CLASSES = {"blue": 30, "green": 17, "red": 50}


def draw_small_tree(root: Path, counts: dict[str, int], size: tuple[int, int] = (12, 10)) -> Path:
    """A class tree of tiny noisy JPEGs, each one unlike the others."""
    from PIL import Image

    rng = np.random.default_rng(3)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
            sink = io.BytesIO()
            Image.fromarray(pixels).save(sink, "JPEG")
            (root / name / f"{number:03}.jpg").write_bytes(sink.getvalue())
    return root


@pytest.fixture(scope="session")
def small_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """97 images of 12 x 10 in 3 classes: blue 30, green 17, red 50."""
    return draw_small_tree(tmp_path_factory.mktemp("small") / "tree", CLASSES)


@pytest.fixture(scope="session")
def cars(small_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The 97 images packed into 5 shards; the prefix."""
    prefix = tmp_path_factory.mktemp("cars") / "cars"
    shardkit.pack(small_tree, prefix, max_count=20, workers=1)
    return str(prefix)


@pytest.fixture(scope="session")
def by_shards(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """190 images in 2 classes, packed into 1, 2, 3, 7 and 64 shards; the prefix of each."""
    root = tmp_path_factory.mktemp("matrix")
    tree = draw_small_tree(root / "tree", {"a": 120, "b": 70}, (4, 4))
    found = {}
    for shards in (1, 2, 3, 7, 64):
        found[shards] = str(root / f"in{shards}")
        manifest = shardkit.pack(tree, found[shards], max_count=-(-190 // shards), workers=1)
        assert len(manifest.shards) == shards
    return found


FOREIGN = """
import json, sys
import numpy as np
import webdataset

root, pixels = sys.argv[1], np.random.default_rng(1).integers(0, 256, (50, 8, 8, 3), np.uint8)
for shard in range(5):
    with webdataset.TarWriter(f"{root}/other-{shard:03}.tar") as writer:
        for number in range(10 * shard, 10 * shard + 10):
            writer.write({"__key__": f"n{number:02}", "png": pixels[number], "cls": number % 3})
for sample in webdataset.WebDataset(root + "/other-{000..004}.tar", shardshuffle=False):
    print(sample["__key__"], sample["cls"].decode(), sample["png"].hex())
"""


@pytest.fixture(scope="session")
def foreign_as_read(tmp_path_factory: pytest.TempPathFactory, run_python: Any) -> tuple[str, list[str]]:
    """The glob of `foreign`, and "key label image" of each sample as webdataset reads it. webdataset loads torch, which
    takes seconds and which some tests must not find loaded: so it runs in a process of its own."""
    root = tmp_path_factory.mktemp("foreign")
    lines = run_python("-c", FOREIGN, str(root), cwd=root).stdout.splitlines()
    return str(root / "other-*.tar"), lines


@pytest.fixture(scope="session")
def foreign(foreign_as_read: tuple[str, list[str]]) -> str:
    """50 samples n00 … n49 in 5 shards without a manifest, as webdataset's TarWriter writes them; a glob."""
    return foreign_as_read[0]


def _keys_of(items: Iterable[Any]) -> list[str]:
    found: list[str] = []
    for item in items:
        keys = item["__key__"] if isinstance(item, dict) else item.keys
        found += [keys] if isinstance(keys, str) else keys
    return found


@pytest.fixture(scope="session")
def keys_of() -> Callable[[Iterable[Any]], list[str]]:
    """The keys of samples, or of batches, in order."""
    return _keys_of


@pytest.fixture(scope="session")
def far(cars: str) -> str:
    """The dataset `cars` in a store in memory; the prefix."""
    return uploaded(cars)


@pytest.fixture(scope="session")
def pairs(small_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """The same 97 images as tar, TFRecord, gzip tar, and as samples of several fields: (local prefix, remote one)."""
    root = tmp_path_factory.mktemp("pairs")
    shardkit.pack(small_tree, root / "tar" / "x", max_count=20, workers=1)
    shardkit.pack(small_tree, root / "tfrecord" / "x", max_count=20, workers=1, format="tfrecord")
    for name in ("gzip", "fields"):
        (root / name).mkdir()
    for shard in (root / "tar").glob("*.tar"):
        (root / "gzip" / f"{shard.name}.gz").write_bytes(gzip.compress(shard.read_bytes()))
    shardkit.index_shards(str(root / "gzip" / "x-*.tar.gz"))
    tree = root / "tree"
    for image in small_tree.rglob("*.jpg"):
        beside = tree / image.relative_to(small_tree)
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(image.read_bytes())
        beside.with_suffix(".txt").write_text(f"this is {image.stem}", "utf-8")
    for form in ("tar", "tfrecord"):
        shardkit.pack(tree, root / f"fields-{form}" / "x", max_count=20, workers=1, fields="jpg,txt", format=form)
    names = ("tar", "tfrecord", "gzip", "fields-tar", "fields-tfrecord")
    return {name: (str(root / name / "x"), uploaded(str(root / name / "x"))) for name in names}


@pytest.fixture(params=[None, 4096], ids=["whole", "chunks"])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks as they are, which hold a whole small shard, or of 4 KiB, with borders inside samples."""
    if request.param is not None:
        monkeypatch.setattr(ahead, "CHUNK_BYTES", request.param)
        monkeypatch.setattr(ahead, "GAP_BYTES", 600)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, str, int, int]]]:
    """Watches all stores from here on: gives the list that requests go to, as (kind, name, first byte, bytes)."""

    def watch(fault: Any = None) -> list[tuple[str, str, int, int]]:
        requests: list[tuple[str, str, int, int]] = []

        def opened(folder: Location, options: Any = None) -> Any:
            return Watched(stores.open_store(folder, options), requests, fault)

        monkeypatch.setattr(remote, "open_store", opened)
        return requests

    return watch
