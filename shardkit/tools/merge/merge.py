"""`shardkit merge`: one dataset of what several machines packed, or of several datasets. No byte of a shard is read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from shardkit.errors import UsageError
from shardkit.location import locate
from shardkit.options.fields import checked_by
from shardkit.packing.packed import Packed, PackedDataset
from shardkit.packing.parts.merge import discard_parts, merge_parts
from shardkit.tools.merge.datasets import merge_datasets
from shardkit.tools.settings import MergeSettings


@checked_by(MergeSettings)
def merge(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    dest: str | os.PathLike[str] | None = None,
    *,
    discard: bool = False,
    overwrite: bool = False,
    work: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Packed:
    """Make one dataset of the parts of a packing, or of several datasets.

    *Parts*: source is the destination of `pack(…, part="3/16")`: a prefix, or a folder (also of a bucket), in which all
    packings in parts are merged. Index and manifest come from what each part recorded. The bytes of all files equal
    those of a packing on one machine. discard: remove what the parts wrote instead.

    *Datasets*: source is a list of two or more datasets of one folder, and dest the new dataset in that folder: a
    manifest that names their shards and index files, in this order. Nothing is copied; the datasets stay, and files
    that the new one names are kept when they are overwritten. They must agree in the format, the kind of labels and the
    labels of their classes (one may have more classes), and have no key in common, deleted samples included. What is
    corrected in them is corrected in the new one: its version 1 has the shards as packed, and version 2 what they are
    now; later corrections of a dataset are its own. overwrite: replace another dataset
    at `dest`, such as an earlier merge.

    work, storage_options: for a bucket, as for `pack`.

    Returns the datasets by name, as `pack` does; with `discard`, none. No shard is read. Run again after an
    interruption, it goes on; after success, it writes nothing.

    Raises DestinationError unless all parts are finished, and of one packing (source, options, classes, version);
    UsageError or DatasetError for datasets that do not belong together; nothing is lost then. NotFoundError if there
    is nothing to merge, BusyError while a part is running, StorageError.
    """
    if dest is not None:
        sources = [source] if isinstance(source, (str, os.PathLike)) else list(source)
        if len(sources) < 2:
            raise UsageError("source", "one dataset is not several", "name two or more to merge")
        if discard:
            raise UsageError("discard", "given for datasets, which have no parts", "omit it")
        place = locate(dest).absolute()
        manifest = merge_datasets(
            [os.fspath(each) for each in sources], place, overwrite=overwrite, options=storage_options
        )
        return Packed({place.name: PackedDataset(os.fspath(dest), manifest)}, splits=False)
    if not isinstance(source, (str, os.PathLike)):
        raise UsageError("dest", "it is missing", "give the prefix of the merged dataset")
    if overwrite:
        raise UsageError("overwrite", "given for parts, which were packed with it or without", "omit it")
    return _merge_parts(source, discard=discard, work=work, storage_options=storage_options)


def _merge_parts(
    dest: str | os.PathLike[str],
    *,
    discard: bool,
    work: str | os.PathLike[str] | None,
    storage_options: Mapping[str, Any] | None,
) -> Packed:
    place = locate(dest).absolute()
    if discard:
        discard_parts(place, work=work, options=storage_options)
        return Packed({}, splits=True)
    found = merge_parts(place, work=work, options=storage_options)
    inside = place.name not in found or len(found) > 1
    text = os.fspath(dest)
    at = {stem: os.path.join(text, stem) if inside else text for stem in found}
    datasets = {stem: PackedDataset(at[stem], manifest) for stem, manifest in found.items()}
    return Packed(datasets, splits=len(found) > 1)
