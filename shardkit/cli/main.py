"""`shardkit`: the table of commands, and the single place where an error becomes a line on stderr and an exit code.

0       done
1 to 7  an error of shardkit, by its class (shardkit/errors.py); 2 is also a wrong command line
70      a bug in shardkit
130     interrupted (Ctrl-C)
141     the reader of the output closed it
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from shardkit.cli import console
from shardkit.cli.flags import Flags
from shardkit.errors import ShardkitError, StorageError, printable
from shardkit.options.keywords import closest
from shardkit.sample import fs_text
from shardkit.version import __version__

COMMANDS = {
    "pack": ("shardkit.cli.pack:command", "Pack a tree of class directories into shards."),
    "merge": ("shardkit.cli.merge:command", "Make one dataset of the parts of a packing, or of datasets."),
    "convert": ("shardkit.cli.convert:command", "Write a dataset in another format, or as other shards."),
    "relabel": ("shardkit.cli.relabel:command", "Correct labels, in a new version of a dataset."),
    "delete": ("shardkit.cli.delete:command", "Leave samples out, in a new version of a dataset."),
    "add-fields": ("shardkit.cli.add_fields:command", "Add columns, in a new version of a dataset."),
    "log": ("shardkit.cli.log:command", "List the versions of a dataset."),
    "diff": ("shardkit.cli.diff:command", "Show what differs between two versions of a dataset."),
    "revert": ("shardkit.cli.revert:command", "Go back to an older version of a dataset."),
    "info": ("shardkit.cli.info:command", "Show the contents of a packed dataset."),
    "verify": ("shardkit.cli.verify:command", "Check shards, index and manifest."),
    "repair": ("shardkit.cli.repair:command", "Recover a sound dataset from a damaged one."),
    "unpack": ("shardkit.cli.unpack:command", "Extract a dataset into a tree of class directories."),
    "upload": ("shardkit.cli.upload:command", "Upload a dataset to a bucket."),
    "download": ("shardkit.cli.download:command", "Download a dataset from a bucket."),
    "export": ("shardkit.cli.export:command", "Write the files by which other libraries read a dataset."),
    "index": ("shardkit.cli.index:command", "Create the manifest and index of shards that have none."),
    "shuffle-quality": ("shardkit.cli.shuffle_quality:command", "Show how well shuffle buffers mix a dataset."),
    "view": ("shardkit.cli.view:command", "Draw random samples, or write a page of all images."),
    "report": ("shardkit.cli.report:command", "Write an HTML report: classes, sizes, duplicates, leakage."),
    "bench": ("shardkit.cli.bench:command", "Compare a class directory with shards on this machine."),
    "completion": ("shardkit.cli.completion:command", "Print the completion script for a shell."),
    "demo": ("shardkit.cli.demo:command", "Draw, pack and stream a small dataset, as a demonstration."),
}
"""Each command with the module that it is loaded from when called, and its line in `shardkit --help`."""

BUG, INTERRUPTED, BROKEN_PIPE = 70, 130, 141

GC_OBJECTS = 200_000
"""New objects after which Python looks for cycles: at its default of 700, a tenth of a packing, mostly in imports; at
50,000, it still visits what was imported."""


class LazyGroup(click.Group):
    """A group that loads a command when it is called, and lists all of them from the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, loaded; None for a name that is not in the table."""
        if cmd_name not in COMMANDS:
            return None
        import importlib

        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        if flags := ctx.find_object(Flags):
            flags.use(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click's, but suggests the nearest name for one that does not exist; `help NAME` is `NAME --help`."""
        if args[0] == "help":
            args = [*args[1:2], "--help"]
        name = args[0]
        if name == "--help":
            click.echo(ctx.get_help())
            ctx.exit()
        if name not in COMMANDS and not name.startswith("-"):
            close = closest(name, COMMANDS)
            hint = f"did you mean {close}?" if close else f"the commands are {', '.join(COMMANDS)}"
            ctx.fail(f"there is no command {printable(name)!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in the help, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


EXIT_CODES = """\b
Exit codes:
  0    done
  1    another error of shardkit
  2    a wrong option or argument, or a missing extra
  3    the source can't be packed as it is
  4    the destination can't take the result, or another run is writing there
  5    a dataset can't be read: missing, damaged, undecodable
  6    the disk or the network failed
  7    a worker process died
  70   a bug in shardkit
  130  interrupted (Ctrl-C)
  141  the reader of the output closed it
"""


@click.group(
    cls=LazyGroup, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
@console.output_options
def cli() -> None:
    """Pack a class tree of images into shards, and stream them into training.

    \b
    shardkit pack data/train shards/train     a tree of class directories -> shards/train-000000.tar ...
    shardkit pack data shards                 a tree of splits (train/ validation/ test/)
    shardkit info shards/train                what is in it
    shardkit demo                             try it all on a small generated dataset
    shardkit help pack                        the options of a command, with examples
    """


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line on `args` (default: the process's own), and exit."""
    console.open_closed_streams()
    if asked := os.environ.get("_SHARDKIT_COMPLETE"):  # by the script that `shardkit completion` prints
        from shardkit.cli.completion import complete

        sys.exit(complete(cli, asked))
    if args is None:
        gc.set_threshold(GC_OBJECTS)
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy starts them on import: a tenth of a short packing
    code = run(sys.argv[1:] if args is None else args, alone=True)
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if code == INTERRUPTED and not all(thread.daemon for thread in others):
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)  # a normal exit would wait for threads whose server does not answer
    if args is None and all(thread.daemon for thread in others):
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """End the process without destroying all that was loaded, module by module, which takes longer than the index."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def run(args: Sequence[str], *, alone: bool = False) -> int:
    """Run the command line on `args`, report an error on stderr, and return the exit code.

    alone: the process ends with the command, and with it what is kept in memory only.
    """
    state: dict[str, Any] = {}
    flags = Flags(args, alone=alone)
    with console.logging_to_stderr(flags.spelled):
        try:
            with cli.make_context("shardkit", list(args), obj=flags) as ctx:
                state = ctx.meta
                cli.invoke(ctx)
                console.flush()
            return 0
        except BaseException as exc:
            return _reported(exc, state, flags)


def _reported(exc: BaseException, state: dict[str, Any], flags: Flags) -> int:
    """Report an exception as one line on stderr, and return its exit code."""
    match exc:
        case click.exceptions.Exit():
            return exc.exit_code
        case click.exceptions.NoArgsIsHelpError():
            exc.show()
            return exc.exit_code
        case click.ClickException():
            console.error(_usage_line(exc))
            return exc.exit_code
        case ShardkitError():
            if state.get(console.DEBUG):
                console.trace(exc)
            console.error(flags.error_text(exc))
            return exc.exit_code
        case KeyboardInterrupt() | click.Abort():
            console.error("interrupted" + state.get(console.ON_INTERRUPT, ""))
            return INTERRUPTED
        case BrokenPipeError():
            console.discard_output()
            return BROKEN_PIPE
        case OSError(filename=None, errno=errno.ENOSPC | errno.EDQUOT | errno.EFBIG | errno.EIO):
            console.discard_output()  # click's own output of a help text
            return _reported(console.unwritable(exc), state, flags)
        case OSError():
            return _reported(_of_the_disk(exc), state, flags)
        case Exception():
            return _bug(exc, state)
        case _:
            raise exc


def _of_the_disk(exc: OSError) -> ShardkitError:
    """The error for an OSError that no part of shardkit anticipated."""
    from shardkit.location import without_directory

    if isinstance(exc, FileNotFoundError) and not exc.filename and (gone := without_directory(".")) is not None:
        return gone
    name = exc.filename if isinstance(exc.filename, (str, bytes)) else ""
    fact = exc.strerror or str(exc) or type(exc).__name__
    error = StorageError(fs_text(name) if name else "disk or network", fact, "check the disk and its permissions")
    error.__cause__ = exc
    return error


def _usage_line(exc: click.ClickException) -> str:
    """A wrong command line in one line. click's own sentences are for errors that have none here."""
    match exc:
        case click.NoSuchOption():
            options = [name for each in exc.ctx.command.params for name in each.opts] if exc.ctx else []
            close = closest(exc.option_name, options)
            text = f"there is no option {printable(exc.option_name)}" + (f"; did you mean {close}?" if close else "")
        case click.MissingParameter(param=click.Argument() as param):
            text = f"{param.human_readable_name.strip('[]').rstrip('.')} is missing"
        case click.BadOptionUsage():
            text = f"{exc.option_name}: {_of_value(exc)}"
        case _:
            text = " ".join(exc.format_message().split()).rstrip(".")
            text = text.replace("Got unexpected extra argument (", "unexpected argument (")
            text = text.replace("Got unexpected extra arguments (", "unexpected arguments (")
    if isinstance(exc, click.UsageError) and exc.ctx is not None:
        return f"{text}; see '{exc.ctx.command_path} --help'"
    return text


def _of_value(exc: click.BadOptionUsage) -> str:
    """What is wrong with how an option is written: click says it in a sentence only."""
    return "it takes no value; omit it" if "does not take" in exc.message else "it has no value; give one"


def _bug(exc: Exception, state: dict[str, Any]) -> int:
    if state.get(console.DEBUG):
        console.trace(exc)
    fact = printable(f"{type(exc).__name__}: {exc}")
    console.error(f"unexpected {fact}; please report it with the output of 'shardkit --debug …'")
    return BUG
