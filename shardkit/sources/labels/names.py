"""Class names in file names: a regular expression finds the class of each file in its path."""

from __future__ import annotations

import logging
import re
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec.structs import replace

from shardkit.errors import SourceError
from shardkit.sample import fs_text, text_of_path
from shardkit.sources.options import LabelOptions
from shardkit.sources.source import Inline, Source, some
from shardkit.sources.subset import source_at

_log = logging.getLogger(__name__)


def label_files(
    found: Mapping[str, Source], options: LabelOptions, *, classes: Sequence[str] | None, skip_bad: bool
) -> dict[str, Source]:
    """Give each file of some splits, scanned without labels, the class that `options.label_from` finds in its path.

    All splits get one class map: `classes`, or the sorted names. Raises SourceError for files in whose paths nothing is
    found, unless `skip_bad`, and for classes that `classes` does not have.
    """
    pattern = re.compile(options.label_from or "")
    read = {split: _Read(source, pattern) for split, source in found.items()}
    missed = [f"{split}/{path}" if split else path for split, each in read.items() for path in each.missed]
    total = sum(map(len, found.values()))
    if missed and (not skip_bad or len(missed) == total):
        place = fs_text(next(iter(found.values())).root)
        fact = f"`label_from` finds no class in {len(missed)} of {total} paths: {some(missed)}"
        cure = f"change the pattern {pattern.pattern!r}, or move these files out of the source"
        raise SourceError(place, fact, f'{cure}, or skip them with `on_error="skip"`')
    names = {name for each in read.values() for name in each.names}
    place = fs_text(next(iter(found.values())).root)
    order = class_order(names, classes, place, "`label_from` finds the classes")
    return {split: each.source(order) for split, each in read.items()}


class _Read:
    """The classes of the files of a source. names: in the order in which they are found. missed: paths without one."""

    def __init__(self, source: Source, pattern: re.Pattern[str]) -> None:
        self.whole, self.names, self.missed = source, dict[str, int](), list[str]()
        self.numbers = array("i")
        group = "label" if "label" in pattern.groupindex else 1 if pattern.groups else 0
        for path in source.paths:
            text = text_of_path(path)
            match = pattern.search(text)
            name = None if match is None else match[group]
            if not name:
                self.missed.append(text)
            self.numbers.append(self.names.setdefault(name, len(self.names)) if name else -1)

    def source(self, classes: tuple[str, ...]) -> Source:
        """The files that have a class, with their labels."""
        numbers = np.array(self.numbers, np.int32)
        source, rows = self.whole, np.flatnonzero(numbers >= 0)
        if self.missed:
            reason = "`label_from` finds no class in its path"
            incomplete = (*source.incomplete, *((path, reason) for path in self.missed))
            source = replace(source_at(source, rows), incomplete=incomplete)
        places = {name: place for place, name in enumerate(classes)}
        labels = np.array([places[name] for name in self.names], np.int32)[numbers[rows]]
        labelled = replace(source, classes=classes, labels=labels, inline=None)
        if not _are_folders(labelled):
            labelled = replace(labelled, inline=Inline({}, "listed"))
        say_empty(labelled)
        return labelled


def _are_folders(source: Source) -> bool:
    """Whether the class of each file is the top folder in its path."""
    tops = [name.encode() + b"/" for name in source.classes]
    return all(path.startswith(tops[label]) for path, label in zip(source.paths, source.labels.tolist(), strict=True))


def class_order(names: set[str], classes: Sequence[str] | None, place: str, found: str) -> tuple[str, ...]:
    """The classes in label order: the given ones, or the sorted names. found: what a message says before the names.

    Raises SourceError for a name that is not among the given ones.
    """
    if classes is None:
        return tuple(sorted(names))
    if unknown := sorted(names - set(classes)):
        raise SourceError(place, f"{found} {some(unknown)}, which `classes` does not name", "add them to the classes")
    return tuple(classes)


def say_empty(source: Source) -> None:
    """Log the classes without a file."""
    empty = [name for name, count in zip(source.classes, source.counts.tolist(), strict=True) if not count]
    if empty:
        _log.warning("%s: no image of class %s", fs_text(source.root), some(empty))
