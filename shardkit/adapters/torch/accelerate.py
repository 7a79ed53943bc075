"""What Hugging Face Accelerate needs from a loader that it is to leave as it is.

`Accelerator.prepare` replaces a DataLoader by one that distributes its batches, except for one that says that it is
prepared. A prepared loader moves its batches to the device, and announces the last one, on which gradients that are
being accumulated are synchronized.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset


class Watched(Protocol):
    """A loader whose iteration Accelerate follows. end_of_dataloader: whether its last batch was delivered.
    remainder: -1, so that `gather_for_metrics` does not cut anything off.
    """

    end_of_dataloader: bool
    remainder: int


def keeps_its_part(dataset: Dataset) -> bool:
    """Whether what this process reads is what it should train with: a part, or the whole in a single process."""
    state: Any = getattr(sys.modules.get("accelerate.state"), "PartialState", None)
    alone = state is None or not state._shared_state or state().num_processes == 1
    return alone or dataset.reading.ranks[1] > 1


def moved(item: Any) -> Any:
    """The item on the device of this process."""
    from accelerate.state import PartialState
    from accelerate.utils import send_to_device

    return send_to_device(item, PartialState().device)


def watched(loader: Watched, items: Iterator[tuple[Any, bool]]) -> Iterator[Any]:
    """The items on this process's device, while Accelerate follows the loader.

    items: each with whether it is the last.
    """
    from accelerate.state import GradientState

    gradients = GradientState()
    loader.end_of_dataloader, loader.remainder = False, -1
    gradients._add_dataloader(loader)
    try:
        for item, last in items:
            loader.end_of_dataloader = last
            yield moved(item)
    finally:
        gradients._remove_dataloader(loader)
