"""Places whose names look like patterns, and URLs that are signed: what can be written can be read."""

from __future__ import annotations

import io
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit import NotFoundError, StorageError, UsageError
from shardkit.location import locate
from shardkit.storage.store import open_store

pytest.importorskip("obstore")

STEMS = [
    "a[1]",
    "a?b",
    "a*b",
    "x[y]/train",
    "what?/train",
    "[!a]/t[0]",
    "a{0..1}",
    "a{x,y}",
    "d{0..1}/t{x,y}",
    "d{0..1}/t",
]
SIGNATURE = "abc123"


@pytest.fixture
def many(tmp_path: Path, draw_tree: Any) -> Path:
    """A tree of 2 classes with 3 images each."""
    draw_tree(tmp_path / "tree", {"red": 3, "blue": 3})
    return tmp_path / "tree"


@pytest.mark.parametrize(
    ("where", "stem"),
    [
        *(("disk", stem) for stem in STEMS),
        *(("s3", stem) for stem in STEMS if not set("*?{") & set(stem.rpartition("/")[2])),  # others are not written
    ],
)
def test_a_dataset_is_read_by_the_name_it_was_written_with(
    stem: str, where: str, many: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("s3_server") if where == "s3" else None
    options: Any = {} if server is None else {"storage_options": server.options}
    place = f"{tmp_path / 'out'}/{stem}" if server is None else f"{server.url}/{stem}"
    made = shardkit.pack(many, place, max_count=2, workers=1, **options)
    shards = [f"{place.rpartition('/')[0]}/{entry.name}" for entry in made.shards]
    assert len(shards) == 3
    keys = {sample["__key__"] for sample in shardkit.dataset(place, **options)}
    assert len(keys) == 6
    for source in (f"{place}.json", f"{place}-*.tar", f"{place}-00000?.tar", shards):
        assert {sample["__key__"] for sample in shardkit.dataset(source, **options)} == keys
    first = shardkit.dataset(shards[0], **options)
    assert (len(first), first.classes) == (2, ["blue", "red"])
    assert shardkit.info(place, **options).samples == 6
    assert shardkit.verify(place, **options).sound


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_a_name_comes_before_the_pattern_that_it_could_be(
    where: str, many: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("s3_server") if where == "s3" else None
    options: Any = {} if server is None else {"storage_options": server.options}
    base = str(tmp_path / "out") if server is None else server.url
    shardkit.pack(many, f"{base}/a1", workers=1, **options)
    with pytest.raises(NotFoundError):
        shardkit.dataset(f"{base}/a[2]", **options).classes  # noqa: B018
    next(iter(many.glob("red/*.jpg"))).unlink()
    left = shardkit.pack(many, f"{base}/a[1]", workers=1, **options).samples
    assert left < 6
    for source in (f"{base}/a[1]", f"{base}/a[1]-000000.tar", f"{base}/a[1]-*.tar"):
        assert len(shardkit.dataset(source, **options)) == left


@pytest.mark.parametrize("where", ["disk", "s3"])
@pytest.mark.parametrize("braces", ["{0..1}", "{0,1}"])
def test_a_name_comes_before_the_braces_that_it_could_be(
    braces: str, where: str, many: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("s3_server") if where == "s3" else None
    options: Any = {} if server is None else {"storage_options": server.options}
    base = str(tmp_path / "out") if server is None else server.url
    shardkit.pack(many, f"{base}/a", max_count=2, workers=1, **options)
    ranged = f"{base}/a-00000{braces}.tar"
    for source in (ranged, [ranged]):
        assert len(shardkit.dataset(source, **options)) == 4
    with pytest.raises(NotFoundError):
        list(shardkit.dataset(f"{base}/b-00000{braces}.tar", **options))
    store = open_store(locate(base), options.get("storage_options"))
    shard = b"".join(map(bytes, store.pieces("a-000002.tar")))
    store.put(f"a-00000{braces}.tar", io.BytesIO(shard))
    last = [sample["__key__"] for sample in shardkit.dataset(f"{base}/a-000002.tar", **options)]
    for source in (ranged, [ranged]):
        assert [sample["__key__"] for sample in shardkit.dataset(source, **options)] == last
    store.delete(f"a-00000{braces}.tar")
    assert len(shardkit.dataset(ranged, **options)) == 4


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_braces_of_a_datasets_own_name_stay_where_its_shards_are_a_range(
    where: str, many: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("s3_server") if where == "s3" else None
    options: Any = {} if server is None else {"storage_options": server.options}
    base = str(tmp_path / "out") if server is None else server.url
    for stem in ("a0", "a1", "d{0,1}/a{0..1}"):
        shardkit.pack(many, tmp_path / "made" / stem, max_count=2, workers=1)
    store = open_store(locate(base), options.get("storage_options"))
    for path in (tmp_path / "made").rglob("*.*"):
        store.put(str(path.relative_to(tmp_path / "made")), io.BytesIO(path.read_bytes()))
    own = f"{base}/d{{0,1}}/a{{0..1}}"
    for source in (f"{own}-00000{{0..1}}.tar", [f"{own}-00000{{0..1}}.tar"]):
        assert len(shardkit.dataset(source, **options)) == 4
    with pytest.raises(UsageError, match="more than one dataset"):
        len(shardkit.dataset(f"{base}/a{{0..1}}-000000.tar", **options))


@pytest.fixture
def signed(tmp_path: Path, many: Path) -> Iterator[Any]:
    """A web server that gives an object to who has its signature: `url(name)`. `asked`: the paths."""
    shardkit.pack(many, tmp_path / "out/train", max_count=2, workers=1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            httpd.asked.append(self.path)
            name, _, query = self.path.lstrip("/").partition("?")
            sound = query == f"X-Amz-Credential=me%2Fx&X-Amz-Signature={SIGNATURE}-{name}"
            data = (tmp_path / "out" / name).read_bytes() if sound else b""
            start, end = 0, len(data)
            if bounds := self.headers.get("Range"):
                first, _, last = bounds.removeprefix("bytes=").partition("-")
                start, end = int(first), min(int(last) + 1, end) if last else end
            self.send_response(403 if not sound else 206 if bounds else 200)
            if sound and bounds:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data[start:end])

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    httpd: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.asked = []
    base = f"http://127.0.0.1:{httpd.server_port}"
    httpd.url = lambda name: f"{base}/{name}?X-Amz-Credential=me%2Fx&X-Amz-Signature={SIGNATURE}-{name}"
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def test_a_signed_url_of_one_shard_is_read(signed: Any, tmp_path: Path) -> None:
    there = {s["__key__"]: bytes(s["jpg"]) for s in shardkit.dataset(tmp_path / "out/train-000001.tar")}
    for options in ({}, {"cache": tmp_path / "cache"}):
        found = list(shardkit.dataset(signed.url("train-000001.tar"), **options))
        assert {s["__key__"]: bytes(s["jpg"]) for s in found} == there
        assert SIGNATURE not in "".join(map(str, found))
    assert {path.partition("?")[0] for path in signed.asked} == {"/train-000001.tar"}
    assert all(SIGNATURE in path for path in signed.asked)


def test_each_signed_url_of_a_list_keeps_its_own_signature(signed: Any) -> None:
    names = [f"train-{number:06}.tar" for number in range(3)]
    assert len(list(shardkit.dataset([signed.url(name) for name in names]))) == 6


def test_a_signature_is_in_no_error(signed: Any) -> None:
    with pytest.raises(StorageError, match=r"train-000001.tar\?\*\*\*: access is denied") as caught:
        list(shardkit.dataset(signed.url("train-000001.tar") + "0"))
    assert SIGNATURE not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["train.json", "train"])
def test_a_signed_url_of_a_whole_dataset_says_what_can_be_signed(name: str, signed: Any) -> None:
    with pytest.raises(UsageError, match=r"holds for one object.*name the shards, each with its own") as caught:
        len(shardkit.dataset(signed.url(name)))
    assert SIGNATURE not in str(caught.value)
    assert signed.asked == []
