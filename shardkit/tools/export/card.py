"""`README.md` as a Hugging Face dataset card, whose metadata makes `load_dataset(folder)` read the shards.

    configs:        which files are which split, so that neither the index nor other files are taken for data
    dataset_info:   the columns, with the names of the classes

The metadata is YAML between two lines `---` at the top. Of a card that is there, only these two keys are set, and only
if they are missing or were written by an export, which a comment behind the key says; everything else stays as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from shardkit.errors import DatasetError, DestinationError, printable
from shardkit.shards.names import are_splits
from shardkit.tools.export.splits import Split, Splits
from shardkit.units import format_bytes

NAME = "README.md"
MARK = "# written by shardkit export"
BEGIN, END = "<!-- written by shardkit export -->", "<!-- end of what shardkit export wrote -->"

IMAGES = ("bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp")
"""The fields that Hugging Face's webdataset reader takes for images, of those that shardkit packs."""

SHOWN_CLASSES = 200

_FRONT = re.compile(r"\A---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)


def card_text(splits: Splits, before: bytes | None) -> bytes:
    """The content of `README.md`. before: that of a card to keep.

    UsageError for TFRecord shards; DatasetError for splits that Hugging Face can't have; DestinationError for a card
    whose metadata can't be completed.
    """
    parts = {"configs": _configs(splits)} | ({"dataset_info": info} if (info := _info(splits)) else {})
    place = splits.folder.place(NAME)
    if before is None:
        head = {"task_categories": ["image-classification"]} if splits.classes else {}
        front = _dump(head) + "".join(_marked(key, value) for key, value in parts.items())
        return f"---\n{front}---\n\n# {_line(splits.title)}\n\n{_section(splits)}".encode()
    try:
        text = before.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise DestinationError(place, f"the dataset card is not UTF-8 ({exc})", "save it as UTF-8") from exc
    found = _FRONT.match(text)
    front, body = (found["yaml"], text[found.end() :]) if found else ("", f"\n{text}")
    return f"---\n{_merged(front, parts, place)}---\n{_with_section(body, splits)}".encode()


def _configs(splits: Splits) -> list[dict[str, Any]]:
    names = Counter(split_name(split, splits) for split in splits.splits)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        fact = f"several datasets would be the split {twice[0]!r}, since Hugging Face allows only letters, digits and _"
        raise DatasetError(splits.splits[0].place, fact, "rename one of them")
    files = []
    for split in splits.splits:
        split.require_format("tar", "Hugging Face datasets")
        files.append({"split": split_name(split, splits), "path": shard_pattern(split, splits)})
    return [{"config_name": "default", "data_files": files}]


def split_name(split: Split, splits: Splits) -> str:
    """What Hugging Face calls a split. A dataset that is alone in its folder is `train`, as there."""
    if len(splits.splits) == 1 and not are_splits([split.name]):
        return "train"
    return re.sub(r"\W+", "_", split.name, flags=re.ASCII).strip("_") or "split"


def shard_pattern(split: Split, splits: Splits) -> str | list[str]:
    """A glob for the shards of a split and of no other; their names if there is none."""
    names = [shard.name for shard in split.manifest.shards]
    others = [shard.name for other in splits.splits if other is not split for shard in other.manifest.shards]
    patterns = {re.sub(r"\d+(?=[^\d]*$)", "[0-9]*", name) for name in names}
    if len(patterns) == 1:
        [pattern] = patterns
        plain = not set(names[0]) & set("*?[]{}")
        if plain and not any(fnmatchcase(name, pattern) for name in others):
            return pattern
    bad = next((name for name in names if set(name) & set("*?[]{}")), None)
    if bad is not None:
        raise DatasetError(split.place, f"Hugging Face takes {bad!r} for a pattern", "rename the dataset")
    return names


def _info(splits: Splits) -> dict[str, Any]:
    """The columns with their types; empty if the type of one is not known from the manifest."""
    kinds = {split.manifest.labels for split in splits.splits if split.manifest.labels != "none"}
    classes = {"class_label": {"names": {str(label): name for label, name in enumerate(splits.classes)}}}
    known: dict[str, dict[str, Any]] = {
        **{name: {"dtype": "image"} for name in IMAGES},
        **{name: {"dtype": "string"} for name in ("txt", "text")},
        "cls": {"dtype": classes if splits.classes else "int64"},
    }
    if kinds == {"multi"} and splits.classes:
        known["cls.json"] = {"list": {"dtype": classes}}
    if any(name not in known for name in splits.fields) or not splits.fields:
        return {}
    columns = [name for name in splits.fields if name not in ("cls", "cls.json")]
    columns += [name for name in ("cls", "cls.json") if name in splits.fields]
    features = [{"name": name, **known[name]} for name in columns]
    return {"features": [*features, *({"name": name, "dtype": "string"} for name in ("__key__", "__url__"))]}


def _dump(value: Any) -> str:
    import yaml

    if not value:
        return ""
    text: str = yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=1000)
    if yaml.safe_load(text) == value:
        return text
    return str(yaml.safe_dump(value, sort_keys=False, width=1000))  # a line break of Unicode in a name is escaped


def _marked(key: str, value: Any) -> str:
    """A key of the metadata, with the comment that says who wrote it."""
    return _dump({key: value}).replace(f"{key}:\n", f"{key}:  {MARK}\n", 1)


def _merged(front: str, parts: Mapping[str, Any], place: str) -> str:
    """The metadata with our keys. DestinationError if it is not YAML, or has them from somebody else."""
    import yaml

    cure = "fix it, or move the card elsewhere"
    try:
        there = yaml.safe_load(front) or {}
    except (yaml.YAMLError, RecursionError) as exc:
        fact = f"the metadata at the top of the dataset card is not YAML ({' '.join(str(exc).split())[:200]})"
        raise DestinationError(place, fact, cure) from exc
    if not isinstance(there, dict):
        raise DestinationError(place, "the metadata at the top of the dataset card is not a list of keys", cure)
    lines = front.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    for key in ("configs", "dataset_info"):
        if key not in there:
            continue
        at = next((n for n, line in enumerate(lines) if line.startswith(f"{key}:") and MARK in line), None)
        if at is None:
            if key in parts and there[key] == parts[key]:
                continue
            fact = f"the dataset card has the key {key}, which shardkit did not write"
            raise DestinationError(place, fact, f"remove {key} from its metadata, and run the command again")
        end = at + 1
        while end < len(lines) and lines[end][:1] in (" ", "-", "\t"):
            end += 1
        lines[at:end] = [_marked(key, parts[key])] if key in parts else []
    added = [_marked(key, value) for key, value in parts.items() if key not in there]
    return "".join([*lines, *added])


def _with_section(body: str, splits: Splits) -> str:
    """The text of a card with our section as it is now, if it has one."""
    before, begin, rest = body.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{_section(splits)}{after.removeprefix(chr(10))}" if begin and end else body


def _section(splits: Splits) -> str:
    """What the card says of the dataset."""
    rows = [
        f"| `{split_name(split, splits)}` | {split.manifest.samples:,} | {len(split.manifest.shards):,} | "
        f"{format_bytes(split.manifest.bytes)} |"
        for split in splits.splits
    ]
    lines = [BEGIN, "", "| Split | Samples | Shards | Size |", "|---|---:|---:|---:|", *rows, ""]
    if splits.classes:
        names = [f"{label}: {_line(name)}" for label, name in enumerate(splits.classes[:SHOWN_CLASSES])]
        more = len(splits.classes) - SHOWN_CLASSES
        lines += [f"Classes: {', '.join(names)}{f', and {more:,} more' if more > 0 else ''}.", ""]
    if splits.columns:
        tables = ", ".join(f"`{entry.name}`" for entry in splits.splits[0].manifest.index[:1])
        lines += [f"The index ({tables}) is a Parquet table with a row for each sample. Its further columns:", ""]
        lines += ["| Column | Type |", "|---|---|"]
        lines += [f"| {_line(name)} | {text} |" for name, text in splits.columns.items()] + [""]
    first = split_name(splits.splits[0], splits)
    lines += [
        "The shards are plain tar files in the WebDataset layout, with a manifest and an index of shardkit.", "",
        "```python", "from datasets import load_dataset", "",
        f'dataset = load_dataset("PATH OR REPOSITORY", split="{first}")', "```", "", END, "",
    ]  # fmt: skip
    return "\n".join(lines)


def _line(text: str) -> str:
    """A name within a line of Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", printable(text))
