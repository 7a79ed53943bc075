"""The command line among hostile names, closed streams and failing disks."""

from __future__ import annotations

import builtins
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit import errors
from shardkit.cli import console
from shardkit.cli.main import run
from shardkit.packing.dest import work_folder


@pytest.fixture
def tree(tmp_path: Path, draw_tree: Any) -> Path:
    draw_tree(tmp_path / "tree", {"red": 2, "blue": 2})
    return tmp_path / "tree"


def failing_open(path_end: str, error: int) -> Callable[..., Any]:
    """`open`, which fails for files whose path ends like that."""

    def opened(path: Any, *arguments: Any, **named: Any) -> Any:
        if str(path).endswith(path_end):
            raise OSError(error, os.strerror(error), path)
        return builtins.open(path, *arguments, **named)

    return opened


def test_a_bad_answer_of_the_disk_at_the_commit_is_a_storage_error_and_the_next_run_finishes_it(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pack", str(tree), str(tmp_path / "out/train"), "--workers", "1"]
    with monkeypatch.context() as patched:
        patched.setattr(work_folder, "open", failing_open("train.json", errno.EIO), raising=False)
        assert run(command) == errors.StorageError.exit_code
    assert "train.json: Input/output error; " in capsys.readouterr().err
    assert not (tmp_path / "out/train.json").exists()
    assert run(command) == 0
    assert len(shardkit.dataset(tmp_path / "out/train")) == 4


@pytest.mark.parametrize("name", ["shards/train.json", b"shards/train.json", None])
def test_an_answer_of_the_disk_that_nobody_expected_is_no_bug(
    name: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def info(_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), name)

    monkeypatch.setattr("shardkit.tools.info.info", info)
    assert run(["info", "x"]) == errors.StorageError.exit_code
    place = "shards/train.json" if name else "disk or network"
    assert capsys.readouterr().err == (
        f"shardkit: error: {place}: {os.strerror(errno.ESTALE)}; check the disk and its permissions\n"
    )


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line of the shell, in which $SK is the command."""
    home = str(Path(shardkit.__file__).parents[1])
    env = os.environ | {"PYTHONPATH": home, "SK": f"{sys.executable} -m shardkit"}
    return subprocess.run(["sh", "-c", line], cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_pack_with_closed_streams_does_its_work(closed: str, workers: int, tree: Path, tmp_path: Path) -> None:
    done = shell(f"$SK pack tree out/train --workers {workers} {closed}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(shardkit.dataset(tmp_path / "out/train")) == 4
    assert shardkit.verify(tmp_path / "out/train", decode=True).sound


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-"])
def test_the_exit_code_of_an_error_stays_with_closed_streams(closed: str, tmp_path: Path) -> None:
    assert shell(f"$SK info nothing {closed}", tmp_path).returncode == errors.NotFoundError.exit_code


def test_no_file_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "import os; from shardkit.cli import console; console.open_closed_streams(); "
        "fd = os.open('x', os.O_CREAT | os.O_WRONLY); print('hello'); os.write(2, b'hello'); os.write(1, b'hello'); "
        "os.write(fd, b'%d' % (fd > 2))"
    )
    assert shell(f'{sys.executable} -c "{code}" <&- >&- 2>&-', tmp_path).returncode == 0
    assert (tmp_path / "x").read_text() == "1"


def test_a_stderr_whose_reader_went_away_changes_no_exit_code(tmp_path: Path, run_python: Any) -> None:
    code = (
        "import os\n"
        "from shardkit.cli.main import main\n"
        "r, w = os.pipe(); os.dup2(w, 2); os.close(w); os.close(r)\n"
        "main(['info', 'nothing'])"
    )
    assert run_python("-c", code, cwd=tmp_path, check=False).returncode == errors.NotFoundError.exit_code


HOSTILE = "a\x1b]0;x\x07\x7f\x85\x9b2J\u202e\u2066é猫"
"""What a terminal obeys: an escape sequence, a bell, C1 controls, a turned direction of writing."""


@pytest.fixture
def hostile(tree: Path, tmp_path: Path) -> Path:
    """The prefix of a dataset whose manifest holds such names."""
    shardkit.pack(tree, tmp_path / "out/train", workers=1)
    manifest = json.loads((tmp_path / "out/train.json").read_text())
    manifest["classes"][0]["name"] = HOSTILE
    manifest["options"]["source"] = HOSTILE
    (tmp_path / "out/train.json").write_text(json.dumps(manifest, ensure_ascii=False))
    return tmp_path / "out/train"


@pytest.mark.parametrize("json_too", [False, True])
@pytest.mark.parametrize("command", ["info", "verify", "shuffle-quality"])
def test_no_name_of_a_manifest_reaches_the_terminal_as_it_is(
    command: str, json_too: bool, hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run([command, str(hostile), *(["--json"] if json_too else [])])
    out, err = capsys.readouterr()
    assert all(line.isprintable() for line in (out + err).split("\n"))
    if json_too and command == "info":
        assert json.loads(out)["classes"][0]["name"] == HOSTILE
        assert "é猫" in out


def test_a_line_of_results_is_harmless_whoever_wrote_it(capsys: pytest.CaptureFixture[str]) -> None:
    console.write(f"one\ttwo\n{HOSTILE}")
    console.write_json({"name": HOSTILE})
    out = capsys.readouterr().out
    assert out.startswith("one\ttwo\n")
    assert all(line.isprintable() for line in out.replace("\t", "").split("\n"))
    assert json.loads(out[out.index("{") :]) == {"name": HOSTILE}
