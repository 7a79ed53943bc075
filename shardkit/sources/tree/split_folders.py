"""Tell a tree of splits (train/cat, train/dog, test/cat …) from a tree of classes."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence

from shardkit.errors import SourceError
from shardkit.events import Progress, ProgressFn
from shardkit.sample import DEFAULT_EXTENSIONS, fs_text
from shardkit.shards.names import split_names_of
from shardkit.sources.left_out import LeftOutCounter
from shardkit.sources.tree.walk import ClassWalk, Walk, check_root

_log = logging.getLogger(__name__)


def find_splits(
    root: str | bytes | os.PathLike[str], *, extensions: Collection[str] = DEFAULT_EXTENSIONS
) -> list[str] | None:
    """The names of the split folders of a tree of splits, sorted; None for a tree of classes.

    A folder is a split if it has the name of one (`split_names_of`), and contains folders but no image directly.

    - All visible folders are splits: a tree of splits. An empty folder with such a name counts as one.
    - None is: a tree of classes, and a class may well be named `test`.
    - One is, among folders with other names: a tree of classes, with a warning.
    - Some are, and the rest would be packed wrongly either way (two splits beside a folder `annotations`, or `train`
      with class folders beside a `test` full of images): SourceError, which names the rest.
    """
    place = os.fsdecode(root)
    check_root(place)
    return splits_of(Walk(place, extensions, LeftOutCounter()))


def splits_of(walk: ClassWalk) -> list[str] | None:
    """As `find_splits`, for anything that can be walked."""
    place = walk.root
    names = walk.class_folders()
    named = split_names_of(names)
    kinds = {name: _kind(walk, name) for name in named}
    splits = [name for name in named if kinds[name] == "split"]
    rest = [name for name in names if kinds.get(name) not in ("split", "empty")]
    if not splits:
        return None
    if not rest:
        return named
    if len(splits) == 1 and not any(name in kinds for name in rest):
        _log.warning("%s: taken as a class, since folders beside it are not splits", _at(place, splits[0]))
        return None
    raise _mixed(place, splits, rest)


def splits_of_any_folder(walk: ClassWalk) -> list[str] | None:
    """As `splits_of`, where folders are not classes: splits may hold images directly.

    SourceError where some of several folders are splits, and others, or images beside them, are not.
    """
    place, names = walk.root, walk.class_folders()
    splits = split_names_of(names)
    rest = [name for name in names if name not in splits]
    rest += ["images"] if walk.look("")[0] else []
    if not rest or not splits:
        return splits or None
    if len(splits) == 1:
        _log.warning("%s: not taken as a split, since what is beside it is not one", _at(place, splits[0]))
        return None
    raise _mixed(place, splits, rest)


def inside_split(progress: ProgressFn, done: int, bytes_done: int) -> ProgressFn:
    """A ProgressFn that adds the counts of earlier splits."""
    return lambda at: progress(Progress(at.step, at.done + done, at.total, at.bytes_done + bytes_done, at.bytes_total))


def _kind(walk: ClassWalk, name: str) -> str:
    """ "class" (contains an image), "split" (contains only folders) or "empty"."""
    images, folders = walk.look(name)
    return "class" if images else "split" if folders else "empty"


def _mixed(place: str, splits: Sequence[str], rest: Sequence[str]) -> SourceError:
    some, others = (", ".join(fs_text(name) for name in names[:5]) for names in (splits, rest))
    fact = f"{some} look like splits, but {others} beside them do not"
    return SourceError(fs_text(place), fact, f"pack each split separately, such as {_at(place, splits[0])}")


def _at(place: str, name: str) -> str:
    return fs_text(os.path.join(place, name))
