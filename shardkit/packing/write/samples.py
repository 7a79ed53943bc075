"""Read and write the samples of a shard, one after another. There is one loop, and one shortcut: `write_plain`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from shardkit.errors import ShardkitError
from shardkit.packing.write.plain import write_plain
from shardkit.packing.write.receipt import Skipped, Written
from shardkit.packing.write.sink import Advance, Meter, Sink
from shardkit.packing.write.task import ShardTask
from shardkit.packing.write.writer import SampleWriter


class Sample(Protocol):
    """A sample to read and write. size: its bytes in the source."""

    size: int

    def write(self, writer: SampleWriter, texts: Mapping[int, str]) -> None:
        """Read it and pass it to the writer. OSError or ValueError if it is bad."""
        ...

    def leave_out(self, exc: OSError | ValueError, *, skip_bad: bool) -> Skipped:
        """The record that it was skipped. Raises an error that names it if it must not be skipped."""
        ...


def write_samples(task: ShardTask, sink: Sink, advance: Advance) -> Written:
    """Write the samples of a task and the end mark to the sink."""
    written = write_plain(task, sink, advance)
    if written is not None:
        return written
    writer = SampleWriter(sink, task.format, task.check, task.transcode)
    meter, skipped = Meter(advance, task.extent()), list[Skipped]()
    with task.samples.opened() as samples:
        _write_each(samples, task, writer, meter, skipped)
    writer.end()
    meter.end()
    return writer.written(skipped)


def _write_each(
    samples: Iterable[Sample], task: ShardTask, writer: SampleWriter, meter: Meter, skipped: list[Skipped]
) -> None:
    for sample in samples:
        try:
            sample.write(writer, task.texts)
        except ShardkitError:
            raise
        except (OSError, ValueError) as exc:
            skipped.append(sample.leave_out(exc, skip_bad=task.skip_bad))
        meter.read(sample.size)
