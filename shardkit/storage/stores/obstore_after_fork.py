"""Load obstore lazily, and load a second copy in a process that was forked after using it.

obstore keeps one tokio runtime in its binary. Its threads do not survive fork(), so any call in a forked child hangs
forever (obstore 0.12; torch's DataLoader forks its workers on Linux). For the dynamic linker, a copy of the binary
under another inode is another library, with its own runtime: the child loads one, in about 20 ms.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from typing import Any

from shardkit.errors import MissingExtraError, StorageError, installs

_LOCK = threading.Lock()
_BINARY = "obstore._obstore"

_loaded: Any = None
_process = 0


def obstore() -> Any:
    """The module `obstore` that works in this process. Raises MissingExtraError if it is not installed."""
    global _loaded, _process
    if _process == os.getpid():
        return _loaded
    with _LOCK:
        if _process != os.getpid():
            _loaded = _imported() if _loaded is None else _second(_loaded)
            _process = os.getpid()
    return _loaded


def _imported() -> Any:
    try:
        importlib.import_module("obstore.store")
        return importlib.import_module("obstore")
    except ImportError as exc:
        fact = f"reading from a web server or a bucket needs the package obstore ({exc})"
        raise MissingExtraError("obstore", fact, installs("remote")) from exc


def _second(first: Any) -> Any:
    """A second obstore, independent of the `first`, which is still the one that `import obstore` returns."""
    if not hasattr(os, "memfd_create"):
        fact = "object storage does not work in a process that was forked after using it"
        raise StorageError("obstore", fact, 'start workers with the method "spawn" or "forkserver"')
    with open(first._obstore.__file__, "rb") as file:
        binary = file.read()
    fd = os.memfd_create("obstore")
    try:
        with open(fd, "wb", closefd=False) as copy:
            copy.write(binary)
        return _import_with(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _import_with(binary: str) -> Any:
    """Import the package obstore with its binary at the path `binary`, beside the copy that is loaded."""
    names = [name for name in sys.modules if name == "obstore" or name.startswith("obstore.")]
    kept = {name: sys.modules.pop(name) for name in names}
    finder = _Finder(binary)
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module("obstore.store")
        return importlib.import_module("obstore")
    finally:
        sys.meta_path.remove(finder)
        sys.modules.update(kept)


class _Finder:
    """An import finder for obstore's binary at another path."""

    def __init__(self, path: str) -> None:
        self.path = path

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != _BINARY:
            return None
        loader = ExtensionFileLoader(name, self.path)
        return importlib.util.spec_from_file_location(name, self.path, loader=loader)


if hasattr(os, "register_at_fork"):  # otherwise a thread loading during a fork would leave the lock taken
    os.register_at_fork(after_in_child=lambda: globals().update(_LOCK=threading.Lock()))
