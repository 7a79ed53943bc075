"""The report's section on further columns: their types, what is missing, and what their values are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shardkit.reading.blocks.block import index_table
from shardkit.shards.columns.types import PREFIX, types_in
from shardkit.tools.report.html import Section, table, text
from shardkit.tools.report.sections import Study

if TYPE_CHECKING:
    import pyarrow as pa

COMMON = 3
"""The number of frequent values that are named."""

SHOWN_TEXT = 40
"""The characters of a value that are shown."""


def columns(studies: Sequence[Study]) -> Section | None:
    """A table of the further columns of each dataset; None if there are none."""
    parts = []
    for study in studies:
        rows = _rows(study)
        if rows:
            heading = f"<h3>{text(study.name)}</h3>" if len(studies) > 1 else ""
            head = ["column", "type", "missing", "least", "greatest", "most frequent"]
            parts.append(f"<div>{heading}{table(f'Columns of {study.name}', head, rows, left=(0, 1, 5))}</div>")
    if not parts:
        return None
    return Section("columns", "Columns", f'<div class="{"pair" if len(parts) > 1 else ""}">{"".join(parts)}</div>')


def _rows(study: Study) -> list[list[str]]:
    catalog = study.facts.data.content.catalog
    rows = []
    for name, kind in types_in(catalog.index_schema()).items():
        values = index_table(catalog, [PREFIX + name])[PREFIX + name]
        rows.append([name, kind, f"{values.null_count:,}", *_extremes(values, kind), _frequent(values, kind)])
    return rows


def _extremes(values: pa.ChunkedArray, kind: str) -> tuple[str, str]:
    """The least and the greatest number or date."""
    import pyarrow.compute as pc

    if kind in ("string", "bool") or kind.endswith("]"):
        return "", ""
    found = pc.min_max(values)
    return _shown(found["min"].as_py()), _shown(found["max"].as_py())


def _frequent(values: pa.ChunkedArray, kind: str) -> str:
    """The most frequent texts, truth values or whole numbers, and how many there are in all."""
    import pyarrow.compute as pc

    if kind not in ("string", "bool", "int64"):
        return ""
    counts = pc.value_counts(values.drop_null())
    values_in, numbers = counts.field("values"), counts.field("counts")
    order = pc.sort_indices(numbers, sort_keys=[("", "descending")])[:COMMON].to_pylist()
    shown = [f"{_shown(values_in[at].as_py())} ({numbers[at].as_py():,})" for at in order]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    shown = str(value)
    return shown if len(shown) <= SHOWN_TEXT else f"{shown[:SHOWN_TEXT]}…"
