"""A Dataset as the source of a webdataset pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from shardkit.errors import DatasetError, MissingExtraError, installs

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

try:
    import webdataset as wds
except ImportError as exc:
    fact, cure = "webdataset is not installed", installs("webdataset")
    raise MissingExtraError("to_webdataset()", fact, cure) from exc


class Source:
    """The first stage of a pipeline: each iteration is the next epoch; DataLoader workers share its samples."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._convert = as_webdataset if dataset.steps.decode is None else _same
        self._by_worker: Any = None
        if find_spec("torch") is not None:  # otherwise there are no workers
            from shardkit.adapters.torch import TorchDataset

            self._by_worker = TorchDataset(dataset, convert=self._convert)

    def __call__(self) -> Iterator[Any]:
        """The samples of the next epoch, or what the Dataset makes of them."""
        return map(self._convert, self.dataset) if self._by_worker is None else iter(self._by_worker)

    def __len__(self) -> int:
        return len(self.dataset)


class WebDatasetPipeline(wds.DataPipeline, wds.FluidInterface):  # type: ignore[misc]  # not available to mypy
    """A webdataset pipeline whose samples come from a Dataset: in its order, shuffled, distributed to ranks and
    workers.

    Its methods are those of `wds.WebDataset`; it needs none of its node and worker splitters.
    """

    def __len__(self) -> int:
        """The length of the Dataset. TypeError if there are further stages, or if it is not known."""
        try:
            if len(self.pipeline) == 1:
                return len(self.pipeline[0])
        except DatasetError as exc:
            raise TypeError(str(exc)) from exc
        raise TypeError(
            "the number of samples after the stages of this pipeline is not known; set it with with_length()"
        )

    @property
    def urls(self) -> list[str]:
        """The shards, for `wds.WebDataset(urls)`. Empty for a class tree that is read without packing."""
        return shard_urls(self.pipeline[0].dataset)


def shard_urls(dataset: Dataset) -> list[str]:
    """The locations of the shards of a dataset."""
    if dataset.content.streams:
        return [str(place) for place in dataset.content.streams]
    return [file.url for file in dataset.content.catalog.files()]


def as_webdataset(item: Any) -> Any:
    """An undecoded sample like webdataset's own reader yields it: every field as bytes, the label too."""
    if isinstance(item, dict) and isinstance(item.get("cls"), int):
        return {**item, "cls": str(item["cls"]).encode()}
    return item


def _same(item: Any) -> Any:
    return item


def to_webdataset(dataset: Dataset) -> WebDatasetPipeline:
    """The Dataset as a webdataset pipeline."""
    return WebDatasetPipeline(Source(dataset))
