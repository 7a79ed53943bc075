"""Options for reading a source."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from shardkit.errors import UsageError
from shardkit.options.fields import About, Help, Takes
from shardkit.options.keywords import named_fields


@named_fields
@dataclass(frozen=True, slots=True)
class TableColumns:
    """How to read a list of files: its columns, if they do not have one of the usual names.

    label_column: "" for a list without labels. label_separator: the text between several labels in one value.
    root: the folder that its paths are relative to (None: the list's own folder).
    """

    path_column: Annotated[
        str | None,
        Help("Column of a list that holds the paths.", "NAME", unset="path, file ..."),
        About(
            "For a source that is a list (csv, tsv, jsonl, parquet): its columns of paths and of labels ('' for no "
            'labels), if their names are unusual; the separator of several labels in one text, such as ";"; and the '
            "folder that its paths are relative to, if not the list's own."
        ),
    ] = None
    label_column: Annotated[
        str | None, Help("Column of a list that holds the labels; '' for none.", "NAME", unset="label ...")
    ] = None
    label_separator: Annotated[str | None, Help("Separator between several labels in a list, such as ';'.", "TEXT")] = (
        None
    )
    root: Annotated[
        str | os.PathLike[str] | None,
        Takes.FILE,
        Help("Folder that the paths of a list are relative to.", "DIR", unset="its folder"),
    ] = None

    def __post_init__(self) -> None:
        if self.label_separator == "":
            raise UsageError("label_separator", "it is empty", "give the text between two labels, such as ;")


@named_fields
@dataclass(frozen=True, slots=True)
class LabelOptions:
    r"""Labels that are not simply the class folders.

    label_from: a regular expression that finds the class of each file in its path below the source (or the split): the
    group `label`, the first group, or the whole match. `(?P<label>\w+)\.\d+` finds `cat` in `cat.0.jpg`. Images in any
    folder are taken, those outside of folders too. merge: name of a class -> the classes that become it, as
    `{"animal": ["cat", "dog"]}`. no_labels: take all images below the source, in any folder or none, without labels.

    Raises UsageError for what makes no sense.
    """

    label_from: Annotated[
        str | None,
        Help("Regular expression that finds the class in each file's path.", "REGEX", unset="the class folder"),
        About(
            "Classes from file names: a regular expression whose group 'label' (or first group) is the class, as in "
            r"'(?P<label>\w+)\.\d+' for cat.0.jpg. merge: several classes as one, such as [animal=cat,dog]. no_labels: "
            "all images below the source, without labels."
        ),
    ] = None
    merge: Annotated[
        Mapping[str, Sequence[str]] | None,
        Takes.GROUPS,
        Help("Merge several classes into one: animal=cat,dog; repeatable.", "NAME=CLASS,..."),
    ] = None
    no_labels: Annotated[bool, Help("Pack all images below SOURCE without labels.")] = False

    def __post_init__(self) -> None:
        if self.no_labels and (self.label_from is not None or self.merge is not None):
            other = "merge" if self.label_from is None else "label_from"
            raise UsageError("no_labels", f"given together with `{other}`", "give one of the two")
        if self.label_from is not None:
            _require_pattern(self.label_from)
        if self.merge is not None:
            _require_groups(self.merge)

    @property
    def any_folder(self) -> bool:
        """Whether images are taken from any folder, whatever its name."""
        return self.no_labels or self.label_from is not None

    def recorded(self) -> dict[str, object]:
        """The options that are used, for the manifest."""
        merge = None if self.merge is None else {name: list(parts) for name, parts in self.merge.items()}
        used = {"label_from": self.label_from, "merge": merge, "no_labels": self.no_labels or None}
        return {name: value for name, value in used.items() if value is not None}


def _require_pattern(pattern: str) -> None:
    cure = r"give one such as '(?P<label>\w+)\.\d+', which finds cat in cat.0.jpg"
    if not isinstance(pattern, str) or not pattern:
        raise UsageError("label_from", f"{pattern!r} is not a regular expression", cure)
    try:
        re.compile(pattern)
    except re.error as exc:
        raise UsageError("label_from", f"{pattern!r} is not a regular expression ({exc})", cure) from exc


def _require_groups(merge: Mapping[str, Sequence[str]]) -> None:
    cure = 'give names with the classes that they stand for, as {"animal": ["cat", "dog"]}'
    if not isinstance(merge, Mapping) or not merge:
        raise UsageError("merge", f"{merge!r} names no classes to merge", cure)
    seen: dict[str, str] = {}
    for name, parts in merge.items():
        lists = not isinstance(parts, str) and isinstance(parts, Sequence)
        if (
            not isinstance(name, str)
            or not name
            or not lists
            or not parts
            or not all(isinstance(p, str) for p in parts)
        ):
            raise UsageError("merge", f"{name!r}: {parts!r} is not a class with a list of classes", cure)
        for part in parts:
            if part in seen:
                raise UsageError("merge", f"the class {part!r} is named twice", "name each class once")
            seen[part] = name


class SourceOptions(Protocol):
    """The packing options that a source needs."""

    @property
    def extensions(self) -> tuple[str, ...]:
        """Extensions of the files to pack, in lower case, without the dot."""
        ...

    @property
    def fields(self) -> tuple[str, ...]:
        """Extensions of the files that make up a sample; empty if each file is a sample."""
        ...

    @property
    def shuffle(self) -> bool:
        """Whether the samples are shuffled, so that their order in the source does not matter."""
        ...

    @property
    def labels(self) -> LabelOptions:
        """Where the labels of a tree come from, and which classes are merged."""
        ...

    @property
    def on_error(self) -> Literal["stop", "skip"]:
        """Whether a file that can't be packed stops the run, or is skipped."""
        ...
