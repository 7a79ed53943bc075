"""Split a source while packing: which samples are for training, which for validation, and so on.

A sample's split depends only on its key, the seed and the fractions: BLAKE2b of the key gives a number in [0, 1), and
the cumulative fractions map it to a split. So a file never changes its split when others are added or removed. The
price is that a split has its fraction of each class only in expectation: of n files it gets n·f ± 2·√(n·f·(1-f)) (19
times out of 20). With groups, whole groups are assigned, and no group is divided: the files of a group have the text
of `group_by` in the place of their keys, and files that are to be together go where one of them would go alone. That
one is drawn by its number alone, evenly, so that it often stays the same when files are added to the group.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit.errors import SourceError, UsageError, printable
from shardkit.rng import bits, stream_key
from shardkit.sample import fs_text, path_of_text, text_of_path
from shardkit.sources.groups import Grouped
from shardkit.sources.keys import key_of_file
from shardkit.sources.left_out import LeftOut
from shardkit.sources.scratch import pieces, release, scratch
from shardkit.sources.source import Source
from shardkit.sources.subset import grouped_at, rows_where, source_at

_log = logging.getLogger(__name__)

_CURE = "give names with fractions that add up to 1, such as train=0.8,validation=0.1,test=0.1"
_SHOWN = 5
_DRAW = stream_key("pack --group-near-duplicates")

_PIECE = 1 << 16
"""Paths that are Python objects at once."""

Pairs = NDArray[np.int64]
"""Rows of a source that belong into one split, shape (n, 2)."""


class Splitting(msgspec.Struct, frozen=True):
    """The splits by name with their fractions, in the order given. group_by: a regular expression, or "" for none.
    near_duplicates: whether images that look alike are kept in one split.

    Raises UsageError for fractions that do not add up to 1, invalid file names, and an invalid regular expression.
    """

    parts: tuple[tuple[str, float], ...]
    seed: int
    group_by: str = ""
    near_duplicates: bool = False

    def __post_init__(self) -> None:
        names = [name for name, _ in self.parts]
        for name, share in self.parts:
            if not name or name.startswith(".") or set(name) & set("/\\=,") or not name.isprintable():
                raise UsageError("split", f"{name!r} can't be the name of a split", _CURE)
            if names.count(name) > 1:
                raise UsageError("split", f"{name} is named twice", "name each split once")
            if not 0 < share <= 1:
                raise UsageError("split", f"the fraction of {name} is {share:g}, which is not between 0 and 1", _CURE)
        total = math.fsum(share for _, share in self.parts)
        if abs(total - 1) > 1e-6:
            raise UsageError("split", f"the fractions add up to {total:.6g}", _CURE)
        try:
            re.compile(self.group_by)
        except re.error as exc:
            fact = f"{self.group_by!r} is not a regular expression ({exc})"
            raise UsageError("group_by", fact, r"give one such as 'patient(\d+)'") from exc

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(name for name, _ in self.parts)


def splitting_of(
    split: Mapping[str, float] | str | None, group_by: str | None, seed: int, near_duplicates: bool = False
) -> Splitting | None:
    """Parse a user's splitting, given as `{"train": 0.8, …}` or `train=0.8,…`; None if `split` is None."""
    if split is None:
        if group_by is not None:
            raise UsageError("group_by", "there are no splits to keep groups together in", "add `split`")
        if near_duplicates:
            fact = "there are no splits to keep near-duplicates together in"
            raise UsageError("group_near_duplicates", fact, "add `split`")
        return None
    if group_by == "":
        raise UsageError("group_by", "the pattern is empty", r"give one such as 'patient(\d+)'")
    pairs = [_pair(text) for text in split.split(",")] if isinstance(split, str) else list(split.items())
    try:
        parts = tuple((str(name), float(share)) for name, share in pairs)
    except (TypeError, ValueError) as exc:
        raise UsageError("split", f"{exc}", _CURE) from exc
    return Splitting(parts, seed, group_by or "", near_duplicates)


def _pair(text: str) -> tuple[str, float]:
    name, equals, share = (part.strip() for part in text.partition("="))
    try:
        if equals:
            return name, float(share)
    except ValueError as exc:
        raise UsageError("split", f"{text.strip()!r} is not NAME=FRACTION", _CURE) from exc
    raise UsageError("split", f"{text.strip()!r} is not NAME=FRACTION", _CURE)


class _Dealer:
    """Assign paths to splits."""

    def __init__(self, splitting: Splitting, root: bytes) -> None:
        self.root = root
        self.hash = blake2b(digest_size=8, key=stream_key("pack --split", splitting.seed).to_bytes(8, "little"))
        self.ends = np.cumsum([share for _, share in splitting.parts])[:-1]
        self.pattern = re.compile(splitting.group_by) if splitting.group_by else None

    def parts(self, paths: Sequence[bytes]) -> NDArray[np.int16]:
        """The index of the split of each path (int16). Raises as `chances`."""
        return self.dealt(self.chances(paths))

    def chances(self, paths: Sequence[bytes]) -> NDArray[np.uint64]:
        """The number of each path. SourceError for a path in which the pattern finds no group."""
        return np.frombuffer(b"".join(map(self._digest, paths)), "<u8").astype(np.uint64)

    def dealt(self, chances: NDArray[np.uint64]) -> NDArray[np.int16]:
        """The index of the split of each of these numbers (int16)."""
        uniform = (chances >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return np.searchsorted(self.ends, uniform, side="right").astype(np.int16)

    def _digest(self, path: bytes) -> bytes:
        """The 8-byte digest of the sample's key, or of its group."""
        digest = self.hash.copy()  # half the cost of a new one
        digest.update((key_of_file(path) if self.pattern is None else self._group(path, self.pattern)).encode())
        return digest.digest()

    def _group(self, path: bytes, pattern: re.Pattern[str]) -> str:
        text = text_of_path(path)
        found = pattern.search(text)
        group = None if found is None else found[1 if pattern.groups else 0]
        if not group:
            fact = f"the pattern {pattern.pattern!r} of `group_by` finds no group in {text!r}"
            cure = "give a pattern that matches every path, or move the file out of the source"
            raise SourceError(fs_text(os.path.join(self.root, path)), fact, cure)
        return group


def parts_of(source: Source, splitting: Splitting, together: Pairs | None = None) -> NDArray[np.int16]:
    """The index in `splitting.parts` for each row of a source (int16). together: rows that belong into one split."""
    dealer = _Dealer(splitting, source.root)
    parts = scratch(len(source), np.int16)
    chances = np.empty(0 if together is None else len(source), np.uint64)
    for start, end in pieces(len(source), _PIECE):
        found = dealer.chances(source.paths.take(np.arange(start, end)))
        if together is None:
            parts[start:end] = dealer.dealt(found)
        else:
            chances[start:end] = found
        release(source.paths.blob, source.paths.offsets)
    return parts if together is None else dealer.dealt(_with_one_of_each(chances, together))


def _with_one_of_each(chances: NDArray[np.uint64], together: Pairs) -> NDArray[np.uint64]:
    """The numbers, of which those of rows that belong together, directly or not, are all the same one of theirs."""
    from shardkit.images.quality.duplicates import joined

    values, places = np.unique(chances, return_inverse=True)  # rows of one group share a number
    places = places.reshape(-1)
    draws = bits(_DRAW, values)  # the least of the numbers themselves would favour the first split
    for group in joined(places[together]):
        some = np.array(group)
        values[some] = values[some[np.argmin(draws[some])]]
    return values[places]


def split_source(source: Source, splitting: Splitting, together: Pairs | None = None) -> dict[str, Source]:
    """A source for each split, all with the classes and keys of the whole; the first one has its `left_out`.

    A class without a sample in a split is logged. SourceError for a split without samples or a path without a group.
    """
    parts = parts_of(source, splitting, together)
    found = {}
    for number, name in enumerate(splitting.names):
        found[name] = source_at(source, rows_where(parts, number), left_out=LeftOut() if number else None)
    _look_at(found, splitting, source)
    return found


def split_grouped(grouped: Grouped, splitting: Splitting, together: Pairs | None = None) -> dict[str, Grouped]:
    """As `split_source`, for samples of several files each; a sample's key is that of its main file."""
    parts = parts_of(grouped.samples, splitting, together)
    dealer = _Dealer(splitting, grouped.samples.root)
    homes = dealer.parts([path_of_text(path) for path, _ in grouped.incomplete]).tolist()
    found = {}
    for number, name in enumerate(splitting.names):
        incomplete = tuple(each for each, home in zip(grouped.incomplete, homes, strict=True) if home == number)
        rows = rows_where(parts, number)
        found[name] = grouped_at(grouped, rows, incomplete, left_out=LeftOut() if number else None)
    _look_at({name: each.samples for name, each in found.items()}, splitting, grouped.samples)
    return found


def _look_at(found: Mapping[str, Source], splitting: Splitting, whole: Source) -> None:
    what = "groups" if splitting.group_by or splitting.near_duplicates else "files"
    there = whole.counts > 0
    for name, source in found.items():
        if not len(source):
            fact = f"the split {name} gets none of the {len(whole)} files"
            cure = f"give it a larger fraction, another `seed`, or a source of more {what}"
            raise SourceError(fs_text(whole.root), fact, cure)
        empty = [whole.classes[label] for label in np.flatnonzero(there & (source.counts == 0)).tolist()]
        if empty:
            shown = ", ".join(map(printable, empty[:_SHOWN])) + (" …" if len(empty) > _SHOWN else "")
            _log.warning(
                "split %s: no sample of %d of the classes (%s): they have few %s", name, len(empty), shown, what
            )
