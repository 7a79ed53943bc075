"""Options that name a file or folder: what is said where it is missing, or can't be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit import errors
from shardkit.cli.config_file import load_config
from shardkit.cli.main import run
from shardkit.location import locate
from shardkit.options import files as option_files
from shardkit.packing.options import class_names
from shardkit.storage.store import open_store


@pytest.fixture
def packed(tmp_path: Path, draw_tree: Any) -> Path:
    """A tree `tree`, a list of it, and a dataset `out/train`, in the folder."""
    draw_tree(tmp_path / "tree", {"red": 1, "blue": 1})
    (tmp_path / "list.csv").write_text("path,label\ntree/red/0000.jpg,red\ntree/blue/0000.jpg,blue\n")
    shardkit.pack(tmp_path / "tree", tmp_path / "out/train", workers=1)
    return tmp_path


MISSING = {
    "classes": ("list of classes", ["pack", "tree", "out/other", "--classes"]),
    "classes_from": ("manifest", ["pack", "tree", "out/other", "--classes-from"]),
    "config": ("configuration file", ["pack", "tree", "out/other", "--config"]),
    "root": ("folder", ["pack", "list.csv", "out/other", "--root"]),
    "classes ": ("list of classes", ["index", "out/train-000000.tar", "--out", "out/other", "--classes"]),
    "folder": ("folder", ["bench", "out/train", "--folder"]),
    "root_certificate": ("root certificate", ["info", "https://localhost/x", "--storage-option", "root_certificate="]),
    "service_account": ("file of credentials", ["info", "gs://bucket/x", "--storage-option", "service_account="]),
    "web_identity_token_file": (
        "file of credentials", ["info", "s3://bucket/x", "--storage-option", "web_identity_token_file="]
    ),
}  # fmt: skip
"""Option -> what it names, and a command that ends with the option."""


@pytest.mark.parametrize("option", MISSING)
def test_a_file_that_an_option_names_and_that_is_missing_is_said_the_same_by_every_command(
    option: str, packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(packed)
    what, command = MISSING[option]
    *command, last = command
    command += [f"{last}no/such.txt"] if last.endswith("=") else [last, "no/such.txt"]
    assert run(command) == errors.MissingFileError.exit_code
    name = option.strip()
    flag = f"--{name.replace('_', '-')}" if last.startswith("--") else f"`{name}`"
    cure = f"check the path given as {flag}"
    assert capsys.readouterr().err == f"shardkit: error: no/such.txt: there is no such {what}; {cure}\n"


@pytest.mark.parametrize(
    "command",
    [["view", "--out"], ["report", "--out"], ["shuffle-quality", "--plot"], ["bench", "--seconds", "1", "--plot"]],
)
def test_a_result_that_has_no_folder_is_refused_before_any_work(
    command: list[str], packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(packed)
    name, *options = command
    file = "no/x.html" if name == "report" else "no/x.png"
    assert run([name, "nothing", *options, file]) == errors.MissingFileError.exit_code
    assert f"{file}: there is no folder no to write it into; make the folder" in capsys.readouterr().err


def test_a_missing_file_of_an_option_is_a_wrong_value_and_a_missing_file(tmp_path: Path) -> None:
    for read in (
        lambda: class_names(tmp_path / "x", None),
        lambda: class_names(None, tmp_path / "x"),
        lambda: load_config(tmp_path / "x", {}),
        lambda: open_store(locate("https://localhost/x"), {"root_certificate": tmp_path / "x"}),
    ):
        for kind in (ValueError, FileNotFoundError):
            with pytest.raises(kind) as caught:
                read()
            assert (type(caught.value), caught.value.args[0]) == (errors.MissingFileError, str(tmp_path / "x"))


def test_a_bundle_in_the_environment_is_named_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "x"))
    with pytest.raises(errors.MissingFileError, match=r"no such root certificate; .* given as `\$AWS_CA_BUNDLE`"):
        open_store(locate("s3://bucket/x"), {"skip_signature": True, "region": "x"})


def test_a_file_of_an_option_that_can_not_be_read_is_a_wrong_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fact = r"the list of classes can't be read \(Is a directory\); give a file that can be read as `classes`"
    with pytest.raises(errors.UsageError, match=fact) as caught:
        class_names(tmp_path, None)
    assert not isinstance(caught.value, OSError)
    with pytest.raises(errors.UsageError, match="the list of classes can't be read"):
        class_names("a\0b", None)
    monkeypatch.setattr(option_files, "MAX_BYTES", 4)
    (tmp_path / "names").write_text("a\nbc")
    assert class_names(tmp_path / "names", None) == ["a", "bc"]
    with pytest.raises(errors.UsageError, match="the list of classes is larger than"):
        class_names("/dev/zero", None)
    (tmp_path / "names").write_text("a\nbcd")
    with pytest.raises(errors.UsageError, match="the list of classes is larger than"):
        class_names(tmp_path / "names", None)
