"""Shared output of the commands: results to stdout; logs, errors and progress to stderr."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from shardkit.errors import StorageError, printable, printable_json
from shardkit.events import Progress, ProgressFn, no_progress

if TYPE_CHECKING:
    from tqdm import tqdm

DEBUG, QUIET, ON_INTERRUPT = "shardkit.debug", "shardkit.quiet", "shardkit.on_interrupt"
"""Keys of the click context's `meta`: show tracebacks; hide progress; text to add to "interrupted"."""

_BY_BYTES = ("upload", "download")
"""Steps whose progress is measured in bytes."""

_F = TypeVar("_F", bound=Callable[..., Any])
_COLOURS = {"error": "31", "warning": "33"}
_logger = logging.getLogger("shardkit")
_bars: list[tqdm[Any]] = []


def output_options(function: _F) -> _F:
    """Add -v, -q and --debug to a command; they may be given before or after its name."""
    for option in (
        click.option("--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Show tracebacks."),
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=_set_quiet,
            help="Print errors and what is asked for, and nothing else.",
        ),
        click.option(
            "-v", "--verbose", is_flag=True, expose_value=False, callback=_set_verbose, help="Show more messages."
        ),
    ):
        function = option(function)
    return function


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[DEBUG] = True


def _set_quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[QUIET] = True
        _logger.setLevel(logging.ERROR)


def _set_verbose(_: click.Context, __: click.Parameter, value: bool) -> None:
    if value:
        _logger.setLevel(logging.DEBUG)


def open_closed_streams() -> None:
    """Redirect those of stdin, stdout and stderr that are closed (`>&-`, as in daemons) to the null device.

    Otherwise the next file that is opened, such as a shard, gets their number, and receives what libraries print there.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        with suppress(OSError):
            os.fstat(number)
            continue
        fd = os.open(os.devnull, os.O_RDWR)
        if fd != number:  # a lower one is also closed
            os.dup2(fd, number)
            os.close(fd)
        os.set_inheritable(number, True)
        setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False))
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # its number was taken before this call
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))


def write(text: str) -> None:
    """Write a result to stdout as lines, with control characters escaped.

    Raises StorageError if that fails, as on a full disk.
    """
    text = "".join(part if part in "\n\t" else printable(part) for part in re.split(r"([\n\t])", text))
    try:
        sys.stdout.write(f"{text}\n")
    except UnicodeEncodeError:
        sys.stdout.write(text.encode("ascii", "backslashreplace").decode() + "\n")
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise unwritable(exc) from exc


def write_json(result: object) -> None:
    """Write a function's result to stdout as JSON, with the names of its fields. Raises like `write`."""
    import msgspec

    encoded = msgspec.json.encode(result, enc_hook=os.fspath)  # which msgspec asks about paths
    text = printable_json(msgspec.json.format(encoded, indent=2).decode())
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        import json

        text = json.dumps(json.loads(text), indent=2)  # ASCII only
    write(text)


def flush() -> None:
    """Flush stdout. Raises like `write`."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as exc:
        discard_output()
        raise unwritable(exc) from exc


def unwritable(exc: OSError) -> StorageError:
    """The error for a result that can't be written to stdout."""
    return StorageError(
        "standard output", f"the result can't be written ({exc.strerror})", "free some space and run it again"
    )


def discard_output(stream: TextIO | None = None) -> None:
    """Discard further output to `stream` (default: stdout), so that the interpreter's own flush at exit can't fail.

    Such a failure would change the exit code.
    """
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, (stream or sys.stdout).fileno())
        os.close(nowhere)


def error(text: str) -> None:
    """Write one line to stderr: `shardkit: error: …`."""
    _tell("error", text)


def warn(text: str) -> None:
    """Write one line to stderr, `shardkit: warning: …`, unless --quiet was given."""
    _logger.warning("%s", text)


def summary(text: str) -> None:
    """Write what a command did to stdout, unless --quiet was given: a result that was asked for is written anyway."""
    ctx = click.get_current_context(silent=True)
    if ctx is None or not ctx.meta.get(QUIET):
        write(ctx.obj.as_typed(text) if ctx is not None and ctx.obj is not None else text)


def trace(exc: BaseException) -> None:
    """Write the traceback to stderr."""
    import traceback

    _to_stderr("".join(traceback.format_exception(exc)).rstrip())


def _tell(kind: str, text: str) -> None:
    mark = f"{kind}:" if kind else ""
    if mark and use_colours(sys.stderr):
        mark = f"\x1b[{_COLOURS[kind]}m{mark}\x1b[0m"
    _to_stderr(" ".join(["shardkit:", *([mark] if mark else []), printable(text)]))


def _to_stderr(text: str) -> None:
    for bar in _bars:
        bar.clear()
    try:
        click.echo(text, err=True)
    except OSError:  # there is no other place to report it
        discard_output(sys.stderr)
    for bar in _bars:
        bar.refresh()


def use_colours(stream: TextIO) -> bool:
    """Whether to colour output to `stream`: it is a terminal, and the user did not disable colours (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class _Handler(logging.Handler):
    """Writes log records as lines to stderr, above a progress bar if there is one. spelled: see Flags."""

    def __init__(self, spelled: Callable[[str], str]) -> None:
        super().__init__()
        self.spelled = spelled

    def emit(self, record: logging.LogRecord) -> None:
        kind = "error" if record.levelno >= logging.ERROR else "warning" if record.levelno >= logging.WARNING else ""
        _tell(kind, self.spelled(record.getMessage()))


@contextmanager
def logging_to_stderr(spelled: Callable[[str], str] = str) -> Iterator[None]:
    """Context in which shardkit's log (from INFO up, unless an option changes that) goes to stderr, and only there.

    spelled: gives each line its final wording, like `Flags.spelled`.
    """
    handler, before = _Handler(spelled), (_logger.level, _logger.propagate)
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    _logger.propagate = False
    try:
        yield
    finally:
        _logger.removeHandler(handler)
        _logger.setLevel(before[0])
        _logger.propagate = before[1]


@contextmanager
def progress() -> Iterator[ProgressFn]:
    """A ProgressFn that draws a bar for each step on stderr; silent without a terminal, or with --quiet."""
    ctx = click.get_current_context(silent=True)
    if not sys.stderr.isatty() or (ctx is not None and ctx.meta.get(QUIET)):
        yield no_progress
        return
    bars = _Bars()
    try:
        yield bars
    finally:
        bars.close()


class _Bars:
    """Shows one bar at a time: a new step closes the previous one."""

    def __init__(self) -> None:
        self.step = ""
        self.bar: tqdm[Any] | None = None
        self.lock = threading.Lock()

    def __call__(self, now: Progress) -> None:
        with self.lock:  # workers report from their own threads
            self.show(now)

    def show(self, now: Progress) -> None:
        """Update the bar to `now`; the end of a step may be reported before a thread's last update."""
        if self.bar is None or now.step != self.step:
            self.close()
            self.step, self.bar = now.step, _new_bar(now)
        if now.step in _BY_BYTES:
            self.bar.total = now.bytes_total or None
            self.bar.set_postfix_str(f"{now.done}/{now.total} files", refresh=False)
            self.bar.update(now.bytes_done - self.bar.n)
            return
        self.bar.total = now.total or None
        seconds = self.bar.format_dict["elapsed"]
        if now.bytes_done and seconds >= _FIRST_SECONDS:
            self.bar.set_postfix_str(f"{now.bytes_done / 1e6 / seconds:.1f} MB/s", refresh=False)
        done = min(now.done, now.total) if now.total else now.done
        self.bar.update(max(0, done - self.bar.n))

    def close(self) -> None:
        """Leave the bar on the screen as it is."""
        if self.bar is not None:
            self.bar.close()
            _bars.remove(self.bar)
            self.bar = None


def _new_bar(now: Progress) -> tqdm[Any]:
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no monitor thread: workers may be forked
    asked: dict[str, Any] = {"desc": now.step, "file": sys.stderr, "dynamic_ncols": True}
    bar: tqdm[Any]
    if now.step in _BY_BYTES:
        bar = tqdm(total=now.bytes_total or None, unit="B", unit_scale=True, **asked)
    else:

        class FilesBar(tqdm):  # type: ignore[type-arg]
            """A bar with whole numbers of files."""

            @property
            def format_dict(self) -> Any:
                """tqdm's facts, with those of BAR."""
                found = super().format_dict
                shown = {"bar_format": BAR if found["total"] else COUNT}
                return {**found, **shown, **files_text(found["n"], found["total"], found["elapsed"])}

        bar = FilesBar(total=now.total or None, bar_format=BAR, **asked)
    _bars.append(bar)
    return bar


BAR = "{desc}: {percentage:3.0f}%|{bar}| {count} [{elapsed}<{remaining}{speed}{postfix}]"
"""A bar of files: tqdm's own abbreviates (`51.2k files`), and shows rates of the first milliseconds."""

COUNT = "{desc}: {count} [{elapsed}{speed}{postfix}]"
"""The same while their number is not known."""

_FIRST_SECONDS = 0.5


def files_text(done: int, total: int | None, seconds: float) -> dict[str, str]:
    """The number of files and their average rate, for BAR. A rate is shown once it means something."""
    count = f"{done:,}/{total:,} files" if total else f"{done:,} file{'' if done == 1 else 's'}"
    if seconds < _FIRST_SECONDS or not done:
        return {"count": count, "speed": ""}
    rate = done / seconds
    return {"count": count, "speed": f", {rate:,.0f} files/s" if rate >= 10 else f", {rate:.1f} files/s"}
