from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shardkit import errors
from shardkit.errors import BadFileError, StorageError, WorkerError
from shardkit.formats.tar import fast_write
from shardkit.packing.engine import engine as engines
from shardkit.packing.engine import worker
from shardkit.packing.engine.engine import LocalEngine, run_here
from shardkit.packing.engine.worker import Advance, Done, Failed, Message, answer, rebuilt, receive, send
from shardkit.packing.options import make_options
from shardkit.packing.plan.content import plan_source
from shardkit.packing.settings import PackSettings
from shardkit.packing.write.task import ShardTask
from shardkit.sources.source import scan_tree

Tasks = Callable[..., list[ShardTask]]


@pytest.fixture
def tasks(tree: Path, tmp_path: Path) -> Tasks:
    """The tasks of the tree, 4 shards of 3 images, in a work folder that exists."""

    def tasks(**options: Any) -> list[ShardTask]:
        made = make_options(PackSettings(
            **{"format": "tar", "max_bytes": "1MB", "max_count": 3, "shuffle": False, "seed": 0, "workers": 1,
               "ext": None, "check": "header", "on_error": "stop", "overwrite": False} | options
        ))  # fmt: skip
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        return list(plan_source(scan_tree(tree), "train", made).tasks(str(work), made))

    return tasks


def messages(stream: io.BytesIO) -> list[Message]:
    stream.seek(0)
    found = []
    while (data := receive(stream)) is not None:
        found.append(msgspec.msgpack.decode(data, type=Message))
    return found


# ---- messages


def test_messages_come_out_as_they_went_in(tasks: Tasks) -> None:
    [first, *_] = tasks()
    stream = io.BytesIO()
    send(stream, first)
    send(stream, Advance(3, 2**40))
    stream.seek(0)
    data = receive(stream)
    assert data is not None
    assert msgspec.msgpack.decode(data, type=ShardTask) == first
    assert messages(io.BytesIO(stream.read())) == [Advance(3, 2**40)]


def test_a_message_that_is_cut_at_any_byte_is_the_end() -> None:
    stream = io.BytesIO()
    send(stream, Advance(1, 2))
    data = stream.getvalue()
    for size in range(len(data)):
        assert receive(io.BytesIO(data[:size])) is None
    assert receive(io.BytesIO(data)) == data[8:]


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "ShardkitError"])
def test_every_error_comes_back_as_it_was(name: str) -> None:
    error = getattr(errors, name)("place", "fact", "cure", 5, "key")
    again = rebuilt(Failed(name, error.args))
    assert (type(again), again.args) == (type(error), error.args)


def test_an_answer_tells_what_was_read_and_the_receipt(tasks: Tasks) -> None:
    [first, *_] = tasks()
    stream = io.BytesIO()
    answer(msgspec.msgpack.encode(first), stream)
    told, done = messages(stream)
    assert told == Advance(*first.extent())
    assert isinstance(done, Done)
    assert (done.receipt.digest, done.receipt.entry.samples) == (first.digest, 3)


def test_a_bad_file_is_answered_with_its_error(tasks: Tasks, tree: Path) -> None:
    [first, *_] = tasks()
    (tree / "blue" / "0000.jpg").unlink()
    stream = io.BytesIO()
    answer(msgspec.msgpack.encode(first), stream)
    [failed] = messages(stream)
    assert isinstance(failed, Failed)
    error = rebuilt(failed)
    assert isinstance(error, BadFileError)
    assert error.place == f"{tree}/blue/0000.jpg"


@pytest.mark.parametrize("exc", [RuntimeError("a bug"), MemoryError()])
def test_an_unexpected_exception_is_answered_and_does_not_end_the_worker(
    exc: Exception, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise exc

    monkeypatch.setattr(worker, "write_shard", fail)
    stream = io.BytesIO()
    answer(msgspec.msgpack.encode(tasks()[0]), stream)
    [failed] = messages(stream)
    assert isinstance(failed, Failed)
    assert str(rebuilt(failed)) == (
        f"train-000000.tar: the worker that wrote it failed with an unexpected {type(exc).__name__}: {exc}; "
        "please report it"
    )
    assert isinstance(rebuilt(failed), WorkerError)


@pytest.mark.parametrize("name", ["some/file", None])
def test_an_answer_of_the_disk_that_nobody_expected_is_told_as_that(
    name: str | None, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), name)

    monkeypatch.setattr(worker, "write_shard", fail)
    stream = io.BytesIO()
    answer(msgspec.msgpack.encode(tasks()[0]), stream)
    [failed] = messages(stream)
    assert isinstance(failed, Failed)
    assert isinstance(rebuilt(failed), StorageError)
    place = name or "train-000000.tar"
    assert str(rebuilt(failed)) == f"{place}: {os.strerror(errno.ESTALE)}; check the disk and its permissions"


# ---- the process


@pytest.fixture
def engine() -> Iterator[Callable[..., LocalEngine]]:
    """Starts an engine, which is closed at the end."""
    engines: list[LocalEngine] = []

    def start(workers: int = 2, *fds: int, threads: bool = False) -> LocalEngine:
        engines.append(LocalEngine(workers, fds, threads=threads))
        return engines[-1]

    yield start
    for each in engines:
        each.close()


def ignore(files: int, size: int) -> None:
    assert files >= 0 and size >= 0


def test_a_worker_loads_nothing_heavy(run_python: Any, tmp_path: Path) -> None:
    code = "import sys, shardkit.packing.engine.worker\nprint(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = set(run_python("-P", "-c", code, cwd=tmp_path).stdout.split())
    assert "shardkit" in loaded
    assert not loaded & {"numpy", "pyarrow", "PIL", "cv2", "simplejpeg", "asyncio", "yaml", "click", "tqdm"}


@pytest.mark.parametrize("threads", [False, True])
def test_the_engine_gives_every_receipt_and_those_of_one_process_are_the_same(
    tasks: Tasks, engine: Callable[..., LocalEngine], threads: bool
) -> None:
    one = {receipt.entry.name: receipt.entry for receipt in run_here(tasks(), ignore)}
    read: list[tuple[int, int]] = []
    two = {
        receipt.entry.name: receipt.entry
        for receipt in engine(threads=threads)(tasks(), lambda *what: read.append(what))
    }
    assert one == two
    assert len(two) == 4
    assert sum(files for files, _ in read) == 12


def test_the_workers_find_the_modules_where_their_starter_does(tree: Path, tmp_path: Path, run_python: Any) -> None:
    home = str(Path(errors.__file__).parents[1])
    for name in ("struct", "shardkit", "msgspec", "queue"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    code = (
        "import sys\n"
        "sys.path[:] = [path for path in sys.path if path]\n"
        f"sys.path.insert(0, {home!r})\n"
        "import shardkit\n"
        f"print(shardkit.pack({str(tree)!r}, 'out/train', workers=2, max_count=3).samples)"
    )
    done = run_python("-c", code, cwd=tmp_path, PYTHONPATH="")
    assert (done.stdout, done.stderr) == ("12\n", "")


def test_a_worker_finds_the_package_where_no_path_leads_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(errors.__file__).parent
    monkeypatch.setattr(sys, "path", [path for path in sys.path if Path(path).resolve() != package.parent.resolve()])
    command = engines._command()
    assert command[-1] == str(package.parent)
    assert str(package) not in command


def test_a_script_without_a_main_guard_may_pack(tree: Path, tmp_path: Path, run_python: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import shardkit\nprint(shardkit.pack({str(tree)!r}, 'out/train', workers=2).samples)\n")
    done = run_python(str(script), cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("12\n", "")


def test_what_is_printed_in_a_worker_does_not_get_between_its_answers(tree: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from shardkit.packing.engine import worker\n"
        "real = worker.write_shard\n"
        "def write_shard(task, advance):\n"
        "    print('from Python', flush=True); os.write(1, b'from C')\n"
        "    return real(task, advance)\n"
        "worker.write_shard = write_shard\n"
        "worker.main()\n"
    )
    made = make_options(PackSettings(
        format="tar", max_bytes="1MB", max_count=None, shuffle=False, seed=0, workers=1, ext=None, check="header",
        on_error="stop", overwrite=False,
    ))  # fmt: skip
    [task] = plan_source(scan_tree(tree), "train", made).tasks(str(tmp_path), made)
    sent = io.BytesIO()
    send(sent, task)
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(errors.__file__).parents[1])},
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(sent.getvalue())
        process.stdin.flush()
        kinds = [type(message).__name__ for message in iter_messages(process.stdout, 2)]
        process.stdin.close()
        assert process.stdout.read() == b""
    assert kinds == ["Advance", "Done"]
    assert process.returncode == 0


def iter_messages(stream: Any, count: int) -> Iterator[Message]:
    for _ in range(count):
        data = receive(stream)
        assert data is not None
        yield msgspec.msgpack.decode(data, type=Message)


def test_the_first_error_ends_the_run_and_no_further_shard_is_begun(
    tasks: Tasks, tree: Path, tmp_path: Path, engine: Callable[..., LocalEngine]
) -> None:
    planned = tasks(max_count=1)
    (tree / "blue" / "0001.jpg").write_bytes(b"")
    taken: list[str] = []

    def source() -> Iterator[ShardTask]:
        for task in planned:
            taken.append(task.name)
            yield task

    with pytest.raises(BadFileError, match=r"blue/0001.jpg: the file had"):
        list(engine(1)(source(), ignore))
    assert taken == ["train-000000.tar", "train-000001.tar"]
    assert (tmp_path / "work" / "train-000000.tar.receipt").exists()


def test_an_error_in_the_making_of_a_task_ends_the_run(engine: Callable[..., LocalEngine]) -> None:
    def source() -> Iterator[ShardTask]:
        raise ZeroDivisionError("in the plan")
        yield

    with pytest.raises(ZeroDivisionError, match="in the plan"):
        list(engine()(source(), ignore))


def test_tasks_that_are_waited_for_do_not_keep_a_failed_program_from_its_end(run_python: Any, tmp_path: Path) -> None:
    code = """
import threading
from shardkit.errors import BadFileError
from shardkit.formats.columns import Strings
from shardkit.packing.engine.engine import LocalEngine
from shardkit.packing.write.file_samples import FileSamples
from shardkit.packing.write.task import ShardTask
from shardkit.sources.readers import TreeFiles

def tasks():
    paths, keys, zero = Strings.of([b"a.jpg"]), Strings.of([b"a"]), bytes(8)
    samples = FileSamples(b"/nowhere", TreeFiles(b"/nowhere"), paths, zero, zero, keys)
    yield ShardTask("x.tar", b".", "", "header", False, samples)
    threading.Event().wait()

with LocalEngine(2) as engine:
    try:
        list(engine(tasks(), print))
    except BadFileError as exc:
        print(exc.place)
"""
    assert run_python("-c", code, cwd=tmp_path).stdout == "/nowhere/a.jpg\n"


@pytest.mark.skipif(fast_write.extension() is None, reason="the C extension is not built here")
def test_processes_start_for_the_first_task_that_needs_python(
    tasks: Tasks, tree: Path, engine: Callable[..., LocalEngine], draw_image: Callable[..., bytes]
) -> None:
    one = engine(threads=True)
    assert len(list(one(tasks(), ignore))) == 4
    assert one.processes == []
    for path in (tree / "red").iterdir():
        path.with_suffix(".gif").write_bytes(draw_image(3, format="GIF"))
        path.unlink()
    assert len(list(one(tasks(), ignore))) == 4
    assert len(one.processes) == 2


@pytest.mark.parametrize("threads", [False, True])
def test_a_bad_file_has_the_same_error_in_threads_and_in_processes(
    tasks: Tasks, tree: Path, engine: Callable[..., LocalEngine], threads: bool
) -> None:
    made = tasks()
    (tree / "blue" / "0001.jpg").write_bytes(b"cut")
    with pytest.raises(BadFileError, match=r"blue/0001.jpg: the file had \d+ bytes at the scan and has shrunk to 3"):
        list(engine(threads=threads)(iter(made), ignore))


@pytest.mark.parametrize("threads", [False, True])
def test_a_disk_that_fails_unexpectedly_has_the_same_error_in_threads_and_in_processes(
    tasks: Tasks, tmp_path: Path, engine: Callable[..., LocalEngine], threads: bool
) -> None:
    made = tasks()
    (tmp_path / "work").rmdir()
    with pytest.raises(StorageError, match=r"train-00000\d.tar: No such file or directory"):
        list(engine(threads=threads)(iter(made), ignore))


@pytest.mark.parametrize("threads", [False, True])
def test_an_error_in_advance_ends_the_run(tasks: Tasks, engine: Callable[..., LocalEngine], threads: bool) -> None:
    def advance(files: int, size: int) -> None:
        raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="the terminal is gone"):
        list(engine(threads=threads)(tasks(), advance))


def test_a_worker_that_died_before_its_task_is_told(tasks: Tasks, engine: Callable[..., LocalEngine]) -> None:
    one = engine(1)
    one.processes[0].kill()
    one.processes[0].wait()
    with pytest.raises(WorkerError, match=r"train-000000.tar: the worker process that wrote it was killed by signal 9"):
        list(one(tasks(), ignore))


def test_a_program_that_is_no_worker_is_told(
    tasks: Tasks, engine: Callable[..., LocalEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardkit.packing.engine.engine._command", lambda: [sys.executable, "-c", "exit(3)"])
    with pytest.raises(WorkerError, match=r"train-000000.tar: the worker process that wrote it ended with exit code 3"):
        list(engine(1)(tasks(), ignore))


def test_workers_that_can_not_be_started_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(WorkerError, match=r"a worker process can't be started \(No such file or directory\); use `wo"):
        LocalEngine(2)


def test_the_workers_are_gone_when_the_engine_is_closed(engine: Callable[..., LocalEngine]) -> None:
    one = engine(3)
    assert [process.poll() for process in one.processes] == [None] * 3
    one.close()
    assert None not in [process.poll() for process in one.processes]
    one.close()


def test_an_engine_serves_one_job_after_another(tasks: Tasks, engine: Callable[..., LocalEngine]) -> None:
    one = engine(2)
    for _ in range(3):
        assert len(list(one(tasks(), ignore))) == 4
    assert list(one([], ignore)) == []


def test_the_workers_hold_the_files_that_they_inherit(engine: Callable[..., LocalEngine]) -> None:
    read, write = os.pipe()
    one = engine(1, write)
    os.close(write)
    os.set_blocking(read, False)
    with pytest.raises(BlockingIOError):  # somebody may still write to it
        os.read(read, 1)
    one.close()
    assert os.read(read, 1) == b""
    os.close(read)
