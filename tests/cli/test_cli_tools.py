"""verify, repair, unpack and index at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shardkit import pack, verify
from shardkit.cli.main import run


@pytest.fixture
def packed(tree: Path, tmp_path: Path) -> Path:
    pack(tree, tmp_path / "d" / "train", workers=1)
    return tmp_path / "d" / "train"


@pytest.fixture
def damaged(packed: Path) -> Path:
    """The dataset with one damaged image."""
    shard = Path(f"{packed}-000000.tar")
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    return packed


def test_verify_says_that_a_dataset_is_sound(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(packed), "--decode"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{packed}.json: 12 samples in 1 shard, ")
    assert out.endswith("12 images decoded: sound\n")
    assert err == ""


def test_verify_prints_each_finding_and_gives_exit_code_5(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(damaged)]) == 5
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [str(item) for item in verify(damaged).findings]
    assert lines[2].endswith(": 2 findings")


def test_verify_gives_json_with_the_same_exit_code(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(damaged), "--json"]) == 5
    found = json.loads(capsys.readouterr().out)
    assert [item["kind"] for item in found["findings"]] == ["shard-crc", "image-crc"]
    assert found["findings"][1]["byte"] == 512
    assert (found["samples"], found["checksums"]) == (12, True)


def test_verify_takes_several_shards_and_says_where_no_manifest_is(
    packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(f"{packed}.json").unlink()
    assert run(["verify", f"{packed}-000000.tar"]) == 0
    assert "there is no manifest, so no checksums: 'shardkit index' makes one" in capsys.readouterr().out


def test_verify_of_nothing_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(tmp_path / "gone")]) == 5
    assert "error" in capsys.readouterr().err


def test_repair_says_what_it_left_out(damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["repair", str(damaged), str(tmp_path / "m" / "train")]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"left out: {damaged}-000000.tar: at byte 0: sample ")
    assert out.splitlines()[-1].startswith("11 samples in 1 shard, ")
    assert out.endswith("1 sample skipped\n")
    assert verify(tmp_path / "m" / "train").sound
    assert run(["repair", str(damaged), str(tmp_path / "m" / "train")]) == 4
    assert run(["repair", str(damaged), str(tmp_path / "m" / "train"), "--overwrite", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["left_out"]) == 1


def test_unpack_writes_the_tree_or_a_part_of_it(
    packed: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["unpack", str(packed), str(tmp_path / "all")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/all: 12 samples in 12 files, ")
    names = sorted(path.relative_to(tree) for path in tree.rglob("*.jpg"))
    assert sorted(path.relative_to(tmp_path / "all") for path in (tmp_path / "all").rglob("*.jpg")) == names
    assert run(["unpack", str(packed), str(tmp_path / "reds"), "--class", "red", "--key", "*/000[01]", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 2
    assert run(["unpack", str(packed), str(tmp_path / "reds")]) == 4


def test_index_writes_a_manifest_for_shards_that_have_none(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(f"{packed}.json").unlink()
    Path(f"{packed}.parquet").unlink()
    assert run(["index", f"{packed}-*.tar"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("train: 12 samples in 1 shard, ")
    assert lines[0].endswith("; fields cls, jpg")
    assert lines[-2:] == ["      0  blue         5", "      1  red          7"]
    assert verify(packed).sound
    assert run(["index", f"{packed}-*.tar"]) == 4
    (tmp_path / "names").write_text("b\nr\n")
    assert run(["index", f"{packed}-*.tar", "--overwrite", "--classes", str(tmp_path / "names"), "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)["classes"]] == ["b", "r"]


def test_index_gives_the_name_of_the_dataset_whatever_that_of_its_files(
    tree: Path, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(tree, packed, workers=1, seed=1, overwrite=True)
    assert Path(f"{packed}-g2-000000.tar").exists()
    for source in (str(packed), f"{packed}-g2-*.tar"):
        assert run(["index", source, "--overwrite"]) == 0
        assert capsys.readouterr().out.startswith("train: 12 samples in 1 shard, ")
    assert run(["index", f"{packed}-g2-*.tar", "--out", str(packed.with_name("all.v2"))]) == 0
    assert capsys.readouterr().out.startswith("all.v2: 12 samples in 1 shard, ")


def test_index_writes_the_files_of_dali(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = Path(f"{packed}.json").read_bytes()
    assert run(["index", str(packed), "--dali"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("train: 12 samples in 1 shard, ")
    assert lines[-1] == f"{packed}-000000.idx"
    assert Path(lines[-1]).read_text().startswith("v1.2 12\n")
    assert Path(f"{packed}.json").read_bytes() == manifest
    Path(f"{packed}.json").unlink()
    assert run(["index", f"{packed}-*", "--dali", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["manifest"]["samples"] == 12
    assert found["dali"] == [f"{packed}-000000.idx"]
    assert Path(f"{packed}.json").exists()
