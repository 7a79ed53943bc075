"""The options of all commands: the functions and the command line have those of the dataclasses."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import click
import pytest

import shardkit
from shardkit.cli.click_options import Address, FieldOption, flag_of
from shardkit.cli.main import COMMANDS, cli, run
from shardkit.images.rewrite.transcode import Transcoding
from shardkit.options.fields import OptionField, options_of
from shardkit.packing.packed import ClassesFrom
from shardkit.packing.settings import PackSettings
from shardkit.shards.find.shards import SourceLike
from shardkit.tools import settings
from shardkit.tools.shuffle_quality import shuffle_quality

FUNCTIONS: dict[str, tuple[Callable[..., Any], type[Any]]] = {
    "pack": (shardkit.pack, PackSettings),
    "convert": (shardkit.convert, settings.ConvertSettings),
    "merge": (shardkit.merge, settings.MergeSettings),
    "relabel": (shardkit.relabel, settings.RelabelSettings),
    "add-fields": (shardkit.add_fields, settings.AddFieldsSettings),
    "delete": (shardkit.delete, settings.DeleteSettings),
    "log": (shardkit.log, settings.LogSettings),
    "diff": (shardkit.diff, settings.DiffSettings),
    "revert": (shardkit.revert, settings.RevertSettings),
    "info": (shardkit.info, settings.InfoSettings),
    "verify": (shardkit.verify, settings.VerifySettings),
    "repair": (shardkit.repair, settings.RepairSettings),
    "unpack": (shardkit.unpack, settings.UnpackSettings),
    "upload": (shardkit.upload, settings.UploadSettings),
    "download": (shardkit.download, settings.DownloadSettings),
    "export": (shardkit.export, settings.ExportSettings),
    "index": (shardkit.index_shards, settings.IndexSettings),
    "shuffle-quality": (shuffle_quality, settings.ShuffleQualitySettings),
    "view": (shardkit.view, settings.ViewSettings),
    "view --html": (shardkit.view_page, settings.ViewPageSettings),
    "report": (shardkit.report, settings.ReportSettings),
    "bench": (shardkit.bench, settings.BenchSettings),
}
"""Each command that calls one function with options: the function, and the class that describes its options."""

NOT_LOADED = {"SourceLike": SourceLike, "ClassesFrom": ClassesFrom, "Transcoding": Transcoding}
"""Types that the classes know by name only."""

ARGUMENTS = {"source", "dest", "kinds", "progress"}

ALSO = {
    "relabel": {"labels"}, "delete": {"keys"}, "add-fields": {"fields"}, "diff": {"a", "b"}, "revert": {"version"},
}  # fmt: skip
"""The arguments of some functions that are options of others."""

LIMITED = [
    (name, option, value)
    for name, (_, described) in FUNCTIONS.items()
    for option in options_of(described)
    for value in (None if option.least is None else option.least - 1, None if option.most is None else option.most + 1)
    if value is not None
]
"""Each option that has limits, with a value just outside."""


def grouping(described: type[Any]) -> list[Any]:
    """The fields that are made of several options: the functions take None for their defaults."""
    return [each for each in fields(described) if each.default is MISSING]


def keywords(described: type[Any], option: OptionField, value: object) -> dict[str, Any]:
    """The keyword argument that gives an option to a function."""
    for each in grouping(described):
        if option in options_of(each.default_factory):
            return {each.name: each.default_factory(**{option.name: value})}
    return {option.name: value}


def command_of(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_options_the_defaults_and_the_types_of_its_class(name: str) -> None:
    function, described = FUNCTIONS[name]
    parameters = inspect.signature(function).parameters
    types = get_type_hints(inspect.unwrap(function))
    others = ARGUMENTS | ALSO.get(name, set())
    asked = {key: (types[key], each.default) for key, each in parameters.items() if key not in others}
    types = get_type_hints(described, localns=NOT_LOADED)
    told = {each.name: (types[each.name], each.default) for each in fields(described)}
    for each in grouping(described):
        told[each.name] = (types[each.name] | None, None)
    assert asked == told
    assert list(asked) == list(told)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_comes_from_a_class(name: str) -> None:
    given = [param for param in command_of(name).params if isinstance(param, click.Option)]
    others = {param.name for param in given if not isinstance(param, FieldOption)}
    assert others == {"verbose", "quiet", "debug"}
    if name in FUNCTIONS:
        found = [param.field for param in given if isinstance(param, FieldOption)]
        assert set(options_of(FUNCTIONS[name][1])) <= set(found)
    else:
        assert {param.name for param in given if isinstance(param, FieldOption)} == {"as_json"}


def test_an_address_comes_with_each_engine() -> None:
    for name in COMMANDS:
        named = {param.name for param in command_of(name).params}
        assert ("engine" in named) == ("address" in named), name
    assert [option.name for option in options_of(Address)] == ["address"]


def test_there_are_options_with_limits() -> None:
    assert {("verify", "workers"), ("view", "side"), ("bench", "threads"), ("pack", "max_count")} <= {
        (name, option.name) for name, option, _ in LIMITED
    }


@pytest.mark.parametrize(
    ("name", "option", "value"), LIMITED, ids=[f"{name}-{option.name}-{value}" for name, option, value in LIMITED]
)
def test_a_limit_is_the_same_error_from_python_and_from_the_command_line(
    name: str, option: OptionField, value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    function, described = FUNCTIONS[name]
    given = [value] if option.kind == "numbers" else value
    places = ["nowhere", str(tmp_path / "out")][: 2 if "dest" in inspect.signature(function).parameters else 1]
    with pytest.raises(shardkit.UsageError) as caught:
        function(*places, **keywords(described, option, given))
    assert caught.value.place == option.name
    assert re.fullmatch(rf"{value} is (too small|out of range)", caught.value.fact)
    assert caught.value.cure == f"give {option.limits}"
    assert run([name, *places, f"{flag_of(option)}={value}"]) == shardkit.UsageError.exit_code
    flag = flag_of(option)
    assert capsys.readouterr().err == f"shardkit: error: {flag}: {caught.value.fact}; {caught.value.cure}\n"
    assert list(tmp_path.iterdir()) == []
