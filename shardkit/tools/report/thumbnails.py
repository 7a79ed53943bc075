"""The report's sections with images: samples of each class, equal images, suspicious images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shardkit.errors import ShardkitError
from shardkit.images.thumbnails import jpeg_bytes, open_picture, thumbnail
from shardkit.tools.pictures import choose_samples
from shardkit.tools.report.checks import Leak
from shardkit.tools.report.facts import Facts
from shardkit.tools.report.html import Section, Thumb, paragraph, text, thumbs
from shardkit.tools.report.sections import Study, named, rules

SIDE = 96
SAMPLES = 160
"""Approximate number of sample thumbnails on a page; each takes 1 to 4 kB."""

PER_CLASS = 8
SHOWN = 8
"""Groups of equal images, and suspicious images of each kind, to show as thumbnails."""


def thumb(facts: Facts, row: int, *, line: str | None = None) -> Thumb:
    """A thumbnail of a row's image. line: the text below it (default: the key)."""
    what = named(facts, row)
    line = facts.keys[row] if line is None else line
    try:
        small = thumbnail(open_picture(content_of(facts, row), side=SIDE), SIDE)
    except (ValueError, ShardkitError) as exc:
        return Thumb(None, SIDE, SIDE, f"{what}: no picture ({getattr(exc, 'fact', exc)})", line)
    factor = max(1, SIDE // max(small.size))
    return Thumb(jpeg_bytes(small), small.width * factor, small.height * factor, what, line)


def content_of(facts: Facts, row: int) -> bytes:
    """The bytes of an image."""
    import numpy as np

    return bytes(facts.data.content.catalog.block(np.array([row])).image(0))


def samples(studies: Sequence[Study], seed: int) -> Section:
    """Random samples of each class, with the same classes side by side if two datasets are compared."""
    many = len(studies)
    names = list(dict.fromkeys(name for study in studies for name in study.facts.classes))
    each = max(1, min(PER_CLASS, SAMPLES // max(1, len(names) * many)))
    limit = SAMPLES // (each * many)
    chosen = [
        {part.name: part for part in choose_samples(study.facts.data, count=each, seed=seed)} for study in studies
    ]
    present = [name for name in [*names, "no label"] if any(name in part for part in chosen)]
    shown = [present[n * len(present) // limit] for n in range(limit)] if len(present) > limit else present
    blocks = []
    for name in shown:
        parts = []
        for study, part in zip(studies, chosen, strict=True):
            found = part.get(name)
            count = "no samples" if found is None else f"{found.count:,} samples"
            label = "" if found is None or found.label < 0 else f"label {found.label}, "
            where = f"{text(study.name)}, " if many > 1 else ""
            pictures = [] if found is None else [thumb(study.facts, row) for row in found.rows]
            parts.append(f"<div><h3>{text(name)} <small>{where}{label}{count}</small></h3>{thumbs(pictures)}</div>")
        blocks.append(f'<div class="pair">{"".join(parts)}</div>' if many > 1 else parts[0])
    said = f"{len(shown):,} of {len(present):,} classes, " if len(shown) < len(present) else ""
    about = paragraph(f"{said}{each} random samples of each at most; small images are enlarged.")
    return Section("samples", "Samples", about + "\n".join(blocks))


def equal(studies: Sequence[Study], leaks: Sequence[Leak], others: Mapping[str, Facts]) -> Section:
    """Images that occur twice in a dataset, or in two datasets."""
    parts = [_leak(leak, studies, others) for leak in leaks]
    parts += [_doubles(study, several=len(studies) > 1) for study in studies]
    about = paragraph("Two images are duplicates if their files have the same CRC-32C and size.")
    return Section("equal", "Duplicates", about + "\n".join(parts))


def _leak(leak: Leak, studies: Sequence[Study], others: Mapping[str, Facts]) -> str:
    head = f"<h3>{text(leak.name)} and {text(leak.other)}</h3>"
    if not leak.images:
        return head + paragraph("No image is in both.")
    ours = next(study.facts for study in studies if study.name == leak.name)
    theirs = others[leak.other]
    relabelled = f" With another class there: {leak.relabelled:,}." if leak.relabelled else ""
    counted = f"{leak.images:,} of {len(ours):,} images of {text(leak.name)} are in {text(leak.other)} too."
    said = f'<span class="bad">{counted}</span>'
    advice = " A model trained on one and tested on the other scores too high."
    pictures = [
        thumb(ours, row, line=f"{named(ours, row)} = {named(theirs, twin)}") for row, twin in leak.pairs[:SHOWN]
    ]
    return head + paragraph(said + relabelled + advice) + thumbs(pictures, wide=True)


def _doubles(study: Study, *, several: bool) -> str:
    head = f"<h3>Within {text(study.name)}</h3>" if several else "<h3>Within the dataset</h3>"
    found = study.doubles
    if not found.groups:
        return head + paragraph("No image occurs twice.")
    mislabelled = ""
    if found.mislabelled:
        mislabelled = f' <span class="bad">Under different classes: {found.mislabelled:,}.</span>'
    said = f"{len(found.groups):,} images occur more than once; {found.surplus:,} are superfluous.{mislabelled}"
    pictures = []
    for rows in found.groups[:SHOWN]:
        keys = ", ".join(named(study.facts, row) for row in rows[:3])
        more = f" and {len(rows) - 3:,} more" if len(rows) > 3 else ""
        pictures.append(thumb(study.facts, rows[0], line=f"{len(rows)} times: {keys}{more}"))
    return head + paragraph(said) + thumbs(pictures, wide=True)


def suspicious(studies: Sequence[Study]) -> Section:
    """Images that look wrong."""
    parts = []
    for study in studies:
        found, facts = study.suspects, study.facts
        if len(studies) > 1:
            parts.append(f"<h3>{text(study.name)}</h3>")
        reasons = dict(found.undecodable)
        kinds = [
            ("can't be decoded", tuple(reasons)), ("of a single colour", found.single), ("tiny", found.tiny),
            ("far from square", found.extreme),
        ]  # fmt: skip
        if not any(rows for _, rows in kinds):
            parts.append(paragraph("None found."))
        for words, rows in kinds:
            if rows:
                one, be = ("1 image", "is ") if len(rows) == 1 else (f"{len(rows):,} images", "are ")
                said = f"{one} {'' if rows is kinds[0][1] else be}{words}"
                more = f", of which {SHOWN} are shown" if len(rows) > SHOWN else ""
                pictures = [thumb(facts, row, line=_suspect_line(facts, row, reasons)) for row in rows[:SHOWN]]
                parts.append(paragraph(text(said + more) + ".") + thumbs(pictures, wide=True))
        looked = f"{found.decoded:,} of {len(facts):,} images were decoded to look for a single colour: "
        why = "those whose files are small enough for it" + (
            f" ({found.candidates:,}), the smallest first." if found.candidates > found.decoded else "."
        )
        parts.append(paragraph(looked + why))
    return Section("suspicious", "Suspicious images", paragraph(text(rules())) + "\n".join(parts))


def _suspect_line(facts: Facts, row: int, reasons: dict[int, str]) -> str:
    size = f"{facts.widths[row]} x {facts.heights[row]}" if facts.known[row] else "size not known"
    return f"{named(facts, row)}, {reasons.get(row, size)}"
