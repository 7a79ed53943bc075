"""The time to resume does not grow with the position: from a state to the next batch, at several places of an epoch.

    python benchmarks/resume.py PREFIX [--repeat 5]

PREFIX is a packed dataset. Each line is the median over fresh datasets of the time from load_state_dict to the first
batch, undecoded, with a buffer of 10,000.
"""

from __future__ import annotations

import argparse
import statistics
import time

import shardkit


def resume_seconds(prefix: str, place: float) -> float:
    """Seconds from a state at this fraction of the epoch to the next batch."""
    first = shardkit.dataset(prefix, shuffle=10_000, seed=0).batch(64)
    state = first.state_dict()
    state["samples"] = int(len(first) * 64 * place) // 64 * 64
    again = shardkit.dataset(prefix, shuffle=10_000, seed=0).batch(64)
    begin = time.perf_counter()
    again.load_state_dict(state)
    next(iter(again))
    return time.perf_counter() - begin


def main() -> None:
    """Print a line for each place."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prefix")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    resume_seconds(options.prefix, 0.0)  # imports, page cache
    places = (0.0, 0.25, 0.5, 0.75, 0.95)
    times: dict[float, list[float]] = {place: [] for place in places}
    for _ in range(options.repeat):
        for place in places:
            times[place].append(resume_seconds(options.prefix, place))
    for place in places:
        values = times[place]
        spread = f"{min(values) * 1e3:.1f} to {max(values) * 1e3:.1f}"
        print(f"at {place:4.0%} of the epoch: {statistics.median(values) * 1e3:6.1f} ms to the next batch ({spread})")


if __name__ == "__main__":
    main()
