"""The task of writing one shard, as data that can be sent to a worker process or another machine."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from shardkit.images.rewrite.transcode import Transcoding
from shardkit.packing.write.file_samples import FileSamples
from shardkit.packing.write.images import ImageCheck
from shardkit.packing.write.stored_samples import StoredSamples


class ShardTask(msgspec.Struct, frozen=True):
    """A shard to write: the file `name` in the folder `work`, with these samples.

    digest: of everything that determines its bytes. skip_bad: skip bad files, and list them. texts: label -> class
    name, for formats that store it. transcode: how to transcode each sample's first image.
    seek_points, quality_columns: whether to find the images' seek points and their quality, for the index. columns:
    further columns for the index, a row for each sample, as `encoded_columns` gives them.
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
    seek_points: bool = False
    columns: bytes = b""
    quality_columns: bool = False

    def watched(self) -> Iterator[bytes]:
        """The local files whose times show whether the shard is out of date."""
        return self.samples.watched()

    def extent(self) -> tuple[int, int]:
        """(samples, bytes) to read."""
        return self.samples.extent()
