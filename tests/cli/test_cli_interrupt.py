"""Ctrl-C while a server does not answer: the command ends, although its calls can't be interrupted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from storage.toxic import Toxic

import shardkit
from shardkit import errors

pytest.importorskip("obstore")

PATIENCE_SECONDS = 60
"""Less than the time limit that these commands are given for an answer."""


def started(*line: str, endpoint: str = "") -> subprocess.Popen[str]:
    known = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
    options = {"read_timeout": "10m", "allow_http": "true", **({"endpoint": endpoint, **known} if endpoint else {})}
    return subprocess.Popen(
        [sys.executable, "-m", "shardkit", *line, *(f"--storage-option={key}={text}" for key, text in options.items())],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(errors.__file__).parent.parent)},
    )  # fmt: skip


def interrupted(process: subprocess.Popen[str]) -> str:
    """What it says of Ctrl-C."""
    try:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 130
    return said


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("info", "{url}"), "interrupted"),
        (("verify", "{url}"), "interrupted"),
        (("download", "{url}", "{tmp}/there"), "interrupted; run the same command again to resume"),
        (("upload", "{shards}", "{url}"), "interrupted; run the same command again to resume"),
        (("pack", "{tree}", "{url}"), "interrupted; run the same command again to resume"),
    ],
)
def test_ctrl_c_does_not_wait_for_a_server(tree: Path, tmp_path: Path, command: tuple[str, ...], said: str) -> None:
    shardkit.pack(tree, tmp_path / "shards" / "train", workers=1)
    names = {"url": "s3://bucket/train", "tmp": tmp_path, "shards": tmp_path / "shards" / "train", "tree": tree}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE_SECONDS)
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = started(*(part.format(**names) for part in command), endpoint=endpoint)
        with silent.accept()[0] as asked:
            assert asked.recv(4)
            time.sleep(0.1)  # until it waits for the answer
            assert interrupted(process).endswith(f"shardkit: error: {said}\n")


def test_ctrl_c_does_not_wait_for_the_threads_that_move_bytes(tree: Path, tmp_path: Path, http_folder: Any) -> None:
    shardkit.pack(tree, http_folder.folder / "train", max_count=2, workers=1)
    with Toxic(http_folder.endpoint, hang=1.0, ranges_only=True, hang_seconds=600.0) as toxic:
        url = http_folder.url.replace(http_folder.endpoint, toxic.endpoint)
        process = started("download", f"{url}/train", str(tmp_path / "there" / "train"))
        ends = time.monotonic() + PATIENCE_SECONDS
        while not toxic.counts["hang"]:
            assert time.monotonic() < ends and process.poll() is None
            time.sleep(0.05)
        assert "interrupted; run the same command again to resume\n" in interrupted(process)
    assert not (tmp_path / "there" / "train.json").exists()
    shardkit.download(f"{http_folder.url}/train", tmp_path / "there" / "train", storage_options=http_folder.options)
    wanted = {path.name: path.read_bytes() for path in http_folder.folder.glob("train*")}
    assert {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir() if path.is_file()} == wanted
