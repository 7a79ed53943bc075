"""The options of a packing, checked once."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import msgspec

from shardkit.errors import UsageError
from shardkit.formats.format import FormatName
from shardkit.images.rewrite.transcode import Transcoding
from shardkit.options.files import content_of
from shardkit.packing.packed import ClassesFrom, Packed, PackedDataset
from shardkit.packing.settings import Classes, OnError, PackSettings
from shardkit.packing.write.images import ImageCheck
from shardkit.sample import DEFAULT_EXTENSIONS, IMAGE_FIELDS, field_of, fs_text
from shardkit.shards.manifest import Manifest, content_options, decode_manifest
from shardkit.shards.seek import require_available
from shardkit.sources.groups import extensions_of
from shardkit.sources.options import LabelOptions
from shardkit.sources.split import Splitting, splitting_of
from shardkit.units import cores, parse_bytes

NEAR_DUPLICATES = "group_near_duplicates"
"""The option, also in the manifest, by which near-duplicates are kept in one split."""


class PackOptions(msgspec.Struct, frozen=True):
    """What determines the bytes of a dataset, and how it is made. Raises UsageError for values that conflict."""

    format: FormatName
    max_bytes: int
    max_count: int | None
    shuffle: bool
    seed: int
    workers: int
    extensions: tuple[str, ...]
    check: ImageCheck
    on_error: OnError
    overwrite: bool
    fields: tuple[str, ...] = ()
    split: Splitting | None = None
    labels: LabelOptions = LabelOptions()
    append: bool = False
    transcode: Transcoding | None = None
    seek_points: bool = False
    quality_columns: bool = False

    def __post_init__(self) -> None:
        if self.append and self.overwrite:
            raise UsageError("append", "given together with `overwrite`", "give one of the two")
        if not self.extensions:
            raise UsageError("ext", "it contains no file extension", "name one, or omit the option")
        for extension in self.extensions:
            if extension == "cls" or extension.startswith("__") or not extension.isprintable():
                raise UsageError("ext", f"{extension!r} can't be the field of an image", "name other extensions")
        if self.seek_points:
            require_available()
        if self.fields and self.transcode is not None:
            self._require_one_image(self.transcode)
        if self.split is not None and self.split.near_duplicates:
            self._require_comparable()

    def _require_one_image(self, wish: Transcoding) -> None:
        """UsageError if a sample has further images: only its first is transcoded, and would no longer match them."""
        images = [name for name in self.fields if name.rpartition(".")[2] in IMAGE_FIELDS]
        if not any(name in IMAGE_FIELDS for name in images):
            fact = f"none of the fields {', '.join(self.fields)} is an image that can be transcoded"
            raise UsageError("fields", fact, "name one, such as jpg")
        if len(images) > 1 and (wish.moves_pixels or wish.to != "keep"):
            fact = f"only the first of the images {', '.join(images)} would change, and no longer match the others"
            raise UsageError("fields", fact, "omit `resize`, `max_side`, `orient` and `to`, or the other images")

    def _require_comparable(self) -> None:
        """UsageError where near-duplicates can't be kept in one split."""
        if self.append:
            fact = "given together with `append`, and a new image may look like images of several splits"
            raise UsageError(NEAR_DUPLICATES, fact, "pack everything again with `overwrite`")
        if self.fields and not any(name.rpartition(".")[2] in IMAGE_FIELDS for name in self.fields):
            fact = f"none of the fields {', '.join(self.fields)} is an image that can be compared"
            raise UsageError("fields", fact, "name one, such as jpg")

    def recorded(self) -> dict[str, Any]:
        """The options that determine the content, for the manifest: nothing about the machine or the run."""
        names = ("max_bytes", "max_count", "shuffle", "seed", "check", "on_error")
        ext = None if self.extensions == DEFAULT_EXTENSIONS or self.fields else list(self.extensions)
        together = {"fields": list(self.fields)} if self.fields else {}
        split: dict[str, Any] = (
            {} if self.split is None else {"split": dict(self.split.parts), "group_by": self.split.group_by or None}
        )
        if self.split is not None and self.split.near_duplicates:
            split[NEAR_DUPLICATES] = True
        made = {} if self.transcode is None else self.transcode.recorded()
        rest = self.labels.recorded() | content_options(
            seek_points=self.seek_points, quality_columns=self.quality_columns
        )
        return {**{name: getattr(self, name) for name in names}, "ext": ext, **together, **split, **made, **rest}


def make_options(settings: PackSettings) -> PackOptions:
    """The options from a user's settings: sizes as text, extensions with or without a dot."""
    ext = settings.ext.split(",") if isinstance(settings.ext, str) else settings.ext
    fields = settings.fields.split(",") if isinstance(settings.fields, str) else settings.fields
    names = () if fields is None else tuple(field_of(name.strip().lstrip(".")) for name in fields)
    if fields is not None and ext is not None:
        raise UsageError("fields", "given together with `ext`", "give one of the two: both say which files to take")
    given = (DEFAULT_EXTENSIONS if fields is None else extensions_of(names)) if ext is None else ext
    return PackOptions(
        format=settings.format,
        max_bytes=parse_bytes(settings.max_bytes),
        max_count=settings.max_count,
        shuffle=settings.shuffle,
        seed=settings.seed,
        workers=cores() if settings.workers is None else settings.workers,
        extensions=tuple(sorted({extension.strip().lstrip(".").lower() for extension in given} - {""})),
        check=settings.check,
        on_error=settings.on_error,
        overwrite=settings.overwrite,
        fields=names,
        split=splitting_of(settings.split, settings.group_by, settings.seed, settings.group_near_duplicates),
        labels=settings.labels,
        append=settings.append,
        transcode=settings.images.transcoding(),
        seek_points=settings.images.seek_points,
        quality_columns=settings.quality_columns,
    )


def class_names(classes: Classes | None, classes_from: ClassesFrom | None = None) -> list[str] | None:
    """The class names in label order that the user gave, or None. Reads the named file or manifest."""
    if classes is not None and classes_from is not None:
        raise UsageError("classes", "given together with `classes_from`", "give one of the two")
    if classes_from is not None:
        return _classes_of_manifest(classes_from)
    if classes is None:
        return None
    if isinstance(classes, (str, os.PathLike)):
        place, names = fs_text(classes), _class_lines(classes)
    else:
        place, names = "classes", list(classes)
    if not names:
        raise UsageError(place, "it contains no class names", "name each class, in a file one per line")
    if len(set(names)) < len(names):
        double = next(name for name, times in Counter(names).items() if times > 1)
        raise UsageError(place, f"{double!r} is named twice", "name each class once")
    return names


def _classes_of_manifest(given: ClassesFrom) -> list[str]:
    place = "classes_from"
    if isinstance(given, Packed | PackedDataset):
        manifest = given.manifest
    elif isinstance(given, Manifest):
        manifest = given
    else:
        place = fs_text(given)
        manifest = decode_manifest(content_of(given, "classes_from", "manifest"), place=place)
    if not manifest.classes:
        raise UsageError(place, "this manifest has no classes", "take one of a dataset that has classes")
    return manifest.class_names


def _class_lines(path: str | os.PathLike[str]) -> list[str]:
    try:
        text = content_of(path, "classes", "list of classes").decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise UsageError(fs_text(path), "the list of classes is not UTF-8", "save it as UTF-8", exc.start) from exc
    return [line for line in (line.removesuffix("\r") for line in text.split("\n")) if line.strip()]
