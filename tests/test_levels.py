"""A file imports its own folder and lower levels only. The levels are the floors of docs/architecture.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import shardkit

ROOT = Path(shardkit.__file__).parent

FLOORS = (
    "native",
    "errors location sample events rng units checksums threads version system",
    "options",
    "images",
    "formats",
    "storage",
    "shards",
    "sources",
    "packing reading",
    "adapters tools",
    "cli",
    "__main__ __init__ keras lightning ray tensorflow",
)
"""The table of docs/architecture.md, and the front doors below it."""

LEVELS = {name: level for level, names in enumerate(FLOORS) for name in names.split()}

MOST_FILES = 14

MOST_PARAMETERS = 8

MANY_PARAMETERS = {
    "pack", "plan_pack", "convert", "dataset", "decode", "flow_from_shards", "image_dataset_from_shards",
    "ImageDataGenerator.__init__", "flow_from_directory", "flow_from_dataframe", "flow", "index_shards",
}  # fmt: skip
"""Functions that spell out every option for their users, and those that have the arguments of Keras' own."""

DOOR = (("reading", "dataset"), "adapters")
"""The one way up: `Dataset.to_torch()` and its like import their adapter, late, inside the method."""

LATE = {
    "IPython", "PIL", "boto3", "cv2", "fsspec", "keras", "lightning", "obstore", "opentelemetry", "pandas", "py7zr",
    "pyarrow", "ray", "scipy", "simplejpeg", "tensorflow", "torch", "tqdm", "webdataset", "yaml", "zstandard",
}  # fmt: skip
"""Packages that are imported in the function that needs them, never at the top of a file."""


def package_files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def module_of(path: Path) -> tuple[str, ...]:
    return path.relative_to(ROOT).with_suffix("").parts


def imported(source: str, module: tuple[str, ...]) -> list[tuple[int, tuple[str, ...]]]:
    """(line, module below shardkit) of each import of shardkit in `source`, late and type-only ones included."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["shardkit", *module[: len(module) - node.level]] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" if stem == "shardkit" else stem for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "shardkit":
                found.append((node.lineno, home_of(parts[1:])))
    return found


def home_of(parts: list[str]) -> tuple[str, ...]:
    """The module that holds what is imported: `from shardkit import pack` imports shardkit.packing.job."""
    if parts and parts[0] in shardkit._HOME:
        return tuple(shardkit._HOME[parts[0]].split(".")[1:])
    return tuple(parts) or ("__init__",)


def allowed(own: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether module `own` may import module `other`: the same folder, or a lower level."""
    if other[0] not in LEVELS:
        return False
    if (own, other[0]) == DOOR:
        return True
    same_folder = (len(own) == 1 and (ROOT / f"{other[0]}.py").exists()) or (len(own) > 1 and own[0] == other[0])
    return LEVELS[other[0]] < LEVELS[own[0]] or (same_folder and LEVELS[other[0]] == LEVELS[own[0]])


def top_imports(source: str) -> set[str]:
    """The packages that loading the file imports."""
    return {name.split(".")[0] for name in top_modules(source)}


def top_modules(source: str) -> set[str]:
    """The modules that loading the file imports: those outside functions and `if TYPE_CHECKING`."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)
    return found


@pytest.mark.parametrize("path", package_files(), ids=lambda path: "/".join(module_of(path)))
def test_a_file_imports_its_own_folder_and_lower_levels_only(path: Path) -> None:
    own = module_of(path)
    wrong = [
        f"line {line} imports shardkit.{'.'.join(other)}"
        for line, other in imported(path.read_text("utf-8"), own)
        if not allowed(own, other)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "path",
    [path for path in package_files() if module_of(path)[0] != DOOR[1]],  # an adapter is itself imported late
    ids=lambda path: "/".join(module_of(path)),
)
def test_heavy_packages_are_imported_late(path: Path) -> None:
    assert top_imports(path.read_text("utf-8")) & LATE == set()


def test_the_adapters_are_imported_inside_the_methods_that_need_them() -> None:
    source = ROOT.joinpath(*DOOR[0]).with_suffix(".py").read_text("utf-8")
    assert any(other[0] == DOOR[1] for _, other in imported(source, DOOR[0]))
    assert [name for name in top_modules(source) if name.startswith(f"shardkit.{DOOR[1]}")] == []


def test_every_file_and_folder_has_a_level() -> None:
    assert {module_of(path)[0] for path in package_files()} <= set(LEVELS)


def test_a_function_and_a_package_never_share_a_name() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {path.stem for path in ROOT.glob("*.py")}
    assert packages & set(shardkit._HOME) == set()


@pytest.mark.parametrize(
    ("own", "source", "fine"),
    [
        (("formats", "tar", "samples"), "from shardkit.errors import DamagedError", True),
        (("formats", "tar", "samples"), "from shardkit.storage.files import open_file", False),
        (("formats", "tar", "samples"), "def f():\n    import shardkit.storage.files", False),
        (("formats", "tar", "samples"), "from ...storage import files", False),
        (("formats", "tar", "samples"), "from . import headers", True),
        (("formats", "tar", "samples"), "from shardkit import errors", True),
        (("formats", "tar", "samples"), "from shardkit import pack", False),
        (("formats", "tar", "samples"), "import shardkit", False),
        (("formats", "tar", "samples"), "from shardkit.shards.manifest import Manifest", False),
        (("images", "header"), "from shardkit.formats.format import FORMATS", False),
        (("formats", "format"), "from shardkit.images.header import inspect", True),
        (("packing", "pack"), "from shardkit.shards.manifest import Manifest", True),
        (("packing", "pack"), "if TYPE_CHECKING:\n    from shardkit.reading.dataset import Dataset", False),
        (("sources", "open"), "from shardkit.packing.options import PackOptions", False),
        (("errors",), "from shardkit.sample import fs_text", True),
        (("errors",), "from shardkit.shards.manifest import Manifest", False),
        (("checksums",), "from shardkit.native import load", True),
        (("tools", "info"), "from shardkit.reading.dataset import dataset", True),
        (("reading", "dataset"), "from shardkit.adapters.torch import to_torch", True),
        (("reading", "batches", "batch"), "from shardkit.adapters.torch import to_torch", False),
        (("tools", "info"), "from shardkit.cli.main import main", False),
        (("cli", "pack"), "from shardkit import pack", True),
        (("cli", "pack"), "from shardkit.nowhere import x", False),
    ],
)
def test_the_check_itself_tells_right_from_wrong(own: tuple[str, ...], source: str, fine: bool) -> None:
    [(_, other)] = imported(source, own)
    assert allowed(own, other) is fine


def test_the_check_of_late_imports_sees_the_top_of_a_file_only() -> None:
    source = "import cv2\ntry:\n    import torch.nn\nexcept ImportError: pass\ndef f():\n    import pyarrow\n"
    assert top_imports(source + "if TYPE_CHECKING:\n    import tensorflow\n") == {"cv2", "torch"}


def test_the_floors_are_those_of_the_architecture_page() -> None:
    page = Path(__file__).parents[1].joinpath("docs", "architecture.md").read_text("utf-8")
    rows = re.findall(r"(?m)^\| (\d+) \| ([^|]+) \|", page)
    told = {name.rstrip("/"): int(floor) for floor, names in rows for name in re.findall(r"`([\w/]+)`", names)}
    last = LEVELS["__main__"]
    assert told == {name: level for name, level in LEVELS.items() if level < last}


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The names of a function's parameters, `self` and `cls` left out."""
    asked = function.args
    named = [*asked.posonlyargs, *asked.args, *asked.kwonlyargs, asked.vararg, asked.kwarg]
    return [each.arg for each in named if each is not None and each.arg not in ("self", "cls")]


def test_a_function_has_few_parameters() -> None:
    found = set()
    for path in package_files():
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        makers = {part: node.name for node in nodes if isinstance(node, ast.ClassDef) for part in node.body}
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len(parameters_of(node)) > MOST_PARAMETERS:
                found.add(f"{makers[node]}.{node.name}" if node.name == "__init__" else node.name)
    assert found == MANY_PARAMETERS


def test_a_folder_holds_few_files_and_no_file_hides_behind_an_underscore() -> None:
    folders = {path.parent for path in package_files()} - {ROOT / "cli"}
    assert {folder: count for folder in folders if (count := len(list(folder.glob("[a-z]*.py")))) > MOST_FILES} == {}
    assert [path for path in package_files() if path.stem.startswith("_") and not path.stem.startswith("__")] == []


def test_nothing_is_left_to_be_done() -> None:
    marks = re.compile(r"\b(?:TODO|FIXME)\b")
    assert [str(path) for path in package_files() if marks.search(path.read_text("utf-8"))] == []
