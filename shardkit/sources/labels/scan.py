"""Scan a source, and give its samples the labels that `LabelOptions` ask for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from shardkit.errors import UsageError, printable
from shardkit.events import ProgressFn
from shardkit.sample import fs_text
from shardkit.sources.labels.merge import merge_classes
from shardkit.sources.labels.names import label_files
from shardkit.sources.options import SourceOptions
from shardkit.sources.source import OTHER_LABELS, Source, scan_unlabelled, scan_walk, scan_walks
from shardkit.sources.tree.split_folders import inside_split
from shardkit.sources.tree.walk import ClassWalk

_log = logging.getLogger(__name__)

Scan = Callable[[Sequence[str] | None, ProgressFn], Mapping[str, Source]]
"""Scans the files of a source, with the given classes: split -> its source."""


def scan_labelled(
    scan: Scan, options: SourceOptions, classes: Sequence[str] | None, progress: ProgressFn
) -> Mapping[str, Source]:
    """Scan a source. classes: the names in label order, after merging. Raises as `scan`, UsageError, SourceError."""
    labels = options.labels
    if labels.no_labels and classes is not None:
        raise UsageError("classes", "given together with `no_labels`", "omit one of the two")
    before = classes if labels.merge is None else None
    found = scan(before, progress)
    if labels.label_from is not None:
        found = label_files(found, labels, classes=before, skip_bad=options.on_error == "skip")
    return found if labels.merge is None else merge_classes(found, labels.merge, classes)


def scan_trees(
    walks: Mapping[str, ClassWalk], options: SourceOptions, classes: Sequence[str] | None, progress: ProgressFn
) -> dict[str, Source]:
    """Scan the trees of all splits (or of "" alone): by class folders, or without labels where folders are no classes.

    A single class is logged, since its folder is often not meant to be one.
    """
    found: dict[str, Source] = {}
    if options.labels.any_folder:
        for split, walk in walks.items():
            done, size = sum(map(len, found.values())), sum(int(each.sizes.sum()) for each in found.values())
            found[split] = scan_unlabelled(walk, progress=inside_split(progress, done, size))
        return found
    if "" in walks:
        found[""] = scan_walk(walks[""], classes=classes, progress=progress)
    else:
        found = scan_walks(walks, classes=classes, progress=progress)
    first = next(iter(found.values()))
    if classes is None and len(first.classes) == 1:
        text = "%s: all images are of one class, %s, the only folder; if it is not a class: %s"
        _log.warning(text, fs_text(first.root), printable(first.classes[0]), OTHER_LABELS)
    return found
