"""shardkit's errors among Python's own, and texts that a terminal can show."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
from pathlib import Path

import pytest

import shardkit
from shardkit import errors
from shardkit.storage.files import translated
from shardkit.storage.stores.local import LocalStore

FULL = ("a.tar", "it is truncated", "pack again", 512, "cat/1")
BUILTIN = {
    errors.UsageError: (ValueError,),
    errors.MissingExtraError: (ValueError,),
    errors.MissingFileError: (ValueError, FileNotFoundError),
    errors.MissingSourceError: (FileNotFoundError,),
    errors.NotFoundError: (FileNotFoundError,),
    errors.ReplacedError: (FileNotFoundError,),
    errors.SampleIndexError: (FileNotFoundError,),
}
"""The errors that are Python's as well."""


@pytest.mark.parametrize("name", errors.__all__)
def test_wrong_values_are_value_errors_and_missing_files_are_file_not_found_errors(name: str) -> None:
    kind = getattr(errors, name)
    python = BUILTIN.get(kind, ())
    assert issubclass(kind, ValueError) == (ValueError in python)
    assert issubclass(kind, OSError) == (FileNotFoundError in python)


@pytest.mark.parametrize("name", errors.__all__)
@pytest.mark.parametrize("count", range(1, len(FULL) + 1))
def test_an_error_keeps_its_text_when_it_is_copied_or_pickled(name: str, count: int) -> None:
    error = getattr(errors, name)(*FULL[:count])
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert again.args == error.args == (*FULL[:count], *("", "", "", None, None)[count:])
        assert str(again) == str(error)
        assert vars(again) == vars(error)


@pytest.mark.parametrize("kind", [kind for kind, python in BUILTIN.items() if FileNotFoundError in python])
def test_a_missing_file_has_what_python_says_of_one(kind: type[OSError]) -> None:
    error = pickle.loads(pickle.dumps(kind("a.tar", "there is no such shard", "check the name")))
    assert (error.errno, error.filename, error.strerror) == (errno.ENOENT, "a.tar", "there is no such shard")
    assert str(error) == "a.tar: there is no such shard; check the name"


def test_a_dataset_that_is_not_there_is_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        len(shardkit.dataset(tmp_path / "train"))
    with pytest.raises(FileNotFoundError):
        shardkit.info(tmp_path / "train")


@pytest.mark.parametrize("source", ["tree", "list.csv", "list.jsonl", "list.parquet"])
def test_a_source_that_is_not_there_is_a_file_that_is_not_there(source: str, tmp_path: Path) -> None:
    with pytest.raises(errors.MissingSourceError):
        shardkit.pack(tmp_path / source, tmp_path / "out/train")


def test_a_wrong_value_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_bytes"):
        shardkit.pack(tmp_path, tmp_path / "out/train", max_bytes="many")


@pytest.mark.parametrize("kind", BUILTIN)
def test_what_translates_errors_of_the_disk_lets_those_of_shardkit_pass(
    kind: type[errors.ShardkitError], tmp_path: Path
) -> None:
    error = kind(*FULL)
    with pytest.raises(kind) as caught, translated(str(tmp_path)):
        raise error
    assert caught.value is error


def test_an_object_that_is_not_there_is_told_by_its_own_name(tmp_path: Path) -> None:
    store = LocalStore(shardkit.location.locate(tmp_path), {})
    with pytest.raises(errors.NotFoundError) as caught:
        store.info("a.tar")
    assert caught.value.place == os.path.join(tmp_path, "a.tar")


HOSTILE = "a\x00\x1b]0;x\x07\x7f\x85\x9b2J\u202e\u2066\ufeff\U000e0001é猫"


def test_the_whole_text_of_an_error_is_harmless() -> None:
    text = str(errors.DatasetError(HOSTILE, HOSTILE, HOSTILE, None, HOSTILE))
    assert text.isprintable()
    assert "é猫" in text


def test_json_for_a_terminal_says_the_same_without_control_characters() -> None:
    text = json.dumps({"name": HOSTILE, "x": 1}, ensure_ascii=False, indent=2)
    shown = errors.printable_json(text)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert "é猫" in shown
    assert json.loads(shown) == {"name": HOSTILE, "x": 1}


def test_of_others_exceptions_the_first_line_is_quoted_or_the_name_of_the_class() -> None:
    assert errors.reason_of(ValueError("no such column\nDetail: many lines")) == "no such column"
    assert errors.reason_of(ValueError("\nsecond")) == "second"
    assert errors.reason_of(EOFError()) == "EOFError"
