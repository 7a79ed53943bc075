"""Options for reading a source."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from shardkit.errors import UsageError
from shardkit.options.fields import About, Help, Takes


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
    def on_error(self) -> Literal["stop", "skip"]:
        """Whether a file that can't be packed stops the run, or is skipped."""
        ...
