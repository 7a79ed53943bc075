"""What an installation brings: the packages that the library imports, the C parts, and the metadata of the project."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MODULES = {"opentelemetry-api": "opentelemetry", "pillow": "PIL", "pyyaml": "yaml", "google-crc32c": "google_crc32c"}
"""Packages whose module has another name."""

USERS_OWN = {
    "jax",
    "ml_dtypes",
    "IPython",
    "pandas",
    "polars",
    "scipy",
    "torchvision",
    "torchdata",
    "accelerate",
    "transformers",
    "boto3",
    "typing_extensions",
}
"""Modules that no extra installs: they are only used on what the user brings, or for types."""

C_SOURCES = sorted((ROOT / "shardkit" / "native").glob("*.c"))


def name_of(requirement: str) -> str:
    name = requirement.split(";")[0]
    for mark in "<>=![~ ":
        name = name.split(mark)[0]
    return MODULES.get(name.strip().lower(), name.strip().lower().replace("-", "_"))


def imported() -> dict[str, str]:
    """Every module that the library imports -> a file that does."""
    found = {}
    for path in (ROOT / "shardkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            found |= {name.split(".")[0]: path.name for name in names}
    return {name: file for name, file in found.items() if name not in sys.stdlib_module_names and name != "shardkit"}


def test_the_library_imports_what_it_requires_and_what_its_extras_bring() -> None:
    extras = PROJECT["optional-dependencies"]
    brought = {name_of(line) for lines in (PROJECT["dependencies"], *extras.values()) for line in lines}
    assert {name: file for name, file in imported().items() if name not in brought | USERS_OWN} == {}


def test_messages_and_docs_name_extras_that_there_are_and_as_they_can_be_installed_from_any_folder() -> None:
    """pip takes the shardkit that is installed, also one from a copy of the repository."""
    extras, named = set(PROJECT["optional-dependencies"]), set[str]()
    for path in sorted((ROOT / "shardkit").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "installs":
                named |= {each.value for each in node.args if isinstance(each, ast.Constant)}
    assert {"ray", "remote"} <= named <= extras
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text("utf-8")
        assert set(re.findall(r"shardkit\[(\w+)\]", text)) <= extras, path.name
        assert set(re.findall(r'"\.\[([\w,]+)\]"', text)) <= {"test", "docs"}, path.name


def test_every_required_package_is_imported() -> None:
    assert {name_of(line) for line in PROJECT["dependencies"]} <= set(imported())


def test_opencv_is_neither_imported_nor_installed() -> None:
    """Its package owns the folder cv2/, which a user's opencv-python also owns."""
    assert "cv2" not in imported()
    extras = {line for name, lines in PROJECT["optional-dependencies"].items() if name != "test" for line in lines}
    assert not [line for line in {*PROJECT["dependencies"], *extras} if "opencv" in line]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler here")
@pytest.mark.parametrize("source", C_SOURCES, ids=lambda path: path.stem)
def test_a_c_part_keeps_to_the_stable_abi_of_the_oldest_python(source: Path) -> None:
    """So that one wheel serves all later Pythons."""
    major, minor = PROJECT["requires-python"].removeprefix(">=").split(".")
    limit = f"-DPy_LIMITED_API=0x{int(major):02x}{int(minor):02x}0000"
    headers = sysconfig.get_path("include")
    if not (Path(headers) / "Python.h").exists():
        pytest.skip("Python's headers are not installed")
    command = ["gcc", limit, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{headers}", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if "jpeglib.h: No such file" in result.stderr:
        pytest.skip("the headers of libjpeg-turbo are not installed")
    assert result.returncode == 0, result.stderr
