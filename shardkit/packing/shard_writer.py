"""Write shards from samples that a program makes: `shardkit.write` for iterables, and `ShardWriter` to add samples one
by one.

One pass, with one sample in memory; a new shard begins when the next sample would not fit. Shards wait in the work
folder (or are uploaded to the bucket), and the commit is that of `pack`: a dataset is absent or whole. After an
exception there is no dataset.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypedDict, Unpack, cast, get_args

from shardkit.errors import BadFileError, DestinationError, ShardkitError, SourceError, UsageError
from shardkit.events import Progress, ProgressFn, no_progress
from shardkit.formats.format import FORMATS, FormatName
from shardkit.location import locate
from shardkit.options.keywords import cure_of_choice, options_from
from shardkit.packing.dest.destination import Delivery, Destination
from shardkit.packing.dest.in_the_way import check_free
from shardkit.packing.dest.open import destinations_of
from shardkit.packing.dest.work_folder import keep_only
from shardkit.packing.ending import EndingShards
from shardkit.packing.open_shard import OpenShard
from shardkit.packing.options import class_names
from shardkit.packing.settings import Classes
from shardkit.packing.source_samples import samples_of, scan_in_order
from shardkit.packing.write.encoders import encoded
from shardkit.packing.write.framed import NOT_TAKEN, Keys, new_keys
from shardkit.packing.write.images import ImageCheck
from shardkit.packing.write.labels import Targets
from shardkit.sample import IMAGE_FIELDS, MAX_KEY_BYTES, field_of, path_of_text
from shardkit.shards.columns.types import Types
from shardkit.shards.columns.values import encoded_columns
from shardkit.shards.manifest import ClassEntry, IndexEntry, Manifest, column_options, content_options, jpeg_options
from shardkit.shards.names import shard_name
from shardkit.sources.lists.in_memory import TableLike, is_table
from shardkit.sources.options import TableColumns
from shardkit.sources.source import Source
from shardkit.units import parse_bytes

log = logging.getLogger(__name__)

OWN_NAME = "samples"
"""The name of the dataset if the destination is a folder."""

_TELL_SAMPLES = 1000

_SHOWN_KEY = 40
"""The characters of an overlong key that a message shows."""


class WriterOptions(TypedDict, total=False):
    """The options of `write` and `ShardWriter`, which describe them. `WriterSettings` has their defaults."""

    format: FormatName
    max_bytes: int | str
    max_count: int | None
    classes: Classes | None
    check: ImageCheck
    overwrite: bool
    work: str | os.PathLike[str] | None
    storage_options: Mapping[str, Any] | None
    progress: ProgressFn


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterSettings:
    """The options of a writer, checked. Raises UsageError for invalid values."""

    format: FormatName = "tar"
    max_bytes: int | str = "256MB"
    max_count: int | None = None
    classes: Classes | None = None
    check: ImageCheck = "header"
    overwrite: bool = False
    work: str | os.PathLike[str] | None = None
    storage_options: Mapping[str, Any] | None = None
    progress: ProgressFn = no_progress

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            cure = cure_of_choice("format", self.format, FORMATS)
            raise UsageError("format", f"{self.format!r} is not one of {', '.join(FORMATS)}", cure)
        if self.max_count is not None and self.max_count < 1:
            raise UsageError("max_count", f"{self.max_count} is too small", "give at least 1")
        if self.check not in ("header", "full", "none"):
            cure = cure_of_choice("check", self.check, get_args(ImageCheck))
            raise UsageError("check", f"{self.check!r} is not one of header, full, none", cure)


@options_from(WriterSettings)
def write(
    samples: Iterable[Mapping[str, Any]] | TableLike | str | os.PathLike[str],
    dest: str | os.PathLike[str],
    *,
    columns: TableColumns | None = None,
    **options: Unpack[WriterOptions],
) -> Manifest:
    """Write samples to shards with an index and a manifest, in their order, in one pass.

    samples: dicts, as for `ShardWriter.write`; or a list of files in memory as for `pack`: a DataFrame of pandas or
    polars, an Arrow table, a dict of columns, or (paths, labels), whose files are stored byte for byte; or the path of
    a file of arrays (.npz, HDF5) without splits. For lists and arrays, classes that `classes` does not name are the
    sorted names of the labels, and further columns are in the index, as in `pack`. columns: of a list in memory, as for
    `pack`.

    The options and errors are those of `ShardWriter`, for lists and arrays also those of `pack`; an exception of the
    iterable is passed on unchanged. After an error, nothing is written.
    """
    if is_table(samples) or isinstance(samples, (str, os.PathLike)):
        return _write_source(samples, dest, columns, options)
    if columns is not None:
        raise UsageError("columns", "given, but the samples are not a list of files", "omit it")
    with ShardWriter(dest, **options) as sink:
        for sample in cast("Iterable[Mapping[str, Any]]", samples):
            sink.write(sample)
    return sink.manifest


def _write_source(
    given: str | os.PathLike[str] | TableLike,
    dest: str | os.PathLike[str],
    columns: TableColumns | None,
    options: WriterOptions,
) -> Manifest:
    asked = WriterSettings(**options)
    source = scan_in_order(given, columns, asked.classes, asked.progress)
    options = options.copy()
    options["classes"] = source.classes or None
    with _SourceWriter(dest, source, options) as sink:
        for path, sample in samples_of(source):
            sink._put(sample, path)
    return sink.manifest


class ShardWriter:
    """Writes samples to shards in a `with` block. A clean exit writes the index and the manifest; any other leaves
    nothing.

    dest: the beginning of the file names, as for `pack`; in a folder, names begin with "samples". format: "tar"
    (default) or "tfrecord". max_bytes ("256MB"), max_count (None): limits for a shard; a sample over max_bytes gets one
    of its own. classes: the names in label order, or a file with one per line; the default is "0", "1" …. check:
    "header" (default) reads each image's header, "full" decodes the image, "none" does neither. overwrite (False):
    replace another dataset. work, storage_options: as for `pack`, for a bucket. progress: called from time to time with
    an events.Progress.

    Not thread-safe. Raises UsageError, DestinationError, BusyError, StorageError; at the end, SourceError if no sample
    was written. `manifest` is available after the end.
    """

    @options_from(WriterSettings)
    def __init__(self, dest: str | os.PathLike[str], **options: Unpack[WriterOptions]) -> None:
        self._begin(dest, WriterSettings(**options), {})

    def _begin(self, dest: str | os.PathLike[str], asked: WriterSettings, columns: Types) -> None:
        """Begin the dataset. columns: further ones of the index."""
        self._columns = columns
        self._format, self._check, self._progress = FORMATS[asked.format], asked.check, asked.progress
        self._max_bytes, self._max_count = parse_bytes(asked.max_bytes), asked.max_count
        self._targets = Targets(class_names(asked.classes))
        self._keys: Keys | None = None
        self._add: Callable[[Mapping[str, Any], bytes | None], int] = _not_taken
        self._shard: OpenShard | None = None
        self._manifest: Manifest | None = None
        self._count = self._bytes = 0
        self._open = True
        own = os.path.join(os.devnull, OWN_NAME)  # a path that can't contain a destination
        self._destination = destinations_of(locate(dest), own, None, work=asked.work, options=asked.storage_options)[""]
        with ExitStack() as stack:
            self._destination, self._delivery = _begun(stack, self._destination, overwrite=asked.overwrite)
            self._pool = stack.enter_context(ThreadPoolExecutor(1, "shardkit-write"))
            self._ending = stack.enter_context(EndingShards(self._destination, self._delivery, columns))
            self._stack = stack.pop_all()

    @property
    def manifest(self) -> Manifest:
        """The manifest of the dataset. UsageError before the writer is closed."""
        if self._manifest is None:
            fact = "there is no manifest before the writer is closed, nor after an error"
            raise UsageError(str(self._destination), fact, "read it after the with block")
        return self._manifest

    def write(self, sample: Mapping[str, Any]) -> None:
        """Write a sample: field name -> value, in the order of the dict. `write/encoders.py` lists the types of values.

        "__key__": the key, unique; given for all samples or for none, which are then numbered. "cls": the label: a
        class number, or a name in `classes`; a list of them (several classes); a float or a list of floats (regression
        targets). Lists and floats are stored in the field `cls.json`. Other names that begin with "__" are ignored.

        Raises BadFileError, which names the sample and the field.
        """
        if answer := self._add(sample, None):
            self._follow(answer, sample, None)

    def _put(self, sample: Mapping[str, Any], path: bytes) -> None:
        """As `write`. path: the one for the index, which otherwise is the key with the image's extension."""
        if answer := self._add(sample, path):
            self._follow(answer, sample, path)

    def _follow(self, answer: int, sample: Mapping[str, Any], path: bytes | None) -> None:
        """Do what `_add` left to do: it asks for `_drain`, or did not take the sample."""
        self._drain()
        if answer == NOT_TAKEN:
            self._add = _not_taken  # until it is written
            try:
                self._write(sample, path)
            finally:
                self._go_on()

    def _drain(self) -> None:
        """Record the samples that were framed."""
        if self._shard is None:
            return
        count, size = self._shard.drain()
        told = self._count // _TELL_SAMPLES
        self._count += count
        self._bytes += size
        if self._count // _TELL_SAMPLES > told:
            self._progress(Progress("write", self._count, 0, self._bytes))

    def _go_on(self) -> None:
        """Frame the samples that follow, in the shard that is open."""
        self._add = _not_taken
        shard = self._shard
        if not self._open or shard is None or not shard.samples:
            return
        left = -1 if self._max_count is None else self._max_count - shard.samples
        limit = self._max_bytes - len(self._format.end)
        add = shard.frame(self._targets, self._keys, limit=limit, number=self._count, left=left)
        self._add = add or _not_taken

    def _write(self, sample: Mapping[str, Any], path: bytes | None) -> None:
        """Write a sample by itself."""
        if not self._open:
            raise UsageError(str(self._destination), "the writer is closed", "write inside the with block")
        number = self._count
        if not isinstance(sample, Mapping):
            raise _bad(number, None, f"a {type(sample).__name__} is not a sample, which is a dict of its fields")
        key = self._key(sample, number)
        fields, label, classes = self._fields(sample, key)
        if path is None:
            image = next((name for name, _ in fields if name in IMAGE_FIELDS), None)
            path = path_of_text((key if image is None else f"{key}.{image}").replace("\\", "\\\\"))
        names = self._targets.classes
        text = "" if label < 0 else str(label) if names is None else names[label]
        try:
            size = self._format.size(key, [(name, len(data)) for name, data in fields], path, text, label)
            self._shard_for(size).add(key, fields, path, label, text, classes)
        except ShardkitError:
            raise
        except ValueError as exc:
            raise _bad(number, key, str(exc)) from exc
        self._count += 1
        self._bytes += size
        if self._count % _TELL_SAMPLES == 0:
            self._progress(Progress("write", self._count, 0, self._bytes))

    def _key(self, sample: Mapping[str, Any], number: int) -> str:
        key = sample.get("__key__")
        if number == 0 and key is not None:
            self._keys = new_keys()
        if self._keys is None:
            if key is not None:
                raise _bad(number, str(key), "it has a __key__, but those before have none")
            return f"{number:09d}"
        if not isinstance(key, str):
            raise _bad(number, None, "its __key__ is not text" if key is not None else "it has no __key__")
        try:
            data = key.encode()
        except UnicodeEncodeError as exc:
            raise _bad(number, key, f"its __key__ has an invalid character ({exc.reason})") from exc
        if len(data) > MAX_KEY_BYTES:
            shown = f"{key[:_SHOWN_KEY]}…"
            raise _bad(number, shown, f"its __key__ has {len(data):,} bytes; {MAX_KEY_BYTES:,} is the most")
        if not self._keys.add(data):
            raise _bad(number, key, "its __key__ occurs twice")
        return str.__str__(key)  # that of NumPy is a subclass, which is not stored

    def _fields(self, sample: Mapping[str, Any], key: str) -> tuple[list[tuple[str, bytes]], int, list[int]]:
        """(fields, label, classes) of a sample. The label has the position of `cls` in the dict."""
        fields: list[tuple[str, bytes]] = []
        try:
            label, stored, classes = self._targets.stored(sample.get("cls"))
        except ValueError as exc:
            raise _bad(self._count, key, f"field 'cls': {exc}") from exc
        for name, value in sample.items():
            if not isinstance(name, str):
                raise _bad(self._count, key, f"the name of a field is a {type(name).__name__}, not text")
            if name == "cls":
                fields += stored
            elif not name.startswith("__"):
                try:
                    fields.append((field_of(name), encoded(field_of(name), value)))
                except ValueError as exc:
                    raise _bad(self._count, key, f"field {name!r}: {exc}") from exc
        if len(dict(fields)) < len(fields):
            raise _bad(self._count, key, "two of its fields have the same name")
        if not fields:
            raise _bad(self._count, key, "it has no field")
        return fields, label, classes

    def _shard_for(self, size: int) -> OpenShard:
        """The shard for a sample of `size` bytes."""
        shard = self._shard
        if shard is not None and (
            shard.bytes + size + len(self._format.end) > self._max_bytes or shard.samples == self._max_count
        ):
            self._end_shard()
            shard = None
        if shard is None:
            name = shard_name(self._destination.base, len(self._ending), self._format.suffix)
            shard = self._shard = OpenShard(self._destination.work, name, self._format.name, self._check, self._pool)
        return shard

    def _end_shard(self) -> None:
        """End the shard that is open: the disk flushes it while the next one is written."""
        shard = self._shard
        if shard is None:
            return
        if shard.samples:
            self._ending.add(shard, self._further(self._count - shard.samples, shard.samples))
        else:  # its first sample was bad, and the caller continued
            shard.abort()
        self._shard = None

    def _further(self, first: int, count: int) -> bytes:
        """The further columns of some samples, as `encoded_columns` gives them."""
        return b""

    def close(self) -> None:
        """Write the index and the manifest, which completes the dataset. A second call does nothing."""
        if not self._open:
            return
        try:
            self._drain()
            self._end_shard()
            index = self._ending.finish()
            self._delivery.finish(self._progress)
            self._commit(index)
        except BaseException:
            self.abort()
            raise
        self._open = False
        self._go_on()
        self._stack.close()

    def abort(self) -> None:
        """Remove everything written; there will be no dataset."""
        if not self._open:
            return
        self._open = False
        self._go_on()
        try:
            if self._shard is not None:
                self._shard.abort()
            self._ending.abort()  # its threads write to the folder that is discarded
            self._destination.discard()
        finally:
            self._stack.__exit__(BaseException, None, None)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _commit(self, index: tuple[IndexEntry, ...]) -> None:
        if not self._count:
            raise SourceError(str(self._destination), "no sample was written", "write at least one")
        totals, entries = self._ending.totals, self._ending.totals.written
        kind = self._targets.kind
        assert kind is not None  # since samples were written
        labels = content_options(labels="listed" if kind == "class" else kind)
        digest = hashlib.blake2b("".join(entry.crc32c for entry in entries).encode(), digest_size=16)
        named = self._targets.names() if kind in ("class", "multi") else ()
        limits = {"max_bytes": self._max_bytes, "max_count": self._max_count}
        manifest = Manifest(
            shard_format=self._format.name,
            samples=self._count,
            bytes=sum(entry.bytes for entry in entries),
            classes=tuple(ClassEntry(name, totals.labels.get(label, 0)) for label, name in enumerate(named)),
            fields=tuple(sorted(totals.fields)),
            shards=entries,
            index=index,
            options={**limits, "shuffle": False, "check": self._check, **labels}
            | column_options(self._columns)
            | jpeg_options(totals.jpegs, totals.progressive),
            plan=digest.hexdigest(),
        )
        self._destination.commit(manifest, ())
        self._manifest = manifest


class _SourceWriter(ShardWriter):
    """The writer of the samples of a source, whose further columns go into the index."""

    def __init__(self, dest: str | os.PathLike[str], source: Source, options: WriterOptions) -> None:
        self._table = source.columns
        self._begin(dest, WriterSettings(**options), source.column_types)

    def _further(self, first: int, count: int) -> bytes:
        return b"" if self._table is None else encoded_columns(self._table.slice(first, count))


def _begun(stack: ExitStack, destination: Destination, *, overwrite: bool) -> tuple[Destination, Delivery]:
    """Lock the destination for this writer; returns it with its generation, and the delivery of shards to it."""
    stack.enter_context(destination.locked())
    destination = check_free(destination, overwrite=overwrite)
    if not overwrite and destination.files.read_manifest() is not None:
        fact = "a dataset is already there, and can't be compared with samples made by a program"
        cure = "choose another destination, or replace it with `overwrite=True`"
        raise DestinationError(str(destination), fact, cure)
    keep_only(destination, ())
    return destination, stack.enter_context(destination.delivery())


def _not_taken(sample: Mapping[str, Any], path: bytes | None) -> int:
    """The answer while no shard is open, and without the C extension."""
    return NOT_TAKEN


def _bad(number: int, key: str | None, fact: str) -> BadFileError:
    return BadFileError(f"sample {number}", fact, "fix the sample", None, key)
