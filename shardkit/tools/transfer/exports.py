"""The files of `export` for a dataset that is uploaded: written beside it, before its manifest."""

from __future__ import annotations

from collections.abc import Sequence

from shardkit.errors import UsageError
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.shards.manifest import decode_manifest
from shardkit.tools.export.digests import Digests
from shardkit.tools.export.export import plan_files, write_files
from shardkit.tools.export.splits import DigestsOf, Split, Splits, as_packed, shared_classes
from shardkit.tools.settings import ExportKind
from shardkit.tools.transfer.copy import DatasetCopy


class Exports:
    """Writes the files of some formats, once, when the shards of all of some datasets are there.

    kinds: the formats. folder: of the destination. overwrite: whether files of somebody else are replaced there.
    """

    def __init__(self, kinds: Sequence[ExportKind], folder: DatasetFiles, digests: Digests, *, overwrite: bool) -> None:
        self._kinds, self._folder, self._digests, self._overwrite = kinds, folder, digests, overwrite
        self._copies: list[DatasetCopy] = []
        self._total = 0

    def require(self, copies: Sequence[DatasetCopy]) -> None:
        """Before anything is sent: raises what `export` would raise for these datasets, but reads no shard."""
        self._total = len(copies)
        plan_files(self._splits(copies, _not_read), self._kinds, overwrite=self._overwrite)

    def sent(self, copy: DatasetCopy) -> None:
        """When the shards of a dataset are there, under their final names; writes the files after the last one."""
        self._copies.append(copy)
        if len(self._copies) == self._total:
            planned = plan_files(self._splits(self._copies, self._digests.of), self._kinds, overwrite=self._overwrite)
            write_files(planned, self._folder)

    def made(self, copies: Sequence[DatasetCopy]) -> dict[str, bytes]:
        """Name -> content of the files that are not there yet, for datasets under their final names."""
        planned = plan_files(self._splits(copies, self._digests.of), self._kinds, overwrite=self._overwrite)
        return {file.name: file.data for file in planned if file.changed}

    def _splits(self, copies: Sequence[DatasetCopy], digests: DigestsOf) -> Splits:
        splits = tuple(map(_split_of, copies))
        return Splits(splits, self._folder, shared_classes(splits), digests)


def _split_of(copy: DatasetCopy) -> Split:
    if copy.manifest is None:
        fact = "the shards have no manifest, which an export is made from"
        raise UsageError("export", fact, "make one with 'shardkit index'")
    manifest, files = decode_manifest(copy.manifest, place=str(copy.source)), copy.source
    own = decode_manifest(files.read(files.manifest), place=files.place(files.manifest))
    return Split(files, as_packed(manifest, files, own), copy.origin, copy.made)


def _not_read(_: Split, entries: Sequence[object]) -> list[str]:
    return [""] * len(entries)
