"""Shards for Lightning: a ready data module. Needs `lightning` and the extra `torch`.

from shardkit.lightning import DataModule
"""

from __future__ import annotations

from shardkit.adapters.lightning import DataModule

__all__ = ["DataModule"]
