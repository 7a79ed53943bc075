"""The folder `.STEM.packing/` of a destination, in which parts leave what the merge needs (packing/parts/names.py).

It also has the leases by which runs on several machines exclude each other: a part holds its own, and any other run
that may meet runs on other machines holds that of the whole. Each first takes its lease and then looks for those that
exclude it, so that of two runs at least one sees the other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from shardkit.errors import BusyError
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.packing.dest.lease import ABSENT_SECONDS, held, holders, require_held
from shardkit.packing.parts import names
from shardkit.packing.parts.part import Part
from shardkit.shards.names import base_of_index, skipped_name, work_name
from shardkit.storage.files import translated
from shardkit.storage.store import content_of

RECEIPT = ".receipt"


class _Shards(msgspec.Struct):
    shards: list[str]


class SharedFolder(msgspec.Struct, frozen=True):
    """The shared folder of the dataset `files`."""

    files: DatasetFiles

    def __str__(self) -> str:
        return self.files.place(work_name(self.files.stem))

    def name(self, name: str) -> str:
        """The name of a file in the store of the dataset."""
        return names.shared_name(self.files.stem, name)

    def place(self, name: str) -> str:
        """The location of a file, as text for messages."""
        return self.files.place(self.name(name))

    def names(self) -> list[str]:
        """The files in it."""
        folder, root = work_name(self.files.stem), self.files.store.root
        if not root.is_local:
            return [info.name.removeprefix(f"{folder}/") for info in self.files.store.list(f"{folder}/")]
        with translated(root.path):
            try:
                return sorted(os.listdir(os.path.join(root.path, folder)))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def read(self, name: str) -> bytes | None:
        """A file; None if there is none."""
        return content_of(self.files.store, self.name(name))

    def write(self, name: str, data: bytes) -> None:
        """Write a file, and read it back."""
        self.files.write(self.name(name), data)

    def remove(self, these: Iterable[str]) -> None:
        """Remove files."""
        self.files.remove(map(self.name, these))

    def planned(self) -> list[str]:
        """The names of the shards that parts write; none if there is no plan, or a damaged one."""
        data = self.read(names.PLAN)
        with suppress(msgspec.MsgspecError):
            return [] if data is None else msgspec.json.decode(data, type=_Shards).shards
        return []

    def wrote(self, there: Iterable[str]) -> set[str]:
        """Those of these files at the destination that parts wrote, or a merge that was interrupted."""
        known = set(self.names())
        merged = names.PLAN in known
        return {
            name
            for name in there
            if name + RECEIPT in known
            or (merged and (base_of_index(name) is not None or name.endswith(skipped_name(""))))
        }

    @contextmanager
    def claimed(self, part: Part | None) -> Iterator[None]:
        """Hold the lease of a part, or of the whole, during the block. BusyError if a run that excludes it is alive."""
        store = self.files.store
        with held(store, self.name(names.WHOLE_LEASE if part is None else names.lease_name(part.name))):
            if part is None:
                self.require_no_parts()
            elif alive := holders(store, [self.name(names.WHOLE_LEASE)]):
                who = next(iter(alive.values()))
                fact = f"a merge or a run without `part` is writing to this destination ({who})"
                raise BusyError(str(self), fact, "wait until it ends")
            yield

    def require_no_parts(self) -> None:
        """BusyError if a part is running."""
        leases = {self.name(name): name for name in self._leases_of_parts()}
        alive = holders(self.files.store, leases)
        if alive:
            running = sorted((str(Part(*numbers)), claim) for name, claim in alive.items()
                             if (numbers := names.part_of_lease(leases[name])))  # fmt: skip
            shown = ", ".join(f"{part} ({claim})" for part, claim in running)
            raise BusyError(str(self), f"parts are still running: {shown}", "wait until they end")

    def running(self, but: Part) -> bool:
        """Whether another part than this is running."""
        leases = {self.name(name) for name in self._leases_of_parts()} - {self.name(names.lease_name(but.name))}
        return bool(holders(self.files.store, leases))

    def _leases_of_parts(self) -> set[str]:
        found = set(self.names())
        for pause in ABSENT_SECONDS if self.files.store.root.is_local and names.PLAN in found else ():
            time.sleep(pause)
            found.update(self.names())
        return {name for name in found if names.part_of_lease(name) is not None}

    def require_held(self) -> None:
        """BusyError if this process has lost its lease."""
        require_held(str(self.files.location(work_name(self.files.stem))))
