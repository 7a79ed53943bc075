"""The names of a dataset's files; all code that makes, looks for or removes one uses these functions.

    STEM.json                            the manifest, which names all others
    STEM-000000.tar …                    shards; six digits, seven from a million on (eight are somebody's date)
    STEM.parquet or STEM.00000.parquet … index files
    STEM.skipped.json                    the list of skipped files
    STEM-g2-000000.tar, STEM-g2.parquet  the same of generation 2, which replaced the first; STEM.json names them then
    .STEM.packing/                       the work folder: lock, shards with .rows and .receipt, the decided STEM.json,
                                         and replaced.json: the manifest of the dataset that is replaced
    .STEM.replaced.json                  the same in a store
    .STEM.incomplete                     in a store, or where a download goes: the manifest is still missing

A dataset is replaced by one of the next generation, so that no file of the old one is touched before the manifest is.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable

LOCK = "lock"
REPLACED = "replaced.json"

_SHARD = r"-\d{6,7}\.(?:tar|tfrecord)"
_OTHER = r"(?:\.\d{5})?\.parquet|\.skipped\.json"
_GENERATION = re.compile(r"(?P<stem>.+)-g(?P<number>[1-9]\d{0,8})")
_IN_GENERATION = re.compile(r"-g([1-9]\d{0,8})(?=[-.])")

_TFRECORD = r"\.(?:tfrecords?|tfrec|tfr)"
_ENDING = rf"(?:\.(?:tar|tar\.gz|tgz)|{_TFRECORD}(?:\.gz|\.gzip|\.zlib)?)"
_NUMBERED = re.compile(rf"(?P<stem>.+?)(?:-\d+(?:-of-\d+)?{_ENDING}|(?:{_TFRECORD})?-\d+-of-\d+)")
"""`train-000000.tar`, and `train-00000-of-00010.tfrecord`, `train.tfrecord-00000-of-00010` as TensorFlow's tools name
them."""


def manifest_name(stem: str) -> str:
    """The manifest, for every generation."""
    return f"{stem}.json"


def work_name(stem: str) -> str:
    """The folder in which a job works until its commit."""
    return f".{stem}.packing"


def aside_name(stem: str) -> str:
    """The manifest of a dataset that is replaced, in a store."""
    return f".{stem}.replaced.json"


def marker_name(stem: str) -> str:
    """The marker of a dataset that is still being transferred, in a store or where a download goes."""
    return f".{stem}.incomplete"


def signs(stem: str) -> tuple[str, str]:
    """The files that, besides a work folder, show that shards without a manifest may be half of a dataset."""
    return marker_name(stem), aside_name(stem)


def base_of(stem: str, generation: int) -> str:
    """The beginning of the file names of a generation: `train`, and from the second on `train-g2`."""
    return stem if generation == 1 else f"{stem}-g{generation}"


def shard_name(base: str, number: int, suffix: str, *, digits: int = 6) -> str:
    """A shard. suffix: of its format, with the dot."""
    return f"{base}-{number:0{digits}d}{suffix}"


def index_name(base: str, number: int | None = None) -> str:
    """An index file: the only one, or one of several."""
    return f"{base}.parquet" if number is None else f"{base}.{number:05d}.parquet"


def base_of_index(name: str) -> str | None:
    """What the name of an index file starts with: `train` of `train.parquet`; None for other names."""
    match = re.fullmatch(r"(.+?)(?:\.\d{5})?\.parquet", name)
    return None if match is None else match[1]


def is_manifest_name(name: str) -> bool:
    """Whether a file of this name may be the manifest of a dataset, and not one that is hidden or a list of files."""
    return name.endswith(".json") and not name.startswith(".") and not name.endswith(skipped_name(""))


def skipped_name(base: str) -> str:
    """The list of skipped files."""
    return f"{base}.skipped.json"


def file_generation(name: str, stem: str) -> int | None:
    """The generation of a file that is named as one of the dataset `stem`; None for other names, the manifest's too."""
    if not name.startswith(stem):
        return None
    rest = name[len(stem) :]
    marked = _IN_GENERATION.match(rest)
    if marked is not None:
        rest = rest[marked.end() :]
    if not re.fullmatch(f"{_SHARD}|{_OTHER}", rest):
        return None
    return int(marked[1]) if marked else 1


def in_generation(name: str, stem: str, generation: int) -> str:
    """The name of a file of the dataset `stem` in another generation."""
    rest = name.removeprefix(stem)
    marked = _IN_GENERATION.match(rest)
    if rest == name:
        rest = f"-{name}"  # a shard from another writer
    return base_of(stem, generation) + (rest[marked.end() :] if marked else rest)


def is_shard_of(name: str, stem: str) -> bool:
    """Whether this is the name of a shard of the dataset `stem`, of any generation."""
    return file_generation(name, stem) is not None and re.search(f"{_SHARD}$", name) is not None


def numbered_stem(name: str) -> str | None:
    """The part before the number in a shard's name, from any writer; None for a name without a number."""
    match = _NUMBERED.fullmatch(name)
    return None if match is None else match["stem"]


def stem_of_shard(name: str) -> str:
    """The beginning of a shard's name: `train` of `train-000000.tar`, `cars` of `cars.tar`.

    `train` too of `train.tfrecord-00000-of-00010` and `train-00000-of-00010`, as TensorFlow's tools name them.
    """
    return numbered_stem(name) or re.sub(f"{_ENDING}$", "", name)


def datasets_in(names: Iterable[str]) -> list[str]:
    """The datasets in a folder with these names, sorted: those with a manifest and a shard that is named like one of
    it. Other JSON files are not datasets."""
    there = sorted(names)
    stems = {numbered_stem(name) for name in there}
    found = []
    for name in there:
        stem = name.removesuffix(".json")
        if stem != name and (stem in stems or _begins(there, f"{stem}-")):
            found.append(stem)
    return found


def _begins(names: list[str], prefix: str) -> bool:
    """Whether any of some sorted names begins with `prefix`."""
    at = bisect_left(names, prefix)
    return at < len(names) and names[at].startswith(prefix)


def files_of_stem(names: Iterable[str], stem: str) -> list[str]:
    """Those of a folder's names that are named as files of the dataset `stem` of any generation, sorted.

    Excludes those of another dataset that is itself called `STEM-g2`, which has its own manifest or work folder.
    """
    there = set(names)
    found = []
    for name in sorted(there):
        generation = file_generation(name, stem)
        if generation is not None and not (generation > 1 and is_taken(stem, generation, there)):
            found.append(name)
    return found


def is_taken(stem: str, generation: int, there: set[str]) -> bool:
    """Whether another dataset in the folder has the name with which files of this generation begin."""
    base = base_of(stem, generation)
    return not there.isdisjoint((manifest_name(base), work_name(base), aside_name(base), marker_name(base)))


def generation_of(names: Iterable[str], stem: str) -> int:
    """The generation of a dataset with files of these names: the highest; 1 if they have none."""
    return max((file_generation(name, stem) or 1 for name in names), default=1)


def skipped_beside(names: Iterable[str], stem: str) -> str:
    """The list of skipped files of the dataset that has these files."""
    return skipped_name(base_of(stem, generation_of(names, stem)))


def next_generation(current: int, stem: str, there: Iterable[str]) -> int:
    """The number for what replaces a dataset of generation `current`. there: the other names in its folder."""
    taken, number = set(there), current + 1
    while is_taken(stem, number, taken):
        number += 1
    return number


def without_generation(base: str) -> tuple[str, int] | None:
    """`("train", 2)` for `train-g2`; None for a name without a generation."""
    found = _GENERATION.fullmatch(base)
    return None if found is None or found["number"] == "1" else (found["stem"], int(found["number"]))


def stems_of(base: str) -> tuple[str, ...]:
    """The datasets to which files beginning with `base` may belong: the one with that name, or the one whose generation
    it is."""
    found = without_generation(base)
    return (base,) if found is None else (base, found[0])


_VERSION = re.compile(r"(?P<stem>.+?)(?:-g[1-9]\d{0,8})?\.v[1-9]\d{0,8}")


def without_version(base: str) -> str:
    """`train` for `train.v3` and `train-g2.v3`, as the manifests of older versions are called; other names as they
    are."""
    found = _VERSION.fullmatch(base)
    return base if found is None else found["stem"]


def without_versions(names: Iterable[str]) -> list[str]:
    """Those of a folder's names that are not manifests of older versions of a dataset in it, sorted."""
    there = sorted(names)
    known = set(there)

    def is_version(name: str) -> bool:
        base = name.removesuffix(".json")
        stem = base if base == name else without_version(base)
        return stem != base and manifest_name(stem) in known and not _begins(there, f"{base}-")

    return [name for name in there if not is_version(name)]


SPLIT_NAMES = frozenset(
    ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation", "holdout")
)


_WORDS = "|".join(sorted({*SPLIT_NAMES, "trainval"}, key=lambda word: (-len(word), word)))


_FILLERS = "data|sets?|images?|imgs?|pictures|photos|files|folder|split|[^a-z]"  # each name splits in one way only


_PLAIN = re.compile(f"(?:{_FILLERS})*(?:{_WORDS})(?:{_FILLERS})*")


_WORD = re.compile(f"(?<![a-z])(?:{_WORDS})(?![a-z])")


def split_names_of(names: Collection[str]) -> list[str]:
    """Those of some names (of folders, or of datasets in one folder) that are names of splits, in order.

    A name counts, in upper or lower case, if it is one of SPLIT_NAMES surrounded only by numbers and words such as
    `set`, `data` and `images`, or if it differs from another of the names only in the split's word.

    >>> split_names_of(["training_set", "seg_test", "seg_train", "val2017", "annotations"])
    ['training_set', 'seg_test', 'seg_train', 'val2017']
    """
    alike: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for name in names:
        for frame in _frames(name):
            alike[frame].add(name)
    return [
        name
        for name in names
        if _PLAIN.fullmatch(name.lower()) or any(len(alike[frame]) > 1 for frame in _frames(name))
    ]


def are_splits(names: Collection[str]) -> bool:
    """Whether all of some names, and at least one, are names of splits."""
    return len(names) > 0 and len(split_names_of(names)) == len(names)


def _frames(name: str) -> list[tuple[str, str]]:
    """The parts before and after each word of a name that names a split."""
    spaced = re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return [(spaced[: found.start()], spaced[found.end() :]) for found in _WORD.finditer(spaced)]
