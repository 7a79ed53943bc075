"""`croissant.json`: the dataset as JSON-LD in Croissant 1.1 (docs.mlcommons.org/croissant).

    distribution    each shard and each index file with its SHA-256; for each split the images in its shards
    recordSet       `classes`, and for each split its samples: key, image, label, path, width and height, and the
                    further columns of the index with their types

The label and the others come from the index, a Parquet table, which is joined to the images by the key. Shards of
TFRecord are listed, but no reader of Croissant opens them: their samples have no image then.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from shardkit.errors import DatasetError
from shardkit.sample import IMAGE_FIELDS
from shardkit.shards.columns.types import PREFIX
from shardkit.tools.export.files import GENERATOR
from shardkit.tools.export.splits import Split, Splits

NAME = "croissant.json"
CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
KEY_OF_NAME = r"^((?:.*/)?[^/.]+)(?:\..*)?$"
"""The key in the name of a file in a tar shard: up to the first dot after the last slash. A key stays as it is."""

_ENCODING = {"tar": "application/x-tar", "tfrecord": "application/octet-stream"}
_TYPES = {
    "int64": "cr:Int64", "float64": "cr:Float64", "bool": "sc:Boolean", "string": "sc:Text", "date": "sc:Date",
    "timestamp": "sc:DateTime", "timestamp UTC": "sc:DateTime",
}  # fmt: skip
"""The types of further columns (shards/columns/types.py)."""

_COLUMNS = {"path": "sc:Text", "width": "cr:Int64", "height": "cr:Int64"}
_CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/", "rai": "http://mlcommons.org/croissant/RAI/", "sc": "https://schema.org/",
    **{name: f"cr:{name}" for name in (
        "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileProperty",
        "fileObject", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5",
        "parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator",
        "source", "subField", "transform",
    )},
    **{name: {"@container": "@language"} for name in ("description", "name")},
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}  # fmt: skip


def croissant_json(splits: Splits, before: bytes | None) -> bytes:
    """The content of `croissant.json`. before: an earlier one, whose other keys (license, url, …) are kept.

    Reads the shards for their SHA-256.
    """
    twice = [name for name, count in Counter(_id(split.name) for split in splits.splits).items() if count > 1]
    if twice:
        raise DatasetError(splits.splits[0].place, f"two datasets would get the id {twice[0]!r}", "rename one of them")
    found: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": splits.title,
        "description": _description(splits),
        "conformsTo": CONFORMS_TO,
        "generator": GENERATOR,
        "distribution": [each for split in splits.splits for each in _distribution(split, splits)],
        "recordSet": [*_classes(splits), *(_samples(split, splits) for split in splits.splits)],
    }
    kept = _kept(before)
    return json.dumps(kept | found | {key: kept[key] for key in _TEXTS if key in kept}, indent=2).encode() + b"\n"


_TEXTS = ("name", "description")
"""The keys that an export writes once, and leaves to the user from then on."""


def _kept(before: bytes | None) -> dict[str, Any]:
    """The keys of an earlier file. Empty if there is none, or another program wrote it."""
    try:
        found = json.loads(before or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and found.get("generator") == GENERATOR else {}


def _description(splits: Splits) -> str:
    each = ", ".join(f"{split.name} ({split.manifest.samples:,})" for split in splits.splits)
    classes = f" of {len(splits.classes):,} classes" if splits.classes else ""
    return f"Images{classes} in shards. Samples: {each}."


def _distribution(split: Split, splits: Splits) -> list[dict[str, Any]]:
    """The shards and the index of a split as files, and its images as a set of files in them."""
    shards = [
        _file(shard.name, shard.bytes, _ENCODING[split.manifest.shard_format], digest)
        for shard, digest in zip(split.manifest.shards, splits.digests(split, split.manifest.shards), strict=True)
    ]
    index = [
        _file(entry.name, entry.bytes, "application/x-parquet", digest)
        for entry, digest in zip(split.manifest.index, splits.digests(split, split.manifest.index), strict=True)
    ]
    sets = [_images(split)] if _image_fields(split) else []
    if len(index) > 1:
        sets.append(_file_set(split, "index", "application/x-parquet", [entry.name for entry in split.manifest.index]))
    return [*shards, *index, *sets]


def _file(name: str, size: int, encoding: str, digest: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject", "@id": _id(name), "name": name, "contentUrl": name, "contentSize": f"{size} B",
        "encodingFormat": encoding, "sha256": digest,
    }  # fmt: skip


def _image_fields(split: Split) -> list[str]:
    """The fields with images, as endings of file names; none for shards that are not tar."""
    return [name for name in split.manifest.fields if name in IMAGE_FIELDS and split.manifest.shard_format == "tar"]


def _file_set(split: Split, what: str, encoding: Any, includes: list[str]) -> dict[str, Any]:
    name = f"{_id(split.name)}-{what}"
    return {"@type": "cr:FileSet", "@id": name, "name": name, "encodingFormat": encoding, "includes": includes}


def _images(split: Split) -> dict[str, Any]:
    """The images in the shards of a split."""
    fields = _image_fields(split)
    kinds = sorted({_MIME.get(name, f"image/{name}") for name in fields})
    inside = [{"@id": _id(shard.name)} for shard in split.manifest.shards]
    return _file_set(split, "images", kinds, [f"*.{name}" for name in fields]) | {"containedIn": inside}


def _table(split: Split) -> dict[str, Any]:
    """The source of a field that is a column of the index: one file, or several as a set. DatasetError for none."""
    index = split.manifest.index
    if not index:
        raise DatasetError(split.place, "the dataset has no index", "make one with 'shardkit index --overwrite'")
    return (
        {"fileObject": {"@id": _id(index[0].name)}}
        if len(index) == 1
        else {"fileSet": {"@id": f"{_id(split.name)}-index"}}
    )


_MIME = {"jpg": "image/jpeg", "tif": "image/tiff"}


def _classes(splits: Splits) -> list[dict[str, Any]]:
    """The class map as records: label and name."""
    if not splits.classes:
        return []
    return [{
        "@type": "cr:RecordSet", "@id": "classes", "name": "classes", "dataType": "sc:Enumeration",
        "key": {"@id": "classes/label"},
        "field": [_field("classes", "label", "cr:Int64"), _field("classes", "name", "sc:Text")],
        "data": [{"classes/label": label, "classes/name": name} for label, name in enumerate(splits.classes)],
    }]  # fmt: skip


def _samples(split: Split, splits: Splits) -> dict[str, Any]:
    """The samples of a split as records."""
    table, own = _table(split), _id(split.name)

    def column(name: str) -> dict[str, Any]:
        return {**table, "extract": {"column": name}}

    fields = [_field(own, "key", "sc:Text", column("key"))]
    if _image_fields(split):  # the images are on the left side of the join: a reader keeps the paths of that side
        files = {"fileSet": {"@id": f"{own}-images"}}
        name_of = {**files, "extract": {"fileProperty": "fullpath"}, "transform": {"regex": KEY_OF_NAME}}
        fields = [
            _field(own, "key", "sc:Text", name_of) | {"references": column("key")},
            _field(own, "image", "sc:ImageObject", {**files, "extract": {"fileProperty": "content"}}),
        ]
    if split.manifest.classes and split.manifest.labels in ("class", "listed"):
        fields.append(_field(own, "label", "cr:Int64", column("label")))
    fields += [_field(own, name, kind, column(name)) for name, kind in _COLUMNS.items()]
    taken = {field["@id"] for field in fields}
    for name, text in split.manifest.columns.items():
        fields.append(_further(own, PREFIX + name, text, column(PREFIX + name), taken))
    return {
        "@type": "cr:RecordSet", "@id": own, "name": split.name, "key": {"@id": f"{own}/key"},
        "field": fields,
    }  # fmt: skip


def _further(records: str, name: str, text: str, source: dict[str, Any], taken: set[str]) -> dict[str, Any]:
    """A further column. Its id has no slash, which separates a record set from its fields, and is not `taken`."""
    each, _, count = text.removesuffix("]").partition("[")
    found = _field(records, name.replace("/", "_"), _TYPES[each], source) | {"name": name}
    while found["@id"] in taken:
        found["@id"] += "_"
    taken.add(found["@id"])
    return found | ({"isArray": True, "arrayShape": count} if count else {})


def _id(name: str) -> str:
    """A name as an identifier, which has no white space."""
    return re.sub(r"\s", "_", name)


def _field(records: str, name: str, kind: str, source: dict[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"@type": "cr:Field", "@id": f"{records}/{_id(name)}", "name": name, "dataType": kind}
    return found | ({"source": source} if source else {})
