"""Contestants, their input, and the table of all of them. Standard library only."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Epoch = Callable[[], Iterable[Any]]  # one pass over the data: sizes of images (raw) or arrays of images (batches)
Run = Callable[[], int | None]  # one packing: returns the number of samples, or None if it can't know
THREADS = 2


@dataclass(frozen=True, slots=True)
class Case:
    """One class tree and the task on it. Sent to the contestant's process as JSON."""

    tree: str  # name of the tree, such as "photos"
    source: str  # the class tree itself
    prepared: str  # folder with one folder per prepared form: tar, tfrecord …
    dest: str  # an empty folder that this run may fill
    variant: str = ""  # of a batch: plain, center or random
    size: int = 224
    batch: int = 64
    max_bytes: int = 256_000_000

    def files(self) -> list[tuple[str, str, int]]:
        """(path, key, label) of each image, in one shuffled order that is the same for all contestants."""
        found = class_tree(self.source)
        random.Random(0).shuffle(found)
        return found

    def form(self, name: str) -> list[str]:
        """The prepared shards of a form, sorted."""
        folder = os.path.join(self.prepared, name)
        names = sorted(e.name for e in os.scandir(folder) if e.name.startswith("train-"))
        return [os.path.join(folder, name) for name in names if not name.endswith(".idx")]  # DALI's index of a tar


@dataclass(frozen=True, slots=True)
class Contestant:
    """`make(case)` imports and sets up, untimed; what it returns is what the clock runs on."""

    name: str
    modes: tuple[str, ...]
    make: Callable[[Case], Any]
    needs: tuple[str, ...]  # distributions
    program: str  # an executable
    reads: str  # the prepared form it reads, "" for the class tree
    counts: bool  # whether it yields single samples, so that their number can be checked
    variants: tuple[str, ...]  # of a batch; empty for all

    def version(self) -> str | None:
        """The version of its first requirement; None if one is not installed."""
        if self.program:
            return program_version(self.program)
        versions = [distribution_version(name) for name in self.needs]
        return None if None in versions else (versions[0] if versions else "")


TABLE: list[Contestant] = []


def contestant(
    name: str,
    *modes: str,
    needs: tuple[str, ...] = (),
    program: str = "",
    reads: str = "",
    counts: bool = True,
    variants: tuple[str, ...] = (),
) -> Callable[[Callable[[Case], Any]], Callable[[Case], Any]]:
    """Enter a function in the table."""

    def enter(make: Callable[[Case], Any]) -> Callable[[Case], Any]:
        TABLE.append(Contestant(name, modes, make, needs, program, reads, counts, variants))
        return make

    return enter


def find(mode: str, name: str) -> Contestant:
    """The contestant with this name in this mode."""
    return next(c for c in TABLE if c.name == name and mode in c.modes)


def distribution_version(name: str) -> str | None:
    """The version of an installed distribution; "source" for a package that is only on the path."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "source" if importlib.util.find_spec(name) else None


def program_version(name: str) -> str | None:
    """Last word of the first line of `name --version`; None if the program is missing."""
    if shutil.which(name) is None:
        return None
    text = subprocess.run([name, "--version"], capture_output=True, text=True, check=False).stdout
    return text.splitlines()[0].split()[-1] if text else ""


def class_tree(source: str) -> list[tuple[str, str, int]]:
    """(path, key, label) of each file in a class directory; classes and files sorted by name."""
    found = []
    for label, name in enumerate(sorted(e.name for e in os.scandir(source) if e.is_dir())):
        for file in sorted(os.listdir(os.path.join(source, name))):
            key = os.path.splitext(file)[0].replace(".", "_")
            found.append((os.path.join(source, name, file), f"{name}/{key}", label))
    return found


def read_file(path: str) -> bytes:
    """The bytes of a file."""
    with open(path, "rb") as file:
        return file.read()


def tree_bytes(files: Iterable[str]) -> int:
    """Total size of the files."""
    return sum(os.path.getsize(path) for path in files)
