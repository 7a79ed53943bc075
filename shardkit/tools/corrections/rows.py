"""Find the samples that a list of corrections names, with the labels that they have now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import printable
from shardkit.reading.blocks.catalog import IndexCatalog
from shardkit.shards.corrections.overlay import Overlay
from shardkit.shards.corrections.read import corrected_index_files
from shardkit.shards.index import as_numpy
from shardkit.shards.objects import Objects
from shardkit.tools.corrections.place import Base

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class NamedRows:
    """The samples with some names. which: the number of each one's name. places: shard << 32 | row as packed, rising.
    labels: the class number that each has now, -1 for none (int64, n). keys: object (n)."""

    which: Numbers
    places: Numbers
    labels: Numbers
    keys: NDArray[np.object_]
    gone: NDArray[np.bool_]
    """Whether each is deleted already (bool, n)."""

    def pick(self, chosen: NDArray[np.bool_]) -> NamedRows:
        """Some of them."""
        return NamedRows(
            self.which[chosen], self.places[chosen], self.labels[chosen], self.keys[chosen], self.gone[chosen]
        )


def find_rows(base: Base, by: str, names: Sequence[str]) -> NamedRows:
    """The samples with these keys or paths (as in the index), which must be distinct. by: "key" or "path"."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array(names, pa.string())
    found, which, labels, keys, first = [], [], [], [np.empty(0, object)], 0
    columns = list(dict.fromkeys((by, "key", "label")))
    for index in corrected_index_files(Objects(base.remote), base.place, base.manifest, None):
        for table in index.tables(columns):
            column = table[by]
            column = column.cast(pa.string()) if column.type != pa.string() else column
            at = as_numpy(pc.index_in(column, value_set=wanted))
            hits = np.flatnonzero(at >= 0)
            found.append(hits + first)
            which.append(at[hits].astype(np.int64))
            labels.append(as_numpy(table["label"])[hits].astype(np.int64))
            keys.append(np.array([*table["key"].take(pa.array(hits)).to_pylist(), None], object)[:-1])
            first += len(table)
    none = [np.zeros(0, np.int64)]
    rows = np.concatenate(none + found)
    firsts = np.concatenate([[0], np.cumsum([shard.samples for shard in base.manifest.shards])])
    shards = np.searchsorted(firsts, rows, side="right") - 1
    places = shards << 32 | (rows - firsts[shards])
    return _as_corrected(
        base.overlay, np.concatenate(none + which), places, np.concatenate(none + labels), np.concatenate(keys)
    )


def _as_corrected(
    overlay: Overlay, which: Numbers, places: Numbers, labels: Numbers, keys: NDArray[np.object_]
) -> NamedRows:
    _, at, there = np.intersect1d(places, overlay.places, assume_unique=True, return_indices=True)
    gone = np.zeros(len(places), np.bool_)
    gone[at] = overlay.deleted[there]
    new = overlay.labels[there]
    labels[at[new >= 0]] = new[new >= 0]
    return NamedRows(which, places, labels, keys, gone)


def faults_of(found: NamedRows, names: Sequence[str], what: str, *, deleted: bool = False) -> list[str]:
    """What is wrong with names of which each has to be that of one sample. what: "key" or "path". deleted: whether it
    may be deleted already."""
    hits = np.bincount(found.which, minlength=len(names))
    already = set() if deleted else set(found.which[found.gone].tolist())
    unknown = [names[at] for at in np.flatnonzero(hits == 0).tolist()]
    several = [names[at] for at in np.flatnonzero(hits > 1).tolist()]
    gone = [names[at] for at in sorted(already) if hits[at] == 1]
    return [
        *told(unknown, f"no sample has the {what}"),
        *told(several, f"several samples have the {what}"),
        *told(gone, f"a deleted sample has the {what}"),
    ]


def twice_in(names: Sequence[str], what: str) -> list[str]:
    """What is wrong with a list of names that has some of them twice."""
    return told([name for name, times in Counter(names).items() if times > 1], f"the list repeats the {what}")


SHOWN = 5


def told(names: Sequence[object], fact: str) -> list[str]:
    """A fact about some names, the first few of them shown; nothing if there are none."""
    if not names:
        return []
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return [f"{fact} {', '.join(map(quoted, names[:SHOWN]))}{more}"]


def quoted(name: object) -> str:
    """A name in quotes, with its backslashes as they are; a number without."""
    return f"'{printable(name)}'" if isinstance(name, str) else repr(name)


def targets_of(base: Base, places: Numbers) -> list[bytes | None]:
    """The label fields (`cls.json`) that samples have now, read from their shards. places: none that is deleted."""
    catalog = IndexCatalog(base.manifest, base.place, remote=base.remote)
    firsts = np.concatenate([[0], np.cumsum([shard.samples for shard in base.manifest.shards])])
    rows = firsts[places >> 32] + (places & 0xFFFFFFFF)
    gone = base.overlay.places[base.overlay.deleted]
    gone = firsts[gone >> 32] + (gone & 0xFFFFFFFF)
    block = catalog.block(rows - np.searchsorted(gone, rows))
    return [block.target(number) for number in range(len(places))]
