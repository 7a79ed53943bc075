"""The table of formats by their name in a manifest ("tar", "tfrecord"), and detection of a file's format by its name
or its first bytes.

A new format is a folder beside this file and a line here; `protocol.py` says what it has to do.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

from shardkit.errors import ManifestError, UsageError
from shardkit.formats.protocol import Description, Encoded, Format, FormatName, ShardData, StoredSample
from shardkit.formats.tar.format import Tar
from shardkit.formats.tfrecord.format import Tfrecord
from shardkit.formats.tfrecord.samples import FieldNames
from shardkit.formats.tfrecord.stream import is_packed

__all__ = [
    "FORMATS", "Description", "Encoded", "Format", "FormatName", "ShardData", "StoredSample", "require_names_fit",
    "format_named", "format_of_head", "format_of_name", "is_packed_as",
]  # fmt: skip

FORMATS: Mapping[str, Format] = {"tar": Tar(), "tfrecord": Tfrecord()}
"""Name in a manifest's `shard_format` -> format."""

_ENDINGS = {form.name: re.compile(form.endings, re.ASCII) for form in FORMATS.values()}


def format_of_name(name: str) -> FormatName | None:
    """The format according to a file's name, such as `x.tgz`, `x.tfrecord.gz` or `x.tfrecord-00000-of-00010`; None if
    none."""
    for at, letter in enumerate(name):
        for form, ending in _ENDINGS.items() if letter == "." else ():
            if ending.fullmatch(name, at):
                return form
    return None


def format_of_head(head: bytes) -> FormatName:
    """The format of a shard by its first bytes (64 or more, or all), plain or compressed; tar if nothing matches."""
    if is_packed(head):
        try:
            head = zlib.decompressobj(wbits=47).decompress(head, 64)
        except zlib.error:
            return "tar"
    return next((form.name for form in FORMATS.values() if form.recognizes(head)), "tar")


def is_packed_as(form: str, head: bytes) -> bool:
    """Whether the first bytes of a shard of this format are those of compressed data."""
    return FORMATS[form].is_packed(head)


def format_named(name: str, place: str) -> Format:
    """The format that the manifest `place` names. ManifestError for one that this version does not know."""
    if name not in FORMATS:
        fact = f"its shards have the format {name!r}, and this shardkit reads {', '.join(FORMATS)}"
        raise ManifestError(place, fact, "install a newer shardkit")
    return FORMATS[name]


def require_names_fit(form: Format, names: FieldNames | None, place: str) -> None:
    """UsageError if names of features are given for a format without features."""
    if names is not None and not form.holds_examples:
        fact = f"image_field= and label_field= name features of TFRecord shards, and this is {form.name}"
        raise UsageError(place, fact, "omit them: the image is found by its extension")
