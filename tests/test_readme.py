"""The blocks of README and docs/ run as they stand, in their order, in a folder that has a small `data/` of splits."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardkit.cli import main
from shardkit.tools.demo import draw_cars

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DOCS = "".join([README, *(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md")))])
FRAMEWORKS = (
    "accelerate", "albumentations", "grain", "jax", "keras", "lightning", "ray", "tensorflow", "torch", "torchdata",
    "torchvision", "transformers", "webdataset",
)  # fmt: skip
MAX_LINES = 150
INSTALL = ("pip install . && shardkit demo", 'pip install ".[test]" && pytest')


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """(language, content) of each fenced block."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


def commands(block: str) -> list[str]:
    """The lines of a console block that are typed."""
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def needs(framework: str, block: str) -> bool:
    """Whether a block of Python imports a framework, by itself or through shardkit."""
    return re.search(rf"^(import|from) {framework}\b|\bshardkit\.{framework}\b", block, re.MULTILINE) is not None


PYTHON = [block for language, block in blocks(DOCS) if language == "python"]
CONSOLE = [line for language, block in blocks(DOCS) if language == "console" for line in commands(block)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's `data/`, drawn and packed as the README says."""
    root = tmp_path_factory.mktemp("readme")
    draw_cars(root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main.run(["pack", "data", "shards"]) == 0
    return root


@pytest.mark.parametrize("line", [line for line in CONSOLE if line not in INSTALL])
def test_a_command_of_the_readme_runs(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    program, *arguments = shlex.split(line)
    if program == "shardkit":
        assert main.run(arguments) == 0
    else:
        assert program == "tar"
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
        assert sorted({name.rpartition(".")[2] for name in done.stdout.split()}) == ["cls", "jpg"]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: re.sub(r"\W+", "-", block)[:40])
def test_a_python_block_of_the_readme_runs(block: str, folder: Path, run_python: Any) -> None:
    for name in FRAMEWORKS:
        if needs(name, block) and not importlib.util.find_spec(name):
            pytest.skip(f"{name} is not installed")
    run_python("-c", block, cwd=folder, KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")


def test_the_readme_has_the_blocks_that_are_run() -> None:
    assert len(PYTHON) >= 4
    assert [line for line in CONSOLE if line in INSTALL] == list(INSTALL)
    assert any(line.startswith("shardkit pack data shards") for line in CONSOLE)


def test_the_check_installs_as_the_readme_says() -> None:
    check = (ROOT / ".ci" / "run").read_text("utf-8")
    assert 'pip install --quiet ".[test,docs]"' in check
    assert "shardkit demo" in check


def test_every_command_has_a_section_in_the_reference_of_commands() -> None:
    named = re.findall(r"^## ([\w-]+)$", (ROOT / "docs/commands.md").read_text("utf-8"), re.MULTILINE)
    assert set(main.COMMANDS) - {"pack"} <= set(named)


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= MAX_LINES
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)|(?:srcset|src)=\"(.*?)\"", README)
    local = [one or other for one, other in targets if "://" not in one + other]
    assert len(local) > 20
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_every_reference_of_the_comparison_has_its_source() -> None:
    section = README.partition("## Compared with\n")[2].partition("\n## ")[0]
    used, given = (
        set(re.findall(r"\]\[(\w+)\]", section)),
        set(re.findall(r"^\[(\w+)\]: https://", section, re.MULTILINE)),
    )
    assert used == given
    assert used


def test_the_figures_of_the_readme_are_those_of_the_results() -> None:
    section = README.partition("## How fast\n")[2].partition("\n## ")[0]
    rates = [rate for rate in re.findall(r"\| \**([\d,]+)\** \|", section) if rate]
    results = (ROOT / "benchmarks/RESULTS.md").read_text("utf-8").partition("random crop and flip")[2]
    assert len(rates) >= 6
    assert [rate for rate in rates if f" {rate} |" not in results] == []


def test_a_block_needs_the_frameworks_that_it_imports_or_uses() -> None:
    assert needs("keras", "import keras") and needs("keras", "x = 1\nfrom keras.utils import load_img")
    assert needs("keras", "train = shardkit.keras.flow_from_shards(x)") and needs(
        "keras", "from shardkit.keras import x"
    )
    assert not needs("keras", "import shardkit\nkerasy = 1") and not needs("torch", "import keras")


def test_the_blocks_are_found_by_their_language() -> None:
    text = "x\n```python\na = 1\n```\n```console\n$ one\nout\n$ two\n```\n"
    assert list(blocks(text)) == [("python", "a = 1\n"), ("console", "$ one\nout\n$ two\n")]
    assert commands("$ one\nout\n$ two\n") == ["one", "two"]
