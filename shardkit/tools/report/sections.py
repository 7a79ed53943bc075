"""The report's sections: findings in words, plots and tables, for one dataset or two that are compared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shardkit.errors import printable
from shardkit.tools.progressive import NO_JPEGS, JpegKinds
from shardkit.tools.report import plots
from shardkit.tools.report.checks import EXTREME_ASPECT, TINY_PIXELS, Doubles, Leak, Looks, Suspects, class_maps_differ
from shardkit.tools.report.facts import Facts, Numbers
from shardkit.tools.report.html import Section, figure, paragraph, table, text
from shardkit.tools.report.near import Near, NearLeak
from shardkit.units import format_bytes

if TYPE_CHECKING:
    from shardkit.tools.shuffle_quality import ShuffleQuality

MOST_BARS, MOST_ROWS = 40, 1000
WELL_MIXED = 0.9  # share of a full permutation's class entropy in a batch
UNEVEN = 10  # ratio of the largest class to the smallest from which the summary mentions it


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """A dataset and the findings about it. quality: None without labels. looks, near: None without quality columns."""

    facts: Facts
    doubles: Doubles
    suspects: Suspects
    quality: ShuffleQuality | None
    looks: Looks | None = None
    near: Near | None = None
    jpegs: JpegKinds = NO_JPEGS

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.facts.name


def summary(studies: Sequence[Study], leaks: Sequence[Leak], near: Sequence[NearLeak] = ()) -> Section:
    """Key figures of each dataset, and what to look at."""
    parts = []
    for study in studies:
        heading = f"<h3>{text(study.name)}</h3>" if len(studies) > 1 else ""
        cards = "".join(
            f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in _cards(study.facts)
        )
        parts.append(f'<div>{heading}<dl class="facts">{cards}</dl></div>')
    notes = _notes(studies, leaks, near)
    said = f'<ul class="notes">{"".join(f"<li>{note}</li>" for note in notes)}</ul>' if notes else ""
    head = "<h3>Worth checking</h3>" + said if notes else paragraph("Nothing stands out.")
    return Section(
        "summary", "Summary", f'<div class="{"pair" if len(parts) > 1 else ""}">{"".join(parts)}</div>{head}'
    )


def _cards(facts: Facts) -> list[tuple[str, str]]:
    cards = [("samples", f"{len(facts):,}"), ("classes", f"{len(facts.classes):,}")]
    images = int(facts.sizes.clip(0).sum())
    if facts.shards:
        cards += [("shards", f"{len(facts.shards):,}"), ("bytes", format_bytes(sum(size for *_, size in facts.shards)))]
    cards += [("images", format_bytes(images)), ("mean image", format_bytes(images // max(1, len(facts))))]
    sizes = _common_sizes(facts)
    if len(sizes) == 1 and facts.known.all():
        cards.append(("image size", sizes[0][0]))
    elif sizes:
        middle = (int(np.median(side[facts.known])) for side in (facts.widths, facts.heights))
        cards.append(("median image size", " x ".join(map(str, middle))))
    if facts.manifest is not None and facts.manifest.skipped:
        cards.append(("files left out", f"{facts.manifest.skipped:,}"))
    return cards


def _notes(studies: Sequence[Study], leaks: Sequence[Leak], near: Sequence[NearLeak]) -> list[str]:
    """What to look at, as HTML, most serious first."""
    notes = []
    for leak in leaks:
        if leak.images:
            where = f"{text(leak.name)} and {text(leak.other)}"
            notes.append(f'<a class="bad" href="#equal">{_images(leak.images)} in both {where}</a>: leakage')
    for one in near:
        if one.pairs:
            where = f"one of {text(one.other)}"
            count = _images(len(one.pairs))
            notes.append(
                f'<a class="bad" href="#near">{count} of {text(one.name)} nearly equal to {where}</a>: leakage'
            )
    if len(studies) > 1 and (differ := class_maps_differ([study.facts for study in studies])):
        notes.append(f'<a class="bad" href="#classes">{text(differ)}</a>')
    for study in studies:
        where = f" in {text(study.name)}" if len(studies) > 1 else ""
        notes += [note + where for note in _notes_on(study)]
    return notes


def _notes_on(study: Study) -> list[str]:
    found, facts = study.suspects, study.facts
    odd = found.images - len(found.undecodable)
    checks = [
        (_images(len(found.undecodable)), "suspicious", "can't be decoded", True),
        (
            _images(study.doubles.mislabelled).replace("image", "group"),
            "equal",
            "of duplicates with different labels",
            True,
        ),
        (_images(study.doubles.surplus), "equal", "identical to another one", False),
        (
            _images(study.near.mislabelled if study.near else 0).replace("image", "group"),
            "near",
            "of near-duplicates with different labels",
            True,
        ),
        (_images(study.near.surplus if study.near else 0), "near", "nearly equal to another one", False),
        (_images(len(study.near.hints) if study.near else 0), "near", "whose label may be wrong", False),
        *(
            (_images(len(getattr(study.looks, name))), "looks", name, False)
            for name in ("dark", "bright", "blurred", "flat")
            if study.looks
        ),
        (_images(odd), "suspicious", "tiny, far from square, or of one colour", False),
        (_images(int((facts.labels < 0).sum())), "classes", "without a label", False),
        (_images(int((facts.sizes < 0).sum())).replace("image", "sample"), "summary", "without an image", False),
    ]
    notes = [
        f'<a{" class=" + chr(34) + "bad" + chr(34) if bad else ""} href="#{place}">{what} {words}</a>'
        for what, place, words, bad in checks
        if not what.startswith("0 ")
    ]
    if not facts.summed:
        notes.append("duplicates are not looked for: the index was made of headers alone, without checksums")
    filled = [count for count in facts.counts if count]
    if empty := len(facts.classes) - len(filled):
        notes.append(f'<a href="#classes">{empty:,} {"class has" if empty == 1 else "classes have"} no samples</a>')
    if filled and max(filled) >= UNEVEN * min(filled):
        times = _times(max(filled) / min(filled))
        notes.append(f'<a href="#classes">the largest class has {times} times the samples of the smallest</a>')
    if study.quality is not None and study.quality.ways[0].mixed < WELL_MIXED:
        notes.append('<a href="#mixing">as packed, the classes come in runs: shuffle well</a>')
    return notes


def _images(number: int) -> str:
    return "1 image" if number == 1 else f"{number:,} images"


def classes(studies: Sequence[Study]) -> Section:
    """Number of samples per class."""
    names = list(dict.fromkeys(name for study in studies for name in study.facts.classes))
    if not names:
        return Section("classes", "Classes", paragraph("The dataset has no classes."))
    counts = [dict(zip(study.facts.classes, study.facts.counts, strict=True)) for study in studies]
    totals = [max(1, sum(part.values())) for part in counts]
    share = len(studies) > 1
    series = [
        (study.name, [part.get(name, 0) * (100 / total if share else 1) for name in names])
        for study, part, total in zip(studies, counts, totals, strict=True)
    ]
    few = len(names) <= MOST_BARS
    svg = plots.class_bars(names, series, share=share) if few else plots.class_curve(series, share=share)
    told = "; ".join(_balance(study, len(studies) > 1) for study in studies)
    head = ["class", *(f"label{_of(s, share)}" for s in studies), *(f"samples{_of(s, share)}" for s in studies)]
    labels = [{name: str(n) for n, name in enumerate(study.facts.classes)} for study in studies]
    rows = [
        [name, *(part.get(name, "none") for part in labels), *(f"{part.get(name, 0):,}" for part in counts)]
        for name in names[:MOST_ROWS]
    ]
    numbers = table("Samples of each class" + _cut(len(names)), head, rows)
    plot = plots.in_page(svg, "plot-classes", "Class balance", told)
    caption = "Share of the samples in each class, in percent." if share else "Samples of each class."
    differ = class_maps_differ([study.facts for study in studies]) if share else ""
    warning = paragraph(f'<span class="bad">{text(differ)}</span>') if differ else ""
    return Section("classes", "Classes", warning + paragraph(f"{told}.") + figure(plot, caption, numbers))


def _of(study: Study, several: bool) -> str:
    return f" in {study.name}" if several else ""


def _balance(study: Study, several: bool) -> str:
    counts = study.facts.counts
    low, high = min(counts), max(counts)
    if low == high:
        words = f"each class has {low:,} samples"
    else:
        least, most = (study.facts.classes[counts.index(number)] for number in (low, high))
        words = f"from {low:,} samples ({least}) to {high:,} ({most}), {_times(high / max(1, low))} times as many"
        words = words if low else words.rpartition(",")[0]
    return text(f"{study.name}: {words}" if several else words[0].upper() + words[1:])


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"


def sizes(studies: Sequence[Study]) -> Section:
    """Widths, heights and aspect ratios."""
    known = [study for study in studies if study.facts.known.any()]
    if not known:
        return Section("sizes", "Image sizes", paragraph("The index does not know the images' sizes."))
    common = [_common_sizes(study.facts) for study in known]
    unknown = sum(int((~study.facts.known & (study.facts.sizes >= 0)).sum()) for study in known)
    said = paragraph(f"The size of {_images(unknown)} is not known.") if unknown else ""
    for study in known:
        if study.jpegs.advice:
            said += paragraph(text(f"{study.name}: {study.jpegs.advice}."))
    if {part[0][0] for part in common} == {common[0][0][0]} and all(len(part) == 1 for part in common):
        return Section("sizes", "Image sizes", paragraph(f"All images have {common[0][0][0]} pixels.") + said)
    charts = []
    for name, values in (("width", "widths"), ("height", "heights")):
        parts = [getattr(study.facts, values)[study.facts.known] for study in known]
        charts.append(
            _histogram(known, parts, f"plot-{name}", f"Image {name}", f"{name}, pixels", lambda v: f"{v:,.0f}")
        )
    aspects = [study.facts.widths[study.facts.known] / study.facts.heights[study.facts.known] for study in known]
    charts.append(_histogram(known, aspects, "plot-aspect", "Aspect ratio", "width / height", lambda v: f"{v:.2f}"))
    tables = "".join(
        table(f"The most frequent sizes{_of(study, len(known) > 1)}", ["width x height", "images", "share"], [
            [size, f"{number:,}", f"{number / len(study.facts):.1%}"] for size, number in part[:8]
        ])
        for study, part in zip(known, common, strict=True)
    )  # fmt: skip
    return Section(
        "sizes", "Image sizes", said + f'<div class="pair">{"".join(charts)}</div><div class="pair">{tables}</div>'
    )


def _common_sizes(facts: Facts) -> list[tuple[str, int]]:
    both = facts.widths[facts.known].astype(np.int64) << 32 | facts.heights[facts.known]
    pairs = Counter(dict(zip(*(part.tolist() for part in np.unique(both, return_counts=True)), strict=True)))
    return [
        (f"{pair >> 32} x {pair & 0xFFFFFFFF}", count)
        for pair, count in sorted(pairs.items(), key=lambda p: (-p[1], p[0]))
    ]


def _histogram(
    studies: Sequence[Study], parts: Sequence[Numbers], name: str, title: str, label: str, shown: Callable[[float], str]
) -> str:
    edges, log = plots.histogram_edges(parts)
    if len(edges) == 2 or edges[0] == edges[-1]:
        return f"<div><h3>{text(title)}</h3>{paragraph(f'Always {text(shown(float(edges[0])))}.')}</div>"
    counts = [np.histogram(part, edges)[0] for part in parts]
    series = [(s.name, (100 * c / max(1, c.sum())).tolist()) for s, c in zip(studies, counts, strict=True)]
    told = "; ".join(
        text((f"{study.name}: " if len(studies) > 1 else "") + _range(part, shown))
        for study, part in zip(studies, parts, strict=True)
    )
    svg = plots.histogram(edges, series, log=log, label=label, shown=shown)
    head = [label, *(f"images{_of(study, len(studies) > 1)}" for study in studies)]
    bounds = [
        f"{shown(low)} to {shown(high)}" for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
    rows = [[bound, *(f"{part[n]:,}" for part in counts)] for n, bound in enumerate(bounds)]
    plot = plots.in_page(svg, name, text(title), told)
    return f"<div><h3>{text(title)}</h3>{figure(plot, told + '.', table(title, head, rows))}</div>"


def _range(values: Numbers, shown: Callable[[float], str]) -> str:
    low, middle, high = float(values.min()), float(np.median(values)), float(values.max())
    if low == high:
        return f"Always {shown(low)}"
    return f"From {shown(low)} to {shown(high)}, the median is {shown(middle)}"


def files(studies: Sequence[Study]) -> Section:
    """Sizes of the shards and of the images, in bytes."""
    content = ""
    packed = [study for study in studies if study.facts.shards]
    if packed:
        content += _shards(packed)
    sized = [study for study in studies if (study.facts.sizes > 0).any()]
    if sized:
        parts = [study.facts.sizes[study.facts.sizes > 0] for study in sized]
        content += _histogram(
            sized, parts, "plot-bytes", "Image files", "bytes of an image", lambda v: format_bytes(round(v))
        )
    return Section("bytes", "Shards and files", f'<div class="pair">{content}</div>')


def _shards(studies: Sequence[Study]) -> str:
    several = len(studies) > 1
    parts = [np.array([size for *_, size in study.facts.shards]) for study in studies]
    unit, factor = ("MB", 1e6) if max(int(part.max()) for part in parts) >= 10**6 else ("kB", 1e3)
    series = [(study.name, (part / factor).tolist()) for study, part in zip(studies, parts, strict=True)]
    told = "; ".join(
        text((f"{study.name}: " if several else "") + _shards_told(part))
        for study, part in zip(studies, parts, strict=True)
    )
    rows = [
        [name, f"{samples:,}", f"{size:,}"]
        for study in studies
        for name, samples, size in study.facts.shards[:MOST_ROWS]
    ]
    plot = plots.in_page(plots.shard_bars(series, label=unit), "plot-shards", "Bytes per shard", told)
    numbers = table("The shards" + _cut(max(map(len, parts))), ["shard", "samples", "bytes"], rows)
    return f"<div><h3>Shards</h3>{figure(plot, told + '.', numbers)}</div>"


def _shards_told(sizes: Numbers) -> str:
    low, high = format_bytes(int(sizes.min())), format_bytes(int(sizes.max()))
    number = "1 shard" if len(sizes) == 1 else f"{len(sizes):,} shards"
    return f"{number} of {low}" if low == high else f"{number} of {low} to {high}"


def _cut(number: int) -> str:
    return f", the first {MOST_ROWS:,} of {number:,}" if number > MOST_ROWS else ""


def mixing(studies: Sequence[Study]) -> Section:
    """How well the classes are mixed, as packed and with shuffle buffers."""
    known = [study for study in studies if study.quality is not None]
    if not known:
        why = "Mixing can't be measured without labels, or with a single class."
        return Section("mixing", "Mixing", paragraph(why))
    names: list[str] = []
    series, tables = [], ""
    for study in known:
        assert study.quality is not None
        ways = study.quality.ways
        names = [_way(way.name) for way in ways]
        series.append((study.name, [100 * way.mixed for way in ways]))
        rows = [
            [
                _way(way.name),
                f"{way.run_length:.2f}",
                f"{way.batch_entropy:.2f}",
                f"{way.mixed:.0%}",
                f"{way.epoch_change:.0%}",
            ]
            for way in ways
        ]
        head = ["buffer", "run of one class", "bits of class in a batch", "of the best", "moved between epochs"]
        tables += table(f"Mixing{_of(study, len(known) > 1)}, batches of {study.quality.batch}", head, rows)
    told = "; ".join(text((f"{s.name}: " if len(known) > 1 else "") + _mixed(s.quality)) for s in known if s.quality)
    plot = plots.in_page(plots.mixing_bars(names, series), "plot-mixing", "Mixing by shuffle buffer", told)
    caption = "Class entropy of a batch, as a percentage of a full permutation's. Buffer 0 is the order as packed."
    return Section("mixing", "Mixing", paragraph(f"{told}.") + figure(plot, caption, tables))


def _way(name: str) -> str:
    return f"{int(name):,}" if name.isdigit() else "full"


def _mixed(quality: ShuffleQuality) -> str:
    if quality.enough == 0:
        return "Well mixed as packed: the classes of a batch are as in a random order"
    if quality.enough is None:
        return "No buffer here mixes the classes as a full permutation does: pack the dataset again, shuffled"
    return f"A shuffle buffer of {quality.enough:,} samples mixes the classes as well as a full permutation"


def rules() -> str:
    """The definition of suspicious images, in words."""
    return (
        f"Tiny: the shorter side is below {TINY_PIXELS} pixels, or below an eighth of the median. "
        f"Far from square: one side is {math.floor(EXTREME_ASPECT)} times the other, or more."
    )


def named(facts: Facts, row: int) -> str:
    """Class and key of a sample; only the key if it begins with the class, as in a class tree."""
    name, key = printable(facts.class_of(row)), printable(facts.keys[row])
    return key if key.startswith(f"{name}/") else f"{name}: {key}"
