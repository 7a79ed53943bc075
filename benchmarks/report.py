"""Tables of results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from process import Peak

Row = tuple[str, ...]


@dataclass(slots=True)
class Contest:
    """The results of one mode on one tree."""

    title: str
    unit: str  # samples/s, or s
    results: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def table(head: Row, rows: Sequence[Row], *, markdown: bool) -> str:
    """Columns of equal width; the first and the last left-aligned, the others right-aligned."""
    inner = range(1, len(head) - 1)
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(row: Row) -> str:
        cells = [
            cell.rjust(w) if i in inner else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(cells) + " |" if markdown else "  ".join(cells).rstrip()

    rule = tuple("-" * (w - 1) + (":" if i in inner else "-") for i, w in enumerate(widths))
    ruled = [line(rule)] if markdown else ["-" * len(line(head))]
    return "\n".join([line(head), *ruled, *map(line, rows)])


def number(value: float) -> str:
    """Format with at least three digits: 12,345  678  9.12."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """Smallest to largest."""
    return f"{number(min(values))}-{number(max(values))}"


def paired_ratio(ours: Sequence[float] | None, theirs: Sequence[float]) -> str:
    """Median over the rounds of ours / theirs, each pair from the same round, with its spread."""
    if not ours or not theirs or len(ours) != len(theirs):
        return ""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def rates(contest: Contest, *, against: str, markdown: bool) -> str:
    """One row per contestant; for those without a figure, the note has the reason."""
    rows: list[Row] = []
    for name, note in contest.notes.items():
        values = contest.results.get(name, [])
        if not values:
            rows.append((name, "", "", "", note))
            continue
        pair = contest.results.get(against, []), values
        ratio = paired_ratio(*(pair if contest.unit != "s" else pair[::-1]))
        rows.append((name, number(median(values)), spread(values), ratio, note))
    head = ("contestant", f"median {contest.unit}", "spread", f"{against} is … times as fast", "note")
    return table(head, rows, markdown=markdown)


def memory_row(name: str, peaks: dict[int, Peak], note: str) -> Row:
    """Peaks in MB: over all epochs, in each, and the ratio of the last to the first."""
    each = [together for _, (_, together) in sorted(peaks.items())]
    largest = max((one for one, _ in peaks.values()), default=0)
    steps = " ".join(f"{value / 1e6:.0f}" for value in each) if len(each) > 1 else ""
    growth = f"{each[-1] / each[0]:.3f}" if len(each) > 1 else ""
    return name, f"{largest / 1e6:.0f}", f"{max(each, default=0) / 1e6:.0f}", steps, growth, note
