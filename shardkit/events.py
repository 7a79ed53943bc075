"""What a long run tells its caller while it goes: plain values given to a callable. The library itself never prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step is. `total_*` is 0 where it is not known yet (while scanning).

    step: "scan", "pack", "index" … done / total: samples or files. bytes_done / bytes_total: their bytes.
    """

    step: str
    done: int
    total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0


ProgressFn = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """The ProgressFn that tells nobody."""
