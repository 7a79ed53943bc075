from __future__ import annotations

import ctypes
import errno
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardkit.errors import BusyError, DestinationError, StorageError
from shardkit.storage import files
from shardkit.storage.files import FolderLock, part_of, storage_error, sync_folder, translated, whole_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with whole_file(str(path)) as file:
        file.write(b"first ")
        file.write(memoryview(b"second"))
        assert not path.exists()
        assert names(tmp_path) == [os.path.basename(os.fsdecode(part_of(str(path))))]
    assert path.read_bytes() == b"first second"
    assert names(tmp_path) == ["a.tar"]


def test_a_lock_that_was_let_go_keeps_no_file_open(tmp_path: Path) -> None:
    lock = FolderLock(str(tmp_path))
    lock.release()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(lock.fd)


def test_a_system_without_syncfs_flushes_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        code = errno.ENOSYS

        def syncfs(self, fd: int) -> int:
            ctypes.set_errno(self.code)
            return -1

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"x")
    flushed = list[str]()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library())
    monkeypatch.setattr(files, "_sync_file", flushed.append)
    files.sync_tree(str(tmp_path))
    assert flushed == [str(tmp_path / "a" / "b")]
    monkeypatch.setattr(Library, "code", errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        files.sync_tree(str(tmp_path))


def test_a_path_of_bytes_that_are_no_text_is_written_as_well(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"\xff.tar")
    with whole_file(path) as file:
        file.write(b"x")
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff.tar"]


@pytest.mark.parametrize("exc", [ValueError("oops"), KeyboardInterrupt(), BrokenPipeError("progress")])
def test_an_exception_in_the_block_leaves_what_was_there_and_goes_on_as_it_is(
    exc: BaseException, tmp_path: Path
) -> None:
    (tmp_path / "a.tar").write_bytes(b"old")
    with pytest.raises(type(exc)) as raised, whole_file(str(tmp_path / "a.tar")) as file:
        file.write(b"new")
        raise exc
    assert raised.value is exc
    assert (tmp_path / "a.tar").read_bytes() == b"old"
    assert names(tmp_path) == ["a.tar"]


def test_a_file_is_flushed_to_the_disk_before_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: [calls.append("fsync"), fsync(fd)])
    monkeypatch.setattr(os, "replace", lambda a, b: [calls.append("replace"), replace(a, b)])
    with whole_file(str(tmp_path / "a")) as file:
        file.write(b"x")
    assert calls == ["fsync", "replace"]
    calls.clear()
    with whole_file(str(tmp_path / "a"), sync=False) as file:
        file.write(b"y")
    assert calls == ["replace"]
    assert (tmp_path / "a").read_bytes() == b"y"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_at_the_end_leaves_nothing(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StorageError, match=r"a.tar: No space left on device; free some space and run"):  # noqa: SIM117
        with whole_file(str(tmp_path / "a.tar")) as file:
            file.write(b"x")
    assert names(tmp_path) == []


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may have more than 100,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_write_that_the_system_cuts_short_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"a.tar: File too large; raise the file size limit .*ulimit -f"):  # noqa: SIM117
        with whole_file(str(tmp_path / "a.tar")) as file:
            file.write(bytes(150_000))
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, StorageError, "free some space and run the same command again"),
        (errno.EDQUOT, StorageError, "free some space"),
        (errno.EFBIG, StorageError, "ulimit -f"),
        (errno.EIO, StorageError, "Input/output error; check the disk"),
        (errno.EACCES, DestinationError, "not writable .Permission denied.; choose another destination"),
        (errno.EROFS, DestinationError, "not writable .Read-only file system."),
        (errno.EPERM, DestinationError, "not writable"),
        (errno.ENOTDIR, DestinationError, "a file already exists at this path"),
        (errno.EEXIST, DestinationError, "a file already exists at this path"),
        (errno.EISDIR, DestinationError, "a folder already exists at this path"),
        (errno.ENOTEMPTY, DestinationError, "a folder already exists at this path"),
        (errno.ENAMETOOLONG, DestinationError, "the name is too long .*; choose a shorter one"),
    ],
    ids=lambda value: errno.errorcode.get(value) if isinstance(value, int) else None,
)
def test_an_error_of_the_system_becomes_ours_by_what_the_user_can_do(
    number: int, kind: type[Exception], words: str
) -> None:
    cause = OSError(number, os.strerror(number), "somewhere/else")
    with pytest.raises(kind, match=f"^shards/a.tar: .*{words}") as raised, translated("shards/a.tar"):
        raise cause
    assert raised.value.__cause__ is cause


def test_an_error_names_a_path_that_is_no_text() -> None:
    assert str(storage_error(b"out/\xff\n", OSError(errno.EIO, "bad"))).startswith("out/\\xff\\n: bad; ")


def test_a_folder_that_can_not_be_flushed_is_an_error_and_one_without_the_call_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync_folder(str(tmp_path))
    numbers = iter([errno.EINVAL, errno.EIO])

    def fail(_: int) -> None:
        raise OSError(next(numbers), "no")

    monkeypatch.setattr(os, "fsync", fail)
    sync_folder(str(tmp_path))
    with pytest.raises(OSError, match="no"):
        sync_folder(str(tmp_path))


def test_a_second_lock_is_refused_at_once_and_names_the_process(tmp_path: Path) -> None:
    lock = FolderLock(str(tmp_path / "work"))
    with pytest.raises(BusyError) as raised:
        FolderLock(str(tmp_path / "work"))
    fact = f"another run (process {os.getpid()}) is writing to this destination"
    assert str(raised.value) == f"{tmp_path}/work: {fact}; wait until it ends, or choose another destination"
    lock.release()
    FolderLock(str(tmp_path / "work")).release()


def test_a_lock_that_is_let_go_is_free_though_a_child_still_holds_its_file(tmp_path: Path) -> None:
    lock = FolderLock(str(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock.fd])
    with child:
        with pytest.raises(BusyError):
            FolderLock(str(tmp_path))
        lock.release()
        FolderLock(str(tmp_path)).release()
        child.communicate(b"\n")


HOLD = """
import subprocess, sys
from shardkit.storage.files import FolderLock
lock = FolderLock(sys.argv[1])
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=0, pass_fds=[lock.fd])
print("ready", flush=True)
child.wait()
"""


def orphan(folder: Path) -> subprocess.Popen[bytes]:
    """A process that was killed while it had the lock; its child, which has it too, waits for the end of our pipe."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(files.__file__).parents[2])},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    return holder


def test_a_lock_waits_for_the_orphans_of_a_run_that_was_killed(tmp_path: Path) -> None:
    holder = orphan(tmp_path)
    assert holder.stdin is not None
    threading.Timer(0.3, holder.stdin.close).start()
    FolderLock(str(tmp_path)).release()
    assert holder.stdin.closed


def test_a_lock_does_not_wait_for_orphans_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ORPHAN_SECONDS", 0.2)
    holder = orphan(tmp_path)
    assert holder.stdin is not None
    with pytest.raises(BusyError, match=f"another run .process {holder.pid}. is writing to this destination"):
        FolderLock(str(tmp_path))
    holder.stdin.close()


def test_a_folder_that_its_holder_has_just_removed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    lock = FolderLock(str(work))
    flock = files.fcntl.flock

    def removed_meanwhile(fd: int, kind: int) -> None:
        monkeypatch.setattr(files.fcntl, "flock", flock)
        (work / "lock").unlink()
        work.rmdir()
        lock.release()
        flock(fd, kind)

    monkeypatch.setattr(files.fcntl, "flock", removed_meanwhile)
    second = FolderLock(str(work))
    assert (work / "lock").read_text() == f"{os.getpid()}\n"
    with pytest.raises(BusyError):
        FolderLock(str(work))
    second.release()


def test_a_file_system_without_locks_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    lock = FolderLock(str(tmp_path))
    assert not lock.by_system
    lock.release()
    monkeypatch.undo()
    lock = FolderLock(str(tmp_path))
    assert lock.by_system
    lock.release()


def test_a_shared_lock_excludes_only_exclusive_ones(tmp_path: Path) -> None:
    first, second = FolderLock(str(tmp_path), shared=True), FolderLock(str(tmp_path), shared=True)
    with pytest.raises(BusyError):
        FolderLock(str(tmp_path))
    assert not first.alone()
    second.release()
    assert first.alone()
    with pytest.raises(BusyError):
        FolderLock(str(tmp_path), shared=True)
    first.release()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_lock_below_a_file_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(DestinationError, match=r"file.*: a file already exists at this path"):
        FolderLock(str(tmp_path / place))
