"""The task of writing one shard, as data that crosses to a worker process or to another machine."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from shardkit.images.rewrite.transcode import Transcoding
from shardkit.packing.write.file_samples import FileSamples
from shardkit.packing.write.images import ImageCheck
from shardkit.packing.write.stored_samples import StoredSamples


class ShardTask(msgspec.Struct, frozen=True):
    """A shard to be written: the file `name` in the folder `work`, with these samples.

    digest: of all that decides its bytes. skip_bad: leave bad files out, and list them. texts: label -> name of the
    class, for formats that hold it. transcode: what becomes of each sample's first image.
    """

    name: str
    work: bytes
    digest: str
    check: ImageCheck
    skip_bad: bool
    samples: FileSamples | StoredSamples
    format: str = "tar"
    texts: dict[int, str] = {}
    transcode: Transcoding | None = None

    def watched(self) -> Iterator[bytes]:
        """The files of this machine whose times tell whether the shard is out of date."""
        return self.samples.watched()

    def extent(self) -> tuple[int, int]:
        """(samples, bytes) that are to be read."""
        return self.samples.extent()
