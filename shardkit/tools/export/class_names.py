"""`classnames.txt`: the names of the classes, one per line in label order, as webdatasets on Hugging Face have them
(CLIP_benchmark's layout), and as `--classes` takes them back."""

from __future__ import annotations

from shardkit.errors import DatasetError, UsageError, printable
from shardkit.tools.export.splits import Splits

NAME = "classnames.txt"


def class_names_text(splits: Splits) -> bytes:
    """The content of the file. DatasetError if there are no classes; UsageError for a name that is not one line."""
    if not splits.classes:
        raise DatasetError(splits.splits[0].place, "the dataset has no classes", "pack it with labels")
    for name in splits.classes:
        if name.splitlines() != [name] or name.strip() != name:
            fact = f"the class {printable(name)!r} is not a line of text"
            raise UsageError(splits.splits[0].place, fact, "rename the class, or export to another format")
    return "".join(f"{name}\n" for name in splits.classes).encode("utf-8", "surrogateescape")
