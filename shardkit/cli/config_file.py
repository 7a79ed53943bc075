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

from shardkit.errors import UsageError
from shardkit.options.files import content_of
from shardkit.sample import fs_text
from shardkit.units import parse_bytes

if TYPE_CHECKING:
    import yaml


@dataclass(frozen=True, slots=True)
class Setting:
    """The type of a configuration file's key.

    kind: "bool", "int", "str", "size" (see `parse_bytes`), "path" (of a file; relative to the configuration file's own
    folder), "list" (of str; a single str is a list of one). choices: the only allowed values, if any; for kind "str".
    """

    kind: str
    choices: tuple[str, ...] = ()


def load_config(path: str | os.PathLike[str], settings: Mapping[str, Setting]) -> dict[str, Any]:
    """Read the values of a YAML file, in the file's order. "size" becomes int, "path" a Path, "list" a list of str.

    Raises UsageError, with the file and the line, for an invalid file.
    """
    file = fs_text(path)
    text = _read_text(path, file)
    values: dict[str, Any] = {}
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
        value = _value(node, settings[name], f"{file}:{node.start_mark.line + 1}", name)
        if value is not None:
            values[name] = Path(path).parent / value if settings[name].kind == "path" else value
    return values


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
        reason = str(exc).splitlines()[0]
        raise UsageError(file, f"this is not YAML ({reason})", "fix the file") from exc
    if root is None or (isinstance(root, yaml.ScalarNode) and not root.value):
        return []
    if not isinstance(root, yaml.MappingNode):
        fact = "the file is not a mapping of options to values"
        raise UsageError(f"{file}:{root.start_mark.line + 1}", fact, "write lines such as 'max_bytes: 256MB'")
    pairs: list[tuple[yaml.Node, yaml.Node]] = root.value
    return pairs


def _value(node: yaml.Node, setting: Setting, place: str, name: str) -> Any:
    value = _plain(node)
    wanted = _WANTED[setting.kind]
    if value is None:
        return None
    if setting.kind == "size" and isinstance(value, int | str) and not isinstance(value, bool):
        return parse_bytes(value, place=f"{place}: {name}")
    if setting.kind == "list" and isinstance(value, str):
        value = [value]
    if setting.choices:
        wanted = "one of " + ", ".join(setting.choices)
    if not _fits(value, setting):
        raise UsageError(f"{place}: {name}", f"{_shown(node)} is not what this option takes", f"give {wanted}")
    return value


_WANTED = {
    "bool": "true or false",
    "int": "a whole number",
    "str": "text",
    "size": "a size such as 256MB",
    "path": "the path of a file",
    "list": "a list of words such as [jpg, png]",
}


def _fits(value: object, setting: Setting) -> bool:
    if setting.kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if setting.kind == "bool":
        return isinstance(value, bool)
    if setting.kind == "list":
        return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
    return isinstance(value, str) and (not setting.choices or value in setting.choices)


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
    import difflib

    names = list(names)
    close = difflib.get_close_matches(str(key).lower().replace("-", "_"), names, n=1)
    return f"did you mean {close[0]}?" if close else f"the options are {', '.join(names)}"
