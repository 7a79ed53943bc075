"""Run one contestant once, in a process of its own: `python one.py MODE NAME CASE`, where CASE is JSON.

Writes its results as lines of JSON to the original stdout; library output goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from itertools import islice
from time import perf_counter
from typing import Any

import harness
from harness import Case, Epoch, Run

LEAST_SECONDS = 1.0  # whole epochs are repeated for at least this long
WARM_UP_SAMPLES = 200
MEMORY_EPOCHS = 3
Tell = Callable[[dict[str, Any]], None]


def drain(sizes: Iterable[int]) -> tuple[int, int]:
    """(samples, bytes) of an epoch of undecoded samples."""
    samples = total = 0
    for size in sizes:
        samples += 1
        total += size
    return samples, total


def time_raw(epoch: Epoch, tell: Tell, *, warm: bool = True) -> None:
    """Time whole epochs, including opening the files. A short partial epoch before them warms up."""
    if warm:
        drain(islice(epoch(), WARM_UP_SAMPLES))
    seconds, epochs = 0.0, 0
    while epochs == 0 or (warm and seconds < LEAST_SECONDS):
        start = perf_counter()
        samples, total = drain(epoch())
        seconds += perf_counter() - start
        epochs += 1
    tell({"seconds": seconds / epochs, "samples": samples, "bytes": total})


def time_cold(epoch: Epoch, tell: Tell) -> None:
    """Time a single epoch, without warm-up."""
    time_raw(epoch, tell, warm=False)


def time_batches(epoch: Epoch, tell: Tell, case: Case) -> None:
    """Time the rest of an epoch after its first batch, which has to wait for workers and full buffers."""
    images = iter(epoch())
    first = next(images)
    want = (case.batch, case.size, case.size, 3)
    if tuple(first.shape) != want:
        raise ValueError(f"the first batch has the shape {tuple(first.shape)}, not {want}")
    start = perf_counter()
    timed = sum(batch.shape[0] for batch in images)
    seconds = perf_counter() - start
    tell({"seconds": seconds, "timed": timed, "samples": timed + case.batch, "dtype": str(first.dtype)})


def time_pack(run: Run, tell: Tell) -> None:
    """Time the call, including worker processes."""
    start = perf_counter()
    samples = run()
    tell({"seconds": perf_counter() - start, "samples": samples})


def reach_first_batch(epoch: Epoch, tell: Tell) -> None:
    """Report the first batch: the runner's clock started before this process did, and stops when it reads the line."""
    next(iter(epoch()))
    tell({"ready": True})
    os._exit(0)


def read_epochs(epoch: Epoch, tell: Tell) -> None:
    """Read several epochs while the runner watches the memory."""
    samples = 0
    for number in range(MEMORY_EPOCHS):
        tell({"epoch": number + 1})
        samples = sum(1 if isinstance(item, int) else item.shape[0] for item in epoch())
    tell({"samples": samples})


def pack_once(run: Run, tell: Tell) -> None:
    """Pack while the runner watches the memory."""
    tell({"epoch": 1})
    tell({"samples": run()})


def main() -> None:
    """Make the contestant and time it according to the mode."""
    mode, name, text = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    import contestants as _contestants  # noqa: F401  fills the table

    case = Case(**json.loads(text))
    made = harness.find(mode, name).make(case)
    if mode == "batches":
        time_batches(made, tell, case)
    else:
        DRIVERS[mode](made, tell)


DRIVERS: dict[str, Callable[[Any, Tell], None]] = {
    "pack": time_pack,
    "raw": time_raw,
    "cold": time_cold,
    "start": reach_first_batch,
    "memory raw": read_epochs,
    "memory batches": read_epochs,
    "memory pack": pack_once,
}

if __name__ == "__main__":
    main()
