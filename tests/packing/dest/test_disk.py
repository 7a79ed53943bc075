"""A real `shardkit pack` that gets a signal in the middle: nothing is lost, and the next run goes on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit import Manifest

Pack = Callable[..., Manifest]
Run = subprocess.Popen[str]

SHARDS = 120
PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, draw_image: Any) -> Path:
    """A tree of 360 images in 3 classes: with `--max-count 3`, 120 shards."""
    root = tmp_path_factory.mktemp("many")
    images = [draw_image(seed, size=(16, 16)) for seed in range(8)]
    for number in range(3 * SHARDS):
        path = root / "tree" / f"class {number % 3}" / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images[number % 8])
    return root / "tree"


@pytest.fixture(scope="module")
def undisturbed(many: Path, pack_one: Pack, content_of: Any) -> dict[str, bytes]:
    """The files of a packing that nothing interrupted."""
    out = many.parent / "undisturbed"
    pack_one(many, out / "train", max_count=3)
    content: dict[str, bytes] = content_of(out)
    assert len(content) == SHARDS + 2
    return content


def command(many: Path, out: Path, workers: int) -> list[str]:
    return ["pack", str(many), str(out / "train"), "--max-count", "3", "--workers", str(workers)]


WITHOUT_EXTENSION = """
import sys
from shardkit.cli.main import main
from shardkit.formats.tar import fast_write
fast_write.extension = lambda: None
main(sys.argv[1:])
"""


def in_processes(many: Path, out: Path) -> list[str]:
    """A run with two worker processes: without the C extension, which threads of one process would use."""
    return ["-c", WITHOUT_EXTENSION, *command(many, out, 2)]


@contextmanager
def started(*arguments: str) -> Iterator[Run]:
    """A new interpreter; it and its workers are gone at the end."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(shardkit.__file__).parents[1])},
    )
    workers: list[int] = []
    try:
        yield process
    finally:
        workers += children(process)
        process.kill()
        for pid in workers:
            wake(pid)
        process.communicate(timeout=PATIENCE_SECONDS)


def children(process: Run) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], check=True, capture_output=True, text=True).stdout
    pairs = (map(int, line.split()) for line in listed.splitlines())
    return [pid for pid, parent in pairs if parent == process.pid]


def wake(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return


def is_there(pid: int) -> bool:
    """Whether the process lives: one that ended and waits to be asked how does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], check=False, capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.startswith("Z")


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.001)


def receipts(out: Path) -> set[str]:
    try:
        return {
            name.removesuffix(".receipt") for name in os.listdir(out / ".train.packing") if name.endswith("receipt")
        }
    except FileNotFoundError:
        return set()


def stop_workers(process: Run, out: Path, finished: int) -> list[int]:
    """Has the workers stand still as soon as some shards are finished; their process ids."""
    wait_for(lambda: len(children(process)) == 2 or process.poll() is not None)
    workers = children(process)
    wait_for(lambda: len(receipts(out)) >= finished or process.poll() is not None)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    assert process.poll() is None
    return workers


def inodes(out: Path, names: set[str]) -> dict[str, int]:
    return {name: (out / ".train.packing" / name).stat().st_ino for name in names}


def finish(
    many: Path, out: Path, kept: dict[str, int], undisturbed: dict[str, bytes], pack_one: Pack, content_of: Any
) -> None:
    """The next run: it keeps what was finished, and the result is that of an undisturbed run."""
    pack_one(many, out / "train", max_count=3, workers=2)
    assert content_of(out) == undisturbed
    assert kept.items() <= {path.name: path.stat().st_ino for path in out.iterdir()}.items()


def test_an_interrupt_from_the_keyboard_ends_the_run_and_the_next_goes_on(
    many: Path, out: Path, pack_one: Pack, content_of: Any, undisturbed: dict[str, bytes]
) -> None:
    with started(*in_processes(many, out)) as process:
        workers = stop_workers(process, out, 5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert err == "shardkit: error: interrupted; run the same command again to resume\n"
    assert not [pid for pid in workers if is_there(pid)]
    assert [path.name for path in out.iterdir()] == [".train.packing"]
    assert not list(out.glob(".train.packing/*.part"))
    kept = inodes(out, receipts(out))
    assert len(kept) >= 5
    finish(many, out, kept, undisturbed, pack_one, content_of)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_in_a_run_without_worker_processes_leaves_no_half_written_file(
    workers: int, many: Path, out: Path, pack_one: Pack, content_of: Any, undisturbed: dict[str, bytes]
) -> None:
    with started("-m", "shardkit", *command(many, out, workers)) as process:
        wait_for(lambda: len(receipts(out)) >= 5 or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, err.count("\n")) == (130, 1)
    assert not list(out.glob(".train.packing/*.part"))
    finish(many, out, inodes(out, receipts(out)), undisturbed, pack_one, content_of)


@pytest.mark.parametrize("finished", [0, 1, 7, 40, 110])
def test_a_run_that_is_killed_leaves_no_worker_and_the_next_goes_on(
    finished: int, many: Path, out: Path, pack_one: Pack, content_of: Any, undisturbed: dict[str, bytes]
) -> None:
    with started(*in_processes(many, out)) as process:
        wait_for(lambda: len(children(process)) == 2)
        workers = children(process)
        wait_for(lambda: len(receipts(out)) >= finished or process.poll() is not None)
        process.kill()
        process.wait(timeout=PATIENCE_SECONDS)
        wait_for(lambda: not [pid for pid in workers if is_there(pid)])
    if not (out / "train.json").exists():  # else it was quicker than the signal
        assert not list(out.glob("*.parquet"))
        kept = inodes(out, receipts(out)) if not list(out.glob("*.tar")) else {}
        finish(many, out, kept, undisturbed, pack_one, content_of)
    assert {name: data for name, data in content_of(out).items() if not name.startswith(".")} == undisturbed


def test_the_next_run_waits_for_the_workers_of_a_run_that_was_killed(
    many: Path, out: Path, pack_one: Pack, content_of: Any, undisturbed: dict[str, bytes]
) -> None:
    with started(*in_processes(many, out)) as process:
        workers = stop_workers(process, out, 5)
        process.kill()
        process.wait(timeout=PATIENCE_SECONDS)
        with started(*in_processes(many, out)) as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(timeout=1)
            for pid in workers:
                wake(pid)
            _, err = second.communicate(timeout=PATIENCE_SECONDS)
    assert (second.returncode, err) == (0, "")
    assert content_of(out) == undisturbed


def test_a_worker_that_is_killed_ends_the_run_and_what_is_finished_is_kept(
    many: Path, out: Path, pack_one: Pack, content_of: Any, undisturbed: dict[str, bytes]
) -> None:
    with started(*in_processes(many, out)) as process:
        workers = stop_workers(process, out, 5)
        os.kill(workers[0], signal.SIGKILL)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 7
    place, _, rest = err.removeprefix("shardkit: error: ").partition(": ")
    assert place.startswith("train-000")
    assert rest == (
        "the worker process that wrote it was killed by signal 9; if memory ran out, use fewer --workers; "
        "then run the same command again: finished shards are kept\n"
    )
    assert not [pid for pid in workers if is_there(pid)]
    assert not list(out.glob(".train.packing/*.part"))
    finish(many, out, inodes(out, receipts(out)), undisturbed, pack_one, content_of)


@pytest.mark.parametrize("finished", [0, 1, 40])
def test_a_run_in_threads_that_is_killed_is_finished_by_the_next(
    finished: int, many: Path, out: Path, pack_one: Pack, content_of: Any, undisturbed: dict[str, bytes]
) -> None:
    with started("-m", "shardkit", *command(many, out, 2)) as process:
        wait_for(lambda: len(receipts(out)) >= finished or process.poll() is not None)
        process.kill()
        process.wait(timeout=PATIENCE_SECONDS)
    kept = inodes(out, receipts(out)) if not list(out.glob("train*")) else {}
    finish(many, out, kept, undisturbed, pack_one, content_of)


KILL_AT_RENAME = """
import os, signal, sys
from shardkit.cli.main import main
real, left = os.replace, [int(sys.argv[1])]
def replace(*args):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    real(*args)
os.replace = replace
main(sys.argv[2:])
"""


@pytest.mark.parametrize(
    "rename", [0, 3, 3 * SHARDS, 3 * SHARDS + 1, 3 * SHARDS + 2, 4 * SHARDS, 4 * SHARDS + 2, 4 * SHARDS + 3]
)
def test_a_run_that_is_killed_at_a_rename_is_finished_by_the_next(
    rename: int, many: Path, out: Path, pack_one: Pack, content_of: Any, undisturbed: dict[str, bytes]
) -> None:
    with started("-c", KILL_AT_RENAME, str(rename), *command(many, out, 1)) as process:
        process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "train.json").exists()
    finish(many, out, {}, undisturbed, pack_one, content_of)


def test_a_second_command_is_refused_while_the_first_goes_on(
    many: Path, out: Path, content_of: Any, undisturbed: dict[str, bytes]
) -> None:
    with started(*in_processes(many, out)) as process:
        workers = stop_workers(process, out, 1)
        with started(*in_processes(many, out)) as second:
            _, err = second.communicate(timeout=PATIENCE_SECONDS)
        for pid in workers:
            wake(pid)
        process.communicate(timeout=PATIENCE_SECONDS)
    assert second.returncode == 4
    assert f"another run (process {process.pid}) is writing to this destination; wait until it ends" in err
    assert process.returncode == 0
    assert content_of(out) == undisturbed
