from __future__ import annotations

import json
import shlex
import tempfile
from pathlib import Path

import pytest

from shardkit.cli.main import run
from shardkit.tools.demo import SPLITS


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo of few images."""
    for split in SPLITS:
        monkeypatch.setitem(SPLITS, split, 3)


def test_it_says_what_it_did_and_what_to_type_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["demo", "my cars"]) == 0
    out, err = capsys.readouterr()
    assert "drew      18 images of red and blue cars in 'my cars'" in out
    assert "train: 6 samples in 1 shard" in out
    assert out.count("images/s") == 2
    typed = [shlex.split(line) for line in out.splitlines() if line.startswith("  shardkit")]
    assert [words[:2] for words in typed] == [["shardkit", "pack"], ["shardkit", "info"]]
    for words in typed:
        assert run(words[1:]) == 0
    assert err == ""


def test_without_a_folder_it_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run(["demo"]) == 0
    assert "shardkit demo data" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_anything_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert run(["demo", str(tmp_path)]) == 4
    assert "the folder is not empty" in capsys.readouterr().err


def test_the_result_as_json_has_the_place_of_the_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", str(tmp_path / "my cars"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tree"] == str(tmp_path / "my cars")
    assert run(["demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["batches"] > 0
