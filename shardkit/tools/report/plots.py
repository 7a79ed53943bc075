"""The report's plots: SVG that takes its colours and fonts from the page, and is the same for the same numbers."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

Series = Sequence[tuple[str, Sequence[float]]]
"""(name, values) of each dataset: one, or two that are compared."""

_COLOURS = {"#a10001": "var(--first)", "#a10002": "var(--second)", "#a10003": "var(--ink)", "#a10004": "var(--line)"}
"""Placeholder colours for matplotlib, and the style variable of the page that replaces each."""

_FIRST, _SECOND, _INK, _LINE = _COLOURS
_SERIES = (_FIRST, _SECOND)
_WIDTH = 5.4  # inches of 72 units: with 12-unit letters still legible on a phone
BINS = 24

_SETTINGS: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "shardkit", "text.parse_math": False, "font.size": 12,
    "axes.edgecolor": _INK, "axes.labelcolor": _INK, "text.color": _INK, "xtick.color": _INK, "ytick.color": _INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "grid.color": _LINE,
    "legend.frameon": False, "axes.unicode_minus": False, "font.family": ["DejaVu Sans"],
}  # fmt: skip


@contextmanager
def _drawing(height: float) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on, and a list that holds the SVG afterwards."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    result: list[str] = []
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "constrained_layout not applied", UserWarning
        )  # the layout is then merely less even
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the page's own font has it
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure.add_subplot(), result
        sink = io.StringIO()
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        result.append(sink.getvalue())


def in_page(svg: str, name: str, title: str, description: str) -> str:
    """Turn matplotlib's SVG into a page element with a title, a description, and ids prefixed with the plot's name.

    title and description are already HTML.
    """
    body = svg[svg.index("<svg") :]
    view = re.search(r'viewBox="([^"]+)"', body)
    assert view is not None
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<defs>\s*</defs>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    for told, meant in _COLOURS.items():
        body = body.replace(told, meant)
    body = re.sub(r"\n\s*", "\n", body)
    label = f'role="img" aria-labelledby="{name}-title {name}-desc"'
    head = f'<title id="{name}-title">{title}</title><desc id="{name}-desc">{description}</desc>'
    return f'<svg class="plot" viewBox="{view[1]}" {label}>{head}{body}'


def class_bars(names: Sequence[str], series: Series, *, share: bool) -> str:
    """A bar for each class, from top to bottom. share: values are percentages."""
    rows, many = len(names), len(series)
    with _drawing(0.9 + rows * (0.3 if many == 1 else 0.44)) as (axes, result):
        at, thick = np.arange(rows), 0.8 / many
        for number, (label, values) in enumerate(series):
            bars = axes.barh(
                at + (number - (many - 1) / 2) * thick, values, thick * 0.92, color=_SERIES[number], label=_short(label)
            )
            shown = [f"{value:.1f} %" if share and value else "" if share else f"{value:,.0f}" for value in values]
            axes.bar_label(bars, shown, padding=3, fontsize=11)
        axes.set_yticks(at, [_short(name) for name in names])
        axes.invert_yaxis()
        axes.margins(x=0.16, y=0.02)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        _legend(axes, many)
    return result[0]


def class_curve(series: Series, *, share: bool) -> str:
    """A curve of class sizes in descending order, for when there are too many for bars."""
    with _drawing(3) as (axes, result):
        for number, (label, values) in enumerate(series):
            ordered = sorted(values, reverse=True)
            axes.step(np.arange(1, len(ordered) + 1), ordered, color=_SERIES[number], label=_short(label), where="mid")
        axes.set_ylim(0)
        axes.set_xlabel("class, from the largest to the smallest")
        axes.set_ylabel("% of the samples" if share else "samples")
        axes.yaxis.grid(True)
        _legend(axes, len(series))
    return result[0]


def histogram_edges(values: Sequence[NDArray[Any]]) -> tuple[NDArray[np.float64], bool]:
    """Return (bin edges, whether they are geometric: for ratios, and for integers that span a factor over 10)."""
    low = min(float(part.min()) for part in values)
    high = max(float(part.max()) for part in values)
    ratios = values[0].dtype.kind == "f"
    if low > 0 and (high / low > 10 or (ratios and high > low)):
        edges = np.geomspace(low, high, BINS + 1)
        edges[[0, -1]] = low, high
        return edges, True
    bins = int(min(BINS, max(1, high - low + 1)))
    return np.linspace(low, high + 1 if high - low < BINS else high, bins + 1), False


def histogram(
    edges: NDArray[np.float64], series: Series, *, log: bool, label: str, shown: Callable[[float], str]
) -> str:
    """Percentage of the samples in each bin. shown: formats a number of the x axis."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

    with _drawing(2.7) as (axes, result):
        for number, (name, values) in enumerate(series):
            fill = number == 0
            axes.stairs(
                values,
                edges,
                fill=fill,
                color=_SERIES[number],
                label=_short(name),
                linewidth=2,
                alpha=0.85 if fill else 1,
            )
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator(np.geomspace(edges[0], edges[-1], 5).tolist()))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.xaxis.minorticks_off()
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=float(edges[-1]) > 10))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))
        axes.set_xlabel(label)
        axes.set_ylabel("% of the images")
        axes.set_ylim(0)
        axes.yaxis.grid(True)
        axes.set_axisbelow(True)
        _legend(axes, len(series))
    return result[0]


def shard_bars(series: Series, *, label: str) -> str:
    """The sizes of the shards as adjacent bars, starting at 0."""
    with _drawing(2.4) as (axes, result):
        for number, (name, values) in enumerate(series):
            edges = np.linspace(0, 1, len(values) + 1) if len(series) > 1 else np.arange(len(values) + 1) - 0.5
            fill = number == 0
            if len(series) == 1 and len(values) <= 60:
                axes.bar(np.arange(len(values)), values, color=_FIRST)
                continue
            axes.stairs(
                values,
                edges,
                fill=fill,
                color=_SERIES[number],
                label=_short(name),
                linewidth=2,
                alpha=0.85 if fill else 1,
            )
        axes.set_ylim(0)
        axes.set_ylabel(label)
        if len(series) > 1:
            axes.set_xticks([0, 1], ["first shard", "last"])
        else:
            from matplotlib.ticker import MaxNLocator

            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
            axes.set_xlabel("number of the shard")
        axes.yaxis.grid(True)
        axes.set_axisbelow(True)
        _legend(axes, len(series))
    return result[0]


def mixing_bars(names: Sequence[str], series: Series) -> str:
    """Class entropy of a batch for each shuffle buffer, as a percentage of a full permutation's."""
    with _drawing(2.7) as (axes, result):
        at, thick = np.arange(len(names)), 0.8 / len(series)
        for number, (label, values) in enumerate(series):
            places = at + (number - (len(series) - 1) / 2) * thick
            bars = axes.bar(places, values, thick * 0.92, color=_SERIES[number], label=_short(label))
            axes.bar_label(bars, fmt="{:.0f}", padding=2, fontsize=11)
        axes.set_xticks(at, list(names))
        axes.set_ylim(0, 115)
        axes.set_xlabel("shuffle buffer, samples")
        axes.set_ylabel("% of the best")
        _legend(axes, len(series))
    return result[0]


def _legend(axes: Axes, many: int) -> None:
    if many > 1:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= 22 else f"{name[:9]}…{name[-12:]}"
