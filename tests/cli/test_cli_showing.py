"""`shardkit view`, `report`, `bench` and `completion` on the command line, and what every help has."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import click
import pytest

import shardkit
from shardkit import errors, pack
from shardkit.cli import completion, main
from shardkit.cli.main import COMMANDS, cli, run


@pytest.fixture
def packed(tree: Path, tmp_path: Path) -> str:
    """The tree of 5 blue and 7 red images, packed."""
    pack(tree, tmp_path / "shards" / "train", workers=1)
    return str(tmp_path / "shards" / "train")


def test_view_says_what_it_drew(packed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "sheet.png")
    assert run(["view", packed, "--out", out, "--count", "2", "--classes", "red, blue", "--seed", "4"]) == 0
    told = capsys.readouterr().out
    assert re.fullmatch(re.escape(out) + r": 4 samples of 2 classes, \d+ x \d+ pixels\n", told)


def test_view_as_json_has_the_keys(packed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "sheet.png")
    assert run(["view", packed, "--out", out, "--augmented", "--size", "16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["name"], len(row["keys"])) for row in found["classes"]] == [("blue", 5), ("red", 7)]
    assert found["path"] == out


def test_view_names_what_can_not_be_decoded(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "blue" / "0000.jpg").write_bytes(b"no")
    assert run(["view", str(tree), "--out", str(tmp_path / "sheet.png")]) == 0
    assert "1 image can't be decoded: blue/0000" in capsys.readouterr().out


def test_view_writes_a_page_beside_the_shards(packed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["view", packed, "--html"]) == 0
    told = capsys.readouterr().out
    assert re.fullmatch(re.escape(packed) + r"\.html: \d+ kB, shows 12 samples of train\n", told)
    assert run(["view", packed, "--html", "--json", "--out", f"{packed}-2.htm"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == f"{packed}-2.htm"
    assert [each["samples"] for each in found["datasets"]] == [12]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--html", "--count", "3"], "--count: it belongs to a picture, and --html asks for a page; omit one of them"),
        (["--html", "--class", "red"], "--class: it belongs to a picture"),
        (["--html", "--port", "80"], "--port: it belongs to a server; add --serve"),
        (["--serve"], "--serve: it belongs to a page; add --html"),
        (["--port", "80"], "--port: it belongs to a page; add --html"),
        (["--html", "--serve", "--port", "0"], "--port: 0 is out of range; give 1 to 65,535"),
        (["--html", "--out", "page.png"], "give one that ends with .html"),
    ],
)
def test_options_of_the_picture_and_of_the_page_are_kept_apart(
    options: list[str], told: str, packed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["view", packed, *options]) == 2
    assert told in capsys.readouterr().err
    assert not list(Path(packed).parent.glob("*.html"))


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C can't be sent to one process")
def test_view_serves_a_page_until_it_is_interrupted(packed: str) -> None:
    home = str(Path(shardkit.__file__).parent.parent)
    command = [sys.executable, "-m", "shardkit", "view", packed, "--html", "--serve"]
    environment = os.environ | {"PYTHONPATH": home}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        with urllib.request.urlopen(lines[1].strip(), timeout=30) as answer:
            assert answer.read() == Path(f"{packed}.html").read_bytes()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (0, "")


def test_report_says_what_it_found(packed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "report.html")
    shutil.copy(f"{packed}.json", Path(packed).with_name("test.json"))
    assert run(["report", packed, "--out", out]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{out}: ")
    assert "  12 images in both train and test\n" in told
    assert "  train: 12 samples, nothing stands out\n" in told


def test_report_as_json_has_the_keys(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(tree / "red" / "0001.jpg", tree / "red" / "again.jpg")
    assert run(["report", str(tree), "--compare", str(tree), "--out", str(tmp_path / "r.html"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [sorted(group) for group in found["datasets"][0]["duplicates"]] == [["red/0001", "red/again"]]
    assert len(found["leaks"][0]["images"]) == 13


def test_bench_prints_a_table_and_advice(
    packed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # on a busy machine, or of so few images, it would give no advice
    monkeypatch.setattr("shardkit.tools.bench.bench.OtherPrograms.cores", lambda _: 0.0)
    monkeypatch.setattr("shardkit.tools.bench.advice.FEW", 1)
    plot = tmp_path / "bench.png"
    options = ["--seconds", "1", "--threads", "1", "--size", "8", "--plot", str(plot), "--folder", str(tmp_path)]
    assert run(["bench", packed, *options]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{packed}: shards, 12 images, ")
    assert "images/s" in told
    assert re.search(r"Packing: max_bytes=\d+MB \(\d+ of them\). Reading: threads=1, shuffle=12\.", told)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_bench_as_json_has_the_measurements(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", str(tree), "--seconds", "1", "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {m["what"] for m in found["measurements"]} == {"directory", "shards"}
    assert found["advice"]["lines"]


def test_bench_refuses_threads_that_are_no_numbers(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", str(tree), "--threads", "one"]) == 2
    assert "--threads: 'one' is not a list of numbers; write it as 1,2,4" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples_that_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    examples = re.findall(rf"^ *(shardkit {name} .*|shardkit {name})$", command.help or "", re.MULTILINE)
    assert len(examples) >= 2
    known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    for example in examples:
        typed = re.findall(r"(?<= )--?[a-zA-Z][\w-]*", example)
        assert [option for option in typed if option not in known] == [], example


def test_the_help_has_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    named = re.findall(r"^    (\d+) +\S", capsys.readouterr().out.partition("Exit codes:")[2], re.MULTILINE)
    real = {getattr(errors, name).exit_code for name in errors.__all__}
    assert {int(code) for code in named} == real | {0, main.BUG, main.INTERRUPTED, main.BROKEN_PIPE}


def test_the_exit_codes_of_the_help_are_those_of_the_page() -> None:
    page = Path(__file__).parents[2].joinpath("docs/reference/exit-codes.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+?) \|$", page, re.MULTILINE)
    assert rows == re.findall(r"^  (\d+) +(.+)$", main.EXIT_CODES, re.MULTILINE)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_completion_script_asks_shardkit(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    told = capsys.readouterr().out
    assert f"{completion.VARIABLE}={shell}_complete" in told
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=told, text=True, check=True)


def completed(line: str, folder: Path) -> list[str]:
    """What bash shows for a line at whose end Tab is pressed: (kind, text) as `kind,text`."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-m", "shardkit"],
        capture_output=True, text=True, check=True, cwd=folder,
        env=os.environ | {
            "PYTHONPATH": str(Path(shardkit.__file__).parents[1]), "_SHARDKIT_COMPLETE": "bash_complete",
            "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1),
        },
    )  # fmt: skip
    return done.stdout.split()


def test_commands_options_choices_and_files_are_completed(tmp_path: Path) -> None:
    assert completed("shardkit re", tmp_path) == [f"plain,{name}" for name in COMMANDS if name.startswith("re")]
    assert completed("shardkit pack a b --seed", tmp_path) == ["plain,--seed"]
    assert completed("shardkit pack a b --check f", tmp_path) == ["plain,full"]
    assert completed("shardkit info sha", tmp_path) == ["file,sha"]
    assert completed("shardkit report x --compare sha", tmp_path) == ["file,sha"]


def test_asking_for_completions_loads_no_heavy_package(run_python: Any, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom shardkit.cli.completion import complete\nfrom shardkit.cli.main import cli\n"
        "complete(cli, 'bash_complete')\n"
        "print(sorted({'numpy', 'pyarrow', 'PIL', 'matplotlib', 'msgspec'} & set(sys.modules)))"
    )
    done = run_python("-c", code, cwd=tmp_path, COMP_WORDS="shardkit\nin", COMP_CWORD="1")
    lines = done.stdout.splitlines()
    assert "plain,info" in lines
    assert lines[-1] == "[]"
