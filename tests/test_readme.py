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

from shardkit import errors
from shardkit.cli import main
from shardkit.cli.pack import command as pack_command
from shardkit.tools.demo import draw_cars

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DOCS = "".join([README, *(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md")))])
FRAMEWORKS = (
    "accelerate", "albumentations", "jax", "keras", "lightning", "tensorflow", "torch", "torchvision", "transformers",
    "webdataset",
)  # fmt: skip
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


def table_codes(heading: str) -> list[str]:
    """What stands in code marks in the first column of the table below a heading."""
    section = README.partition(f"{heading}\n")[2].partition("\n#")[0]
    return [code for row in re.findall(r"^\| (.*?) \|", section, re.MULTILINE) for code in re.findall(r"`(.*?)`", row)]


def test_every_command_is_in_the_readme_and_no_other() -> None:
    named = [code.split()[1] for code in table_codes("## Commands") if code.startswith("shardkit")]
    assert named == list(main.COMMANDS)


def test_the_options_of_pack_that_the_readme_names_are_there() -> None:
    real = {name for param in pack_command.params for name in (*param.opts, *param.secondary_opts)}
    section = README.partition("### Options of `shardkit pack`\n")[2].partition("\n[docs/packing.md]")[0]
    named = set(re.findall(r"`(--[a-z-]+)", section))
    assert len(named) >= 10
    assert named - real == set()


def test_every_exit_code_is_in_the_readme_and_no_other() -> None:
    section = README.partition("## Exit codes")[2]
    named = {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    real = {getattr(errors, name).exit_code for name in errors.__all__}
    assert named == real | {0, main.BUG, main.INTERRUPTED, main.BROKEN_PIPE}


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
