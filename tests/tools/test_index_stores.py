"""Shards of others in every kind of store, and what a web server's log says of how they were indexed."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from shards.indexing.in_store import tar_of

import shardkit
from shardkit import StorageError, dataset, index_shards
from shardkit.location import locate
from shardkit.storage.store import open_store

SHARDS, SAMPLES, SIZE = 3, 12, 100_000


@dataclass
class Theirs:
    """A place of somebody else's shards. put: writes one."""

    url: str
    put: Callable[[str, bytes], object]
    options: dict[str, Any] = field(default_factory=dict)


def written_by(url: str, options: dict[str, Any]) -> Theirs:
    store = open_store(locate(url), options)
    return Theirs(url, lambda name, data: store.put(name, io.BytesIO(data)), options)


@pytest.fixture
def hub() -> Iterator[Theirs]:
    """A repository of the Hub in memory."""
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    class HubFiles(MemoryFileSystem):  # type: ignore[misc]
        protocol = ("hf",)
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return "/" + path.removeprefix("hf://").strip("/")

    real = fsspec.get_filesystem_class("hf")
    fsspec.register_implementation("hf", HubFiles, clobber=True)
    yield Theirs(
        "hf://datasets/someone/cars/data",
        lambda name, data: HubFiles().pipe_file(f"/datasets/someone/cars/data/{name}", data),
    )
    fsspec.register_implementation("hf", real, clobber=True)


@pytest.fixture
def s3rver(s3rver_endpoint: str) -> Theirs:
    boto3 = pytest.importorskip("boto3")
    bucket, keys = f"b{os.urandom(6).hex()}", {"aws_access_key_id": "S3RVER", "aws_secret_access_key": "S3RVER"}
    boto3.client("s3", endpoint_url=s3rver_endpoint, region_name="us-east-1", **keys).create_bucket(Bucket=bucket)
    options = {"endpoint_url": s3rver_endpoint, "key": "S3RVER", "secret": "S3RVER", "region": "us-east-1"}
    return written_by(f"s3://{bucket}/data", options)


@pytest.fixture
def azure(azurite_endpoint: str) -> Theirs:
    from storage.servers import AZURITE_ACCOUNT, AZURITE_KEY, make_container

    container = f"c{os.urandom(6).hex()}"
    make_container(azurite_endpoint, container)
    options = {
        "account_name": AZURITE_ACCOUNT,
        "account_key": AZURITE_KEY,
        "endpoint": f"{azurite_endpoint}/{AZURITE_ACCOUNT}",
    }
    return written_by(f"az://{container}/data", options)


@pytest.fixture(params=["s3", "s3rver", "azure", "http", "hub", "folder"])
def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> Theirs:
    """Each kind of store."""
    kind = request.param
    if kind in ("s3rver", "azure", "hub"):
        found: Theirs = request.getfixturevalue(kind)
        return found
    if kind == "s3":
        server = request.getfixturevalue("s3_server")
        return written_by(f"{server.url}/data", server.options)
    folder = tmp_path / "theirs" if kind == "folder" else request.getfixturevalue("http_folder").folder
    url = str(folder) if kind == "folder" else request.getfixturevalue("http_folder").url
    folder.mkdir(exist_ok=True)
    hours = itertools.count(1)

    def put(name: str, data: bytes) -> None:
        (folder / name).write_bytes(data)
        os.utime(folder / name, (3600 * (hour := next(hours)), 3600 * hour))  # nginx's ETag is of the second

    return Theirs(url, put)


def shard(draw_image: Any, number: int) -> bytes:
    members = []
    for n in range(number * SAMPLES, (number + 1) * SAMPLES):
        members += [(f"{n:05}.jpg", draw_image(n).ljust(SIZE, b"\0")), (f"{n:05}.cls", b"%d" % (n % 3))]
    return tar_of(members)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_shards_in_any_store_are_indexed_read_and_noticed_to_be_replaced(
    theirs: Theirs, tmp_path: Path, cache: Path, draw_image: Any
) -> None:
    for number in range(SHARDS):
        theirs.put(f"web-{number:06}.tar", shard(draw_image, number))
    pattern, options = f"{theirs.url}/web-{{000000..00000{SHARDS - 1}}}.tar", theirs.options
    manifest = index_shards(pattern, out=tmp_path / "mine" / "web", storage_options=options)
    assert (manifest.samples, manifest.fields) == (SHARDS * SAMPLES, ("cls", "jpg"))
    keys = [f"{n:05}" for n in range(SHARDS * SAMPLES)]
    for data in (
        dataset(tmp_path / "mine" / "web", storage_options=options),
        dataset(pattern, index=tmp_path / "mine" / "web", storage_options=options),
        dataset(pattern, index="auto", storage_options=options),
    ):
        assert len(data) == len(keys) and [sample["__key__"] for sample in data] == keys
        assert data[17]["cls"] == 17 % 3 and len(data.select([1])) == SHARDS * SAMPLES // 3
    images, labels = next(iter(dataset(pattern, index="auto", storage_options=options).decode(size=16).batch(8)))
    assert images.shape == (8, 16, 16, 3) and labels.tolist() == [n % 3 for n in range(8)]
    theirs.put("web-000001.tar", shard(draw_image, 7))
    changed = dataset(pattern, index="auto", storage_options=options)
    assert [sample["__key__"] for sample in changed][SAMPLES] == f"{7 * SAMPLES:05}"
    with pytest.raises((shardkit.ManifestError, shardkit.DamagedError)):
        list(dataset(tmp_path / "mine" / "web", storage_options=options))
    shutil.rmtree(cache)


class Log:
    """A web server for a folder, with ranges, and what it sent: (name, bytes) of each answer to a GET."""

    def __init__(self, folder: Path) -> None:
        from storage.range_server import Handler

        self.sent: list[tuple[str, int]] = []
        sent = self.sent

        class Noting(Handler):
            def send_header(self, keyword: str, value: str) -> None:
                if keyword == "Content-Length" and self.command == "GET":
                    sent.append((self.path, int(value)))
                super().send_header(keyword, value)

        handler = type("FolderHandler", (Noting,), {"folder": folder})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        Thread(target=self.server.serve_forever, daemon=True).start()


def test_the_log_of_a_web_server_shows_one_small_range_for_each_large_image(tmp_path: Path, draw_image: Any) -> None:
    (tmp_path / "theirs").mkdir()
    for number in range(SHARDS):
        (tmp_path / "theirs" / f"web-{number:06}.tar").write_bytes(shard(draw_image, number))
    log = Log(tmp_path / "theirs")
    manifest = index_shards(f"{log.url}/web-{{000000..00000{SHARDS - 1}}}.tar", out=tmp_path / "web")
    log.server.shutdown()
    log.server.server_close()
    sent = [size for name, size in log.sent if name.endswith(".tar")]
    end_of_tar = SHARDS * tarfile.RECORDSIZE  # zeros, which are read to see that nothing follows
    assert manifest.samples == SHARDS * SAMPLES
    assert len(sent) <= SHARDS * (SAMPLES + 3)
    assert sum(sent) - end_of_tar <= 0.02 * manifest.bytes


class NoRanges:
    """A web server that sends whole files, whatever is asked."""

    def __init__(self, folder: Path) -> None:
        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, directory=str(folder))

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.mark.parametrize("headers", [{}, {"X-Key": "k"}], ids=["obstore", "own headers"])
def test_a_server_that_answers_no_ranges_is_told(headers: dict[str, str], tmp_path: Path, draw_image: Any) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "web-000000.tar").write_bytes(shard(draw_image, 0))
    served = NoRanges(tmp_path / "theirs")
    options = {"default_headers": headers} if headers else {}
    try:
        with pytest.raises(StorageError, match="range"):
            index_shards(f"{served.url}/web-000000.tar", out=tmp_path / "web", storage_options=options)
    finally:
        served.server.shutdown()
        served.server.server_close()
    assert not (tmp_path / "web.json").exists()


def test_a_folder_that_may_only_be_read_is_indexed_from_outside(tmp_path: Path, draw_image: Any) -> None:
    """As /kaggle/input is: nothing is written to it, not even for a moment."""
    folder = tmp_path / "kaggle" / "input" / "cars"
    folder.mkdir(parents=True)
    for number in range(SHARDS):
        (folder / f"{number:05}.tar").write_bytes(shard(draw_image, number))
    (folder / "dataset-metadata.json").write_text("{}")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} | {"": folder.stat().st_mtime_ns}
    folder.chmod(0o555)
    try:
        manifest = index_shards(f"{folder}/*.tar", out=tmp_path / "working" / "cars")
        data = dataset(tmp_path / "working" / "cars", shuffle=8, seed=0)
        assert manifest.has_checksums and len(data) == SHARDS * SAMPLES == len(list(data))
        assert shardkit.verify(tmp_path / "working" / "cars").sound
        shardkit.convert(tmp_path / "working" / "cars", tmp_path / "own" / "cars")
        shardkit.unpack(tmp_path / "working" / "cars", tmp_path / "tree")
    finally:
        folder.chmod(0o755)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} | {"": folder.stat().st_mtime_ns} == before
    assert shardkit.verify(tmp_path / "own" / "cars").sound


@pytest.mark.parametrize("headers", [{}, {"X-Key": "k"}], ids=["obstore", "own headers"])
@pytest.mark.parametrize("gives", ["Last-Modified", "nothing"])
def test_a_server_without_etags_gives_the_time_of_the_last_change_or_indexing_says_what_goes_unnoticed(
    gives: str, headers: dict[str, str], tmp_path: Path, draw_image: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from storage.range_server import Handler

    (tmp_path / "theirs").mkdir()
    names = [f"web-{number:06}.tar" for number in range(2)]
    for number, name in enumerate(names):
        (tmp_path / "theirs" / name).write_bytes(shard(draw_image, number))
        os.utime(tmp_path / "theirs" / name, (3600, 3600))

    class Silent(Handler):
        folder = tmp_path / "theirs"

        def send_header(self, keyword: str, value: str) -> None:
            if keyword not in ("ETag", "Last-Modified") or keyword == gives:
                super().send_header(keyword, value)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    pattern = f"http://127.0.0.1:{server.server_address[1]}/web-{{000000..000001}}.tar"
    options = {"default_headers": headers} if headers else {}
    try:
        for _ in range(2):
            manifest = index_shards(pattern, out=tmp_path / "web", storage_options=options, overwrite=True)
        said = [record.getMessage() for record in caplog.records if "can't be noticed" in record.getMessage()]
        if gives == "nothing":
            assert list(manifest.shard_versions) == [None, None]
            assert len(said) == 2 and "for 2 shards" in said[0]  # once for each indexing
            return
        assert list(manifest.shard_versions) == ["modified 3600"] * 2 and not said
        os.utime(tmp_path / "theirs" / names[1], (7200, 7200))
        with pytest.raises(shardkit.ManifestError, match="replaced since it was indexed"):
            list(dataset(tmp_path / "web", storage_options=options))
    finally:
        server.shutdown()
        server.server_close()
