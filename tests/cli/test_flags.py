"""A message of the library names parameters; the command line shows its user the flags."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

import click
import pytest

import shardkit
from shardkit import errors
from shardkit.cli.flags import Flags
from shardkit.cli.main import COMMANDS, cli, run

ROOT = Path(shardkit.__file__).parent

NO_FLAGS = {
    "pack --split",  # a key of the hash that deals samples to splits: it decides bytes
    "pack --group-near-duplicates",  # as above
    "join the parts, as with 'zip -s 0 IN.zip --out OUT.zip', or for IN.zip.001 … with cat; then pack the result",
}
"""Texts of the library with words that look like flags of shardkit."""


def texts_of(source: str) -> list[str]:
    """The texts in a file's code; docstrings are none."""
    tree = ast.parse(source)
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docs]
    return [node.value for node in found if isinstance(node.value, str)]


def flags_in(text: str, flags: set[str]) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) & flags


def flags_of(name: str, *arguments: str) -> Flags:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    flags = Flags(arguments)
    flags.use(command)
    return flags


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("replace it with `overwrite=True`", "replace it with --overwrite"),
        ("omit `split`, or give `classes`", "omit --split, or give --classes"),
        ("use `shuffle=True`", "use --shuffle"),
        ("use `shuffle=False`", "use --no-shuffle"),
        ('use `on_error="skip"`', "use --on-error skip"),
        ("use `workers=1`", "use --workers 1"),
        ('use `ext=["jpg", "png"]`', "use --ext jpg,png"),
        ('use `label_column=""`', "use --label-column ''"),
        ("choose another `dest`", "choose another DEST"),
        ("use `max_bytes=N`", "use --max-bytes N"),
        ("use `overwrite=False`", "use `overwrite=False`"),
        ("use `read=True`", "use `read=True`"),
        ("a file named `x`", "a file named `x`"),
        ("overwrite it", "overwrite it"),
    ],
)
def test_parameters_in_backquotes_become_the_flags_of_the_command(text: str, expected: str) -> None:
    assert flags_of("pack").spelled(text) == expected


def test_no_message_of_the_library_names_a_flag() -> None:
    """It is for the users of Python too: it names the parameter in backquotes."""
    commands = [command for name in COMMANDS if (command := cli.get_command(click.Context(cli), name))]
    flags = {flag for command in commands for param in command.params for flag in (*param.opts, *param.secondary_opts)}
    assert {"--overwrite", "--no-shuffle", "--storage-option"} <= flags
    files = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in ("cli", "__main__.py")]
    # the help of an option is for the command line, which shows it
    texts = [text for path in files if path.name != "settings.py" for text in texts_of(path.read_text("utf-8"))]
    # a whole command line is for users of Python too
    found = {text for text in texts if flags_in(text, flags) and not re.search(r"\bshardkit [a-z]", text)}
    assert found == NO_FLAGS


def test_a_flag_in_a_message_is_seen() -> None:
    source = '"""Use --overwrite."""\ndef f():\n    """Use --overwrite."""\n    raise E(f"{x}: use --overwrite")'
    [text] = [text for text in texts_of(source) if "use" in text]
    assert flags_in(text, {"--overwrite"}) == {"--overwrite"}
    assert flags_in("--paper, x--overwrite and -v", {"--overwrite"}) == set()


def test_without_a_command_a_message_stays_as_it_is() -> None:
    assert Flags().spelled("use `overwrite=True`") == "use `overwrite=True`"


def test_the_place_of_a_usage_error_is_the_flag() -> None:
    error = errors.UsageError("max_bytes", "0 is too small", "give more")
    assert flags_of("pack").error_text(error) == "--max-bytes: 0 is too small; give more"
    assert flags_of("info").error_text(error) == "max_bytes: 0 is too small; give more"


def test_a_path_with_the_name_of_a_parameter_stays_a_path() -> None:
    error = errors.UsageError("split", "this is a class directory")
    assert flags_of("pack", "split", "dest").error_text(error) == "split: this is a class directory"
    missing = errors.MissingSourceError("split", "there is no such folder")
    assert flags_of("pack").error_text(missing) == "split: there is no such folder"


def test_an_error_names_the_parameter_in_python_and_the_flag_on_the_command_line(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "out/train"
    shardkit.pack(tree, dest, workers=1)
    with pytest.raises(shardkit.DestinationError, match=r"replace it with `overwrite=True`"):
        shardkit.pack(tree, dest, workers=1, max_count=2)
    assert run(["pack", str(tree), str(dest), "--workers", "1", "--max-count", "2"]) == 4
    err = capsys.readouterr().err
    assert "replace it with --overwrite" in err
    assert "`" not in err


def test_a_warning_names_the_flag_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def info(*_: object, **__: object) -> None:
        logging.getLogger("shardkit.tools.info").warning("old labels; give `storage_options`")
        raise errors.DatasetError("x", "done")

    monkeypatch.setattr("shardkit.tools.info.info", info)
    assert run(["info", "x"]) == 5
    assert capsys.readouterr().err.splitlines()[0] == "shardkit: warning: old labels; give --storage-option"
