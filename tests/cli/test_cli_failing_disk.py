"""Each command on a disk that fails once, at any of its calls: it copes or says what failed, never by a bare error."""

from __future__ import annotations

import errno
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from failing_disk import FailingDisk

import shardkit
from shardkit.cli import console, main
from shardkit.cli.main import run

ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES)
COMMANDS = {
    "pack": "pack tree new/x --max-count 2 --workers 1",
    "pack a list": "pack list.csv new/x --classes names.txt --workers 1",
    "pack an archive": "pack tree.zip new/x --workers 1",
    "pack a tar": "pack tree.tar new/x --workers 1",
    "pack --append": "pack more out/train --append --workers 1",
    "pack --overwrite": "pack more out/train --overwrite --workers 1",
    "pack --resize": "pack tree new/x --resize 16 --format tfrecord --workers 1",
    "pack into a store": "pack tree slow+file://{here}/up/x --work work --workers 1",
    "index": "index plain/train --workers 1",
    "info": "info out/train",
    "verify": "verify out/train",
    "unpack": "unpack out/train new/tree --workers 1",
    "convert": "convert out/train new/x --format tfrecord --workers 1",
    "repair": "repair out/train new/x",
    "view": "view out/train --out view.png --count 1",
    "shuffle-quality": "shuffle-quality out/train",
    "upload": "upload out/train slow+file://{here}/up/train",
    "download": "download slow+file://{here}/out/train new/",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> Path:
    """A folder with all that the commands read."""
    root = tmp_path_factory.mktemp("made")
    draw_tree(root / "tree", {"red": 2, "blue": 2})
    draw_tree(root / "more", {"red": 3, "blue": 2})
    files = sorted(path.relative_to(root / "tree") for path in (root / "tree").rglob("*.jpg"))
    (root / "list.csv").write_text("path,label\n" + "".join(f"tree/{path},{path.parent}\n" for path in files))
    (root / "names.txt").write_text("blue\nred\n")
    with zipfile.ZipFile(root / "tree.zip", "w") as archive:
        for path in files:
            archive.write(root / "tree" / path, path)
    shutil.make_archive(str(root / "tree"), "tar", root / "tree")
    shardkit.pack(root / "tree", root / "out/train", max_count=2, workers=1)
    shutil.copytree(root / "out", root / "plain")
    for name in ("train.json", "train.parquet"):
        (root / "plain" / name).unlink()
    return root


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FailingDisk:
    return FailingDisk(tmp_path / "here", monkeypatch)


@pytest.fixture
def attempt(
    made: Path, tmp_path: Path, disk: FailingDisk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, int, int], tuple[int, str]]:
    """Runs a command on a fresh copy of the folder: (exit code, what it said)."""
    monkeypatch.setattr(main, "_of_the_disk", lambda exc: pytest.fail(f"a bare error: {exc!r}", pytrace=False))
    unwritable = console.unwritable
    monkeypatch.setattr(
        console, "unwritable", lambda exc: pytest.fail(f"{exc!r} is not of the output") if disk.hit else unwritable(exc)
    )

    def attempted(command: str, at: int, error: int) -> tuple[int, str]:
        here = tmp_path / "here"
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(made, here)
        monkeypatch.chdir(here)
        disk.arm(at, error)
        try:
            code = run(command.format(here=here).split())
        finally:
            disk.on = False
        return code, "".join(capsys.readouterr())

    return attempted


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_a_disk_that_fails_once_copes_or_names_what_failed(
    name: str, disk: FailingDisk, attempt: Callable[[str, int, int], tuple[int, str]]
) -> None:
    code, said = attempt(COMMANDS[name], -1, 0)
    assert code == 0, said
    first = {}  # the first call of each kind for each file, whatever number its name has
    for at, (call, path) in enumerate(disk.calls):
        first.setdefault((call, re.sub(r"[0-9a-f]{8,}|\d+", "0", path)), at)
    failed = 0
    for turn, at in enumerate(first.values()):
        code, said = attempt(COMMANDS[name], at, ERRORS[turn % len(ERRORS)])
        if disk.hit is None or code == 0:
            continue
        failed += 1
        call, path = disk.hit
        assert code in {kind.exit_code for kind in shardkit.ShardkitError.__subclasses__()}, (call, path, said)
        names = (os.path.basename(path), os.path.basename(os.path.dirname(path)), "out/train", "tree.", "view.png")
        assert any(each in said for each in names), (call, path, said)
    assert failed
