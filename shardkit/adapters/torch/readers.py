"""What may read a torch dataset: refused are those who would distribute, batch, or repeat what is already as it should.

The calling frames show who reads; in a forked worker they include those of the parent process.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from shardkit.errors import UsageError

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

DEALERS = {
    ("accelerate.data_loader", "DataLoaderDispatcher"),
    ("accelerate.data_loader", "IterableDatasetShard"),
    ("transformers.trainer_pt_utils", "IterableDatasetShard"),
}
"""Classes that distribute what one process reads to several: (module, name)."""

SKIPPER = ("accelerate.data_loader", "SkipDataLoader")
"""The class that reads an epoch and drops its first batches."""

FETCHER = "torch.utils.data._utils.fetch"
"""The module in which torch's DataLoader collates what a dataset yields."""

COLLATORS = ("torch.", "transformers.")
"""Modules whose collate functions stack the items that they get."""


def require_readable(dataset: Dataset) -> None:
    """Raise UsageError if the caller would read something else than each of this rank's batches once."""
    frames = list(_frames())
    for frame in frames:
        module = frame.f_globals.get("__name__", "")
        if module == FETCHER:
            _require_batched_once(dataset, frame.f_locals)
        elif module.partition(".")[0] in ("accelerate", "transformers"):
            _require_dealt_once(dataset, module, frame.f_locals.get("self"))
    read_by = {frame.f_globals.get("__name__", "") for frame in frames}
    if "transformers.trainer" in read_by and any(_is_skipper(frame) for frame in frames):
        fact = "it would skip the first batches of another epoch, since a new process has not counted the epochs before"
        cure = "use ignore_data_skip=True and give the loader its state with load_state_dict(), see docs/loops.md"
        raise UsageError("resume_from_checkpoint", fact, cure)


def loaded_by_lightning(depth: int) -> bool:
    """Whether Lightning called the function that is `depth` callers up: 1 is the caller of this function."""
    module: str = sys._getframe(depth + 1).f_globals.get("__name__", "")
    return module.partition(".")[0] in ("lightning", "pytorch_lightning")


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_skipper(frame: FrameType) -> bool:
    return (frame.f_globals.get("__name__"), type(frame.f_locals.get("self")).__name__) == SKIPPER


def _require_dealt_once(dataset: Dataset, module: str, dealer: Any) -> None:
    name = type(dealer).__name__
    if (module, name) not in DEALERS:
        return
    rank, world_size = dataset.reading.ranks
    if world_size > 1:
        fact = (
            f"this is already the part of rank {rank} of {world_size}, and {module}.{name} would distribute it to the "
            "ranks again"
        )
        cure = (
            "give accelerator.prepare() the loader of to_torch().loader(), which keeps its part; for "
            "transformers.Trainer use to_torch(map_style=True)"
        )
        raise UsageError("to_torch()", fact, cure)
    if name == "IterableDatasetShard" and dealer.batch_size is None:
        fact = f"{module}.{name} can't distribute a dataset of whole batches to the ranks"
        cure = "omit `rank` and `world_size`, and give accelerator.prepare() the loader of to_torch().loader()"
        raise UsageError("to_torch()", fact, cure)


def _require_batched_once(dataset: Dataset, fetcher: dict[str, Any]) -> None:
    collate = getattr(fetcher.get("collate_fn"), "__module__", None) or ""
    if dataset.steps.batch is not None and fetcher.get("auto_collation") and collate.startswith(COLLATORS):
        fact = "the dataset already yields batches, and the DataLoader would make batches of batches"
        cure = (
            "pass batch_size=None, or iterate over to_torch().loader(); for transformers.Trainer use "
            "to_torch(map_style=True), or return the loader from get_train_dataloader()"
        )
        raise UsageError("DataLoader(batch_size=…)", fact, cure)
