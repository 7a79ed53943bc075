"""Progress events of a long run: plain values passed to a callable. The library itself never prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of one step. `total` and `bytes_total` are 0 while they are not known yet (while scanning).

    step: "scan", "pack", "index" … done / total: samples or files. bytes_done / bytes_total: their bytes.
    """

    step: str
    done: int
    total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0


ProgressFn = Callable[[Progress], None]


def no_progress(_: Progress) -> None:
    """A ProgressFn that does nothing."""
