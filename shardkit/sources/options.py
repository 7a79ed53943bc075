"""What decides how a source is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, Protocol

from shardkit.errors import UsageError


@dataclass(frozen=True, slots=True)
class TableColumns:
    """How a list of files is read: its columns, where they do not have one of the usual names.

    label_column: "" for a list without labels. label_separator: what stands between several labels in a text.
    root: the folder that its paths are relative to (None: the list's own).
    """

    path_column: str | None = None
    label_column: str | None = None
    label_separator: str | None = None
    root: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.label_separator == "":
            raise UsageError("label_separator", "it is empty", "give the text between two labels, such as ;")


class SourceOptions(Protocol):
    """Of a packing's options, those that its source asks for."""

    @property
    def extensions(self) -> tuple[str, ...]:
        """Extensions of the files that are packed, in lower case, without the dot."""
        ...

    @property
    def fields(self) -> tuple[str, ...]:
        """Extensions of the files that make one sample; empty where each file is a sample."""
        ...

    @property
    def shuffle(self) -> bool:
        """Whether the samples are shuffled, so that their order in the source does not matter."""
        ...

    @property
    def on_error(self) -> Literal["stop", "skip"]:
        """Whether a file that can't be packed stops the run, or is skipped."""
        ...
