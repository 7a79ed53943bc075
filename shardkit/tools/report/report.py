"""Write a report on a dataset as one self-contained HTML page: no network, no script.

facts.py collects, checks.py looks for problems, sections.py and thumbnails.py present, plots.py draws, html.py builds
the page. The page contains no timestamp: equal datasets give equal pages.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shardkit.events import Progress, ProgressFn, no_progress
from shardkit.options.fields import checked_by
from shardkit.shards.find.shards import SourceLike
from shardkit.storage.files import whole_file
from shardkit.tools.pictures import out_path, require_matplotlib
from shardkit.tools.progressive import jpeg_kinds
from shardkit.tools.report import alike
from shardkit.tools.report import sections as parts
from shardkit.tools.report import thumbnails as pictures
from shardkit.tools.report.changes import Changes, class_changes, find_changes
from shardkit.tools.report.changes import changes as changes_section
from shardkit.tools.report.checks import Leak, find_doubles, find_leak, find_looks, find_suspects
from shardkit.tools.report.columns import columns
from shardkit.tools.report.facts import Facts, collect, siblings
from shardkit.tools.report.html import Section, page, text
from shardkit.tools.report.near import NearLeak, find_near, find_near_leak
from shardkit.tools.report.sections import Study
from shardkit.tools.settings import ReportSettings
from shardkit.tools.shuffle_quality import ShuffleQuality, shuffle_quality
from shardkit.units import short_repr

BUFFERS = (0, 100, 1_000, 10_000)


@dataclass(frozen=True, slots=True)
class DatasetFindings:
    """Findings in a dataset, as keys. duplicates: groups of equal images. undecodable: (key, reason).

    jpegs: the JPEGs, or those whose headers were read, as in DatasetInfo; progressive: how many of these are.
    near_duplicates: groups of images that look alike, without those of equal files; None without quality columns, as
    are then all that follow. near_mislabelled: groups of them with several labels. label_hints: (key, the class of most
    images that look similar), a hint only. dark, bright, blurred, flat: the oddest first.
    """

    name: str
    samples: int
    duplicates: tuple[tuple[str, ...], ...]
    mislabelled: int
    tiny: tuple[str, ...]
    extreme_aspect: tuple[str, ...]
    single_colour: tuple[str, ...]
    undecodable: tuple[tuple[str, str], ...]
    mixed_as_packed: float | None
    jpegs: int = 0
    progressive: int = 0
    near_duplicates: tuple[tuple[str, ...], ...] | None = None
    near_mislabelled: int = 0
    label_hints: tuple[tuple[str, str], ...] = ()
    dark: tuple[str, ...] = ()
    bright: tuple[str, ...] = ()
    blurred: tuple[str, ...] = ()
    flat: tuple[str, ...] = ()

    __repr__ = short_repr


@dataclass(frozen=True, slots=True)
class LeakFindings:
    """Images that are in two datasets: (key, key in the other). relabelled: how many have another class there. near:
    the
    same for images that look alike, without those of equal files; None without quality columns."""

    name: str
    other: str
    images: tuple[tuple[str, str], ...]
    relabelled: int
    near: tuple[tuple[str, str], ...] | None = None

    __repr__ = short_repr


@dataclass(frozen=True, slots=True)
class ChangeFindings:
    """What the second of two compared datasets has otherwise, by keys; same: the keys that are in both, changed or not.

    relabelled: (key, its class before, and now). changed: whose image has other bytes. classes: (class, its samples
    before, and now) of those whose number changed; None where a class is missing.
    """

    name: str
    other: str
    same: int
    added: tuple[str, ...]
    gone: tuple[str, ...]
    relabelled: tuple[tuple[str, str, str], ...]
    changed: tuple[str, ...]
    classes: tuple[tuple[str, int | None, int | None], ...]

    __repr__ = short_repr


@dataclass(frozen=True, slots=True)
class Report:
    """Result of a report. bytes: size of the page. changes: from the first dataset to the second, if two were given."""

    path: str
    bytes: int
    datasets: tuple[DatasetFindings, ...]
    leaks: tuple[LeakFindings, ...]
    changes: ChangeFindings | None = None

    __repr__ = short_repr


@checked_by(ReportSettings)
def report(
    source: SourceLike,
    out: str | os.PathLike[str] = "report.html",
    *,
    compare: SourceLike | None = None,
    seed: int = 0,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressFn = no_progress,
) -> Report:
    """Write a page about a dataset to the HTML file `out`, replacing it.

    source: as for `dataset`; a class directory is read completely. compare: a second dataset, shown side by side with
    the first; if it has keys of the first, such as another version of it, what changed is listed. seed: for
    choosing the samples to show. storage_options: for a store, as in `dataset`. If the dataset is a split, its sibling
    splits are searched for equal images too.

    Near-duplicates, and dark, bright, blurred and flat images, need an index with quality columns (`pack` and
    `index_shards` with `quality_columns=True`); those of a class directory are found while it is read.

    Damaged images are reported on the page. Memory use is about 100 bytes per sample, and 250 with quality columns.

    Raises UsageError, MissingExtraError without matplotlib, DatasetError for shards without a manifest, and the errors
    of `dataset`.
    """
    path = out_path(out, (".html", ".htm"))
    require_matplotlib("report")  # before the images are read
    sources = [source] if compare is None else [source, compare]
    facts = _apart([collect(each, progress, storage_options) for each in sources])
    others = facts[1:] or _apart([facts[0], *siblings(facts[0], progress)])[1:]
    leaks = [find_leak(facts[0], other) for other in others]
    near = [find_near_leak(facts[0], other, progress) for other in others]
    studies = [_study(each, progress) for each in facts]
    changes = find_changes(facts[0], facts[1]) if len(facts) == 2 else None
    found = _Found(studies, leaks, near, {other.name: other for other in others}, changes)
    content = _page(found, seed, progress).encode("utf-8")
    with whole_file(path, sync=False) as file:
        file.write(content)
    names = {each.name: each for each in [*facts, *others]}
    leaked = tuple(_leak(leak, one, names) for leak, one in zip(leaks, near, strict=True))
    changed = None if changes is None else _changes(facts[0], facts[1], changes)
    return Report(path, len(content), tuple(map(_findings, studies)), leaked, changed)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the page shows. near: for each leak, None without quality columns. others: the other datasets by name."""

    studies: Sequence[Study]
    leaks: Sequence[Leak]
    near: Sequence[NearLeak | None]
    others: Mapping[str, Facts]
    changes: Changes | None


def _apart(facts: Sequence[Facts]) -> list[Facts]:
    """The facts with distinct names: prefixed with their folder if two datasets have the same name."""
    if len({each.name for each in facts}) == len(facts):
        return list(facts)
    longer = [f"{each.folder}/{each.name}" if each.folder else each.name for each in facts]
    if len(set(longer)) < len(longer):
        longer = [f"{name} ({number})" for number, name in enumerate(longer, 1)]
    return [replace(each, name=name) for each, name in zip(facts, longer, strict=True)]


def _study(facts: Facts, progress: ProgressFn) -> Study:
    doubles, suspects = find_doubles(facts), find_suspects(facts, progress)
    looks, near = find_looks(facts), find_near(facts, progress)
    return Study(facts, doubles, suspects, _quality(facts, progress), looks, near, jpeg_kinds(facts.data))


def _quality(facts: Facts, progress: ProgressFn) -> ShuffleQuality | None:
    if len(facts) < 2 or int(facts.labels.min()) < 0 or len({*facts.labels.tolist()}) < 2:
        return None
    progress(Progress("mixing", 0, len(facts)))
    batch = max(2, min(64, len(facts) // 8))
    quality = shuffle_quality(facts.source, buffers=BUFFERS, batch=batch, storage_options=facts.storage_options)
    progress(Progress("mixing", len(facts), len(facts)))
    return quality


def _page(found: _Found, seed: int, progress: ProgressFn) -> str:
    studies, sections = found.studies, list[Section]()
    for section in _sections(found, seed):
        sections.append(section)
        progress(Progress("draw", len(sections)))
    names = " and ".join(study.name for study in studies)
    title = f"{names}: a dataset report" if len(studies) == 1 else f"{names}, side by side"
    about = "".join(f"<p>{text(_place(study.facts))}</p>" for study in studies)
    foot = f"<p>Written by shardkit {_version()}. Pictures of samples are chosen at random with seed {seed}.</p>"
    return page(title, about, sections, foot)


def _sections(found: _Found, seed: int) -> Iterator[Section]:
    studies = found.studies
    near = [one for one in found.near if one is not None]
    yield parts.summary(studies, found.leaks, near)
    if found.changes is not None:
        yield changes_section(studies[0].facts, studies[1].facts, found.changes)
    yield parts.classes(studies)
    yield parts.sizes(studies)
    yield parts.files(studies)
    further = columns(studies)
    if further is not None:
        yield further
    yield pictures.samples(studies, seed)
    yield pictures.equal(studies, found.leaks, found.others)
    yield alike.near(studies, near, found.others)
    yield alike.looks(studies)
    yield pictures.suspicious(studies)
    yield parts.mixing(studies)


def _place(facts: Facts) -> str:
    kind = f"{facts.manifest.shard_format} shards" if facts.manifest is not None else "class directory"
    return f"{facts.name}: {len(facts):,} samples, {kind}"


def _version() -> str:
    from shardkit.version import __version__

    return __version__


def _findings(study: Study) -> DatasetFindings:
    keys, found = study.facts.keys, study.suspects

    def named(rows: Sequence[int]) -> tuple[str, ...]:
        return tuple(keys[row] for row in rows)

    return DatasetFindings(
        name=study.name,
        samples=len(study.facts),
        duplicates=tuple(named(rows) for rows in study.doubles.groups),
        mislabelled=study.doubles.mislabelled,
        tiny=named(found.tiny),
        extreme_aspect=named(found.extreme),
        single_colour=named(found.single),
        undecodable=tuple((keys[row], reason) for row, reason in found.undecodable),
        mixed_as_packed=None if study.quality is None else study.quality.ways[0].mixed,
        jpegs=study.jpegs.jpegs,
        progressive=study.jpegs.progressive,
        **_alike(study, named),
    )


def _alike(study: Study, named: Callable[[Sequence[int]], tuple[str, ...]]) -> dict[str, Any]:
    """The findings of the quality columns, if there are any."""
    if study.near is None or study.looks is None:
        return {}
    near, looks, classes = study.near, study.looks, study.facts.classes
    return {
        "near_duplicates": tuple(named(rows) for rows in near.groups),
        "near_mislabelled": near.mislabelled,
        "label_hints": tuple((study.facts.keys[row], classes[label]) for row, label in near.hints),
        **{name: named(getattr(looks, name)) for name in ("dark", "bright", "blurred", "flat")},
    }


def _leak(leak: Leak, near: NearLeak | None, names: dict[str, Facts]) -> LeakFindings:
    ours, theirs = names[leak.name].keys, names[leak.other].keys
    images = tuple((ours[row], theirs[twin]) for row, twin in leak.pairs)
    pairs = None if near is None else tuple((ours[row], theirs[twin]) for row, twin in near.pairs)
    return LeakFindings(leak.name, leak.other, images, leak.relabelled, pairs)


def _changes(before: Facts, after: Facts, found: Changes) -> ChangeFindings | None:
    """None if no key is in both."""
    if not len(found.pairs):
        return None
    keys = before.keys
    relabelled = found.pairs[found.relabelled].tolist()
    return ChangeFindings(
        before.name, after.name, len(found.pairs),
        added=tuple(after.keys[row] for row in found.added.tolist()),
        gone=tuple(keys[row] for row in found.gone.tolist()),
        relabelled=tuple((keys[row], before.class_of(row), after.class_of(twin)) for row, twin in relabelled),
        changed=tuple(keys[row] for row in found.pairs[found.changed, 0].tolist()),
        classes=tuple(class_changes(before, after)),
    )  # fmt: skip
