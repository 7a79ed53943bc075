"""Tell of a running iteration: call a function, and show a line in a terminal or a notebook."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TextIO

from shardkit.reading.stats.record import Counts, Kept, Recorder
from shardkit.reading.stats.stats import Stats, stats_of

StatsFn = Callable[[Stats], None]


class Live:
    """Reports of one iteration, each on what happened since the one before. Called in the thread of the loop."""

    def __init__(self, record: Recorder, on_stats: StatsFn | None, line: Line | None) -> None:
        self._record, self._on_stats, self._line = record, on_stats, line
        self._before, self._early = Counts(), Counts()

    def __call__(self, *, last: bool = False) -> None:
        """Report. last: whether an epoch is over."""
        counts, early = self._record.counts(), self._record.early()
        if counts.batches > self._before.batches:
            new = stats_of(counts.plus(self._before, -1), early.plus(self._early, -1), self._record.setting)
            self._before, self._early = counts, early
            if self._line is not None:
                self._line.show(text_of(new, counts.batches))
            if self._on_stats is not None:
                self._on_stats(new)
        if last and self._line is not None:
            self._line.end()


def text_of(stats: Stats, batches: int) -> str:
    """A short line. batches: since the beginning."""
    rate = stats.samples / stats.seconds if stats.seconds else 0.0
    waits = (stats.wait.seconds + stats.hand_over.seconds) / stats.seconds if stats.seconds else 0.0
    limit = "" if stats.bottleneck == "none" else f" | limit: {stats.bottleneck}"
    skipped = f" | {stats.skipped:,} skipped" if stats.skipped else ""
    return (
        f"{batches:,} batches | {rate:,.0f} samples/s | waits {waits:.0%} | "
        f"{stats.queue_depth:.1f} of {stats.ahead} ready{limit}{skipped}"
    )


class Watch:
    """The record of the latest iteration of a Dataset. A copy in another process begins without one."""

    def __init__(self) -> None:
        self.latest: Recorder | None = None
        self.kept = Kept()
        self.made: list[Recorder] | None = None
        """In the worker of a loader, the records of its iteration, of which nobody is told here."""

    def __reduce__(self) -> tuple[type[Watch], tuple[()]]:
        return Watch, ()

    def begin(self, on_stats: StatsFn | None = None, progress: bool = False) -> Recorder:
        """The record of a new iteration, and who is told of it."""
        made = self.latest = Recorder()
        made.kept = self.kept
        if self.made is not None:
            self.made.append(made)
        elif on_stats is not None or progress:
            made.tell = Live(made, on_stats, Line() if progress else None)
        return made

    def counts(self) -> Counts:
        """What was counted in a worker's iteration."""
        found = Counts()
        for record in self.made or ():
            found = found.plus(record.counts())
        return found

    def stats(self) -> Stats:
        """The statistics of the latest iteration; zeros if there was none."""
        latest = self.latest or Recorder()
        return stats_of(latest.counts(), latest.early(), latest.setting)


class Line:
    """A line that is written again and again: in a notebook, or else on stderr where that is a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._length = 0
        self._handle: Any = None

    def show(self, text: str) -> None:
        """Replace the line."""
        if in_notebook():
            self._show_in_notebook(text)
        elif self._stream is not None and self._stream.isatty():
            self._stream.write("\r" + text.ljust(self._length))
            self._stream.flush()
            self._length = len(text)

    def end(self) -> None:
        """Leave the line as it is, and go to the next one."""
        if self._length:
            self._stream.write("\n")
            self._stream.flush()
        self._length, self._handle = 0, None

    def _show_in_notebook(self, text: str) -> None:
        from IPython.display import display

        content = {"text/plain": text}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook."""
    interactive = sys.modules.get("IPython")
    shell = None if interactive is None else interactive.get_ipython()
    return getattr(shell, "kernel", None) is not None
