"""A Dataset for torch: batches one after another, single samples by number, and a DataLoader that can be resumed."""

from __future__ import annotations

from shardkit.errors import MissingExtraError, installs

try:
    import torch  # noqa: F401  # the modules of this folder import it without another message
except ImportError as exc:
    raise MissingExtraError("to_torch()", "torch is not installed", installs("torch")) from exc

from shardkit.adapters.torch.handover import to_torch
from shardkit.adapters.torch.iterable import TorchDataset
from shardkit.adapters.torch.loader import LoaderOptions, TorchLoader
from shardkit.adapters.torch.numbered import TorchMap
from shardkit.adapters.torch.tensors import TorchBatch

__all__ = ["LoaderOptions", "TorchBatch", "TorchDataset", "TorchLoader", "TorchMap", "to_torch"]
