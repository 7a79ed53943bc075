from __future__ import annotations

import logging
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import click
import pytest

from shardkit import errors
from shardkit.cli import console
from shardkit.cli.main import COMMANDS, cli, run
from shardkit.events import Progress


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes `shardkit info` raise the exception that is given."""

    def fail_with(exc: BaseException) -> None:
        def info(_: object, **__: object) -> None:
            raise exc

        monkeypatch.setattr("shardkit.tools.info.info", info)

    return fail_with


def command_of(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_lists_each_command_with_its_own_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    column = max(map(len, COMMANDS))
    assert f"  {name:{column}}  {COMMANDS[name][1]}\n" in capsys.readouterr().out
    assert command_of(name).short_help == COMMANDS[name][1]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_and_option_has_a_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "-h"]) == 0
    assert f"  shardkit {name} " in capsys.readouterr().out
    assert [p.name for p in command_of(name).params if isinstance(p, click.Option) and not p.help] == []


def test_no_arguments_show_the_help_and_are_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize("name", errors.__all__)
def test_an_error_is_one_line_on_stderr_and_the_exit_code_of_its_class(
    name: str, failing: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    error = getattr(errors, name)("shards/a\n.tar", "it is truncated", "pack again", 512)
    failing(error)
    assert run(["info", "x"]) == error.exit_code != 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "shardkit: error: shards/a\\n.tar: at byte 512: it is truncated; pack again\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pakc"], "there is no command 'pakc'; did you mean pack?; see 'shardkit --help'"),
        (["x\n"], "there is no command 'x\\\\n'; the commands are "),
        (["--wrong"], "there is no option --wrong; see 'shardkit --help'"),
        (["pack"], "SOURCE is missing; see 'shardkit pack --help'"),
        (["pack", "a"], "DEST is missing; see 'shardkit pack --help'"),
        (["convert"], "SOURCE is missing; see 'shardkit convert --help'"),
        *[
            ([command, "a"], f"DEST is missing; see 'shardkit {command} --help'")
            for command in ("convert", "repair", "unpack", "upload", "download")
        ],
        (["verify"], "SOURCE is missing; see 'shardkit verify --help'"),
        (["pack", "a", "b", "c"], "unexpected argument (c); see 'shardkit pack --help'"),
        (["view", "a", "--html", "b"], "unexpected argument (b): --html takes no value; --out names the file; see '"),
        (["view", "--html", "b", "a"], "unexpected argument (b): --html takes no value; --out names the file; see '"),
        (["view", "a", "b", "--html"], "unexpected argument (b); see 'shardkit view --help'"),
        (["pack", "a", "b", "--dry-run", "c"], "unexpected argument (c): --dry-run takes no value; see 'shardkit pack"),
        (["pack", "--dry-run", "a", "b", "c"], "unexpected argument (c); see 'shardkit pack --help'"),
        (["pack", "a", "b", "--workers", "0"], "--workers: 0 is too small; give at least 1"),
        (["pack", "a", "b", "--check", "half"], "--check: 'half' is not one of header, full, none; choose one"),
        (
            ["pack", "a", "b", "--format", "tfrecords"],
            "--format: 'tfrecords' is not one of tar, tfrecord; did you mean --format tf",
        ),
        (["pack", "a", "b", "--engine", "spark"], "--engine: 'spark' is not one of local, ray; choose one of these"),
        (["pack", "a", "b", "--workers", "two"], "--workers: 'two' is not a whole number; give at least 1"),
        (["pack", "a", "b", "--workers"], "--workers: it has no value; give one"),
        (["pack", "a", "b", "--shuffle=1"], "--shuffle: it takes no value; omit it"),
        (["pack", "a", "b", "--wrokers", "1"], "there is no option --wrokers; did you mean --workers?; see"),
        (["pack", "a", "b", "--quality", "101"], "--quality: 101 is out of range; give 1 to 100"),
        (["bench", "a", "--seconds", "x"], "--seconds: 'x' is not a number; give at least 1"),
        (["completion", "bsh"], "SHELL: 'bsh' is not one of bash, zsh, fish; did you mean bash?"),
        (["pack", "a", "b", "--max-bytes", "big"], "--max-bytes: 'big' is not a size"),
        (["pack", "a", "b", "--ext", ","], "--ext: it is empty"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"shardkit: error: {message}")
    assert err.count("\n") == 1


def test_a_bug_is_one_line_that_asks_for_a_report(failing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    failing(ZeroDivisionError("division\nby zero"))
    assert run(["info", "x"]) == 70
    err = capsys.readouterr().err
    assert err.startswith("shardkit: error: unexpected ZeroDivisionError: division\\nby zero; please report it")
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--debug", "info", "x"], ["info", "x", "--debug"]])
@pytest.mark.parametrize("exc", [ZeroDivisionError("oops"), errors.DamagedError("a.tar", "oops")])
def test_debug_shows_the_traceback(
    exc: Exception, arguments: list[str], failing: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(exc)
    assert run(arguments) == getattr(exc, "exit_code", 70)
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("shardkit: error: ")


def test_an_interrupt_is_told_and_gives_130(failing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    failing(KeyboardInterrupt())
    assert run(["info", "x"]) == 130
    assert capsys.readouterr().err == "shardkit: error: interrupted\n"


def test_an_interrupted_pack_says_that_the_same_command_goes_on(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shardkit.packing.pack.pack", interrupted)
    assert run(["pack", str(tree), str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "shardkit: error: interrupted; run the same command again to resume\n"


def test_logs_go_to_stderr_by_their_level(failing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    class Logs(errors.UsageError):
        pass

    def told(*options: str) -> list[str]:
        run([*options, "info", "x"])
        out, err = capsys.readouterr()
        assert out == ""
        return err.splitlines()[:-1]

    log = logging.getLogger("shardkit.tools.info")

    def info(_: object, **__: object) -> None:
        log.debug("small")
        log.info("some")
        log.warning("much\n")
        raise Logs("x", "done")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shardkit.tools.info.info", info)
        assert told() == ["shardkit: some", "shardkit: warning: much\\n"]
        assert told("-v") == ["shardkit: small", "shardkit: some", "shardkit: warning: much\\n"]
        assert told("-q") == []


def test_the_logger_is_left_as_it_was(failing: Any) -> None:
    logger = logging.getLogger("shardkit")
    before = (logger.level, logger.propagate, list(logger.handlers))
    failing(errors.UsageError("x", "y"))
    run(["-v", "info", "x"])
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def test_a_reader_that_goes_away_is_met_in_silence(tmp_path: Path, run_python: Any) -> None:
    code = (
        "import os, sys\n"
        "from shardkit.cli.main import main\n"
        "r, w = os.pipe(); os.dup2(w, 1); os.close(w); os.close(r)\n"
        "main(['--version'])"
    )
    done = run_python("-c", code, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_end_of_the_command_line_flushes_and_calls_what_was_registered_for_it(
    tmp_path: Path, run_python: Any
) -> None:
    code = (
        "import atexit, sys\n"
        "from shardkit.cli.main import main\n"
        "atexit.register(lambda: print('at the end'))\n"
        "sys.argv[1:] = ['--version']\n"
        "main()"
    )
    assert run_python("-c", code, cwd=tmp_path).stdout.splitlines()[1:] == ["at the end"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", ["['--version']", "['pack', '--help']"])
def test_a_full_disk_below_stdout_is_an_error(tmp_path: Path, run_python: Any, arguments: str) -> None:
    code = (
        "import os\n"
        "from shardkit.cli.main import main\n"
        "fd = os.open('/dev/full', os.O_WRONLY); os.dup2(fd, 1)\n"
        f"main({arguments})"
    )
    done = run_python("-c", code, cwd=tmp_path, check=False)
    assert done.returncode == 6
    assert done.stderr.startswith("shardkit: error: standard output: the result can't be written (No space left")
    assert done.stderr.count("\n") == 1


def in_a_terminal(code: str, tmp_path: Path, **environment: str) -> str:
    """What `code`, run in a new interpreter, writes to a terminal."""
    home = str(Path(errors.__file__).parent.parent)
    main, other = pty.openpty()
    termios.tcsetwinsize(other, (24, 100))
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"PYTHONPATH": home, "TERM": "xterm"} | environment
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=other, stdout=other, stderr=other, cwd=tmp_path, env=env
    )
    os.close(other)
    text = b""
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        text += part
    os.close(main)
    process.wait(60)
    return text.decode()


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_errors_are_coloured_in_a_terminal_unless_unwanted(
    environment: dict[str, str], coloured: bool, tmp_path: Path
) -> None:
    text = in_a_terminal("from shardkit.cli.main import run\nrun(['pakc'])", tmp_path, **environment)
    assert ("\x1b[" in text) is coloured
    assert "there is no command 'pakc'" in text


SHOW_PROGRESS = """
import logging, sys, time
from shardkit.cli import console
from shardkit.events import Progress
with console.logging_to_stderr(), console.progress() as progress:
    progress(Progress("scan", 1))
    for n in range(0, 101, 50):
        progress(Progress("pack", n, 100, n * 1000, 100_000))
    time.sleep(0.6)  # no rate is shown before
    logging.getLogger("shardkit").warning("left out")
    progress(Progress("pack", 100, 100, 100_000, 100_000))
"""


def test_progress_in_a_terminal_counts_files_and_shows_bytes_a_second(tmp_path: Path) -> None:
    text = in_a_terminal(SHOW_PROGRESS, tmp_path)
    assert "scan: " in text
    assert "pack: 100%" in text
    assert " files [" in text
    assert "MB/s" in text
    assert "warning:" in text


def test_progress_is_silent_without_a_terminal(tmp_path: Path, run_python: Any) -> None:
    done = run_python("-c", SHOW_PROGRESS, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("", "shardkit: warning: left out\n")


def test_progress_may_be_told_from_several_threads_and_late(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = console._Bars()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    bars(Progress("pack", 5, 10))
    bars(Progress("pack", 3, 10))
    assert bars.bar is not None
    assert bars.bar.n == 5
    bars.close()
    assert console._bars == []


def test_a_bar_shows_no_rate_of_bytes_of_the_first_moment() -> None:
    bars = console._Bars()
    bars(Progress("pack", 5, 10, 1_000_000, 2_000_000))
    assert bars.bar is not None
    assert not bars.bar.postfix
    bars.bar.start_t -= 2
    bars(Progress("pack", 6, 10, 2_000_000, 2_000_000))
    assert "MB/s" in bars.bar.postfix
    bars.close()


def test_an_interrupt_from_the_keyboard_ends_a_run_with_130(tmp_path: Path) -> None:
    code = (
        "import time, shardkit.tools.info as m\n"
        "from shardkit.cli.main import main\n"
        "def info(_, **__):\n    print('ready', flush=True); time.sleep(60)\n"
        "m.info = info\nmain(['info', 'x'])"
    )
    home = str(Path(errors.__file__).parent.parent)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": home},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "shardkit: error: interrupted\n")
