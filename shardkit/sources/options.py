"""What decides how a source is read."""

from __future__ import annotations

from typing import Literal, Protocol


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
