"""Several classes of a source as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from msgspec.structs import replace

from shardkit.errors import UsageError
from shardkit.sample import fs_text
from shardkit.sources.columns import PathColumn
from shardkit.sources.labels.names import class_order, say_empty
from shardkit.sources.source import Inline, Source, some


def merge_classes(
    found: Mapping[str, Source], merge: Mapping[str, Sequence[str]], classes: Sequence[str] | None
) -> dict[str, Source]:
    """Merge classes of some splits, which have one class map. merge: name of the new class -> names of its parts.

    A class that already has the new name becomes part of it. `classes` are the names after merging; without it they are
    sorted if they were before, or else in the order of their first parts. Raises UsageError for a part that is not a
    class, and for labels that are not classes; SourceError for a class that `classes` does not name.
    """
    first = next(iter(found.values()))
    place, old = fs_text(first.root), first.classes
    if not old:
        raise UsageError("merge", f"the labels of {place} are not classes", "omit it")
    new_names = {part: name for name, parts in merge.items() for part in parts}
    if unknown := [part for part in new_names if part not in old]:
        fact = f"there is no class {some(unknown)}; the classes are {some(old)}"
        raise UsageError("merge", fact, "name classes of the source")
    names = [new_names.get(name, name) for name in old]
    order = class_order(set(names), classes, place, "after merging, it has the classes")
    if classes is None and list(old) != sorted(old):
        order = tuple(dict.fromkeys(names))
    numbers = np.array([*(order.index(name) for name in names), -1], np.int32)
    merged = {split: replace(_renumbered(source, numbers), classes=order) for split, source in found.items()}
    for source in merged.values():
        if source.label_kind == "listed":
            say_empty(source)
    return merged


def _renumbered(source: Source, numbers: np.ndarray[tuple[int], np.dtype[np.int32]]) -> Source:
    """The source with `numbers[label]` for each label; the last number is for files without a label."""
    fields = {} if source.inline is None else dict(source.inline.fields)
    if source.label_kind != "multi":
        return replace(source, labels=numbers[source.labels], inline=Inline(fields, "listed"))
    lists = (msgspec.json.decode(text, type=list[int]) for text in fields["cls.json"])
    texts = (msgspec.json.encode(sorted({int(numbers[label]) for label in labels})) for labels in lists)
    return replace(source, inline=Inline(fields | {"cls.json": PathColumn.of(texts)}, "multi"))
