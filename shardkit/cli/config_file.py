"""Sizes in words, the cores to use, and configuration files: a flat YAML mapping from an option's name to its value.

    max_bytes: 256MB      # a comment
    ext: [jpg, png]
    shuffle: true

A file is checked as a whole before anything runs: a key that no option has, a key given twice and a value of the
wrong type are each refused with the file and the line. A key without a value (`workers:`) is as if it were absent.
PyYAML is imported when a file is read, and only its safe loader.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardkit.errors import UsageError, reason_of
from shardkit.options.fields import OptionField
from shardkit.options.files import content_of
from shardkit.options.keywords import closest
from shardkit.sample import fs_text
from shardkit.units import parse_bytes

if TYPE_CHECKING:
    import yaml


@dataclass(frozen=True, slots=True)
class Setting:
    """The type of a configuration file's key. option: the one that it stands for, which checks the value's limits.

    kind: "bool", "int", "str", "size" (see `parse_bytes`), "path" (of a file; relative to the configuration file's own
    folder), "list" (of str; a single str is a list of one). choices: the only allowed values, if any; for kind "str".
    """

    kind: str
    choices: tuple[str, ...] = ()
    option: OptionField | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """What a file says. places: where it says so (`pack.yaml:3: workers`), for errors about a value."""

    values: dict[str, Any]
    places: dict[str, str]


def load_config(path: str | os.PathLike[str], settings: Mapping[str, Setting]) -> Config:
    """Read the values of a YAML file, in the file's order. "size" becomes int, "path" a Path, "list" a list of str.

    Raises UsageError, with the file and the line, for an invalid file.
    """
    file = fs_text(path)
    text = _read_text(path, file)
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    lines: dict[str, int] = {}
    for key, node in _pairs(text, file):
        line = key.start_mark.line + 1
        place = f"{file}:{line}"
        if key.tag != _STR or key.value not in settings:
            raise UsageError(place, f"no option is named {_shown(key)}", _did_you_mean(key.value, settings))
        name: str = key.value
        if name in lines:
            raise UsageError(place, f"{name} is given twice, first in line {lines[name]}", "leave one of them out")
        lines[name] = line
        places[name] = f"{file}:{node.start_mark.line + 1}: {name}"
        value = _value(node, settings[name], places[name])
        if value is not None:
            values[name] = Path(path).parent / value if settings[name].kind == "path" else value
    return Config(values, places)


_STR = "tag:yaml.org,2002:str"


def _read_text(path: str | os.PathLike[str], file: str) -> str:
    try:
        return content_of(path, "config", "configuration file").decode("utf-8")
    except UnicodeDecodeError as exc:
        raise UsageError(file, "the configuration file is not UTF-8 text", "save it as UTF-8", exc.start) from exc


def _pairs(text: str, file: str) -> list[tuple[yaml.Node, yaml.Node]]:
    import yaml

    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise UsageError(f"{file}:{line}", f"this is not YAML ({exc.problem})", "fix the line") from exc
    except (yaml.YAMLError, RecursionError) as exc:
        raise UsageError(file, f"this is not YAML ({reason_of(exc)})", "fix the file") from exc
    if root is None or (isinstance(root, yaml.ScalarNode) and not root.value):
        return []
    if not isinstance(root, yaml.MappingNode):
        fact = "the file is not a mapping of options to values"
        raise UsageError(f"{file}:{root.start_mark.line + 1}", fact, "write lines such as 'max_bytes: 256MB'")
    pairs: list[tuple[yaml.Node, yaml.Node]] = root.value
    return pairs


def _value(node: yaml.Node, setting: Setting, place: str) -> Any:
    value = _plain(node)
    if value is None:
        return None
    if setting.kind == "size" and isinstance(value, int | str) and not isinstance(value, bool):
        return parse_bytes(value, place=place)
    if setting.kind == "list" and isinstance(value, str):
        value = [value]
    if not _fits(value, setting.kind):
        what, cure = _WANTED[setting.kind]
        limits = setting.option.limits if setting.option is not None else ""
        raise UsageError(place, f"{_shown(node)} is not {what}", f"give {limits}" if limits else cure)
    if setting.choices and value not in setting.choices:
        fact = f"{value!r} is not one of {', '.join(setting.choices)}"
        close = closest(str(value), setting.choices)
        raise UsageError(place, fact, f"did you mean {close}?" if close else "choose one of these")
    if setting.option is not None:
        setting.option.require(value, place)
    return value


_WANTED = {
    "bool": ("true or false", "give one of these"),
    "int": ("a whole number", "give one"),
    "str": ("text", "put it in quotes if it is"),
    "size": ("a size", "give one such as 256MB"),
    "path": ("the path of a file", "give one"),
    "list": ("a list of words", "give one such as [jpg, png]"),
}
"""What a value of each kind must be, and what to do about one that is not."""


def _fits(value: object, kind: str) -> bool:
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "list":
        return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
    return isinstance(value, str)


def _plain(node: yaml.Node) -> object:
    """The value of a scalar, or a list of those of a sequence; any other node is returned, and fits no setting."""
    import yaml

    if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value):
        return [_plain(item) for item in node.value]
    if not isinstance(node, yaml.ScalarNode):
        return node
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError):  # 2020-02-31: fits no setting, as the caller reports
        return node
    finally:
        loader.dispose()


def _shown(node: yaml.Node) -> str:
    import yaml

    if isinstance(node, yaml.ScalarNode):
        return repr(node.value)
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def _did_you_mean(key: object, names: Iterable[str]) -> str:
    names = list(names)
    close = closest(str(key), names)
    return f"did you mean {close}?" if close else f"the options are {', '.join(names)}"
