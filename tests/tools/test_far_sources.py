"""Shards in a store are converted and unpacked from where they are, by their index."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from shards.indexing.in_store import tar_of

import shardkit
from shardkit import DamagedError, ManifestError, UsageError
from shardkit.formats.tfrecord.samples import encode_sample
from shardkit.packing.write import stored_far

SHARDS, EACH, SIZE = 3, 6, 60_000
OPTIONS = {"latency_seconds": 0.0}


def fields_of(number: int, draw_image: Any) -> list[tuple[str, Any]]:
    return [("jpg", draw_image(number).ljust(SIZE, b"\0")), ("cls", b"%d" % (number % 3)), ("txt", b"text %d" % number)]


def shard(form: str, shard: int, draw_image: Any) -> bytes:
    numbers = range(shard * EACH, (shard + 1) * EACH)
    if form == "tfrecord":
        parts = []
        for n in numbers:
            fields = [(name, int(data) if name == "cls" else data) for name, data in fields_of(n, draw_image)]
            parts += encode_sample(f"{n:05}", fields, text=f"class {n % 3}")[0]
        return b"".join(parts)
    members = [(f"{n:05}.{name}", data) for n in numbers for name, data in fields_of(n, draw_image)]
    return gzip.compress(tar_of(members), 1) if form == "tar.gz" else tar_of(members)


@pytest.fixture(params=["tar", "tfrecord", "tar.gz"])
def theirs(request: pytest.FixtureRequest, tmp_path: Path, draw_image: Any) -> str:
    """The URL of a folder with shards of somebody else, which answers like a store."""
    (tmp_path / "theirs").mkdir()
    for number in range(SHARDS):
        name = f"web-{number:06}.{request.param}"
        (tmp_path / "theirs" / name).write_bytes(shard(request.param, number, draw_image))
    return f"slow+file://{tmp_path}/theirs/web-{{000000..00000{SHARDS - 1}}}.{request.param}"


@pytest.fixture(params=["headers", "whole"])
def index(request: pytest.FixtureRequest, theirs: str, tmp_path: Path) -> Path:
    """Their index."""
    whole = request.param == "whole"
    shardkit.index_shards(theirs, out=tmp_path / "mine" / "web", storage_options=OPTIONS, whole=whole)
    return tmp_path / "mine" / "web"


def tree_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_conversion_gives_what_it_gives_of_copies_on_a_disk(index: Path, theirs: str, tmp_path: Path) -> None:
    copies = theirs.replace("slow+file://", "")
    packed = theirs.endswith(".gz")
    for name, source in (("far", index), ("near", copies)):
        options = {"storage_options": OPTIONS} if name == "far" else {}
        shardkit.convert(source, tmp_path / name / "as", format="tar", **options)
        if not packed:
            shardkit.convert(source, tmp_path / name / "cut", max_count=4, shuffle=True, seed=1, **options)
    far, near = tree_of(tmp_path / "far"), tree_of(tmp_path / "near")
    shards = {name for name in near if name.endswith((".tar", ".tfrecord"))}
    assert shards and all(far[name] == near[name] for name in shards)
    assert shardkit.verify(tmp_path / "far" / "as").sound
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "far").rglob("*.tar")}
    shardkit.convert(index, tmp_path / "far" / "as", format="tar", storage_options=OPTIONS)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_unpacking_gives_what_it_gives_of_copies_on_a_disk(index: Path, theirs: str, tmp_path: Path) -> None:
    shardkit.index_shards(theirs.replace("slow+file://", ""), out=tmp_path / "near")
    found = shardkit.unpack(index, tmp_path / "far tree", storage_options=OPTIONS)
    shardkit.unpack(tmp_path / "near", tmp_path / "near tree")
    assert found.samples == SHARDS * EACH and tree_of(tmp_path / "far tree") == tree_of(tmp_path / "near tree")
    some = shardkit.unpack(index, tmp_path / "some", keys=["00003"], storage_options=OPTIONS)
    assert some.samples == 1


def test_samples_that_lie_together_are_fetched_together(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans, before = list[Any](), stored_far._spans

    def noted(*arguments: Any) -> Any:
        for span in before(*arguments):
            spans.append(span)
            yield span

    monkeypatch.setattr(stored_far, "_spans", noted)
    manifest = shardkit.dataset(index, storage_options=OPTIONS)
    shardkit.convert(index, tmp_path / "own", storage_options=OPTIONS, workers=1)
    if spans:  # compressed ones are fetched whole, and other processes are not seen
        assert sum(span.samples for span in spans) == len(manifest) and len(spans) == SHARDS


@pytest.mark.parametrize("act", ["convert", "unpack"])
def test_a_shard_that_was_replaced_since_is_told_and_nothing_is_written(
    act: str, index: Path, theirs: str, tmp_path: Path, draw_image: Any
) -> None:
    form = theirs.partition("}.")[2]
    path = tmp_path / "theirs" / f"web-000001.{form}"
    data = bytearray(path.read_bytes())
    if form != "tar.gz":
        path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    else:
        path.write_bytes(shard(form, 7, draw_image))
    with pytest.raises((ManifestError, DamagedError)):
        getattr(shardkit, act)(index, tmp_path / "own", storage_options=OPTIONS)
    assert not (tmp_path / "own").exists() and not (tmp_path / "own.json").exists()


@pytest.mark.parametrize("act", ["convert", "unpack"])
def test_shards_in_a_store_without_an_index_are_refused(act: str, theirs: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no manifest") as caught:
        getattr(shardkit, act)(theirs, tmp_path / "own", storage_options=OPTIONS)
    assert "shardkit index --out DIR" in caught.value.cure


@pytest.mark.parametrize("act", ["convert", "unpack"])
def test_a_dataset_in_a_store_with_its_own_manifest_needs_no_index(act: str, tree: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / "packed" / "train", workers=1, max_count=5)
    url = f"slow+file://{tmp_path}/packed/train"
    getattr(shardkit, act)(url, tmp_path / "own", storage_options=OPTIONS)
    getattr(shardkit, act)(tmp_path / "packed" / "train", tmp_path / "near")
    if act == "unpack":
        assert tree_of(tmp_path / "own") == tree_of(tmp_path / "near") == tree_of(tree)
    else:
        assert [s["jpg"] for s in shardkit.dataset(tmp_path / "own")] == [
            s["jpg"] for s in shardkit.dataset(tmp_path / "near")
        ]


def test_spans_do_not_cross_shards_gaps_or_their_limit() -> None:
    gap, most = stored_far.GAP_BYTES, stored_far.SPAN_BYTES
    spans = list(stored_far._spans([0, 0, 0, 1, 1, 1], [0, 10, 20 + gap + 1, 0, most, 5], [10, 10, 10, most, 5, 5]))
    assert [tuple(span) for span in spans] == [
        (0, 0, 20, 2), (0, 21 + gap, 31 + gap, 1), (1, 0, most, 1), (1, most, most + 5, 1), (1, 5, 10, 1),
    ]  # fmt: skip
    assert list(stored_far._spans([], [], [])) == []
