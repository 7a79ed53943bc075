from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from shardkit import info, pack
from shardkit.cli.main import run


@pytest.fixture
def packed(tree: Path, tmp_path: Path) -> Path:
    pack(tree, tmp_path / "train", workers=1)
    return tmp_path / "train"


def test_it_shows_what_is_in_a_dataset(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(packed)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == f"{packed}.json"
    assert [line.split()[:2] for line in lines[1:3]] == [["samples", "12"], ["shards", "1"]]
    assert "  image sizes  all 40x30" in lines
    assert "  fields       cls, jpg" in lines
    assert lines[-2:] == ["      0  blue         5", "      1  red          7"]
    assert err == ""


def test_json_has_all_that_the_function_returns(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(packed), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(msgspec.json.encode(info(packed)))


def test_json_is_sound_on_an_output_that_is_ascii_only(draw_tree: object, tmp_path: Path, run_python: object) -> None:
    assert callable(draw_tree) and callable(run_python)
    pack(draw_tree(tmp_path / "tree", {"猫": 1, "é😀": 1}), tmp_path / "out", workers=1)
    done = run_python("-m", "shardkit", "info", "out", "--json", cwd=tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert {entry["name"] for entry in json.loads(done.stdout)["classes"]} == {"猫", "é😀"}
    assert done.stdout.isascii()


def test_images_of_different_sizes_are_summed_up(
    draw_tree: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(draw_tree)
    tree = draw_tree(tmp_path / "tree", {"red": 2})
    draw_tree(tree, {"blue": 1}, size=(20, 60))
    pack(tree, tmp_path / "out", workers=1)
    assert run(["info", str(tmp_path / "out")]) == 0
    expected = "width 20 / 40 / 40, height 30 / 30 / 60; most: 40x30 (2), 20x60 (1)"
    assert expected in capsys.readouterr().out


def test_what_is_not_there_gives_exit_code_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(tmp_path / "gone")]) == 5
    assert "there is no dataset here" in capsys.readouterr().err


def test_the_build_is_told_without_a_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", "--build"]) == 0
    assert "jpeg decoder" in capsys.readouterr().out
    assert run(["info", "--build", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["jpeg decoder"] in ("fused", "simplejpeg")
    assert facts["packing of small JPEGs"] in ("C", "Python")


@pytest.mark.parametrize("arguments", [["info"], ["info", "shards", "--build"]])
def test_info_wants_either_a_dataset_or_the_build(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "either DEST or --build" in capsys.readouterr().err
