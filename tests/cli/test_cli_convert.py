"""`shardkit convert` on the command line."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit import Ray
from shardkit.cli.convert import command
from shardkit.cli.main import run
from shardkit.tools.convert.convert import convert


@pytest.fixture
def packed(tree: Path, tmp_path: Path) -> Path:
    shardkit.pack(tree, tmp_path / "shards" / "x", workers=1)
    return tmp_path / "shards" / "x"


def test_every_keyword_of_convert_is_an_option() -> None:
    keywords = set(inspect.signature(convert).parameters) - {"progress"}
    options = {param.name for param in command.params} - {"as_json", "help", "quiet", "verbose", "debug", "color"}
    assert keywords <= {param.name for param in command.params}
    assert options >= keywords


def test_it_says_what_it_wrote(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["convert", str(packed), str(tmp_path / "tf" / "x"), "--format", "tfrecord", "--workers", "1"]
    assert run(arguments) == 0
    out = capsys.readouterr().out
    assert "12 samples in 1 shard" in out
    assert "of tfrecord; fields cls, jpg" in out
    assert sorted(path.name for path in (tmp_path / "tf").iterdir()) == ["x-000000.tfrecord", "x.json", "x.parquet"]
    assert run([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shard_format"] == "tfrecord"


def test_options_reach_convert(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def fake(source: Any, dest: str, **options: Any) -> Any:
        given.update(options, source=source, dest=dest)
        return convert(packed, tmp_path / "out" / "x", workers=1)

    monkeypatch.setattr("shardkit.tools.convert.convert.convert", fake)
    line = "a b dest --format tar --max-bytes 1MiB --max-count 5 --shuffle --seed 3 --rename a=b,x=y --rename c=d.e"
    more = "--drop x,y --drop z --fields jpg,cls --workers 2 --engine ray --overwrite -q --work w --storage-option a=b"
    assert run(["convert", *line.split(), *more.split()]) == 0
    given.pop("progress")
    assert given == {
        "source": ("a", "b") if isinstance(given["source"], tuple) else ["a", "b"], "dest": "dest", "format": "tar",
        "max_bytes": 1 << 20, "max_count": 5, "shuffle": True, "seed": 3, "rename": {"a": "b", "x": "y", "c": "d.e"},
        "drop": ["x", "y", "z"], "fields": ["jpg", "cls"], "workers": 2, "engine": Ray(),
        "overwrite": True, "work": Path("w"), "storage_options": {"a": "b"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rename", "jpg"], "--rename: 'jpg' is not OLD=NEW"),
        (["--rename", "a=b=c"], "'a=b=c' is not OLD=NEW"),
        (["--rename", "a=b,a=c"], "'a=c' is not OLD=NEW, or occurs twice"),
        (["--rename", "a=b", "--rename", "a=c"], "'a=c' is not OLD=NEW, or occurs twice"),
        (["--fields", ","], "--fields: it is empty"),
        (["--drop", "tiff"], "no sample has the field 'tiff'"),
    ],
)
def test_a_wrong_option_is_told(
    packed: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["convert", str(packed), str(tmp_path / "out" / "x"), *options]) == 2
    assert message in capsys.readouterr().err
