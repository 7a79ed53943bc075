"""The pages for users of other libraries: their programs run where the library is installed, their lines parse."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from test_readme import blocks, folder, needs

import shardkit
import shardkit.keras

__all__ = ["folder"]

PAGES = sorted((Path(__file__).parent.parent / "docs" / "coming-from").glob("*.md"))
PEERS = ("datasets", "keras", "litdata", "streaming", "tensorflow", "torch", "torchvision", "webdataset")
PROGRAMS = [
    (page.stem, text) for page in PAGES for language, text in blocks(page.read_text("utf-8")) if language == "python"
]
KNOWN = {*dir(shardkit.Dataset), *dir(shardkit.keras.ImageDataGenerator), *dir(shardkit), *dir(shardkit.keras)}
OTHERS = {"loader", "len", "enumerate", "to", "as_numpy"}  # of the loader, of Python, of torch, of TFDS


@pytest.mark.parametrize(("page", "text"), PROGRAMS, ids=lambda value: re.sub(r"\W+", "-", value)[:30])
def test_a_program_runs(page: str, text: str, folder: Path, run_python: Any) -> None:
    for name in PEERS:
        if needs(name, text) and not importlib.util.find_spec(name):
            pytest.skip(f"{name} is not installed")
    if page == "litdata" and "StreamingDataset(" in text:
        run_python("-c", WRITE_CHUNKS, cwd=folder)
    run_python("-c", text, cwd=folder, KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")


WRITE_CHUNKS = """
from pathlib import Path
import litdata

def sample(path):
    return {"jpg": path.read_bytes(), "cls": ["blue", "red"].index(path.parent.name)}

if __name__ == "__main__":
    writer = litdata.streaming.writer.BinaryWriter("chunks", chunk_bytes="1MB")
    for number, path in enumerate(sorted(Path("data/train").glob("*/*.jpg"))):
        writer.add_item(number, sample(path))
    writer.done()
    writer.merge()
"""


def new_lines(page: Path) -> list[str]:
    """What is in code marks in the second column of the table."""
    rows = re.findall(r"^\| .*? \| (.*) \|$", page.read_text("utf-8"), re.MULTILINE)
    return [code for row in rows for code in re.findall(r"`([^`]+)`", row)]


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "index"], ids=lambda page: page.stem)
def test_every_new_line_has_names_of_shardkit(page: Path) -> None:
    lines = [line for line in new_lines(page) if not line.startswith(("shardkit ", "pack "))]
    called = {name for line in lines for name in re.findall(r"(?:^|\.)(\w+)\(", line)}
    assert len(called) >= 3
    assert called - KNOWN - OTHERS == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_option_is_one_of_what_is_called(page: Path) -> None:
    for line in new_lines(page):
        text = line.replace("…", "...").strip(".")
        try:
            tree = ast.parse(f"data.{text}" if line.startswith(".") else text)
        except SyntaxError:
            continue
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            function = getattr(shardkit, name, None) or getattr(shardkit.Dataset, name, None)
            words = {word.arg for word in call.keywords if word.arg}
            if function is None or name == "split":
                continue
            assert words <= set(inspect.signature(function).parameters), line
