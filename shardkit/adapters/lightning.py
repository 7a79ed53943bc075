"""A Lightning data module of Datasets: each process reads its own part, and a checkpoint knows the next batch."""

from __future__ import annotations

from functools import partial
from typing import Any, Unpack

from shardkit.adapters.torch import LoaderOptions, TorchDataset, TorchLoader
from shardkit.errors import MissingExtraError, UsageError, installs
from shardkit.reading.dataset import Dataset

try:
    from lightning.pytorch import LightningDataModule
except ImportError as exc:
    raise MissingExtraError("shardkit.lightning", "Lightning is not installed", installs("lightning")) from exc

HOOKS = {
    "train": "train_dataloader",
    "validation": "val_dataloader",
    "test": "test_dataloader",
    "predict": "predict_dataloader",
}
"""The method of a data module that Lightning calls for each of the datasets."""


class DataModule(LightningDataModule):  # type: ignore[misc]  # Lightning is not available to mypy
    """Datasets of batches for `Trainer.fit`, `validate`, `test` and `predict`.

    Each is a Dataset after batch(), or what its to_torch() returned. All of them may be omitted: Lightning skips
    validation without one, and raises its own error for the others. options: those of `to_torch().loader()`, such as
    num_workers and pin_memory; threads decode with num_workers=0 too. Batches are (images, labels) with `keys`. On
    several devices each process reads its own part, without a sampler.
    """

    def __init__(
        self,
        train: Dataset | TorchDataset | None = None,
        *,
        validation: Dataset | TorchDataset | None = None,
        test: Dataset | TorchDataset | None = None,
        predict: Dataset | TorchDataset | None = None,
        **options: Unpack[LoaderOptions],
    ) -> None:
        super().__init__()
        given = {"train": train, "validation": validation, "test": test, "predict": predict}
        self._options = options
        for name, data in given.items():
            if data is not None:  # Lightning calls the hooks that differ from those of its own class
                setattr(self, HOOKS[name], partial(self._loader, _source(name, data)))

    def _loader(self, source: TorchDataset) -> TorchLoader:
        return source.loader(**self._options)


def _source(name: str, data: Any) -> TorchDataset:
    if isinstance(data, Dataset):
        data = data.to_torch()
    if not isinstance(data, TorchDataset):
        fact = f"{type(data).__name__} is not a Dataset"
        raise UsageError(name, fact, "give dataset(…).decode(size=224).batch(32)")
    if data.dataset.steps.batch is None:
        raise UsageError(name, "Lightning needs batches", "add .batch(32), after .decode(size=…)")
    return data
