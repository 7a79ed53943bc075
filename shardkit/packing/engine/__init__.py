"""Engines that run shard tasks: worker processes on this machine, or a Ray cluster."""
