"""Compare reading a class directory with reading shards, on the user's own data and machine."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DatasetError
from shardkit.events import Progress, ProgressFn, no_progress
from shardkit.options.fields import checked_by
from shardkit.options.files import require_folder
from shardkit.packing.pack import pack
from shardkit.reading.blocks.block import index_table
from shardkit.reading.dataset import Dataset, dataset
from shardkit.reading.state import ReadPosition
from shardkit.rng import permutation, stream_key
from shardkit.sample import IMAGE_FIELDS, fs_text
from shardkit.shards.find.find import resolve
from shardkit.shards.find.shards import SourceLike
from shardkit.storage.access import Remote
from shardkit.storage.files import translated
from shardkit.tools.bench import measure as timing
from shardkit.tools.bench.advice import Advice, Figures, advise, resize_side
from shardkit.tools.bench.measure import Measurement, Way
from shardkit.tools.pictures import PLOT_SUFFIXES, out_path, require_matplotlib
from shardkit.tools.settings import BenchSettings
from shardkit.units import cores, short_repr

SAMPLE_BYTES, SAMPLE_FILES, FEWEST = 128 * 10**6, 8_000, 64
_ABOUT = 0.7  # share of the time for the measurements; the rest goes to writing the other form of the sample


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Measurements, and the advice that follows from them.

    kind: kind of the source. samples, bytes: of the whole source (bytes of the image files). sampled: number of images
    that the measurements read repeatedly. size: side of the decoded crops in pixels. pack_rate: images per second while
    packing the sample; None if the source is shards. decode_rate: images per second decoded from memory, with all
    cores. load: cores that other programs used meanwhile. jpegs: JPEGs whose headers were read; progressive: how many
    of these are. baseline_gain: how many times as fast those decode as baseline JPEGs; None if there are none, or the
    extension that converts them is missing.
    """

    source: str
    kind: str
    samples: int
    bytes: int
    sampled: int
    sampled_bytes: int
    size: int
    cores: int
    memory_bytes: int
    pack_rate: float | None
    decode_rate: float
    measurements: tuple[Measurement, ...]
    advice: Advice
    load: float = 0.0
    jpegs: int = 0
    progressive: int = 0
    baseline_gain: float | None = None

    __repr__ = short_repr


@dataclass(frozen=True, slots=True)
class _Sample:
    """A part of the source in both forms. tree: the class directory, with its files listed in random order.

    `*_files`: files to evict from the cache. shard_rows: rows of the shards that belong to the sample; None for all.
    far: the same samples in a store.
    """

    tree: Dataset
    tree_files: tuple[str, ...]
    shards: str | list[str]
    shard_rows: NDArray[np.int64] | None
    shard_files: tuple[str, ...]
    images: int
    bytes: int
    pack_rate: float | None
    far: Dataset | None = None

    def directory(self, threads: int | None = None) -> Dataset:
        """The class directory, in random order."""
        return replace(self.tree, reading=replace(self.tree.reading, threads=threads), position=ReadPosition())

    def packed(self, threads: int | None = None) -> Dataset:
        """The shards, shuffled as in training; reopened each time, since mapped files can't be evicted."""
        data = dataset(self.shards, threads=threads)
        return (data if self.shard_rows is None else data[self.shard_rows]).shuffle()

    def streamed(self, threads: int | None = None) -> Dataset:
        """The shards in the store, shuffled as in training."""
        assert self.far is not None
        return replace(self.far, reading=replace(self.far.reading, threads=threads), position=ReadPosition()).shuffle()


@checked_by(BenchSettings)
def bench(
    source: SourceLike,
    *,
    seconds: float = 20.0,
    threads: Sequence[int] | None = None,
    size: int | None = None,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressFn = no_progress,
) -> BenchResult:
    """Compare the class directory with shards, cold and warm, as bytes and decoded, for several numbers of threads.

    source: a class directory, a sample of which is packed; or shards with a manifest, a sample of which is unpacked.
    The sample has at most SAMPLE_BYTES and is written to a temporary folder in `folder` (default: the system's), which
    is removed afterwards: choose one on the disk to be measured.
    seconds: approximate total time.
    threads: numbers of threads to try (default: 1, 2, 4 … up to the cores).
    size: side of the decoded crops in pixels (default: the usual side, at most 224).

    Shards in a store are compared with a copy of the sample on this machine; nothing that is fetched is kept.
    storage_options: for the store, as in `dataset`.

    Cold files are evicted from the page cache first; the system still remembers their names, which flatters the
    directory. Raises UsageError, DatasetError, and the errors of `dataset` and `pack`.
    """
    counts = sorted(set(threads or _thread_counts()))
    if folder is not None:
        require_folder(folder, "folder")
    others = OtherPrograms()
    found = resolve(source, Remote(storage_options))
    whole = dataset(source, storage_options=storage_options)
    there = found.tree or found.places[0]
    far = there is not None and not there.is_local
    total = int(whole.content.catalog.counts.sum())
    if not total:
        raise DatasetError(fs_text(str(source)), "there are no images to read", "give a dataset with images")
    buffer = _buffer(source, whole, total, storage_options)
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-", dir=folder) as place, translated(place):
        progress(Progress("prepare", 0))
        if found.tree is not None:
            sample = _packed_sample(found.tree.path, whole, place, seconds, seed)
        elif far:
            sample = _fetched_sample(whole, place, seed)
        else:
            sample = _unpacked_sample(source, whole, place)
        images = timing.contents(sample.packed(), 512, 64 << 20)
        if not images:
            raise DatasetError(fs_text(str(source)), "there are no images to read", "give a dataset with images")
        side = timing.usual_short_side(images)
        crop = size or min(224, side or 224)
        measured = _measured(sample, counts, crop, seconds * _ABOUT, progress)
        decode = timing.decode_rate(images, crop, max(seconds / 30, 0.2), cores())
        gain, shrunk = _resizing(images, crop, side, seconds / 40)
        kinds = timing.progressive_jpegs(images, crop, seconds / 40, whole=len(images) == total)
    mean = sample.bytes / sample.images
    figures = Figures(
        tuple(measured), total, round(mean * total), _memory(), cores(), crop, decode, gain, shrunk,
        load=others.cores(), sampled=sample.images,
    )  # fmt: skip
    advice = advise(figures, buffer=buffer)
    if told := kinds.advice:
        advice = replace(advice, lines=(*advice.lines, f"{told[0].upper()}{told[1:]}."))
    kind = "class directory" if found.tree is not None else "shards in a store" if far else "shards"
    return BenchResult(
        source=fs_text(str(source)), kind=kind, samples=total,
        bytes=figures.bytes, sampled=sample.images, sampled_bytes=sample.bytes, size=crop, cores=cores(),
        memory_bytes=figures.memory_bytes, pack_rate=sample.pack_rate, decode_rate=decode,
        measurements=tuple(measured), advice=advice, load=figures.load,
        jpegs=kinds.jpegs, progressive=kinds.progressive, baseline_gain=kinds.gain,
    )  # fmt: skip


class OtherPrograms:
    """The cores that other programs use from now on: what the machine's processors do, less what this process does.

    Where the system does not say what they do, it is the load average of the minute before.
    """

    def __init__(self) -> None:
        self.before = _processor_seconds()
        self.load = _load()

    def cores(self) -> float:
        """The cores that other programs have used since, as a part of those that this process may use."""
        now = _processor_seconds()
        if self.before is None or now is None or now[0] <= self.before[0]:
            return self.load
        wall, busy, own = (after - begun for after, begun in zip(now, self.before, strict=True))
        return max(0.0, busy - own) / wall * cores() / (os.cpu_count() or 1)


def _processor_seconds() -> tuple[float, float, float] | None:
    """(a clock, seconds that all processors were busy, seconds of this process and its children); None if unknown."""
    try:
        with open("/proc/stat", "rb") as file:
            user, nice, system, _, _, *interrupts = map(int, file.readline().split()[1:9])
        busy = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    return time.monotonic(), busy, sum(os.times()[:4])


def _load() -> float:
    """Processes that ran or waited for a processor in the last minute; 0 if unknown."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none
        return 0.0


def _thread_counts() -> list[int]:
    most, counts = cores(), [1]
    while counts[-1] * 2 < most:
        counts.append(counts[-1] * 2)
    return [*counts[-4:], most]


def _packed_sample(root: str, whole: Dataset, place: str, seconds: float, seed: int) -> _Sample:
    """A random part of a class tree, unpacked and packed; no more than can be read cold in a tenth of the time."""
    catalog: Any = whole.content.catalog
    order = permutation(len(catalog.source), stream_key("bench", seed))[:SAMPLE_FILES]
    sizes = catalog.source.sizes[order]
    order = order[: max(1, int(np.searchsorted(np.cumsum(sizes), SAMPLE_BYTES)))]
    paths = [os.path.join(os.fsencode(root), path) for path in catalog.source.paths.take(order)]
    files = [os.fsdecode(path) for path in paths]
    timing.can_drop(files)
    read, _ = timing.one_pass(lambda: whole[order], seconds / 10)
    kept = max(min(FEWEST, len(order)), read)
    order, files = order[:kept], files[:kept]
    links = Path(place) / "links"
    for number, (file, label) in enumerate(zip(files, catalog.source.labels[order].tolist(), strict=True)):
        link = links / f"{label:06}" / f"{number:07}{Path(file).suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(file).absolute())
    begun = time.perf_counter()
    dest = Path(place) / "sample"
    pack(links, dest, check="none", max_bytes=shard_limit(int(sizes[:kept].sum())), seed=seed)
    rate = kept / (time.perf_counter() - begun)
    shards = tuple(sorted(map(str, Path(place).glob("sample-*.tar"))))
    return _Sample(
        whole[order], tuple(files), str(dest), None, shards, kept, int(catalog.source.sizes[order].sum()), rate
    )  # fmt: skip


def shard_limit(size: int) -> int:
    """Largest size of a sample's shards: an eighth of it, so that shuffling reads it like a large dataset."""
    return max(1 << 20, size // 8)


def _unpacked_sample(source: SourceLike, whole: Dataset, place: str) -> _Sample:
    """The first part of some shards, and the same as a class tree. Raises DatasetError if there are no images."""
    rows, size = _first_rows(whole)
    tree = Path(place) / "tree"
    files = _write_tree(dataset(source)[rows], tree, str(source))  # reopened: a mapped file stays in the cache
    order = permutation(len(files), stream_key("bench", 0))
    numbers = np.unique(np.searchsorted(np.cumsum(whole.content.catalog.counts), rows, side="right"))
    shards = [whole.content.catalog.files()[int(number)].location.path for number in numbers]
    given: Any = os.fspath(source) if isinstance(source, (str, os.PathLike)) else list(source)  # type: ignore[arg-type]
    return _Sample(dataset(tree)[order], tuple(files), given, rows, tuple(shards), len(files), size, None)


def _fetched_sample(whole: Dataset, place: str, seed: int) -> _Sample:
    """The first part of a dataset in a store, and the same samples as local shards."""
    rows, size = _first_rows(whole)
    tree, dest = Path(place) / "tree", Path(place) / "sample"
    files = _write_tree(whole[rows], tree, repr(whole.content))
    pack(tree, dest, check="none", max_bytes=shard_limit(size), seed=seed)
    shards = tuple(sorted(map(str, Path(place).glob("sample-*.tar"))))
    return _Sample(dataset(tree), tuple(files), str(dest), None, shards, len(files), size, None, whole[rows])


def _first_rows(whole: Dataset) -> tuple[NDArray[np.int64], int]:
    """The first samples, as many as a sample of the whole has, and the bytes of their images."""
    sizes = index_table(whole.content.catalog, ["image_size"])["image_size"].fill_null(0).to_numpy()
    kept = min(SAMPLE_FILES, max(1, int(np.searchsorted(np.cumsum(sizes), SAMPLE_BYTES))), len(sizes))
    return np.arange(kept), int(sizes[:kept].sum())


def _write_tree(samples: Iterable[Any], tree: Path, source: str) -> list[str]:
    """Write the images as files of a class tree. Raises DatasetError if there are none."""
    files = []
    for number, sample in enumerate(samples):
        name, content = next(((n, v) for n, v in sample.items() if n in IMAGE_FIELDS), ("", b""))
        if name:
            file = tree / f"{max(0, sample.get('cls', 0)):06}" / f"{number:07}.{name}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            files.append(str(file))
    if not files:
        raise DatasetError(fs_text(source), "there are no images to read", "give a dataset with images")
    return files


def _measured(
    sample: _Sample, counts: Sequence[int], size: int, seconds: float, progress: ProgressFn
) -> list[Measurement]:
    if sample.far is not None:
        groups = [_far_pair(sample, "raw", 1, size), *(_far_pair(sample, "decoded", count, size) for count in counts)]
        return _in_groups(groups, sample, seconds, progress)
    cold = all([timing.can_drop(sample.tree_files), timing.can_drop(sample.shard_files)])
    groups = [_pair(sample, "raw", cache, 1, size) for cache in (("cold", "warm") if cold else ("warm",))]
    groups += [_pair(sample, "decoded", "cold", counts[-1], size)] if cold else []
    groups += [_pair(sample, "decoded", "warm", count, size) for count in counts]
    return _in_groups(groups, sample, seconds, progress)


def _in_groups(
    groups: Sequence[Sequence[Way]], sample: _Sample, seconds: float, progress: ProgressFn
) -> list[Measurement]:
    found: list[Measurement] = []
    for number, group in enumerate(groups, 1):
        found += timing.measure(group, seconds / (2 * len(groups)) / 1.5, sample.bytes / sample.images)
        progress(Progress("measure", number, len(groups)))
    return found


def _pair(sample: _Sample, stage: timing.Stage, cache: timing.Cache, threads: int, size: int) -> list[Way]:
    """The same measurement for both forms."""
    start = partial(_start, stage=stage, cache=cache, threads=threads, size=size)
    return [
        Way("directory", cache, stage, threads, start(sample.directory), sample.tree_files),
        Way("shards", cache, stage, threads, start(sample.packed), sample.shard_files),
    ]


def _far_pair(sample: _Sample, stage: timing.Stage, threads: int, size: int) -> list[Way]:
    """The same measurement for the store and for a local copy."""
    start = partial(_start, stage=stage, cache="warm", threads=threads, size=size)
    return [
        Way("store", "warm", stage, threads, start(sample.streamed), ()),
        Way("shards", "warm", stage, threads, start(sample.packed), sample.shard_files),
    ]


def _start(
    data: Callable[[int], Dataset], *, stage: timing.Stage, cache: timing.Cache, threads: int, size: int
) -> timing.Open:
    def items() -> Iterable[Any]:
        opened = data(threads)
        len(opened.content.catalog.counts)  # opens it
        made = opened if stage == "raw" else timing.decoded(opened, size)
        return made if cache == "cold" else made.repeat()

    return items


def _resizing(images: Sequence[bytes], size: int, side: int, seconds: float) -> tuple[float | None, float | None]:
    """How many times as fast shrunk images decode, and their size relative to the originals; None if they are small."""
    target = resize_side(size)
    few = images[:64]
    smaller = timing.resized(few, target) if side >= 1.25 * target else []
    if not smaller:
        return None, None
    rates = [timing.decode_rate(each, size, max(seconds, 0.2)) for each in (smaller, few)]
    return rates[0] / rates[1], sum(map(len, smaller)) / len(smaller) / (sum(map(len, few)) / len(few))


def _buffer(source: SourceLike, whole: Dataset, total: int, storage_options: Mapping[str, Any] | None = None) -> int:
    """The shuffle buffer to propose: the usual one, or a larger one if classes were packed in runs."""
    from shardkit.tools.shuffle_quality import shuffle_quality

    usual = min(10_000, total)
    if total < 2 or resolve(source, Remote(storage_options)).tree is not None:
        return usual
    labels = whole.content.catalog.labels()
    if labels.min() < 0 or labels.min() == labels.max():
        return usual
    sizes = (0, 10_000, 100_000)
    quality = shuffle_quality(source, buffers=sizes, batch=min(64, total), storage_options=storage_options)
    return max(usual, min(total, quality.enough if quality.enough is not None else total))


def _memory() -> int:
    """The machine's memory in bytes; 0 if the system does not report it."""
    with suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 0


def plot(result: BenchResult, path: str | os.PathLike[str]) -> None:
    """Draw the measurements to a PNG or SVG file. Raises MissingExtraError without matplotlib, UsageError."""
    file = out_path(path, PLOT_SUFFIXES)
    require_matplotlib("plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stages = list(dict.fromkeys(each.stage for each in result.measurements))
    rows = [len({(m.cache, m.threads) for m in result.measurements if m.stage == stage}) for stage in stages]
    figure = Figure(figsize=(8, 1.6 + 0.6 * sum(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(stages), height_ratios=rows, squeeze=False)[:, 0]
    for axes, stage in zip(panels, stages, strict=True):
        _panel(axes, stage, [each for each in result.measurements if each.stage == stage])
    panels[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.02), ncols=2, frameon=False)
    panels[-1].set_xlabel("images a second")
    with translated(file):
        figure.savefig(file, dpi=120)


def _panel(axes: Any, stage: str, measurements: Sequence[Measurement]) -> None:
    rows = list(dict.fromkeys((each.cache, each.threads) for each in measurements))
    at = np.arange(len(rows))
    other = "store" if any(each.what == "store" for each in measurements) else "directory"
    for shift, what, colour in ((-0.2, other, "#b04e0f"), (0.2, "shards", "#1764b0")):
        found = {(each.cache, each.threads): each.images for each in measurements if each.what == what}
        bars = axes.barh(at + shift, [found.get(row, 0) for row in rows], 0.38, color=colour, label=what)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=9)
    axes.set_yticks(at, [f"{stage}, {cache}, {threads} thread{'s' if threads > 1 else ''}" for cache, threads in rows])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
