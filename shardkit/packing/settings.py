"""The options of `pack`, as a user gives them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from shardkit.sources.options import TableColumns

if TYPE_CHECKING:
    from shardkit.formats.format import FormatName
    from shardkit.images.rewrite.transcode import Transcoding
    from shardkit.packing.engine.engine import EngineLike
    from shardkit.packing.packed import ClassesFrom
    from shardkit.packing.write.images import ImageCheck

OnError = Literal["stop", "skip"]
Classes = Sequence[str] | str | os.PathLike[str]


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

    resize: int | None = None
    max_side: int | None = None
    to: Literal["keep", "jpeg", "webp", "png"] = "keep"
    quality: int | None = None
    baseline: bool = False
    strip: bool = False
    orient: bool = False
    subsampling: int | None = None
    restart_rows: int | None = None

    def __post_init__(self) -> None:
        self.transcoding()

    def transcoding(self) -> Transcoding | None:
        """What is done to each image; None where nothing is asked for."""
        from shardkit.images.rewrite.transcode import transcoding

        return transcoding(**{each.name: getattr(self, each.name) for each in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSettings:
    """The options of `pack` and `plan_pack`, which describe them. `packing.options` checks them."""

    format: FormatName = "tar"
    max_bytes: int | str = "256MB"
    max_count: int | None = None
    shuffle: bool = True
    seed: int = 0
    workers: int | None = None
    engine: EngineLike = "local"
    classes: Classes | None = None
    classes_from: ClassesFrom | None = None
    ext: Sequence[str] | str | None = None
    fields: Sequence[str] | str | None = None
    columns: TableColumns = field(default_factory=TableColumns)
    split: Mapping[str, float] | str | None = None
    group_by: str | None = None
    images: Images = field(default_factory=Images)
    check: ImageCheck = "header"
    on_error: OnError = "stop"
    append: bool = False
    overwrite: bool = False
    work: str | os.PathLike[str] | None = None
    storage_options: Mapping[str, Any] | None = None
