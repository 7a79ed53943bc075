"""The options of `pack`, and those shared with other commands: names, types, limits, defaults and help.

The command's options, the keys of its configuration file, `configs/pack.yaml` and the table in docs/packing.md are made
from this module (`scripts/options.py` writes the last two).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from shardkit.options.fields import About, AtLeast, AtMost, Flag, Help, Takes, Words, require_limits
from shardkit.options.keywords import named_fields
from shardkit.packing.engine.options import ENGINE_NAMES, EngineLike
from shardkit.packing.parts.part import PartLike
from shardkit.sources.options import LabelOptions, TableColumns

if TYPE_CHECKING:
    from shardkit.images.rewrite.transcode import Transcoding
    from shardkit.packing.packed import ClassesFrom
else:  # not needed for a command's help
    Transcoding = ClassesFrom = object

OnError = Literal["stop", "skip"]
Classes = Sequence[str] | str | os.PathLike[str]

EngineOption = Annotated[
    EngineLike,
    Words(ENGINE_NAMES),
    Help("Run local processes, or tasks of a Ray cluster."),
    About(
        "local: processes on this machine. ray: each shard is a task of the Ray cluster at `address` (HOST:PORT, or "
        "auto), or of a Ray that is started on this machine; all nodes must see source and destination under the same "
        "paths."
    ),
]
Processes = Annotated[
    int | None,
    AtLeast(1),
    Help("Number of processes or threads.", "N", unset="one per core"),
    About(
        "Number of processes that write shards, or of threads where the C extension does all the work (JPEGs that are "
        "copied unchanged into tar shards); by default one for each core. It does not affect the bytes."
    ),
]
Overwrite = Annotated[
    bool, Help("Replace an existing dataset at DEST."), About("Replace another dataset at the destination.")
]
Work = Annotated[
    str | os.PathLike[str] | None,
    Takes.FILE,
    Help("Folder for shards that await upload.", "DIR", unset="the user's cache"),
    About(
        "For a destination in a bucket (s3://bucket/train): the folder for shards that await upload, by default in the "
        "user's cache, and options of the bucket, such as [region=eu-west-1, endpoint=https://minio.example.org]. Keep "
        "credentials out of this file: they are taken from the environment and from the provider's own files."
    ),
]
QualityColumns = Annotated[
    bool,
    Help("Store a perceptual hash, brightness, sharpness and entropy of each image in the index."),
    About(
        "Store a perceptual hash, brightness, sharpness and entropy of each image in the index (20 bytes a sample), "
        "from a small decode: `where()` selects by them, and `report` finds near-duplicates."
    ),
]
StorageOptions = Annotated[
    Mapping[str, Any] | None,
    Takes.PAIRS,
    Flag("--storage-option"),
    Help("Option of the bucket: endpoint, region, credentials; repeatable.", "KEY=VALUE"),
]


@named_fields
@dataclass(frozen=True, slots=True)
class Images:
    """What the packed images should be like; an image that already conforms is copied byte for byte.

    resize, max_side: the maximum pixels of the shorter and of the longer side; images are never enlarged. to: the
    format "jpeg", "webp" or "png". quality: of JPEG and WebP, 1 to 100 (None: 90 if one is needed). baseline: convert
    progressive JPEGs to baseline. strip: remove metadata. orient: apply the EXIF orientation. subsampling: the chroma
    subsampling of JPEGs, 444, 422 or 420. restart_rows: rows of blocks between a JPEG's restart markers. baseline and
    restart_rows do not change pixels. seek_points: store in the index where the C decoder can enter each baseline JPEG,
    in at most 1 % of its bytes, so that crops of photographs are decoded faster; neither images nor pixels change.

    Raises UsageError for invalid values.
    """

    resize: Annotated[
        int | None,
        AtLeast(1),
        AtMost(65_535),
        Help("Shrink images to at most N pixels on the shorter side.", "N"),
        About("Maximum pixels of the images' shorter side and of their longer side. Images are never enlarged."),
    ] = None
    max_side: Annotated[
        int | None, AtLeast(1), AtMost(65_535), Help("Shrink images to at most N pixels on the longer side.", "N")
    ] = None
    to: Annotated[
        Literal["keep", "jpeg", "webp", "png"],
        Help("Format of the images."),
        About(
            "Format of the images: keep, jpeg, webp or png. Quality of JPEG and WebP (1 to 100); without it, images "
            "that have to be encoded again get 90, and the others stay byte for byte."
        ),
    ] = "keep"
    quality: Annotated[
        int | None, AtLeast(1), AtMost(100), Help("Quality of JPEG and WebP.", "Q", unset="90 where it is needed")
    ] = None
    baseline: Annotated[
        bool,
        Help("Convert progressive JPEGs to baseline, losslessly."),
        About("Convert progressive JPEGs to baseline, losslessly."),
    ] = False
    strip: Annotated[
        bool,
        Help("Remove metadata: EXIF with its location, XMP, comments."),
        About("Remove metadata (EXIF with its location, XMP, comments, thumbnails), and apply the EXIF orientation."),
    ] = False
    orient: Annotated[bool, Help("Apply the EXIF orientation.")] = False
    subsampling: Annotated[
        int | None,
        Help("Chroma subsampling of JPEGs.", "444|422|420"),
        About(
            "For JPEGs: the chroma subsampling (444, 422 or 420), and a restart marker every N rows of blocks "
            "(lossless). benchmarks/transcode.py measures the effect of each."
        ),
    ] = None
    restart_rows: Annotated[
        int | None, AtLeast(1), AtMost(8192), Help("Restart markers in JPEGs, one every N rows of blocks.", "N")
    ] = None
    seek_points: Annotated[
        bool,
        Help("Store in the index where a decoder can enter each JPEG, for faster random crops."),
        About(
            "Store in the index, for at most 1 % more bytes, where a decoder can enter each baseline JPEG, so that "
            "crops of photographs are decoded faster. The images and the decoded pixels stay the same."
        ),
    ] = False

    def __post_init__(self) -> None:
        require_limits(type(self), {each.name: getattr(self, each.name) for each in fields(self)})
        self.transcoding()

    def transcoding(self) -> Transcoding | None:
        """What to do to each image; None if nothing is requested."""
        from shardkit.images.rewrite.transcode import transcoding

        names = (each.name for each in fields(self) if each.name != "seek_points")
        return transcoding(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSettings:
    """The options of `pack` and `plan_pack`; these describe them, and `packing.options` checks them."""

    format: Annotated[
        Literal["tar", "tfrecord"],
        Help("Format of the shards."),
        About(
            "Format of the shards: tar for plain tar files in the WebDataset layout, or tfrecord for TFRecord files of "
            "tf.train.Example."
        ),
    ] = "tar"
    max_bytes: Annotated[
        int | str,
        Takes.SIZE,
        Help("Maximum size of a shard: 64MiB, 1GB, ...", "SIZE"),
        About(
            "Maximum size of a shard. Shards are about equal in size: 1,000 MB at 256MB makes four shards of 250 MB."
        ),
    ] = "256MB"
    max_count: Annotated[
        int | None,
        AtLeast(1),
        Help("Maximum number of samples in a shard.", "N"),
        About("Maximum number of samples in a shard. The limit that is reached first applies."),
    ] = None
    shuffle: Annotated[
        bool,
        Help("Shuffle the samples over the shards."),
        About(
            "Mix the classes over the shards, so that reading sequentially gives mixed batches. The order depends on "
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
            "The classes in label order: a text file with one class name per line (a path relative to this file's "
            "folder) …"
        ),
    ] = None
    classes_from: Annotated[
        ClassesFrom | None,
        Takes.FILE,
        Help("Use the classes of another dataset, in their order.", "MANIFEST"),
        About(
            "… or another dataset's manifest, so that both have the same labels. Without either, the directory names "
            "are used, sorted."
        ),
    ] = None
    ext: Annotated[
        Sequence[str] | str | None,
        Takes.WORDS,
        Help("The files to take.", "EXT,...", unset="the image types that Pillow reads"),
        About(
            "Extensions of the files to take, such as [jpg, png]. Other files are ignored, and reported. By default, "
            "the image types that Pillow reads."
        ),
    ] = None
    fields: Annotated[
        Sequence[str] | str | None,
        Takes.WORDS,
        Help("Fields of a sample: the extensions of its files, as jpg,json,txt.", "FIELD,..."),
        About(
            "Or the extensions of the files that make up a sample: [jpg, json, txt] makes one sample of cat/1.jpg, "
            "cat/1.json and cat/1.txt. A sample need not include an image. By default, each file is a sample."
        ),
    ] = None
    columns: TableColumns = field(default_factory=TableColumns)
    labels: LabelOptions = field(default_factory=LabelOptions)
    split: Annotated[
        Mapping[str, float] | str | None,
        Help("Divide the samples into splits: train=0.8,validation=0.1,test=0.1.", "NAME=F,..."),
        About(
            "Divide the samples of one tree into splits: train=0.8,validation=0.1,test=0.1. A sample's split depends "
            "only on its key, the seed and these fractions, so adding files never moves samples. group_by: a regular "
            "expression; files for which it matches the same text in the path stay in the same split."
        ),
    ] = None
    group_by: Annotated[str | None, Help("Keep files whose paths match the same text in one split.", "REGEX")] = None
    group_near_duplicates: Annotated[
        bool,
        Help("Keep images that look alike in one split."),
        About(
            "Keep images that look alike in one split: resized, recompressed, gray or slightly cropped copies, and "
            "equal files. All images are then read and compared before they are packed."
        ),
    ] = False
    images: Images = field(default_factory=Images)
    quality_columns: QualityColumns = False
    check: Annotated[
        Literal["header", "full", "none"],
        Help("Check each image's header, decode it fully, or neither."),
        About(
            "header: read the header of each image. full: decode the whole image (slow, but certain). none: accept "
            "each file unchecked."
        ),
    ] = "header"
    on_error: Annotated[
        OnError,
        Help("Stop at a bad file, or skip and list it."),
        About("At a bad file: stop, or skip it and list it beside the manifest."),
    ] = "stop"
    append: Annotated[
        bool,
        Help("Add new files to the dataset at DEST, as additional shards."),
        About(
            "Add the files that the dataset at the destination does not have, as additional shards; existing shards "
            "stay unchanged."
        ),
    ] = False
    overwrite: Overwrite = False
    part: Annotated[
        PartLike | None,
        Help("Pack part N of M, on one of M machines; then run merge.", "N/M"),
        About(
            "Pack one of several equal parts, such as 3/16, on one of as many machines: each with the same source, "
            "destination and options. auto: take the part from SLURM_ARRAY_TASK_ID, or from JOB_COMPLETION_INDEX and "
            "JOB_COMPLETIONS. `shardkit merge` makes a dataset of the parts."
        ),
    ] = None
    work: Work = None
    storage_options: StorageOptions = None

    def __post_init__(self) -> None:
        require_limits(type(self), {each.name: getattr(self, each.name) for each in fields(self)})
