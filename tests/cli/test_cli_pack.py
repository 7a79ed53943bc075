from __future__ import annotations

import inspect
import json
import logging
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from shardkit import Images, LabelOptions, Manifest, Packed, Ray, TableColumns, pack
from shardkit.cli.main import run
from shardkit.cli.pack import command, plan_text, result_text, settings
from shardkit.packing.pack import DatasetPlan, PackPlan
from shardkit.shards.manifest import ClassEntry, ShardEntry, decode_manifest
from shardkit.shards.names import base_of, skipped_name

CONFIGS = sorted((Path(__file__).parent.parent.parent / "configs").glob("*.yaml"))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What `shardkit pack` gives to `pack()` for a command line; nothing is packed."""

    def call(*arguments: str) -> dict[str, Any]:
        given: dict[str, Any] = {}

        def fake(source: str, dest: str, **options: Any) -> PackPlan:
            given.update(flat(options), source=source, dest=dest, dry_run=True)
            return PackPlan(())

        def fake_pack(source: str, dest: str, **options: Any) -> Packed:
            given.update(flat(options), source=source, dest=dest, dry_run=False)
            return Packed({}, splits=True)

        with monkeypatch.context() as patch:
            patch.setattr("shardkit.packing.pack.plan_pack", fake)
            patch.setattr("shardkit.packing.pack.pack", fake_pack)
            assert run(["pack", "tree", "shards/out", "--json", *arguments]) == 0
        del given["progress"]
        return given

    return call


def flat(options: dict[str, Any]) -> dict[str, Any]:
    """The keywords of `pack()` by the names of the command line's options."""
    given = dict(options)
    images, columns = given.pop("images") or Images(), given.pop("columns") or TableColumns()
    labels = given.pop("labels") or LabelOptions()
    engine = given.pop("engine")
    ray = isinstance(engine, Ray)
    return given | asdict(images) | asdict(columns) | asdict(labels) | {
        "engine": "ray" if ray else engine, "address": engine.address if ray else None
    }  # fmt: skip


def defaults() -> dict[str, Any]:
    found = {
        name: parameter.default
        for name, parameter in inspect.signature(pack).parameters.items()
        if parameter.default is not parameter.empty and name != "progress"
    }
    return flat(found) | {"dry_run": False}


def manifest(samples: int, classes: dict[str, int], *, skipped: int = 0) -> Manifest:
    return Manifest(
        samples=samples,
        bytes=10240,
        classes=tuple(ClassEntry(name, count) for name, count in classes.items()),
        shards=(ShardEntry("out-000000.tar", samples, 10240, "00000000"),),
        skipped=skipped,
    )


def test_every_keyword_of_pack_is_an_option_and_a_setting() -> None:
    assert set(settings(command)) == set(defaults())


def test_the_defaults_are_those_of_pack(call: Callable[..., dict[str, Any]]) -> None:
    given = call()
    assert given.pop("source") == "tree"
    assert given.pop("dest") == "shards/out"
    assert given == defaults() | {"max_bytes": 256_000_000}


def test_every_option_reaches_pack(call: Callable[..., dict[str, Any]]) -> None:
    shards = "--format tar --max-bytes 64MiB --max-count 100 --no-shuffle --seed 7 --workers 3"
    shards += " --append --overwrite --part 3/16 --dry-run --engine ray --address head:6379"
    files = "--ext jpg,.PNG --fields jpg,json --check full --on-error skip --classes names.txt --classes-from m.json"
    files += " --split a=0.5,b=0.5 --group-by p[0-9]+ --group-near-duplicates"
    images = (
        "--resize 256 --max-side 512 --to jpeg --quality 85 --baseline --seek-points --strip --orient"
        " --subsampling 420 --quality-columns"
    )
    bucket = "--work waiting --storage-option region=x --storage-option endpoint=http://h:1/?a=b --restart-rows 1"
    files += " --path-column file --label-column breed --label-separator ';' --root photos"
    files += " --label-from '(a)b' --merge animal=cat,dog --merge car=bus"
    given = call(*shlex.split(shards), *shlex.split(files), *shlex.split(images), *shlex.split(bucket))
    assert given == {
        "source": "tree",
        "dest": "shards/out",
        "format": "tar",
        "max_bytes": 64 << 20,
        "max_count": 100,
        "shuffle": False,
        "seed": 7,
        "part": "3/16",
        "workers": 3,
        "engine": "ray",
        "address": "head:6379",
        "classes": Path("names.txt"),
        "classes_from": Path("m.json"),
        "ext": ["jpg", ".PNG"],
        "fields": ["jpg", "json"],
        "path_column": "file",
        "label_column": "breed",
        "label_separator": ";",
        "root": Path("photos"),
        "label_from": "(a)b",
        "merge": {"animal": ["cat", "dog"], "car": ["bus"]},
        "no_labels": False,
        "split": "a=0.5,b=0.5",
        "group_by": "p[0-9]+",
        "group_near_duplicates": True,
        "resize": 256,
        "max_side": 512,
        "to": "jpeg",
        "quality": 85,
        "baseline": True,
        "seek_points": True,
        "quality_columns": True,
        "strip": True,
        "orient": True,
        "subsampling": 420,
        "restart_rows": 1,
        "check": "full",
        "on_error": "skip",
        "append": True,
        "overwrite": True,
        "dry_run": True,
        "work": Path("waiting"),
        "storage_options": {"region": "x", "endpoint": "http://h:1/?a=b"},
    }


def test_a_configuration_file_gives_options_and_the_command_line_wins(
    call: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "pack.yaml"
    file.write_text("max_bytes: 1MB\nseed: 5\nshuffle: false\nclasses: names.txt\ndry_run: true\next: jpg\n")
    given = call("--config", str(file), "--seed", "0", "--shuffle")
    assert (given["max_bytes"], given["seed"], given["shuffle"]) == (1_000_000, 0, True)
    assert (given["classes"], given["dry_run"], given["ext"]) == (tmp_path / "names.txt", True, ["jpg"])
    assert given["check"] == "header"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nsede: 2\n", ":2: no option is named 'sede'; did you mean seed?"),
        ("config: other.yaml\n", ":1: no option is named 'config'"),
        ("as_json: true\n", ":1: no option is named 'as_json'"),
        ("workers: many\n", ":1: workers: 'many' is not a whole number; give at least 1"),
        ("check: half\n", ":1: check: 'half' is not one of header, full, none"),
        ("seed: 1\nseed: 1\n", ":2: seed is given twice"),
    ],
)
def test_a_wrong_configuration_file_is_refused_with_its_place(
    text: str, message: str, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pack.yaml"
    file.write_text(text)
    assert run(["pack", str(tree), str(tmp_path / "out"), "--config", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{file}{message}" in err
    assert list(tmp_path.glob("out*")) == []


@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.name)
def test_each_configuration_file_of_the_project_packs(
    file: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pack", str(tree), str(tmp_path / "out"), "--config", str(file), "--workers", "1"]) == 0
    assert "12 samples in 1 shard" in capsys.readouterr().out
    assert (tmp_path / "out.json").exists()


def test_the_complete_configuration_file_has_every_option_at_its_default(call: Callable[..., dict[str, Any]]) -> None:
    [complete] = [file for file in CONFIGS if file.name == "pack.yaml"]
    assert set(yaml.safe_load(complete.read_text("utf-8"))) == set(settings(command))
    assert call("--config", str(complete)) == call()


def test_a_tree_is_packed_and_the_summary_has_the_class_map(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "shards" / "train"
    assert run(["pack", str(tree), str(dest), "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    first, *table = out.splitlines()
    assert first.startswith(f"{dest}: 12 samples in 1 shard, ")
    assert [line.split() for line in table] == [["label", "class", "samples"], ["0", "blue", "5"], ["1", "red", "7"]]
    assert err == ""
    assert sorted(path.name for path in dest.parent.iterdir()) == ["train-000000.tar", "train.json", "train.parquet"]


def test_json_is_the_manifest_and_the_only_thing_on_stdout(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "notes.txt").write_text("left out")
    assert run(["pack", str(tree), str(tmp_path / "out"), "--json", "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    written = (tmp_path / "out.json").read_bytes()
    assert decode_manifest(out.encode(), place="stdout") == decode_manifest(written, place="file")
    assert "left out" in err


def test_json_of_a_tree_of_splits_has_the_manifest_of_each(
    splits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pack", str(splits), str(tmp_path / "out"), "--json", "--workers", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {split: entry["samples"] for split, entry in result.items()} == {"test": 2, "train": 10, "validation": 4}


def test_the_summary_of_splits_has_one_class_map_with_a_column_for_each(
    splits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["pack", str(splits), "out/", "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {tuple(line.split()) for line in lines[3:]}
    assert {line.partition(",")[0] for line in lines[:3]} == {
        "out/train: 10 samples in 1 shard",
        "out/validation: 4 samples in 1 shard",
        "out/test: 2 samples in 1 shard",
    }
    head = next(row for row in rows if row[0] == "label")
    assert sorted(head[2:]) == ["test", "train", "validation"]
    order = {"test": "1", "train": "6", "validation": "2"}
    assert ("1", "red", *(order[name] for name in head[2:])) in rows


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "red" / "notes.txt").write_text("left out")
    assert run(["pack", str(tree), str(tmp_path / "out"), "--dry-run", "--max-count", "5"]) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / 'out'}.json: 12 samples in 3 shards" in out
    assert "out-000002.tar" in out
    assert ["1", "red", "7"] in [line.split() for line in out.splitlines()]
    assert "left out: 1 files with other extensions" in out
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_skipped_files_are_counted_in_the_summary_and_named_on_stderr(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "red" / "bad.jpg").write_text("<html>")
    dest = tmp_path / "out"
    assert run(["pack", str(tree), str(dest), "--on-error", "skip", "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    assert f"{dest}: 12 samples in 1 shard" in out
    assert f"; 1 skipped, see {dest}.skipped.json" in out
    assert "red/bad.jpg" in err
    again = ["pack", str(tree), str(dest), "--on-error", "skip", "--workers", "1", "--overwrite"]
    assert run(again) == 0
    listed = skipped_name(base_of(str(dest), 2))
    assert f"; 1 skipped, see {listed}" in capsys.readouterr().out
    assert Path(listed).exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["pack", "gone", "out"], 3), (["pack", "tree", "tree/inside"], 4), (["pack", "tree", "out", "--seed", "x"], 2)],
)
def test_the_exit_code_is_that_of_the_error(
    arguments: list[str], code: int, tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tree.parent)
    assert run(arguments) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


def test_a_map_of_thousands_of_classes_is_cut_short() -> None:
    text = result_text({"out": manifest(3000, {f"c{n:04}": 1 for n in range(3000)})})
    lines = text.splitlines()
    assert len(lines) == 1 + 1 + 20 + 1
    assert lines[-2].split() == ["19", "c0019", "1"]
    assert lines[-1] == "  … and 2,980 more classes"


def test_names_of_any_script_are_shown_in_columns_and_no_name_controls_the_terminal() -> None:
    text = result_text({"out": manifest(6, {"猫": 1, "cat": 2, "a\x1b[31m": 3})})
    table = text.splitlines()[1:]
    assert table[1] == "      0  猫               1"
    assert table[2] == "      1  cat              2"
    assert "\x1b" not in text


def test_a_plan_of_many_shards_is_cut_short() -> None:
    shards = tuple((f"out-{n:06}.tar", 1, 10240) for n in range(1000))
    plan = DatasetPlan("out", "out.json", (ClassEntry("red", 1000),), 1000, 99, shards, {})
    text = plan_text(PackPlan((plan,)))
    assert "  … and 980 more shards" in text
    assert len(text.splitlines()) < 30


def test_quiet_hides_what_was_left_out(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "notes.txt").write_text("left out")
    assert run(["pack", str(tree), str(tmp_path / "out"), "-q", "--workers", "1"]) == 0
    assert capsys.readouterr().err == ""
    assert logging.getLogger("shardkit").level == logging.NOTSET
