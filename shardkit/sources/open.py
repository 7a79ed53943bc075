"""Open a user's SOURCE: a tree, an archive of one, a list, images with metadata, or a bucket. One class for each kind.

To add a kind of source, write such a class and add a line to `open_source`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
from msgspec.structs import replace

from shardkit.errors import ManifestError, SourceError, UsageError, printable
from shardkit.events import ProgressFn, no_progress
from shardkit.location import Location, locate
from shardkit.sample import fs_text
from shardkit.shards.manifest import decode_manifest
from shardkit.shards.names import numbered_stem
from shardkit.sources.archives.kinds import ARCHIVES, ending_of, kind_of
from shardkit.sources.archives.members import Members
from shardkit.sources.arrays.kinds import ARRAYS, ending_of_arrays
from shardkit.sources.labels.scan import scan_labelled, scan_trees
from shardkit.sources.left_out import LeftOutCounter
from shardkit.sources.listing import FileListing, Rows, inside_top_folder, listed_splits, scan_listing
from shardkit.sources.lists.imagefolder import image_folders, open_image_folder
from shardkit.sources.lists.in_memory import NAME, TableInMemory, open_table
from shardkit.sources.lists.tables import LIST_SUFFIXES, is_list
from shardkit.sources.options import SourceOptions, TableColumns
from shardkit.sources.origin import InArchive, InStore
from shardkit.sources.source import Source, find_splits, split_walks
from shardkit.sources.tree.split_folders import splits_of_any_folder
from shardkit.sources.tree.walk import Walk, check_root

if TYPE_CHECKING:
    from shardkit.sources.bucket import Bucket
    from shardkit.sources.lists.rows import Listed

_log = logging.getLogger(__name__)


class Opened(Protocol):
    """An opened source, not yet scanned."""

    @property
    def splits(self) -> Sequence[str] | None:
        """The names of its splits; None if it has none."""
        ...

    def scan(self, classes: Sequence[str] | None, progress: ProgressFn) -> Mapping[str, Source]:
        """Scan the files: split -> its source, with "" as the only split if there are none."""
        ...


def dataset_name(source: str | os.PathLike[str]) -> str:
    """The default dataset name for a source: the last part of the path, without the ending of an archive or list.

    >>> dataset_name("data/photos.tar.gz")
    'photos'
    """
    location = locate(source)
    path = os.path.abspath(location.path) if location.is_local else location.path.rstrip("/")
    name, ending = os.path.basename(path), ending_of(path)
    if location.is_local and os.path.isdir(path):
        return name
    if not ending and (is_list(path) or ending_of_arrays(path)):
        ending = os.path.splitext(name)[1]
    return name[: len(name) - len(ending)] or name


def named_path(source: str | os.PathLike[str] | TableInMemory) -> str:
    """A path whose last part is the dataset's name: the source folder itself, or for a file, a path below the file,
    so that no destination can lie in it by mistake."""
    if isinstance(source, TableInMemory):
        return os.path.join(os.devnull, NAME)
    location = locate(source)
    if location.is_local and os.path.isdir(location.path):
        return location.path
    return os.path.join(location.path, dataset_name(source))


def open_source(
    source: str | os.PathLike[str] | TableInMemory,
    options: SourceOptions,
    listed: TableColumns,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressFn = no_progress,
) -> Opened:
    """Open a source: find out its kind and its splits. Raises UsageError, SourceError."""
    return _Labelled(_opened(source, options, listed, storage_options, progress), options)


def with_text(opened: Opened, source: str | os.PathLike[str] | TableInMemory, listed: TableColumns,
              columns: Sequence[str]) -> Opened:  # fmt: skip
    """A source that was opened with the same arguments, some columns of which are text as written in its list: 007 is
    not 7. One that is no written list stays as it is. Raises SourceError."""
    found = opened.opened if isinstance(opened, _Labelled) else None
    if not columns or not isinstance(found, _Lists) or isinstance(source, TableInMemory):
        return opened
    lists = _lists(locate(source).path, listed, found.options, columns)
    return opened if lists is None else _Labelled(_Lists(lists, found.options), found.options)


def _opened(
    source: str | os.PathLike[str] | TableInMemory,
    options: SourceOptions,
    listed: TableColumns,
    storage_options: Mapping[str, Any] | None,
    progress: ProgressFn,
) -> Opened:
    if isinstance(source, TableInMemory):
        return _Lists({"": open_table(source, listed)}, options)
    location = locate(source)
    if not location.is_local:
        _require_no_columns(str(location), listed)
        return _InBucket(location, options, dict(storage_options or {}), progress)
    path = location.path
    lists = _lists(path, listed, options)
    if lists is not None:
        return _Lists(lists, options)
    is_folder = os.path.isdir(path)
    if not is_folder and ending_of_arrays(path):
        from shardkit.sources.arrays.encoded import Arrays

        _require_no_columns(fs_text(path), listed)
        _require_no_fields(fs_text(path), options)
        _require_own_labels(fs_text(path), options)
        return Arrays(path, in_order=not options.shuffle)
    if os.path.isfile(path) and (kind := kind_of(path)):
        _require_no_columns(fs_text(path), listed)
        return _Archived(path, kind, options, progress)
    if not is_folder:
        _require_no_dataset(path)
        _require_no_file(path)
    _require_no_columns(fs_text(path), listed)
    return _Tree(path, options)


def _lists(
    path: str, listed: TableColumns, options: SourceOptions, columns: Sequence[str] = ()
) -> Mapping[str, Listed] | None:
    """The list at a path, or the metadata files of the splits of a folder; None if it is something else."""
    if os.path.isdir(path):
        files = image_folders(path)
        if files is None:
            return None
        from shardkit.sources.lists.typed import texts_of

        found = {split: open_image_folder(file, listed, options.extensions, columns) for split, file in files.items()}
        texts = sorted({name for name in texts_of(found.values()) if name not in columns})
        return _lists(path, listed, options, [*columns, *texts]) if texts else found
    if not os.path.isfile(path) or not is_list(path):
        return None
    from shardkit.sources.lists.early import taken
    from shardkit.sources.lists.rows import open_list

    return {"": (None if columns else taken(path, listed)) or open_list(path, listed, columns=columns)}


def _require_no_columns(place: str, listed: TableColumns) -> None:
    if listed != TableColumns():
        fact = "columns are named, but this source is not a list"
        raise UsageError(place, fact, f"name a list ({', '.join(LIST_SUFFIXES)}), or omit these options")


def _require_no_fields(place: str, options: SourceOptions) -> None:
    if options.fields:
        raise UsageError(place, "given with `fields`, which is for the files of a tree", "omit `fields`")


def _require_own_labels(place: str, options: SourceOptions) -> None:
    """UsageError for options that find the labels of a tree's files."""
    if options.labels.any_folder:
        name = "label_from" if options.labels.label_from is not None else "no_labels"
        fact = f"given with `{name}`, which is for trees and archives; a list or arrays have labels of their own"
        raise UsageError(place, fact, 'omit it (a list without labels: `label_column=""`)')


def _require_no_dataset(path: str) -> None:
    """SourceError for shards, which are already packed."""
    import glob

    from shardkit.shards.find.pattern import is_ambiguous

    if path.endswith(".json") and os.path.isfile(path) and not _is_manifest(path):
        fact = "this is a JSON file, not a list of files"
        raise SourceError(fs_text(path), fact, "write a row for each file, as JSON lines (.jsonl), CSV or Parquet")
    manifest = path if path.endswith(".json") else f"{path}.json"
    if os.path.isfile(manifest) or any(glob.glob(f"{glob.escape(path)}-*{ending}") for ending in (".tar", ".tfrecord")):
        raise _packed_already(path)
    if os.path.isfile(path) and path.endswith(".tfrecord"):
        raise _packed_already(path)
    if is_ambiguous(path) and not os.path.exists(path):
        _refuse_pattern(path)


def _refuse_pattern(path: str) -> None:
    """SourceError for a pattern, which may be meant for shards or for the files of a folder."""
    import glob

    from shardkit.shards.find.pattern import is_ambiguous, is_numbered

    found = glob.glob(path)
    if is_numbered(os.path.basename(path)) or any(numbered_stem(os.path.basename(each)) for each in found):
        raise _packed_already(path)
    parts = path.split("/")
    first = next(number for number, part in enumerate(parts) if is_ambiguous(part))
    folder = "/".join(parts[:first]) or ("/" if path.startswith("/") else ".")
    meant = fs_text(found[0] if len(found) == 1 else folder)
    fact = "this is a pattern, but `source` is one folder, archive or list"
    raise SourceError(fs_text(path), fact, f"name it without the pattern: {meant}")


def _is_manifest(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as exc:
        raise SourceError(fs_text(path), f"can't be read ({exc.strerror or exc})", "check its permissions") from exc
    try:
        decode_manifest(data, place=fs_text(path))
    except ManifestError:
        return False
    return True


def _require_no_file(path: str) -> None:
    if os.path.isfile(path):
        kinds = (
            f"an archive ({', '.join(ARCHIVES)}), a list ({', '.join(LIST_SUFFIXES)}), or arrays ({', '.join(ARRAYS)})"
        )
        fact = f"this file is not {kinds}"
        raise SourceError(fs_text(path), fact, "give a folder of class folders, or one of these")


def _packed_already(path: str) -> SourceError:
    fact = "this is a dataset of shards, which is already packed"
    return SourceError(fs_text(path), fact, f"to write it again, run 'shardkit convert {fs_text(path)} DEST'")


class _Labelled(msgspec.Struct, frozen=True):
    """A source of any kind, with the labels that the options ask for."""

    opened: Opened
    options: SourceOptions

    @property
    def splits(self) -> Sequence[str] | None:
        """The names of its splits; None if it has none."""
        return self.opened.splits

    def scan(self, classes: Sequence[str] | None, progress: ProgressFn) -> Mapping[str, Source]:
        """Scan the files; see `Opened.scan`."""
        return scan_labelled(self.opened.scan, self.options, classes, progress)


class _Tree:
    """A tree of class folders, or of splits."""

    def __init__(self, root: str, options: SourceOptions) -> None:
        self.root, self.options = root, options
        if options.labels.any_folder:
            check_root(root)
            self.splits = splits_of_any_folder(self._walk(root))
        else:
            self.splits = find_splits(root, extensions=options.extensions)

    def scan(self, classes: Sequence[str] | None, progress: ProgressFn) -> Mapping[str, Source]:
        """Scan the files; see `Opened.scan`."""
        check_root(self.root)
        if self.splits is None:
            walks = {"": self._walk(self.root)}
        else:
            walks = split_walks(self.root, self.splits, extensions=self.options.extensions)
        return scan_trees(walks, self.options, classes, progress)

    def _walk(self, root: str) -> Walk:
        return Walk(root, self.options.extensions, LeftOutCounter())


class _Archived:
    """An archive of a tree."""

    def __init__(self, path: str, kind: str, options: SourceOptions, progress: ProgressFn) -> None:
        self.path, self.kind, self.options = path, kind, options
        self.members = read_members(path, kind, skip_bad=options.on_error == "skip", progress=progress)
        self.listing = FileListing(fs_text(path), self.members.names, self.members.sizes, self.members.folders)
        if _is_shard(self.members):
            raise _packed_already(path)
        flat = options.labels.any_folder
        self.below = inside_top_folder(self.listing, options.extensions, dataset_name(path), any_folder=flat)
        self.splits = listed_splits(self.listing, self.below, options.extensions, any_folder=flat)

    def _say_where(self, classes: Sequence[str]) -> None:
        """Log which folder is taken as the tree: as a warning if that folder could also be a class."""
        top, name = fs_text(self.below), dataset_name(self.path).lower()
        if (
            self.splits is not None
            or self.options.labels.any_folder
            or any(part.startswith(name) or name.startswith(part) for part in top.lower().split("/"))
        ):
            _log.info("%s: the tree is in its folder %s", fs_text(self.path), printable(top))
            return
        text = "%s: its folder %s is taken as the tree, and the folders in it as the classes (%s); if %s is a class, "
        shown = ", ".join(map(printable, classes[:5])) + (" …" if len(classes) > 5 else "")
        _log.warning(
            text + "unpack the archive and pack the tree", fs_text(self.path), printable(top), shown, printable(top)
        )

    def scan(self, classes: Sequence[str] | None, progress: ProgressFn) -> Mapping[str, Source]:
        """Scan the members; see `Opened.scan`."""
        found = scan_listing(
            self.listing, self.below, self.splits, extensions=self.options.extensions,
            scan=partial(scan_trees, options=self.options, classes=classes, progress=progress),
            origin_of=lambda rows: InArchive(self.path, self.kind, self.members, rows),
        )  # fmt: skip
        if self.below:
            self._say_where(next(iter(found.values())).classes)
        first = next(iter(found))  # refused members belong to no split: they are reported with the first
        return found | {first: replace(found[first], incomplete=self.members.refused)}


def read_members(path: str, kind: str, *, skip_bad: bool, progress: ProgressFn = no_progress) -> Members:
    """Read the list of members of an archive. Raises SourceError, MissingExtraError."""
    if kind == "zip":
        from shardkit.sources.archives.zip import read_zip

        return read_zip(path, skip_bad=skip_bad)
    if kind == "7z":
        from shardkit.sources.archives.seven_zip import read_seven

        return read_seven(path, skip_bad=skip_bad)
    from shardkit.sources.archives.tar import read_tar

    return read_tar(path, kind.removeprefix("tar"), skip_bad=skip_bad, progress=progress)  # "tar" is not compressed


def _is_shard(members: Members) -> bool:
    """Whether half of the files are labels: `KEY.cls` beside each image, as in a shard."""
    return 0 < len(members.names) <= 2 * members.names.count_ending(b".cls")


class _Lists:
    """A list, or the metadata files of splits."""

    def __init__(self, lists: Mapping[str, Listed], options: SourceOptions) -> None:
        place = next(iter(lists.values())).place
        _require_no_fields(place, options)
        _require_own_labels(place, options)
        self.lists, self.options = lists, options
        self.splits = None if "" in lists else list(lists)

    def scan(self, classes: Sequence[str] | None, progress: ProgressFn) -> Mapping[str, Source]:
        """Scan the files that the rows name; see `Opened.scan`."""
        from shardkit.sources.lists.rows import scan_lists

        return scan_lists(
            self.lists, classes=classes, extensions=self.options.extensions,
            skip_bad=self.options.on_error == "skip", in_order=not self.options.shuffle, progress=progress,
        )  # fmt: skip


class _InBucket:
    """A tree in a store."""

    def __init__(
        self, folder: Location, options: SourceOptions, storage_options: dict[str, Any], progress: ProgressFn
    ) -> None:
        from shardkit.sources.bucket import read_bucket

        self.options, self.storage_options = options, storage_options
        if ending_of(folder.path) or is_list(folder.path):
            raise SourceError(str(folder), "an archive or a list must be a local file", "copy it to this machine first")
        self.bucket: Bucket = read_bucket(folder, storage_options, progress)
        flat = options.labels.any_folder
        self.splits = listed_splits(self.bucket.listing, "", options.extensions, any_folder=flat)

    def scan(self, classes: Sequence[str] | None, progress: ProgressFn) -> Mapping[str, Source]:
        """Scan the objects; see `Opened.scan`."""
        bucket = self.bucket

        def origin_of(rows: Rows) -> InStore:
            names, versions = bucket.listing.names, bucket.versions
            return InStore(bucket.folder, self.storage_options, names, versions, np.asarray(rows))

        scan = partial(scan_trees, options=self.options, classes=classes, progress=progress)
        return scan_listing(bucket.listing, "", self.splits, extensions=self.options.extensions, scan=scan,
                            origin_of=origin_of)  # fmt: skip
