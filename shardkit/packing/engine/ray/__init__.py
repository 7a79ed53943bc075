"""The Ray engine: each shard is a task of a cluster."""
