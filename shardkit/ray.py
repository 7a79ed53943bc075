"""Shards for Ray: a source for Ray Data, which reads in parallel. Needs `ray[data]`.

    ray.data.read_datasource(shardkit.ray.ShardSource(shardkit.dataset("shards/train")))

In a worker of Ray Train, `shardkit.dataset()` reads the part of that worker: it takes rank and world size from Ray.
"""

from __future__ import annotations

from shardkit.adapters.ray import ShardSource, to_ray

__all__ = ["ShardSource", "to_ray"]
