"""Write a dataset back to files: the original class tree, byte for byte, with the original names.

Everything is written to a new folder beside the target and renamed to it when complete. Links, devices and folders in
an archive are never created; a name that would leave the folder is an error; existing files are never opened or
overwritten.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

import numpy as np

from shardkit.checksums import crc32c
from shardkit.errors import DamagedError, DatasetError, DestinationError, NotFoundError
from shardkit.events import Progress, ProgressFn, no_progress
from shardkit.formats.format import FORMATS, Description, StoredSample
from shardkit.images.header import image_header
from shardkit.options.fields import checked_by
from shardkit.sample import IMAGE_FIELDS, NO_LABEL, field_of, fs_text, label_of, path_of_text, text_of_path
from shardkit.shards.buffers import ShardFile
from shardkit.shards.corrections.overlay import Overlay
from shardkit.shards.find.find import require_near
from shardkit.shards.find.shards import SourceLike
from shardkit.shards.indexing.facts import require_unchanged
from shardkit.shards.manifest import Manifest
from shardkit.shards.objects import require_disk
from shardkit.shards.open import IndexRows, Opened, ShardPlace, open_dataset
from shardkit.shards.scan import ShardBytes, open_shard
from shardkit.sources.keys import key_of_file
from shardkit.storage.access import Remote
from shardkit.storage.files import storage_error, sync_folder, sync_tree, translated
from shardkit.storage.parts import part_of, remove_abandoned_trees
from shardkit.system import BINARY
from shardkit.threads import in_threads, thread_count
from shardkit.tools.settings import UnpackSettings
from shardkit.tools.unpack.metadata import NAME, OF_LIST, Rows, rows_of
from shardkit.tools.unpack.paths import checked_path, path_of_key, relative_path
from shardkit.tools.unpack.wanted import Wanted, wanted

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | BINARY


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Result: the folder, and the number of samples, files and bytes written."""

    folder: str
    samples: int
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _File:
    """A file to write: its path in the target, its bytes in the shard, and their CRC-32C (None: unknown)."""

    key: str
    path: bytes
    start: int
    size: int
    crc32c: int | None = None


@checked_by(UnpackSettings)
def unpack(
    source: SourceLike,
    dest: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    metadata: bool = False,
    workers: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressFn = no_progress,
) -> Unpacked:
    """Write the samples of `source` as files in the new (or empty) folder `dest`.

    A dataset packed from a class tree is written as that tree; an image that was transcoded gets the extension of its
    new format. Other shards are written as CLASS/KEY.FIELD, or KEY.FIELD if the key starts with its class (without
    class names, CLASS is the class number); `cls` itself is not written beside an image. Numbers and lists in TFRecord
    are not files, and are omitted.
    classes, keys: only samples of these classes (names), with these keys (or shell patterns of them).
    metadata: write `metadata.jsonl`, a list of the files with their labels and columns, in the place of the fields
    `json` and `cls.json`. `pack` takes the folder with it, and gives a dataset with the same columns.
    workers: threads (default: one per core). Each image is checked against its CRC-32C if there is an index with one.
    storage_options: credentials and the like for the shards' store. Shards in a store need a manifest or an index; each
    thread holds one as a whole.

    `dest` appears when everything is written; an error leaves nothing behind. Raises DatasetError (DamagedError) for
    damage and for names that can't be files here, DestinationError, StorageError, NotFoundError if no sample matches.
    """
    threads = thread_count(workers)
    opened = open_dataset(source, Remote(storage_options))
    if opened.manifest is None:
        require_near([shard.location for shard in opened.shards])
    if opened.findings:
        first = opened.findings[0]
        raise DatasetError(first.shard, first.fact, first.cure)
    _require_unchanged(opened)
    take = wanted(opened.manifest, classes, keys)
    require_disk("unpack", dest, "give a folder on this machine")
    target = os.path.abspath(os.fsdecode(dest))
    _require_free(target)
    folder, hidden = os.path.dirname(target), f".{os.path.basename(target)}.unpacking"
    part = os.fsdecode(part_of(os.path.join(folder, hidden)))
    made = _missing_folders(folder)
    with translated(part):
        os.makedirs(folder, exist_ok=True)
        remove_abandoned_trees(folder, hidden)
        os.mkdir(part)
    try:
        counts = _write_all(opened, os.fsencode(part), take, metadata, threads, progress)
        if not counts[0] and not take.everything:
            raise NotFoundError(str(opened.place), "no sample matches these classes and keys", "check their names")
        with translated(target):
            sync_tree(part)
            if os.path.isdir(target):
                os.rmdir(target)
            os.rename(part, target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        with contextlib.suppress(OSError):  # another process may be using them by now
            for folder in made:
                os.rmdir(folder)
        raise
    with translated(target):
        for parent in (folder, *map(os.path.dirname, made)):
            sync_folder(parent)
    return Unpacked(fs_text(target), *counts)


def _missing_folders(folder: str) -> list[str]:
    """The folders to create for `folder`, itself first."""
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing


def _require_free(target: str) -> None:
    if not os.path.lexists(target):
        return
    if not os.path.isdir(target) or os.path.islink(target):
        raise DestinationError(fs_text(target), "a file or link exists there", "choose another folder")
    with translated(target):
        if os.listdir(target):
            raise DestinationError(fs_text(target), "the folder is not empty", "choose a new or empty one")


def _write_all(
    opened: Opened, root: bytes, take: Wanted, metadata: bool, threads: int, progress: ProgressFn
) -> tuple[int, int, int]:
    """Return (samples, files, bytes) written to `root`."""
    stop = Event()
    one = partial(_unpack_shard, opened, root, take, metadata, stop)
    lines = list[bytes]()
    samples = files = size = 0
    total = opened.manifest.samples if opened.manifest is not None and opened.whole and take.everything else 0
    try:
        for done in in_threads(one, opened.shards, threads):
            samples, files, size = samples + done[0], files + done[1], size + done[2]
            lines += done[3]
            progress(Progress("unpack", samples, total, size))
    finally:
        stop.set()  # so that no thread continues writing while the folder is removed
    if metadata:
        path, content = root + b"/" + NAME, b"".join(lines)
        with translated(path), open(path, "xb") as file:
            file.write(content)
        files, size = files + 1, size + len(content)
    return samples, files, size


def _unpack_shard(
    opened: Opened, root: bytes, take: Wanted, metadata: bool, stop: Event, shard: ShardPlace
) -> tuple[int, int, int, list[bytes]]:
    """(samples, files, bytes) written, and with metadata the lines of the list."""
    manifest, rows = opened.manifest, shard.rows()
    data = open_shard(shard.location, opened.format, objects=opened.objects)
    if manifest is not None and rows is None:
        place = shard.location if shard.index is None else shard.index[0].place
        raise DatasetError(str(place), "there is no readable index, so the paths are unknown", "run 'shardkit index'")
    if shard.entry is not None and data.file_bytes != shard.entry.bytes:
        fact = f"the shard has {data.file_bytes} bytes, but its manifest says {shard.entry.bytes}"
        raise DamagedError(data.place, fact, _cure(data))
    if manifest is None or rows is None:
        samples = _of_members(data)
    else:
        samples = _of_index(manifest, data, _corrected(manifest, rows, shard.corrections), take)
    folders: set[bytes] = set()
    listed = rows_of(manifest, shard, None if rows is None else rows.keys) if metadata else None
    count = files = size = 0
    for key, label, members in samples:
        if not take(key, label):
            continue
        if stop.is_set():
            break
        if listed is not None:
            members = _without_listed(listed, key, label, members, data)
        for file in members:
            _write(root, file, data, folders)
            size += file.size
        files += len(members)
        count += 1
    return count, files, size, [] if listed is None else listed.lines


def _require_unchanged(opened: Opened) -> None:
    """ManifestError for a shard in a store that was replaced since it was indexed."""
    manifest, shards = opened.manifest, opened.shards
    if manifest is None or not shards or shards[0].location.is_local:
        return
    versions = dict(zip((entry.name for entry in manifest.shards), manifest.shard_versions, strict=True))
    entries = [(shard.location, shard.entry) for shard in shards if shard.entry is not None]
    files = [ShardFile(place, entry.bytes, -1, version=versions[entry.name]) for place, entry in entries]
    require_unchanged(files, opened.objects)


def _without_listed(listed: Rows, key: str, label: int, members: Sequence[_File], data: ShardBytes) -> Sequence[_File]:
    """The files but those whose content goes into the list, to which the sample is added by its first file."""
    stem = members[0].path.rpartition(b".")[0]
    fields = {stem + ending: name for ending, name in OF_LIST.items()}
    inside = {fields[file.path]: file for file in members[1:] if file.path in fields}
    contents = {name: bytes(data.view[file.start : file.start + file.size]) for name, file in inside.items()}
    listed.add(key, members[0].path, label, contents)
    return [members[0], *(file for file in members[1:] if file.path not in fields)]


_Samples = Iterator[tuple[str, int, Sequence[_File]]]


def _corrected(manifest: Manifest, rows: IndexRows, corrections: Overlay | None) -> IndexRows:
    """The rows without deleted samples, with corrected labels; a file in the folder of its class goes below that of its
    new one: `cat/1.jpg` becomes `dog/cat/1.jpg`, since there may be a `dog/1.jpg`."""
    if corrections is None:
        return rows
    names, paths, labels = manifest.class_names, list(rows.paths), rows.numbers["label"].copy()
    for row, label in zip(corrections.rows.tolist(), corrections.labels.tolist(), strict=True):
        if label >= 0:
            folder, slash, _ = paths[row].partition("/")
            if slash and 0 <= labels[row] < len(names) and folder == _folder(names[labels[row]]):
                paths[row] = f"{_folder(names[label])}/{paths[row]}"
            labels[row] = label
    kept = np.ones(len(paths), np.bool_)
    kept[corrections.rows[corrections.deleted]] = False
    left = np.flatnonzero(kept).tolist()
    numbers = {name: (labels if name == "label" else column)[kept] for name, column in rows.numbers.items()}
    return IndexRows([rows.keys[row] for row in left], [paths[row] for row in left], numbers)


def _folder(name: str) -> str:
    return text_of_path(path_of_text(name))


def _of_index(manifest: Manifest, data: ShardBytes, rows: IndexRows, take: Wanted) -> _Samples:
    """(key, label, files) of each sample of an indexed shard; only requested samples are looked at in detail."""
    others = set(manifest.fields) - IMAGE_FIELDS - {"cls"}
    images = set(manifest.fields) & IMAGE_FIELDS
    single = not others and len(images) <= 1  # a sample may have two images
    summed = manifest.has_checksums  # without, a sample is known by its key alone
    names = [] if manifest.plan else manifest.class_names
    number = {
        name: rows.numbers[name].tolist()
        for name in ("label", "offset", "size", "image_offset", "image_size", "crc32c")
    }
    columns = zip(rows.keys, rows.paths, *number.values(), strict=True)
    for key, text, label, offset, size, start, length, crc in columns:
        if not take(key, label):
            continue
        try:
            path = relative_path(text)
            if 0 <= label < len(names) and path.partition(b"/")[0] != path_of_text(names[label]):
                path = checked_path(path_of_text(names[label]) + b"/" + path)
        except ValueError as exc:
            raise DatasetError(data.place, str(exc), _cure(data), offset, key) from exc
        if start >= 0 and images != {_extension_field(path)}:  # it may have been transcoded while packing
            sample = next(data.samples(offset, offset + size), None)
            stored = {} if sample is None else {place: name for name, (place, _) in sample.fields.items()}
            if not _is_of_kind(bytes(data.view[start : start + length]), _extension_field(path)):
                path = _as_stored(path, key, stored.get(start, ""))
        files = [_File(key, path, start, length, crc if summed else None)] if start >= 0 else []
        if not summed:
            _require_key(data, key, offset, size)
        if not single or start < 0:
            files += _others(data, key, path, offset, size, start)
        yield key, label, files


def _extension_field(path: bytes) -> str:
    return field_of(path.rpartition(b".")[2].decode("utf-8", "surrogateescape"))


def _is_of_kind(image: bytes, field: str) -> bool:
    """Whether an image has the format that `field` names, whatever the field is called in which it is stored."""
    try:
        kind = image_header(image, decode_rare=False)[0]
    except ValueError:
        return False
    return field_of(kind.lower()).startswith(field)  # TIFF has the fields tif and tiff


def _as_stored(path: bytes, key: str, field: str) -> bytes:
    """The path with the extension of the stored image, if it is in another format than the file was.

    If the key got a number because it was taken, the name gets it too: `a.jpg` and `a.png` may both be JPEGs.
    """
    before = _extension_field(path)
    if before not in IMAGE_FIELDS or field not in IMAGE_FIELDS or before == field_of(field):
        return path
    own = key_of_file(path)
    number = key[len(own) :] if key.startswith(own) else ""
    return path.rpartition(b".")[0] + f"{number}.{field}".encode()


def _require_key(data: ShardBytes, key: str, offset: int, size: int) -> StoredSample:
    """The sample at a place. DamagedError if it is another one."""
    sample = next(data.samples(offset, offset + size), None)
    if sample is None or sample.key != key:
        raise DamagedError(data.place, "the sample is not where the index says", _cure(data), offset, key)
    return sample


def _others(data: ShardBytes, key: str, path: bytes, offset: int, size: int, image: int) -> Iterator[_File]:
    """The other fields of a sample, apart from its image; `cls` only if there is nothing else."""
    sample = _require_key(data, key, offset, size)
    stem = path.rpartition(b".")[0] if image >= 0 else path
    for name, (start, length) in _files_of(data, sample).items():
        if start != image and (name != "cls" or len(sample.fields) == 1):
            yield _File(
                key, _checked(stem + b"." + name.encode("utf-8", "surrogateescape"), data, offset, key), start, length
            )


def _files_of(data: ShardBytes, sample: StoredSample) -> dict[str, tuple[int, int]]:
    """The fields that are files, without what a record says about its image."""
    notes = FORMATS[data.format].notes
    return {name: place for name, place in sample.fields.items() if name not in notes}


def _checked(path: bytes, data: ShardBytes, offset: int, key: str) -> bytes:
    try:
        return checked_path(path)
    except ValueError as exc:
        raise DatasetError(data.place, str(exc), _cure(data), offset, key) from exc


def _cure(data: ShardBytes) -> str:
    return "check the dataset with 'shardkit verify', and repair it with 'shardkit repair'"


def _of_members(data: ShardBytes) -> _Samples:
    """(key, label, files) of each sample of a shard without an index, from the names of its members.

    TFRecord contains the path of the file, and the class name if the path does not begin with it.
    """
    for sample in data.samples():
        told = FORMATS[data.format].describe(data.buffer, sample)
        label = NO_LABEL if told.cls is None else label_of(told.cls)
        files = []
        for name, (start, size) in _files_of(data, sample).items():
            if name == "cls" and label >= 0 and len(sample.fields) > 1:
                continue
            try:
                path = checked_path(_member_path(told, name, label))
            except ValueError as exc:
                raise DatasetError(data.place, str(exc), _cure(data), sample.offset, sample.key) from exc
            files.append(_File(sample.key, path, start, size))
        yield sample.key, label, files


def _member_path(sample: Description, name: str, label: int) -> bytes:
    """The path of a field's file. ValueError if it is not a valid path."""
    if not sample.path:
        return (b"%d/" % label if label >= 0 and "/" not in sample.key else b"") + path_of_key(sample.key, name)
    image = sample.image
    path = _as_stored(relative_path(sample.path), sample.key, image)
    if name != image:
        path = (path.rpartition(b".")[0] if image else path) + b"." + name.encode("utf-8", "surrogateescape")
    folder = sample.text.encode("utf-8", "surrogateescape") or b"%d" % label
    return path if label < 0 or path.startswith(folder + b"/") else folder + b"/" + path


def _write(root: bytes, file: _File, data: ShardBytes, folders: set[bytes]) -> None:
    """Create the file. `folders` holds those that already exist."""
    end = file.start + file.size
    if end > len(data):
        raise DamagedError(
            data.place, "according to the index, a sample is beyond the end of the shard", _cure(data), None, file.key
        )
    view = data.view[file.start : end]
    if file.crc32c is not None and crc32c(view) != file.crc32c:
        fact = "the image's CRC-32C is not the one in the index: it is damaged"
        raise DamagedError(data.place, fact, _cure(data), file.start, file.key)
    path = root + b"/" + file.path
    folder = os.path.dirname(path)
    try:
        if folder not in folders:
            os.makedirs(folder, exist_ok=True)
            folders.add(folder)
        fd = os.open(path, _FLAGS, 0o666)
        try:
            rest = memoryview(data.buffer)[file.start : end]
            while rest:
                rest = rest[os.write(fd, rest) :]
        finally:
            os.close(fd)
    except OSError as exc:
        if exc.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
            fact = f"{fs_text(file.path)} can't be a file here: {_why(exc)}"
            cure = "give it another name with 'shardkit repair'"
            raise DatasetError(data.place, fact, cure, file.start, file.key) from exc
        raise storage_error(path, exc) from exc


def _why(exc: OSError) -> str:
    if exc.errno == errno.ENAMETOOLONG:
        return "the name is too long for this file system"
    return "the name already exists, or is used for both a file and a folder"
