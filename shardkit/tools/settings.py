"""The options of the commands other than `pack`: names, types, limits, defaults and help in one place.

Each class describes a function, which spells the same options out; a test compares the two. From here come the options
of the commands, the check of their limits and the tables of docs/commands.md (`scripts/options.py` writes them).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Literal

from shardkit.options.fields import AtLeast, AtMost, Flag, Help, Takes, require_limits
from shardkit.packing.settings import (
    Classes,
    EngineOption,
    Overwrite,
    Processes,
    QualityColumns,
    StorageOptions,
    Work,
)

if TYPE_CHECKING:
    from shardkit.shards.find.shards import SourceLike
else:  # not needed for a command's help
    SourceLike = object

MAX_CLASSES = 20
"""Classes on a contact sheet, where none are named."""

TRANSFERS = 4
"""Files on their way to or from a bucket at a time. A store sends several parts of each: about 16 requests, 300 MB of
memory."""

ExportKind = Literal["timm", "huggingface", "croissant", "tfds", "class-names"]
"""The formats of `export`."""

Threads = Annotated[int | None, AtLeast(1), Flag("--threads"), Help("Number of threads.", "N", unset="one per core")]
Transfers = Annotated[
    int | None, AtLeast(1), Flag("--transfers"), Help("Number of concurrent transfers.", "N", unset=str(TRANSFERS))
]
SampleSeed = Annotated[int, AtLeast(0), Help("Random seed for choosing the samples.", "N")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertSettings:
    """The options of `convert`."""

    format: Annotated[
        Literal["tar", "tfrecord"] | None, Help("Format of the new shards.", unset="that of the source")
    ] = None
    max_bytes: Annotated[int | str | None, Takes.SIZE, Help("Maximum size of a new shard: 64MiB, 1GB, ...", "SIZE")] = (
        None
    )
    max_count: Annotated[int | None, AtLeast(1), Help("Maximum number of samples in a new shard.", "N")] = None
    shuffle: Annotated[bool, Flag("--shuffle/--no-shuffle"), Help("Shuffle all samples.")] = False
    seed: Annotated[int, Help("Random seed for shuffling.", "N")] = 0
    rename: Annotated[Mapping[str, str] | None, Takes.NAMES, Help("Fields to rename.", "OLD=NEW,...")] = None
    drop: Annotated[Sequence[str], Takes.WORDS, Help("Fields to omit.", "FIELD,...")] = ()
    fields: Annotated[
        Sequence[str] | str | None, Takes.WORDS, Help("Fields of the new samples; all others are omitted.", "FIELD,...")
    ] = None
    workers: Processes = None
    engine: EngineOption = "local"
    overwrite: Overwrite = False
    work: Work = None
    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSettings:
    """The options of `merge`."""

    discard: Annotated[bool, Help("Remove what the parts wrote, and make no dataset.")] = False
    overwrite: Overwrite = False
    work: Work = None
    storage_options: StorageOptions = None


By = Annotated[
    Literal["key", "path"] | None, Help("What the list names samples by.", unset="keys if it has them, or paths")
]
Message = Annotated[str, Help("Text for the log.", "TEXT")]


@dataclass(frozen=True, slots=True, kw_only=True)
class RelabelSettings:
    """The options of `relabel`."""

    by: By = None
    label_column: Annotated[str | None, Help("Column of labels.", "NAME", unset="label, class, ...")] = None
    label_separator: Annotated[str | None, Help("Text between several classes in one value.", "TEXT")] = None
    new_classes: Annotated[bool, Help("Add classes that the dataset does not have.")] = False
    message: Message = ""
    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteSettings:
    """The options of `delete`."""

    by: By = None
    purge: Annotated[
        bool, Help("Rewrite the shards that hold the samples, and remove all older versions: no byte is left.")
    ] = False
    message: Message = ""
    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddFieldsSettings:
    """The options of `add_fields`."""

    by: By = None
    columns: Annotated[
        Sequence[str] | str | None, Takes.WORDS, Help("Columns of the list to add.", "NAME,...", unset="all")
    ] = None
    overwrite: Annotated[bool, Help("Replace values that samples have already.")] = False
    message: Message = ""
    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevertSettings:
    """The options of `revert`."""

    message: Message = ""
    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffSettings:
    """The options of `diff`."""

    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """The options of `log`."""

    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoSettings:
    """The options of `info`."""

    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySettings:
    """The options of `verify`."""

    decode: Annotated[bool, Help("Also decode every image.")] = False
    read: Annotated[bool, Help("Fetch and check every byte of a dataset in a bucket.")] = False
    workers: Threads = None
    engine: EngineOption = "local"
    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairSettings:
    """The options of `repair`."""

    decode: Annotated[bool, Help("Also omit images that can't be decoded.")] = False
    workers: Threads = None
    overwrite: Overwrite = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackSettings:
    """The options of `unpack`."""

    classes: Annotated[
        Sequence[str] | None, Takes.TEXTS, Flag("--class"), Help("Only this class; repeatable.", "NAME")
    ] = None
    keys: Annotated[
        Sequence[str] | None,
        Takes.TEXTS,
        Flag("--key"),
        Help("Only these keys, such as 'cat/00*'; repeatable.", "PATTERN"),
    ] = None
    metadata: Annotated[bool, Help("Write labels and columns to metadata.jsonl, a list that pack takes.")] = False
    workers: Threads = None
    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadSettings:
    """The options of `upload`."""

    check: Annotated[
        Literal["store", "read", "none"],
        Flag("--verify"),
        Help("Check uploads by the store's checksum (by reading back if it has none), by reading back, or not at all."),
    ] = "store"
    overwrite: Overwrite = False
    workers: Transfers = None
    export: Annotated[
        Sequence[ExportKind] | None,
        Takes.WORDS,
        Help("Also write the files of these formats, as the command export does: timm, huggingface, ...", "KIND,..."),
    ] = None
    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadSettings:
    """The options of `download`."""

    overwrite: Overwrite = False
    workers: Transfers = None
    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """The options of `export`."""

    overwrite: Annotated[bool, Help("Also replace files that shardkit did not write.")] = False
    workers: Threads = None
    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """The options of `index_shards`."""

    out: Annotated[
        str | os.PathLike[str] | None,
        Help("Prefix of the written files, or a folder for them.", "PREFIX", unset="that of the shards"),
    ] = None
    classes: Annotated[
        Classes | None, Takes.FILE, Help("File of class names, one per line; the first is label 0.", "FILE")
    ] = None
    workers: Threads = None
    engine: EngineOption = "local"
    storage_options: StorageOptions = None
    whole: Annotated[bool, Help("Read shards in a store as a whole, for checksums and the sizes of all images.")] = (
        False
    )
    seek_points: Annotated[
        bool, Help("Store in the index where a decoder can enter each JPEG, for faster random crops.")
    ] = False
    quality_columns: QualityColumns = False
    columns: Annotated[
        Sequence[str] | str,
        Takes.WORDS,
        Help("Values in the field json that become columns of the index.", "NAME,..."),
    ] = ()
    overwrite: Annotated[bool, Help("Replace an existing manifest and index.")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleQualitySettings:
    """The options of `shuffle_quality`."""

    buffers: Annotated[
        Sequence[int], Takes.NUMBERS, AtLeast(0), Help("Buffer sizes to compare, in samples.", "N,...")
    ] = (0, 100, 1_000, 10_000, 100_000)
    lanes: Annotated[int | None, AtLeast(1), Help("Number of lanes in the order.", "N", unset="as in dataset()")] = None
    batch: Annotated[int, AtLeast(2), Help("Batch size, in samples.", "N")] = 64
    seed: Annotated[int, AtLeast(0), Help("Random seed of the order.", "N")] = 0
    ranks: Annotated[
        int | None, AtLeast(1), Help("Also show what this many ranks read, and how they mix.", "N", unset="not shown")
    ] = None
    ranks_per_node: Annotated[int, AtLeast(1), Help("Ranks on a node.", "N")] = 8
    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """What the pictures on a contact sheet are like.

    side: pixels of a picture on the sheet; images are shrunk to fit, and enlarged by whole factors only. augmented:
    random crops and flips of epoch 0 in place of whole images. size: pixels of the crops (default: the images' usual
    size, at most 224); given alone, it asks for crops too.

    Raises UsageError for values that make no sense.
    """

    side: Annotated[int, AtLeast(16), AtMost(1024), Help("Side of each picture, in pixels.", "N")] = 128
    augmented: Annotated[bool, Help("Show random crops and flips, as in training.")] = False
    size: Annotated[
        int | None,
        AtLeast(1),
        AtMost(65_535),
        Help("Show random crops of N x N pixels.", "N", unset="at most 224"),
    ] = None

    def __post_init__(self) -> None:
        require_limits(Pictures, {each.name: getattr(self, each.name) for each in fields(Pictures)})


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSettings:
    """The options of `view`."""

    out: Annotated[str | os.PathLike[str], Takes.FILE, Help("PNG file to write.", "FILE")] = "view.png"
    classes: Annotated[
        Sequence[str | int] | None,
        Takes.TEXTS,
        Flag("--class"),
        Help("Only this class, by name or label; repeatable.", "NAME", unset=f"all, at most {MAX_CLASSES}"),
    ] = None
    count: Annotated[int, AtLeast(1), AtMost(100), Help("Number of samples of each class.", "N")] = 8
    seed: SampleSeed = 0
    pictures: Pictures = field(default_factory=Pictures)
    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewPageSettings:
    """The options of `view_page`."""

    out: Annotated[
        str | os.PathLike[str] | None, Takes.FILE, Help("HTML file to write.", "FILE", unset="beside the shards")
    ] = None
    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """The options of `report`."""

    out: Annotated[str | os.PathLike[str], Takes.FILE, Help("HTML file to write.", "FILE")] = "report.html"
    compare: Annotated[SourceLike | None, Help("Second dataset to compare with the first.", "SOURCE")] = None
    seed: Annotated[int, AtLeast(0), Help("Random seed for choosing the samples shown.", "N")] = 0
    storage_options: StorageOptions = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """The options of `bench`."""

    seconds: Annotated[float, AtLeast(1), Help("Approximate duration.", "SECONDS")] = 20.0
    threads: Annotated[
        Sequence[int] | None,
        Takes.NUMBERS,
        AtLeast(1),
        Help("Numbers of threads to try.", "N,...", unset="1, 2, 4 … the cores"),
    ] = None
    size: Annotated[int | None, AtLeast(1), Help("Side of the decoded crops, in pixels.", "N", unset="at most 224")] = (
        None
    )
    seed: SampleSeed = 0
    folder: Annotated[
        str | os.PathLike[str] | None,
        Takes.FILE,
        Help("Folder for the temporary sample.", "DIR", unset="that of the system"),
    ] = None
    storage_options: StorageOptions = None
