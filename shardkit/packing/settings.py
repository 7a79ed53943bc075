"""The options of `pack`, and those that other commands have too: names, types, limits, defaults and help.

From here come the options of the command, the keys of its configuration file, `configs/pack.yaml` and the table of
docs/packing.md (`scripts/options.py` writes the last two).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from shardkit.options.fields import About, AtLeast, Flag, Help, Takes, Words, require_limits
from shardkit.packing.engine.options import ENGINE_NAMES, EngineLike
from shardkit.sources.options import TableColumns

if TYPE_CHECKING:
    from shardkit.images.rewrite.transcode import Transcoding
    from shardkit.packing.packed import ClassesFrom
else:  # what loads more than a command's help needs
    Transcoding = ClassesFrom = object

OnError = Literal["stop", "skip"]
Classes = Sequence[str] | str | os.PathLike[str]

EngineOption = Annotated[
    EngineLike,
    Words(ENGINE_NAMES),
    Help("Run local processes, or tasks of a Ray cluster."),
    About(
        "local: processes of this machine. ray: each shard is a task of the Ray cluster at `address` (HOST:PORT, or "
        "auto), or of a Ray that is started on this machine; all nodes must see source and destination under the same "
        "paths."
    ),
]
Processes = Annotated[
    int | None,
    AtLeast(1),
    Help("Number of processes.", "N", unset="one per core"),
    About("Processes that write shards; by default one for each core. The bytes do not depend on it."),
]
Overwrite = Annotated[
    bool, Help("Replace an existing dataset at DEST."), About("Replace another dataset at the destination.")
]
Work = Annotated[
    str | os.PathLike[str] | None,
    Takes.FILE,
    Help("Folder for shards that await upload.", "DIR", unset="the user's cache"),
    About(
        "For a destination in a bucket (s3://bucket/train). The folder in which shards wait until they are there; by "
        "default in the user's cache. And what the bucket needs, such as [region=eu-west-1, "
        "endpoint=https://minio.example.org]; keep credentials out of this file: they are taken from the environment "
        "and from the provider's own files."
    ),
]
StorageOptions = Annotated[
    Mapping[str, Any] | None,
    Takes.PAIRS,
    Flag("--storage-option"),
    Help("Option of the bucket: endpoint, region, credentials; repeatable.", "KEY=VALUE"),
]


@dataclass(frozen=True, slots=True)
class Images:
    """What the packed images are to be like; an image that is so already is copied byte for byte.

    resize, max_side: at most so many pixels of the shorter and of the longer side; none is made larger. to: the format
    "jpeg", "webp" or "png". quality: of JPEG and WebP, 1 to 100 (None: 90 where one is needed). baseline: no
    progressive JPEG. strip: take out metadata. orient: turn images as their EXIF data says. subsampling: of JPEG's
    colours, 444, 422 or 420. restart_rows: rows of blocks between a JPEG's restart markers. baseline and restart_rows
    change nothing of the pixels.

    Raises UsageError for what makes no sense.
    """

    resize: Annotated[
        int | None,
        Help("Shrink images to at most N pixels on the shorter side.", "N"),
        About("Images whose shorter side, and whose longer side, have at most so many pixels. None is made larger."),
    ] = None
    max_side: Annotated[int | None, Help("Shrink images to at most N pixels on the longer side.", "N")] = None
    to: Annotated[
        Literal["keep", "jpeg", "webp", "png"],
        Help("Format of the images."),
        About(
            "The images' format: keep, jpeg, webp or png. Their quality (1 to 100, of JPEG and WebP) where one is "
            "wanted; without it, what has to be encoded again gets 90, and what has not stays byte for byte."
        ),
    ] = "keep"
    quality: Annotated[int | None, Help("Quality of JPEG and WebP, 1 to 100.", "Q", unset="90 where it is needed")] = (
        None
    )
    baseline: Annotated[
        bool,
        Help("Convert progressive JPEGs to baseline, losslessly."),
        About("No progressive JPEGs (without loss)."),
    ] = False
    strip: Annotated[
        bool,
        Help("Remove metadata: EXIF with its location, XMP, comments."),
        About(
            "Take out metadata (EXIF with its location, XMP, comments, thumbnails), and turn images as their EXIF data "
            "says."
        ),
    ] = False
    orient: Annotated[bool, Help("Apply the EXIF orientation.")] = False
    subsampling: Annotated[
        int | None,
        Help("Chroma subsampling of JPEGs.", "444|422|420"),
        About(
            "JPEG: the colours' subsampling (444, 422 or 420); restart markers every so many rows of blocks (without "
            "loss). benchmarks/transcode.py measures what each brings."
        ),
    ] = None
    restart_rows: Annotated[int | None, Help("Restart markers in JPEGs, one every N rows of blocks.", "N")] = None

    def __post_init__(self) -> None:
        self.transcoding()

    def transcoding(self) -> Transcoding | None:
        """What is done to each image; None where nothing is asked for."""
        from shardkit.images.rewrite.transcode import transcoding

        return transcoding(**{each.name: getattr(self, each.name) for each in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSettings:
    """The options of `pack` and `plan_pack`, which describe them. `packing.options` checks them."""

    format: Annotated[
        Literal["tar", "tfrecord"],
        Help("Format of the shards."),
        About(
            "What the shards are: plain tar files in the WebDataset layout, or tfrecord: TFRecord files of "
            "tf.train.Example."
        ),
    ] = "tar"
    max_bytes: Annotated[
        int | str,
        Takes.SIZE,
        Help("Maximum size of a shard: 64MiB, 1GB, ...", "SIZE"),
        About("The largest shard. Shards come out even: 1,000 MB at 256MB makes four shards of 250 MB."),
    ] = "256MB"
    max_count: Annotated[
        int | None,
        AtLeast(1),
        Help("Maximum number of samples in a shard.", "N"),
        About("The most samples in a shard. Whichever of the two limits comes first counts."),
    ] = None
    shuffle: Annotated[
        bool,
        Help("Shuffle the samples over the shards."),
        About(
            "Mix the classes over the shards, so that reading in sequence gives mixed batches. The order follows from "
            "the seed."
        ),
    ] = True
    seed: Annotated[int, Help("Random seed for shuffling and splitting.", "N")] = 0
    workers: Processes = None
    engine: EngineOption = "local"
    classes: Annotated[
        Classes | None,
        Takes.FILE,
        Help("File of class names, one per line; the first is label 0.", "FILE"),
        About(
            "The classes in label order: a text file with one class name in a line (the path is seen from this file's "
            "folder) …"
        ),
    ] = None
    classes_from: Annotated[
        ClassesFrom | None,
        Takes.FILE,
        Help("Use the classes of another dataset, in their order.", "MANIFEST"),
        About(
            "… or another dataset's manifest, so that both have the same labels. Without either, the sorted directory "
            "names count."
        ),
    ] = None
    ext: Annotated[
        Sequence[str] | str | None,
        Takes.WORDS,
        Help("The files to take.", "EXT,...", unset="the image types that Pillow reads"),
        About(
            "The files to take, by their extension, such as [jpg, png]. Others are left out, and reported. Without it, "
            "the image types that Pillow reads."
        ),
    ] = None
    fields: Annotated[
        Sequence[str] | str | None,
        Takes.WORDS,
        Help("File extensions that make up a sample: jpg,json,txt.", "EXT,..."),
        About(
            "Or the files that make up one sample, by their extension: [jpg, json, txt] makes one sample of cat/1.jpg, "
            "cat/1.json and cat/1.txt. No image need be among them. Without it, each file is a sample."
        ),
    ] = None
    columns: TableColumns = field(default_factory=TableColumns)
    split: Annotated[
        Mapping[str, float] | str | None,
        Help("Divide the samples into splits: train=0.8,validation=0.1,test=0.1.", "NAME=F,..."),
        About(
            "Deal the samples of one tree to splits: train=0.8,validation=0.1,test=0.1. A sample's split is a function "
            "of its key, the seed and these fractions, so none changes when files are added. group_by: a regular "
            "expression; files for which it finds the same text in the path stay in one split."
        ),
    ] = None
    group_by: Annotated[str | None, Help("Keep files whose paths match the same text in one split.", "REGEX")] = None
    images: Images = field(default_factory=Images)
    check: Annotated[
        Literal["header", "full", "none"],
        Help("Check each image's header, decode it fully, or neither."),
        About(
            "header: read the head of each image. full: decode it whole (slow, sure). none: take each file as it is."
        ),
    ] = "header"
    on_error: Annotated[
        OnError,
        Help("Stop at a bad file, or skip and list it."),
        About("At a bad file: stop, or skip it and list it beside the manifest."),
    ] = "stop"
    append: Annotated[
        bool,
        Help("Add new files to the dataset at DEST, as further shards."),
        About(
            "Add the files that the dataset at the destination does not have, as further shards; what is there stays "
            "as it is."
        ),
    ] = False
    overwrite: Overwrite = False
    work: Work = None
    storage_options: StorageOptions = None

    def __post_init__(self) -> None:
        require_limits(type(self), {each.name: getattr(self, each.name) for each in fields(self)})
