"""A disk that fails once: at one of the calls by which files below a folder are opened, read, written or looked at."""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_BY_PATH = ("open", "stat", "lstat", "scandir", "listdir", "mkdir", "replace", "rename", "link", "unlink", "rmdir")
_BY_NUMBER = ("read", "pread", "write", "pwrite", "fsync", "fstat")
_open = builtins.open


class FailingDisk:
    """Counts calls while `on`; the call with the number `at` (or none, at -1) fails with the error number `error`.

    calls: (what was called, the file) of each. hit: that which failed.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = os.path.join(folder, "")
        self.on, self.at, self.error = False, -1, 0
        self.calls: list[tuple[str, str]] = []
        self.hit: tuple[str, str] | None = None
        for name in _BY_PATH:
            patch.setattr(os, name, self._around(name, getattr(os, name), by_path=True))
        for name in _BY_NUMBER:
            patch.setattr(os, name, self._around(name, getattr(os, name), by_path=False))
        patch.setattr(builtins, "open", self._opened)

    def arm(self, at: int, error: int) -> None:
        """Begin to count, and let call `at` fail."""
        self.on, self.at, self.error, self.calls, self.hit = True, at, error, [], None

    def called(self, name: str, where: Any, *, by_path: bool) -> None:
        """Count a call. OSError where it is its turn; as in the system, only calls by path know their file."""
        if not self.on:
            return
        path = os.readlink(f"/proc/self/fd/{where}") if isinstance(where, int) else os.path.abspath(os.fsdecode(where))
        if not path.startswith(self.folder):
            return
        number = len(self.calls)
        self.calls.append((name, path))
        if number == self.at:
            self.hit = self.calls[-1]
            named = (where,) if by_path and not isinstance(where, int) else ()
            raise OSError(self.error, os.strerror(self.error), *named)

    def _around(self, name: str, call: Callable[..., Any], *, by_path: bool) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.called(name, arguments[0] if arguments else ".", by_path=by_path)
            return call(*arguments, **named)

        return counted

    def _opened(self, file: Any, mode: str = "r", buffering: int = -1, *arguments: Any, **named: Any) -> Any:
        if not self.on or isinstance(file, int) or "b" not in mode or arguments or named:
            return _open(file, mode, buffering, *arguments, **named)
        self.called("open", file, by_path=True)
        raw = _Raw(file, mode.replace("b", ""))
        raw.disk = self
        if buffering == 0:
            return raw
        kind = io.BufferedRandom if "+" in mode else io.BufferedReader if "r" in mode else io.BufferedWriter
        return kind(raw)


class _Raw(io.FileIO):
    disk: FailingDisk

    def readinto(self, buffer: Any) -> int:
        self.disk.called("read", self.fileno(), by_path=False)
        return super().readinto(buffer)

    def readall(self) -> bytes:
        self.disk.called("read", self.fileno(), by_path=False)
        return super().readall()

    def read(self, size: int | None = -1, /) -> bytes:
        self.disk.called("read", self.fileno(), by_path=False)
        return super().read(-1 if size is None else size)

    def write(self, data: Any) -> int:
        self.disk.called("write", self.fileno(), by_path=False)
        return super().write(data)
