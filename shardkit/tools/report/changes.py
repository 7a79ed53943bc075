"""What differs between two datasets with the same keys, such as two packings of one source, for a report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shardkit.tools.report.facts import Facts, Numbers
from shardkit.tools.report.html import Section, paragraph, table, text
from shardkit.tools.report.sections import MOST_ROWS


@dataclass(frozen=True, slots=True)
class Changes:
    """What the second dataset has otherwise than the first, as rows. pairs: (row, row in the second) of common keys.

    gone: of the first only; added: of the second only. relabelled, changed: places in `pairs` where the class, or the
    image's bytes (CRC-32C and size), are others. summed: False if only sizes could be compared.
    """

    pairs: Numbers
    gone: Numbers
    added: Numbers
    relabelled: Numbers
    changed: Numbers
    summed: bool


def find_changes(before: Facts, after: Facts) -> Changes:
    """Compare two datasets by their keys."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ours, theirs = (each.key_column().cast(pa.string()) for each in (before, after))
    at = pc.fill_null(pc.index_in(theirs, value_set=ours), -1)
    at = np.concatenate([np.zeros(0, np.int64), *(chunk.to_numpy(zero_copy_only=False) for chunk in at.chunks)])
    both = np.flatnonzero(at >= 0)
    pairs = np.stack([at[both], both], 1).astype(np.int64)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    gone = np.setdiff1d(np.arange(len(before)), pairs[:, 0])
    names = {name: number for number, name in enumerate(dict.fromkeys([*before.classes, *after.classes]))}
    labels = _by_name(before, names)[pairs[:, 0]], _by_name(after, names)[pairs[:, 1]]
    summed = before.summed and after.summed
    other = before.sizes[pairs[:, 0]] != after.sizes[pairs[:, 1]]
    if summed:
        other |= before.crcs[pairs[:, 0]] != after.crcs[pairs[:, 1]]
    relabelled = np.flatnonzero(labels[0] != labels[1])
    return Changes(pairs, gone, np.flatnonzero(at < 0), relabelled, np.flatnonzero(other), summed)


def _by_name(facts: Facts, names: dict[str, int]) -> NDArray[np.int64]:
    """The labels as the numbers of their classes' names, -1 for none."""
    numbers = np.array([*(names[name] for name in facts.classes), -1], np.int64)
    return numbers[np.where((facts.labels >= 0) & (facts.labels < len(facts.classes)), facts.labels, -1)]


def changes(before: Facts, after: Facts, found: Changes) -> Section:
    """What the second dataset has otherwise than the first."""
    title = f"What is other in {after.name}"
    if not len(found.pairs):
        said = f"No key of {before.name} is in {after.name}: they are not versions of one dataset."
        return Section("changes", title, paragraph(text(said)))
    counts = [
        ("in both", len(found.pairs)), ("added", len(found.added)), ("gone", len(found.gone)),
        ("with another class", len(found.relabelled)),
        ("with other bytes" if found.summed else "of another size", len(found.changed)),
    ]  # fmt: skip
    said = ", ".join(f"{count:,} {words}" for words, count in counts)
    parts = [paragraph(text(f"Samples, by their keys: {said}."))]
    if not found.summed:
        parts.append(paragraph("An index has no checksums, so that other bytes of the same size are not seen."))
    parts.append(_classes(before, after))
    keys, theirs = before.keys, after.keys
    moved = [
        [keys[row], before.class_of(row), after.class_of(twin)]
        for row, twin in found.pairs[found.relabelled[:MOST_ROWS]].tolist()
    ]
    lists = [
        ("With another class", ["key", before.name, after.name], moved, len(found.relabelled)),
        (counts[-1][0].capitalize(), ["key"],
         [[keys[row]] for row in found.pairs[found.changed[:MOST_ROWS], 0].tolist()], len(found.changed)),
        ("Added", ["key", "class"],
         [[theirs[row], after.class_of(row)] for row in found.added[:MOST_ROWS].tolist()], len(found.added)),
        ("Gone", ["key", "class"],
         [[keys[row], before.class_of(row)] for row in found.gone[:MOST_ROWS].tolist()], len(found.gone)),
    ]  # fmt: skip
    for words, head, rows, count in lists:
        if rows:
            more = f", the first {len(rows):,} of {count:,}" if count > len(rows) else ""
            parts.append(table(words + more, head, rows, left=range(len(head))))
    return Section("changes", title, "\n".join(parts))


def class_changes(before: Facts, after: Facts) -> list[tuple[str, int | None, int | None]]:
    """(class, samples before, samples now) of those whose number of samples is another; None where it is missing."""
    ours, theirs = (dict(zip(each.classes, each.counts, strict=True)) for each in (before, after))
    names = dict.fromkeys([*before.classes, *after.classes])
    return [(name, ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)]


def _classes(before: Facts, after: Facts) -> str:
    rows = [
        [name, *("none" if count is None else f"{count:,}" for count in counts)]
        for name, *counts in class_changes(before, after)
    ]
    if not rows:
        return paragraph("Each class has as many samples as before.") if before.classes else ""
    more = f", the first {MOST_ROWS:,} of {len(rows):,}" if len(rows) > MOST_ROWS else ""
    return table("Samples of the classes that changed" + more, ["class", before.name, after.name], rows[:MOST_ROWS])
