"""`upload` to a real S3 server: its ETags, what may be wrong with a bucket, and a process that is killed on its way."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit.cli.main import run
from shardkit.errors import StorageError
from shardkit.location import locate
from shardkit.packing.parts.names import WHOLE_LEASE, shared_name
from shardkit.shards.manifest import decode_manifest, file_names
from shardkit.shards.names import marker_name
from shardkit.storage import etag
from shardkit.storage.store import open_store
from shardkit.storage.stores import cloud

pytest.importorskip("obstore")

PATIENCE_SECONDS = 60
LEASE = shared_name("train", WHOLE_LEASE)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def objects(s3_server: Any) -> dict[str, bytes]:
    store = open_store(locate(s3_server.url), s3_server.options)
    return {info.name: b"".join(map(bytes, store.pieces(info.name))) for info in store.list()}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> Path:
    """The prefix of a dataset of 40 shards."""
    root = tmp_path_factory.mktemp("many")
    draw_tree(root / "tree", {"a": 20, "b": 20})
    shardkit.pack(root / "tree", root / "shards" / "train", max_count=1, workers=1)
    return root / "shards" / "train"


@pytest.fixture
def large(tmp_path: Path, draw_image: Any) -> Path:
    """The prefix of a dataset with one shard of more than a part of an upload."""
    folder = tmp_path / "tree" / "noise"
    folder.mkdir(parents=True)
    for number in range(3):
        image = draw_image(number)
        (folder / f"{number}.jpg").write_bytes(image + random.Random(number).randbytes(etag.PART_BYTES // 2))
    shardkit.pack(tmp_path / "tree", tmp_path / "shards" / "train", workers=1)
    return tmp_path / "shards" / "train"


def test_an_etag_proves_what_arrived_without_reading_it(
    large: Path, many: Path, s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    pieces = cloud.RemoteStore.pieces

    def reading(self: Any, name: str, *bounds: Any) -> Any:
        read.append(name)
        return pieces(self, name, *bounds)

    monkeypatch.setattr(cloud.RemoteStore, "pieces", reading)
    for prefix in (large, many):
        shardkit.upload(prefix, f"{s3_server.url}/{prefix.parent.parent.name}/", storage_options=s3_server.options)
    assert {name for name in read if not name.endswith(".json")} <= {marker_name("train"), LEASE}
    shardkit.upload(large, f"{s3_server.url}/again/", storage_options=s3_server.options, check="read")
    assert "train-000000.tar" in read


def test_a_checksum_is_stored_beside_each_object(many: Path, s3_server: Any) -> None:
    shardkit.upload(many, f"{s3_server.url}/train", storage_options=s3_server.options)
    store = open_store(locate(s3_server.url), s3_server.options)
    manifest = decode_manifest(many.with_name("train.json").read_bytes(), place="x")
    assert store.info("train-000007.tar").crc32c == manifest.shards[7].crc32c


def test_a_bucket_that_is_not_there_is_told(many: Path, s3_server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    options = [f"--storage-option={key}={value}" for key, value in s3_server.options.items()]
    assert run(["upload", str(many), "s3://no-such-bucket/train", *options]) == 6
    err = capsys.readouterr().err
    assert err.startswith("shardkit: error: s3://no-such-bucket")
    assert err.count("\n") == 1


def test_no_credential_is_told_or_written(
    many: Path, s3_server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "hunter2-and-more"
    given = {**s3_server.options, "secret_access_key": secret, "session_token": secret}
    options = [f"--storage-option={key}={value}" for key, value in given.items()]
    caplog.set_level(logging.DEBUG)
    assert run(["upload", str(many), f"{s3_server.url}/train", "-v", "--json", *options]) == 0
    assert run(["upload", str(many), "s3://no-such-bucket/train", "-v", "--debug", *options]) == 6
    assert run(["upload", str(many), f"{s3_server.url}/train", "--storage-option", secret]) == 2
    assert run(["upload", str(many), f"{s3_server.url}/train", f"--storage-option=no_such_option={secret}"]) == 2
    tree = many.parent.parent / "tree"
    work = ["--work", str(tmp_path / "work"), "--workers", "1"]
    assert run(["pack", str(tree), f"{s3_server.url}/p/train", *work, *options]) == 0
    assert run(["pack", str(tree), "s3://no-such-bucket/p/train", *work, *options]) == 6
    out, err = capsys.readouterr()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    texts = [out, err, caplog.text, *(path.read_bytes().decode("latin1") for path in written), *map(str, written)]
    texts += [data.decode("latin1") + name for name, data in objects(s3_server).items()]
    assert written
    assert not [text for text in texts if secret in text]


def test_the_command_says_what_it_did_in_one_line_or_as_json(
    many: Path, s3_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--storage-option={key}={value}" for key, value in s3_server.options.items()]
    assert run(["upload", str(many), f"{s3_server.url}/train", *options]) == 0
    out, err = capsys.readouterr()
    assert (out.count("\n"), err) == (1, "")
    assert out.startswith(f"{s3_server.url}/train: 40 samples in 40 shards, ")
    assert "; sent 41 files, " in out
    assert run(["upload", str(many), f"{s3_server.url}/train", *options]) == 0
    assert capsys.readouterr().out.endswith("; sent 0 files, 0 B; 41 there already\n")
    assert run(["download", f"{s3_server.url}/train", str(tmp_path / "out" / "train"), "--json", *options]) == 0
    (one,) = json.loads(capsys.readouterr().out)["datasets"]
    assert (one["samples"], one["shards"], one["sent"], one["kept"]) == (40, 40, 41, 0)
    assert files(tmp_path / "out") == files(many.parent)


FORKER = """
import json, os, sys
from shardkit.tools.transfer import upload  # the child begins at once
prefix, url, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            upload.upload(prefix, url, storage_options=options, workers=2)
        finally:
            os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(shardkit.__file__).parents[1])}


def require_whole_or_absent(there: dict[str, bytes], wanted: dict[str, bytes]) -> bool:
    """What is there is right, and where the manifest is, all is there. Whether it is."""
    there = {name: data for name, data in there.items() if name not in (marker_name("train"), LEASE)}
    assert there.items() <= wanted.items()
    if "train.json" in there:
        assert set(file_names(decode_manifest(there["train.json"], place="x"))) <= set(there)
    return "train.json" in there


def test_an_upload_that_is_killed_leaves_no_half_dataset_and_the_next_goes_on(many: Path, s3_server: Any) -> None:
    wanted, store = files(many.parent), open_store(locate(s3_server.url), s3_server.options)
    arguments = [str(many), f"{s3_server.url}/train", json.dumps(s3_server.options)]
    forker = subprocess.Popen(
        [sys.executable, "-c", FORKER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        env=environment(),
    )  # fmt: skip
    assert forker.stdin is not None
    assert forker.stdout is not None
    chance, kills, partly = random.Random(7), 0, 0
    try:
        assert forker.stdout.readline() == "ready\n"
        while kills < 25:
            forker.stdin.write("go\n")
            child = int(forker.stdout.readline())
            time.sleep(chance.uniform(0, 0.4))
            with contextlib.suppress(ProcessLookupError):  # it was quicker
                os.kill(child, signal.SIGKILL)
                kills += 1
            assert forker.stdout.readline() == "ended\n"
            there = objects(s3_server)
            if require_whole_or_absent(there, wanted):
                for name in [*chance.sample(sorted(there), len(there) // 2), "train.json"]:
                    store.delete(name)
            partly += 0 < len(there) < len(wanted)
    finally:
        forker.stdin.close()
        forker.wait(PATIENCE_SECONDS)
        forker.stdout.close()
    assert partly
    (one,) = shardkit.upload(many, f"{s3_server.url}/train", storage_options=s3_server.options).datasets
    assert one.sent + one.kept == 41
    assert objects(s3_server) == wanted


def test_an_interrupt_from_the_keyboard_ends_it_with_130_and_the_next_run_goes_on(many: Path, s3_server: Any) -> None:
    slow = {**s3_server.options, "latency_seconds": "0.05"}
    options = [f"--storage-option={key}={value}" for key, value in slow.items()]
    bucket = s3_server.url.removeprefix("s3://")
    line = ["upload", str(many), f"slow+s3://{bucket}/train", "--transfers", "1", *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "shardkit", *line], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    store = open_store(locate(s3_server.url), s3_server.options)
    ends = time.monotonic() + PATIENCE_SECONDS
    while sum(info.name != LEASE for info in store.list()) < 4:  # the marker is one of them
        assert time.monotonic() < ends
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, err) == (130, "shardkit: error: interrupted; run the same command again to resume\n")
    assert 4 <= len(list(store.list())) < 42
    (one,) = shardkit.upload(many, f"{s3_server.url}/train", storage_options=s3_server.options).datasets
    assert one.kept >= 3
    assert objects(s3_server) == files(many.parent)


def test_no_rights_are_told(many: Path, s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr("obstore.put", denied)
    with pytest.raises(StorageError, match=r"\.train\.packing/whole\.lease: Access Denied"):
        shardkit.upload(many, f"{s3_server.url}/train", storage_options=s3_server.options)
    assert objects(s3_server) == {}
