"""From scanned files to datasets: files that belong together become samples, and samples go to their splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from shardkit.errors import UsageError
from shardkit.events import ProgressFn, no_progress
from shardkit.packing.dest.destination import Destination
from shardkit.packing.options import PackOptions
from shardkit.packing.plan.append import ExistingDataset, classes_after, new_samples, relabelled, require_kind
from shardkit.packing.plan.content import PlannedDataset, plan_source
from shardkit.packing.plan.together import near_duplicates
from shardkit.sample import fs_text
from shardkit.sources.groups import Grouped, group_files
from shardkit.sources.source import Source
from shardkit.sources.split import split_grouped, split_source


def dataset_names(root: str, splits: Sequence[str] | None, options: PackOptions) -> Sequence[str] | None:
    """The splits to pack: those of the source, or those of `options.split`; None for a single dataset."""
    if options.split is None:
        return splits
    if splits is not None:
        fact = f"the source is already a tree of splits ({', '.join(map(fs_text, splits))})"
        raise UsageError(fs_text(root), fact, "omit `split`, or name one of its folders as the source")
    return options.split.names


def plan_datasets(
    scanned: Mapping[str, Source],
    destinations: Mapping[str, Destination],
    options: PackOptions,
    before: Mapping[str, ExistingDataset],
    classes: Sequence[str] | None,
    progress: ProgressFn = no_progress,
) -> dict[str, PlannedDataset]:
    """The plan of each dataset, by the name of its split ("" for the only one).

    before: the datasets that are added to, whose plans hold new samples only. classes: those that the user gave.
    """
    found = _samples(scanned, options, progress)
    if before:
        source = next(iter(scanned.values()))
        require_kind(source, before.values())
        after = classes_after(before.values(), source.classes, classes)
        found = {name: relabelled(each, after) for name, each in found.items()}
    return {name: _planned(each, destinations[name], options, before.get(name)) for name, each in found.items()}


def _samples(
    scanned: Mapping[str, Source], options: PackOptions, progress: ProgressFn
) -> Mapping[str, Source | Grouped]:
    split, skip_bad = options.split, options.on_error == "skip"
    if not options.fields:
        if split is None:
            return scanned
        source = scanned[""]
        return split_source(source, split, near_duplicates(source, split, progress) if split.near_duplicates else None)
    found = {name: group_files(source, options.fields, skip_bad=skip_bad) for name, source in scanned.items()}
    if split is None:
        return found
    grouped = found[""]
    return split_grouped(grouped, split, near_duplicates(grouped, split, progress) if split.near_duplicates else None)


def _planned(
    found: Source | Grouped, destination: Destination, options: PackOptions, before: ExistingDataset | None
) -> PlannedDataset:
    if before is not None:
        found, before = new_samples(found, before, options)
    first = 0 if before is None else before.first
    planned = plan_source(found, destination.stem, options, first=first, base=destination.base)
    return replace(planned, before=before)
