"""The public face: every option has a name and a type, and whatever comes back or is raised can be imported."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit import errors
from shardkit.images.decoder import DecodeOptions
from shardkit.reading.dataset import _MOVED, _PLUMBING
from shardkit.threads import cached_property

ROOT = Path(shardkit.__file__).parent

PUBLIC = [name for name in shardkit.__all__ if name != "__version__"]


def names_of(module: str) -> dict[str, Any]:
    """What a module knows by name, with what it imports for type checkers only."""
    loaded = import_module(module)
    names = dict(vars(loaded))
    for block in ast.parse(Path(loaded.__file__ or "").read_text("utf-8")).body:
        if not isinstance(block, ast.If) or ast.unparse(block.test) != "TYPE_CHECKING":
            continue
        for node in ast.walk(block):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("shardkit"):
                for alias in node.names:
                    names[alias.asname or alias.name] = Named(node.module or "", alias.name)
    return names


class Named:
    """A class of shardkit that is not loaded: its extra may not be installed."""

    def __init__(self, module: str, name: str) -> None:
        self.__module__, self.__name__ = module, name

    def __or__(self, other: Any) -> Any:
        return (self, other)

    def __ror__(self, other: Any) -> Any:
        return (other, self)


def of_shardkit(annotation: Any, module: str) -> Iterator[Any]:
    """The classes of shardkit in an annotation."""
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, names_of(module))
        except (NameError, TypeError):  # of another library that is imported for type checkers only
            return
    if typing.get_origin(annotation) is typing.Literal or isinstance(annotation, typing.TypeVar):
        return
    if isinstance(annotation, tuple):
        parts: tuple[Any, ...] = annotation
    else:
        parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Annotated:
        parts = parts[:1]
    if not parts and getattr(annotation, "__module__", "").startswith("shardkit"):
        yield annotation
    for part in parts:
        yield from of_shardkit(part, module)


def methods(cls: type) -> Iterator[Callable[..., Any]]:
    """The methods, and the getters of properties, that are meant for users."""
    for name, value in vars(cls).items():
        if name.startswith("_") and name not in ("__init__", "__getitem__", "__iter__"):
            continue
        if isinstance(value, classmethod | staticmethod):
            value = value.__func__
        if isinstance(value, property):
            value = value.fget
        if isinstance(value, cached_property):
            value = value.func
        if inspect.isfunction(value):
            yield value


def functions() -> Iterator[Callable[..., Any]]:
    """Every exported function, and every method of an exported class."""
    for name in PUBLIC:
        value = getattr(shardkit, name)
        if inspect.isfunction(value):
            yield value
        elif not issubclass(value, Exception):
            yield from methods(value)


def exported(name: str) -> bool:
    return name in shardkit._HOME or name in shardkit._NEED_EXTRA


def without_types(function: Callable[..., Any]) -> list[str]:
    """The parameters that stand for any options, and those without a type."""
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD and "Unpack[" not in str(parameter.annotation):
            found.append(str(parameter))
        if parameter.annotation is parameter.empty and parameter.name != "self":
            found.append(parameter.name)
    return found


def test_no_public_function_takes_options_without_names_and_types() -> None:
    found = {function.__qualname__: without_types(function) for function in functions()}
    found.pop("Progress.__init__", None)
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize("name", sorted(shardkit._NEED_EXTRA))
def test_no_class_that_needs_an_extra_takes_options_without_names_and_types(name: str) -> None:
    try:
        cls = getattr(shardkit, name)
    except shardkit.MissingExtraError as exc:
        pytest.skip(str(exc))
    assert {f.__qualname__: without_types(f) for f in methods(cls) if without_types(f)} == {}


def test_a_function_that_takes_any_options_is_seen() -> None:
    def loose(source: str, **options: Any) -> None: ...
    def bare(source) -> None: ...  # type: ignore[no-untyped-def]

    assert (without_types(loose), without_types(bare)) == (["**options: 'Any'"], ["source"])


def test_decode_has_the_options_and_defaults_of_decode_options() -> None:
    parameters = inspect.signature(shardkit.Dataset.decode).parameters
    asked = {name: (p.annotation, p.default) for name, p in parameters.items() if name != "self"}
    kept = {field.name: (field.type, field.default) for field in fields(DecodeOptions) if field.default is not MISSING}
    assert asked == kept | {"columns": ("ColumnsLike | None", None)}  # which are not about images
    explained = inspect.getdoc(shardkit.Dataset.decode) or ""
    assert [name for name in asked if not re.search(rf"\b{name}:", explained)] == []


def test_an_option_that_decode_does_not_have_is_answered_with_those_that_it_has() -> None:
    with pytest.raises(
        shardkit.UsageError, match=r"unexpected keyword argument 'zzz'; its options are size, views, crop, "
    ):
        shardkit.dataset("nowhere").decode(zzz=8)  # type: ignore[call-arg]


def test_whatever_a_public_function_returns_is_exported() -> None:
    found: dict[str, str] = {}
    for name in PUBLIC:
        value = getattr(shardkit, name)
        if inspect.isfunction(value):
            for cls in of_shardkit(value.__annotations__["return"], value.__module__):
                found[cls.__name__] = name
    for method in methods(shardkit.Dataset):
        if method.__qualname__.split(".")[1] in USED:
            for cls in of_shardkit(method.__annotations__["return"], method.__module__):
                found[cls.__name__] = method.__qualname__
    assert len(found) > 10
    assert {name: by for name, by in found.items() if not exported(name)} == {}


USED = {name for name in dir(shardkit.Dataset) if name.startswith(("to_", "class", "split", "batch", "decode", "map"))}


def test_whatever_a_result_holds_is_exported() -> None:
    found: dict[str, str] = {}
    for name in PUBLIC:
        value = getattr(shardkit, name)
        if inspect.isfunction(value) or issubclass(value, Exception) or name == "Dataset":
            continue
        for field, annotation in vars(value).get("__annotations__", {}).items():
            if not field.startswith("_"):
                for cls in of_shardkit(annotation, value.__module__):
                    found[cls.__name__] = f"{name}.{field}"
    assert {"Finding", "ClassEntry"} <= set(found)
    assert {name: by for name, by in found.items() if not exported(name)} == {}


def test_every_error_that_shardkit_defines_is_exported() -> None:
    known, found = set(errors.__all__), {}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and known & {ast.unparse(base) for base in node.bases}:
                found[node.name] = path.relative_to(ROOT).as_posix()
    assert {name for name, file in found.items() if file != "errors.py"} == set()
    assert set(found) | {"ShardkitError"} == known
    assert known <= set(shardkit._HOME)


def test_what_needs_an_extra_is_not_in_all_and_is_offered_by_dir() -> None:
    assert not set(shardkit._NEED_EXTRA) & set(shardkit.__all__)
    assert set(shardkit._NEED_EXTRA) <= set(dir(shardkit))
    for name, module in shardkit._NEED_EXTRA.items():
        file = ROOT.parent / Path(*module.split(".")).with_suffix(".py")
        classes = {node.name for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, ast.ClassDef)}
        assert name in classes


def test_a_class_whose_extra_is_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("shardkit.adapters.torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(vars(shardkit), "TorchDataset", raising=False)
    with pytest.raises(shardkit.MissingExtraError, match=r"pip install \"shardkit\[torch\]\""):
        _ = shardkit.TorchDataset


def test_dir_of_a_dataset_names_what_is_for_users() -> None:
    data = shardkit.dataset("nowhere")
    shown = {name for name in dir(data) if not name.startswith("_")}
    assert not shown & _PLUMBING
    assert {*dir(shardkit.Dataset), *vars(data)} >= _PLUMBING
    assert {"decode", "batch", "map", "to_torch", "classes", "state_dict", "labels"} <= shown
    assert len(shown) <= 35


@pytest.mark.parametrize("name", sorted(_MOVED))
def test_an_attribute_of_a_dataset_that_moved_gives_the_new_spelling(name: str, cars: str) -> None:
    dataset = shardkit.dataset(cars, shuffle=8)
    with pytest.raises(AttributeError, match=re.escape(f"it is now dataset.{_MOVED[name]}")):
        getattr(dataset, name)
    path = _MOVED[name].replace("(number)", "(0)").replace("(rows)", "(None)")
    assert eval(f"dataset.{path}", {"dataset": dataset}) is not dataset
    with pytest.raises(AttributeError, match=r"^'Dataset' object has no attribute 'ordre'$"):
        _ = dataset.ordre  # type: ignore[attr-defined]


def test_editors_find_every_public_name_in_the_stub() -> None:
    """`__init__.pyi` imports each name, as itself, from where `__init__.py` loads it."""
    stub = ast.parse((ROOT / "__init__.pyi").read_text("utf-8"))
    found: dict[str, str] = {}
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.asname == alias.name, f"{alias.name} is not exported"
                found[alias.name] = node.module or ""
    modules = dict.fromkeys(shardkit._MODULES, "shardkit")
    assert found == {**shardkit._HOME, **shardkit._NEED_EXTRA, **modules}
    assert "__version__" in {node.target.id for node in stub.body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
