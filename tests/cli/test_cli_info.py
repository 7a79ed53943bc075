from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

import shardkit
from shardkit import info, pack
from shardkit.cli import tables
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
    facts = {tuple(line.split(maxsplit=2)) for line in lines}
    assert ("image", "sizes", "all 40x30") in facts and ("fields", "cls,", "jpg") in facts
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


@pytest.fixture
def splits(draw_tree: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of two splits in the working directory, `data`, packed as `shards`."""
    assert callable(draw_tree)
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 2), ("test", 1)):
        draw_tree(tmp_path / "data" / split, {"red": count, "blue": 1})
    pack("data", "shards", workers=1)
    return tmp_path


def test_a_class_directory_shows_what_would_be_packed_and_how(splits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", "data/train"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "data/train: a class directory, not packed"
    assert "  images   3" in lines
    assert ["0", "blue", "1"] in [line.split() for line in lines]
    assert lines[-1] == "pack it with: shardkit pack data/train shards/train"
    assert info("data/train").samples == 3


def test_a_folder_of_splits_shows_each(splits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", "shards"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.endswith(".json")] == ["shards/test.json", "shards/train.json"]
    assert "pack it with" not in out
    assert run(["info", "data"]) == 0
    out = capsys.readouterr().out
    assert out.count("a class directory, not packed") == 2
    assert out.endswith("pack it with: shardkit pack data shards\n")
    assert run(["info", "shards", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: part["samples"] for name, part in found.items()} == {"test": 2, "train": 3}


def test_verify_checks_each_split_of_a_folder(splits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "shards"]) == 0
    assert capsys.readouterr().out.count(": sound\n") == 2
    shard = splits / "shards/test-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1024])
    assert run(["verify", "shards", "-q"]) == 5
    out = capsys.readouterr().out
    assert "shards/test-000000.tar" in out and "train" not in out
    assert run(["verify", "shards", "--json"]) == 5
    assert set(json.loads(capsys.readouterr().out)) == {"test", "train"}


def test_a_folder_also_shows_merged_datasets_and_indexes_of_shards_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], draw_tree: Any
) -> None:
    folder = tmp_path / "shards"
    for name, classes in (("one", {"red": 3, "green": 1}), ("two", {"blue": 2})):
        draw_tree(tmp_path / name, classes)
        pack(tmp_path / name, folder / name, workers=1, classes=["red", "green", "blue"])
    shardkit.merge([str(folder / "one"), str(folder / "two")], folder / "both")
    shardkit.relabel(folder / "both", {next(iter(shardkit.dataset(folder / "both")))["__key__"]: "red"})
    pack(tmp_path / "two", tmp_path / "theirs" / "web", workers=1)
    shardkit.index_shards(f"{tmp_path}/theirs/web-*.tar", out=folder / "far")
    for command in ("info", "verify"):
        assert run([command, str(folder), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert {name: part["samples"] for name, part in found.items()} == {"both": 6, "far": 2, "one": 4, "two": 2}


def test_verify_of_a_class_directory_says_to_pack_it(splits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source in ("data", "data/train"):
        assert run(["verify", source]) == 2
        assert "this is a class directory, not a dataset; pack it with 'shardkit pack'" in capsys.readouterr().err


def test_a_second_identical_pack_says_that_nothing_was_written(
    splits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pack", "data/train", "shards/train", "--workers", "1"]) in (0, 4)
    assert run(["pack", "data/train", "one/train", "--workers", "1"]) == 0
    capsys.readouterr()
    assert run(["pack", "data/train", "one/train", "--workers", "1"]) == 0
    said = "shardkit: one/train.json: already packed and complete; nothing was written\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("arguments", [["pack", "data/train"], ["upload", "shards/train"], ["convert", "shards/train"]])
def test_a_destination_in_memory_is_refused_by_a_process_that_ends(
    arguments: list[str], splits: Path, run_python: object
) -> None:
    assert callable(run_python)
    done = run_python("-m", "shardkit", *arguments, "memory://b/train", cwd=splits, check=False)
    assert done.returncode == 2
    assert "memory://b/train: this is in the memory of this process, and lost when the command ends" in done.stderr


def test_a_line_that_is_too_long_for_the_terminal_goes_on_at_a_word(
    draw_tree: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(draw_tree)
    tree = tmp_path / "tree"
    for number in range(5):
        draw_tree(tree, {f"class{number}": 1}, size=(1000 + number, 900 + number))
    pack(tree, tmp_path / "out", workers=1)
    assert run(["info", str(tmp_path / "out")]) == 0
    whole = capsys.readouterr().out
    assert max(map(len, whole.splitlines()[1:])) > 80
    monkeypatch.setattr("shardkit.cli.tables.terminal_columns", lambda: 80)
    assert run(["info", str(tmp_path / "out")]) == 0
    folded = capsys.readouterr().out
    assert max(map(len, folded.splitlines()[1:])) <= 80
    assert folded.split() == whole.split()


def test_names_and_values_are_folded_by_columns_of_the_terminal() -> None:
    rows = [
        ("a", "one two three four five six"),
        ("long", "猫猫猫猫猫猫 猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫 x"),
        ("none", ""),
    ]
    at = "\n" + " " * 8
    assert tables.facts(rows, columns=30) == (
        f"  a     one two three four{at}five six\n  long  猫猫猫猫猫猫{at}{'猫' * 16}{at}x\n  none"
    )
    assert tables.facts(rows, columns=0).count("\n") == tables.facts(rows, columns=200).count("\n") == 2
