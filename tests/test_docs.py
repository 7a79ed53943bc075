"""What the documents for contributors name is there: paths, names in code, floors, the table of the benchmarks."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import test_levels

ROOT = Path(__file__).parent.parent
PAGES = [
    *(
        ROOT / name
        for name in ("CONTRIBUTING.md", "docs/architecture.md", "docs/jpeg-decoder.md", "benchmarks/RESULTS.md")
    ),
    *sorted((ROOT / "docs/decisions").glob("*.md")),
]
WORD = re.compile(r"(?<![\w./:-])[\w.-]+(?:/[\w.-]*)+(?![\w:*])|(?<![\w./-])\w+\.(?:py|md|toml|sh|json|yaml)\b")
"""What may be a path: words with a slash, and file names with an ending that is ours."""

MADE = {".venv/bin/activate", "build/site"}
"""What is there only after the commands around it."""

NAME_IN_FILE = re.compile(r"`([A-Za-z_]\w*)`[^`\n]{0,12}\(`([\w/.]+\.(?:py|toml))`\)")


def code_of(text: str) -> str:
    """What is in backticks or blocks of code, and the targets of links."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    rest = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    links = [target for target in re.findall(r"\]\(([^)#]+)[^)]*\)", rest) if "://" not in target]
    return "\n".join([*blocks, *re.findall(r"`([^`]+)`", rest), *links])


def is_there(path: str, page: Path) -> bool:
    """Whether the path leads to something from the page, the root, the package or the tests."""
    tops = (page.parent, ROOT, ROOT / "shardkit", ROOT / "tests", ROOT / "shardkit/native/include")
    return path in MADE or any((top / path).exists() for top in tops)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_path_that_a_page_names_is_there(page: Path) -> None:
    named = set(WORD.findall(code_of(page.read_text("utf-8"))))
    assert [path for path in sorted(named) if not is_there(path, page)] == []


def test_each_name_that_a_page_looks_for_in_a_file_is_there() -> None:
    found = [(name, path) for page in PAGES for name, path in NAME_IN_FILE.findall(page.read_text("utf-8"))]
    assert len(found) >= 5
    for name, path in found:
        files = [top / path for top in (ROOT, ROOT / "shardkit") if (top / path).exists()]
        assert any(re.search(rf"\b{name}\b", file.read_text("utf-8")) for file in files), (name, path)


def test_the_floors_are_the_same_in_the_page_the_test_and_the_contract() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    layers = [set(re.findall(r"\w+", layer)) for layer in reversed(settings["contracts"][0]["layers"])]
    floors = [set(names.split()) - {"__init__"} for names in test_levels.FLOORS]
    assert layers == floors
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| \d+ \| (.*?) \|", page, re.MULTILINE)
    assert [set(re.findall(r"(\w+)/?`", row)) for row in rows] == floors[:-1]


def test_the_table_of_the_benchmarks_is_that_of_their_figures() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/guard.py"), "table", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
