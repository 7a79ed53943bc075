"""The report's sections on near-duplicates and on images that look odd, with pictures side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shardkit.tools.report.checks import BLURRED, BRIGHT, DARK, FLAT
from shardkit.tools.report.facts import Facts
from shardkit.tools.report.html import Section, paragraph, text, thumbs
from shardkit.tools.report.near import Near, NearLeak
from shardkit.tools.report.sections import Study, named
from shardkit.tools.report.thumbnails import SHOWN, thumb

BESIDE = 6
"""Pictures of a group that are shown side by side."""

WITHOUT = (
    "The index has no quality columns, from which near-duplicates and odd images are found: "
    "'shardkit index --overwrite --quality-columns' adds them, as 'shardkit pack --quality-columns' does."
)


def near(studies: Sequence[Study], leaks: Sequence[NearLeak], others: Mapping[str, Facts]) -> Section:
    """Images that look alike, in a dataset and in two, and labels that may be wrong."""
    if not any(study.near for study in studies):
        return Section("near", "Near-duplicates", paragraph(text(WITHOUT)))
    about = paragraph(
        "Resized, recompressed, gray or slightly cropped copies: perceptual hashes that differ in few bits, confirmed "
        "by comparing both images at 32 x 32. Duplicates of the same bytes are above."
    )
    parts = [_leak(leak, studies, others) for leak in leaks]
    for study in studies:
        if study.near is not None:
            several = f"<h3>Within {text(study.name)}</h3>" if len(studies) > 1 else "<h3>Within the dataset</h3>"
            parts.append(several + _within(study.facts, study.near))
    return Section("near", "Near-duplicates", about + "\n".join(parts))


def _unseen(candidates: int, confirmed: int) -> str:
    left = candidates - confirmed
    return f" {left:,} more pairs with similar hashes were not compared." if left else ""


def _leak(leak: NearLeak, studies: Sequence[Study], others: Mapping[str, Facts]) -> str:
    head = f"<h3>{text(leak.name)} and {text(leak.other)}</h3>"
    unseen = _unseen(leak.candidates, leak.confirmed)
    if not leak.pairs:
        return head + paragraph("No image of one looks like one of the other." + unseen)
    ours = next(study.facts for study in studies if study.name == leak.name)
    theirs = others[leak.other]
    count = f"{len(leak.pairs):,} of {len(ours):,} images of {text(leak.name)} look like one of {text(leak.other)}."
    relabelled = f" With another class there: {leak.relabelled:,}." if leak.relabelled else ""
    rows = [thumbs([thumb(ours, row), thumb(theirs, twin)]) for row, twin in leak.pairs[:SHOWN]]
    return head + paragraph(f'<span class="bad">{count}</span>' + relabelled + unseen) + "".join(rows)


def _within(facts: Facts, found: Near) -> str:
    unseen = _unseen(found.candidates, found.confirmed)
    if not found.groups:
        return paragraph("No two images look alike." + unseen) + _hints(facts, found)
    bad = f' <span class="bad">Under different classes: {found.mislabelled:,}.</span>' if found.mislabelled else ""
    said = f"{len(found.groups):,} groups of images look alike; {found.surplus:,} are superfluous.{bad}{unseen}"
    mixed = sorted(found.groups, key=lambda rows: len({int(facts.labels[row]) for row in rows}) < 2)  # those first
    rows = [thumbs([thumb(facts, row, line=named(facts, row)) for row in group[:BESIDE]]) for group in mixed[:SHOWN]]
    return paragraph(said) + "".join(rows) + _hints(facts, found)


def _hints(facts: Facts, found: Near) -> str:
    if not found.hints:
        return ""
    count = "1 label" if len(found.hints) == 1 else f"{len(found.hints):,} labels"
    said = (
        f"{count} may be wrong: most images with a similar hash have another one. This is a hint, no more: images that "
        "look similar in coarse outline are often of different classes."
    )
    pictures = [
        thumb(facts, row, line=f"{named(facts, row)}: {facts.classes[label]}?") for row, label in found.hints[:SHOWN]
    ]
    return paragraph(said) + thumbs(pictures, wide=True)


def looks(studies: Sequence[Study]) -> Section:
    """Images that are dark, bright, blurred or flat."""
    rules = (
        f"Dark: the mean is below {DARK:.0%} of white. Bright: above {BRIGHT:.0%}. Blurred: the sharpness is below "
        f"{BLURRED}. Flat: less than {FLAT:g} bit of entropy."
    )
    parts = [paragraph(text(rules))]
    for study in studies:
        if study.looks is None:
            continue
        if len(studies) > 1:
            parts.append(f"<h3>{text(study.name)}</h3>")
        kinds = [(name, getattr(study.looks, name)) for name in ("dark", "bright", "blurred", "flat")]
        if not any(rows for _, rows in kinds):
            parts.append(paragraph("None found."))
        for name, rows in kinds:
            if rows:
                count = "1 image is" if len(rows) == 1 else f"{len(rows):,} images are"
                more = f", of which {SHOWN} are shown" if len(rows) > SHOWN else ""
                pictures = [thumb(study.facts, row, line=named(study.facts, row)) for row in rows[:SHOWN]]
                parts.append(paragraph(f"{count} {name}{more}.") + thumbs(pictures, wide=True))
    if not any(study.looks for study in studies):
        parts = [paragraph(text(WITHOUT))]
    return Section("looks", "Dark, bright, blurred and flat images", "\n".join(parts))
