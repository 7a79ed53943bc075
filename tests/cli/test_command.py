"""What all commands have in common: groups of options, old spellings, environment variables, help, relative paths."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import click
import pytest

import shardkit
from shardkit.cli import command as module
from shardkit.cli.click_options import FieldOption, flag_of, variable_of
from shardkit.cli.command import GROUPS, LEAST_GROUPED, OLD_FLAGS, OTHERS, group_of
from shardkit.cli.console import files_text
from shardkit.cli.flags import Flags
from shardkit.cli.main import COMMANDS, cli, run
from shardkit.version import __version__


def command_of(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def own_options(name: str) -> list[FieldOption]:
    return [param for param in command_of(name).params if isinstance(param, FieldOption)]


@pytest.fixture
def here(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a packed dataset at `shards/train`."""
    monkeypatch.chdir(tmp_path)
    shardkit.pack(tree, "shards/train", workers=1)
    return tmp_path


GROUPED = [name for name in COMMANDS if len(own_options(name)) >= LEAST_GROUPED]


@pytest.mark.parametrize("name", GROUPED)
def test_a_command_of_many_options_lists_them_below_headings(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", name]) == 0
    text = capsys.readouterr().out
    places = [text.index(f"\n{each}:\n") for each in (*GROUPS, OTHERS) if f"\n{each}:\n" in text]
    assert len(places) > 3 and places == sorted(places)
    assert [option.opts[0] for option in own_options(name) if group_of(option) == OTHERS] == ["--json"]


def test_each_grouped_option_is_one_of_a_command() -> None:
    known = {flag for name in COMMANDS for option in own_options(name) for flag in option.opts}
    assert {flag for flags in GROUPS.values() for flag in flags} <= known
    assert "pack" in GROUPED


def test_an_option_means_the_same_in_all_commands() -> None:
    """Numbers of what, and whether it is given once: `--threads` of bench is the one list."""
    seen: dict[str, set[tuple[str, str | None]]] = {}
    for name in COMMANDS:
        for option in own_options(name):
            seen.setdefault(flag_of(option.field), set()).add((option.field.kind, option.field.help.metavar))
    differing = {flag for flag, kinds in seen.items() if len(kinds) > 1}
    assert differing == {"--threads", "--out", "--key"}, "--out is a file, or a prefix; delete takes no patterns"


@pytest.mark.parametrize(("name", "old"), [(name, old) for name, olds in OLD_FLAGS.items() for old in olds])
def test_an_old_spelling_names_an_option_that_exists_and_none_that_is_still_there(name: str, old: str) -> None:
    flags = {flag for option in own_options(name) for flag in option.opts}
    assert OLD_FLAGS[name][old].flag in flags
    assert old not in flags


@pytest.mark.parametrize("arguments", [["--workers", "1"], ["--workers=1"]])
def test_an_old_spelling_works_with_a_warning(
    arguments: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", "shards/train", *arguments]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("sound\n")
    assert err == "shardkit: warning: --workers is now called --threads; the old name works until the next release\n"


def test_an_old_spelling_with_a_wrong_value_is_reported_under_the_new_one(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", "shards/train", "--workers", "none"]) == 2
    assert "--threads: 'none' is not a whole number; give at least 1" in capsys.readouterr().err
    assert run(["verify", "shards/train", "--workers"]) == 2
    assert capsys.readouterr().err.endswith("shardkit: error: --threads: it has no value; give one\n")


def test_the_parts_of_an_old_list_are_given_one_by_one() -> None:
    view = command_of("view")
    assert isinstance(view, module.Command)
    context = click.Context(view)
    assert view._renamed(["x", "--classes", "a, b", "--", "--classes"]) == [
        "x", "--class", "a", "--class", "b", "--", "--classes",
    ]  # fmt: skip
    assert context.params == {}


def test_an_environment_variable_gives_an_option(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("shardkit.tools.unpack.unpack.unpack", lambda *_, **options: seen.append(options["workers"]))
    monkeypatch.setenv("SHARDKIT_THREADS", "3")
    run(["unpack", "shards/train", "again"])
    run(["unpack", "shards/train", "again", "--threads", "2"])
    assert seen == [3, 2]


@pytest.mark.parametrize(("value", "fact"), [("two", "'two' is not a whole number"), ("0", "0 is too small")])
def test_a_wrong_value_of_a_variable_is_reported_with_its_name(
    value: str, fact: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHARDKIT_THREADS", value)
    assert run(["verify", "shards/train"]) == 2
    assert capsys.readouterr().err == f"shardkit: error: $SHARDKIT_THREADS: {fact}; give at least 1\n"


def test_the_environment_configures_stores_for_commands_that_name_one(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("shardkit.tools.info.info", lambda *_, **options: seen.append(options["storage_options"]))
    monkeypatch.setenv("SHARDKIT_STORAGE_OPTIONS", "region=eu endpoint=http://a:1")
    run(["info", "shards/train"])
    run(["info", "s3://bucket/train"])
    assert seen == [None, {"region": "eu", "endpoint": "http://a:1"}]


def test_the_help_names_the_variables(capsys: pytest.CaptureFixture[str]) -> None:
    run(["help", "pack"])
    text = " ".join(capsys.readouterr().out.split())
    named = [variable_of(option.field) for option in own_options("pack") if variable_of(option.field)]
    assert {"SHARDKIT_WORKERS", "SHARDKIT_WORK", "SHARDKIT_STORAGE_OPTIONS"} == set(named)
    assert all(f"env: {variable}]" in text for variable in named)
    assert all(variable_of(option.field) == "" for option in own_options("bench") if option.opts == ["--threads"])


def test_help_is_the_help_of_a_command_or_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", "info"]) == run(["info", "--help"]) == 0
    out = capsys.readouterr().out
    assert out[: len(out) // 2] == out[len(out) // 2 :]
    assert run(["help"]) == 0
    assert "\nCommands:\n" in capsys.readouterr().out
    assert run(["help", "inof"]) == 2
    assert "there is no command 'inof'; did you mean info?" in capsys.readouterr().err


def test_a_capital_v_shows_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-V"]) == 0
    assert capsys.readouterr().out == f"shardkit {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json(name: str) -> None:
    assert "--json" in {flag for option in own_options(name) for flag in option.opts}


def test_quiet_prints_results_that_are_asked_for_only(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["unpack", "shards/train", "again", "-q"]) == 0
    assert run(["verify", "shards/train", "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    assert run(["verify", "shards/train", "-q", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []
    assert run(["info", "shards/train", "-q"]) == 0
    assert "samples" in capsys.readouterr().out
    (here / "shards/train-000000.tar").write_bytes(b"")
    assert run(["verify", "shards/train", "-q"]) == 5
    assert "1 finding" in capsys.readouterr().out


def test_relative_paths_are_shown_as_they_were_typed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["unpack", "./shards/train", "again/"]) == 0
    assert capsys.readouterr().out.startswith("again: ")
    assert run(["unpack", "shards/train", "again"]) != 0
    assert capsys.readouterr().err.startswith("shardkit: error: again: ")
    assert run(["unpack", "shards/train", str(here / "third")]) == 0
    assert capsys.readouterr().out.startswith(f"{here}/third: ")


@pytest.mark.parametrize(
    ("arguments", "text", "shown"),
    [
        (["a"], "/w/a/b: x", "a/b: x"),
        (["a/b", "a"], "/w/a/b-000.tar and /w/a", "a/b-000.tar and a"),
        (["."], "/w/a.tar, /w: x, /w-other", "./a.tar, .: x, /w-other"),
        (["../c"], "/c/d", "../c/d"),
        (["/w/a"], "/w/a/b", "/w/a/b"),
        (["s3://a"], "/w/s3:/a", "/w/s3:/a"),
        (["--a"], "/w/--a", "/w/--a"),
        (["a"], "/v/w/a", "/v/w/a"),
        ([r"a\1"], r"/w/a\1/b", r"a\1/b"),
    ],
)
def test_an_absolute_path_becomes_the_relative_one_that_was_typed(
    arguments: list[str], text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getcwd", lambda: "/w")
    assert Flags(arguments).as_typed(text) == shown


def test_no_path_is_relative_to_a_working_directory_that_has_been_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getcwd", Mock(side_effect=FileNotFoundError(2, "No such file or directory")))
    assert Flags(["a"]).as_typed("/w/a/b: x") == "/w/a/b: x"


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the working directory of a process")
@pytest.mark.parametrize(
    "arguments",
    [
        ["pack", "{tree}", "out"], ["pack", "tree", "{out}"], ["info", "train"], ["convert", "{train}", "out"],
        ["unpack", "{train}", "out"], ["merge", "a", "b", "c"], ["demo", "data"], ["pack", "list.csv", "{out}"],
        ["view", "{train}", "--out", "x.png"], ["view", "{train}", "--html", "--out", "x.html"],
        ["report", "{train}", "--out", "x.html"],
    ],
    ids=lambda arguments: " ".join(arguments),
)  # fmt: skip
def test_a_relative_path_in_a_working_directory_that_has_been_removed_is_told(
    arguments: list[str], tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shardkit.pack(tree, tmp_path / "shards" / "train", workers=1)
    names = {"tree": str(tree), "train": str(tmp_path / "shards" / "train"), "out": str(tmp_path / "out")}
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "gone").mkdir()
    here = os.getcwd()
    os.chdir(tmp_path / "gone")
    try:
        (tmp_path / "gone").rmdir()
        capsys.readouterr()
        code = run([each.format(**names) for each in arguments])
    finally:
        os.chdir(here)
    err = capsys.readouterr().err
    assert code == 2 and err.count("\n") == 1
    assert (
        ": the working directory has been removed, and this path is relative to it; change to another directory" in err
    )
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("done", "total", "seconds", "count", "speed"),
    [
        (51_234, 1_000_000, 10.0, "51,234/1,000,000 files", ", 5,123 files/s"),
        (9, None, 2.0, "9 files", ", 4.5 files/s"),
        (51_234, 60_000, 1e-6, "51,234/60,000 files", ""),
        (0, 0, 0.0, "0 files", ""),
        (1, None, 0.0, "1 file", ""),
        (0, None, 2.0, "0 files", ""),
    ],
)
def test_progress_counts_whole_files_and_shows_no_rate_of_the_first_moment(
    done: int, total: int | None, seconds: float, count: str, speed: str
) -> None:
    assert files_text(done, total, seconds) == {"count": count, "speed": speed}
