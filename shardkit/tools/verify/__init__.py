"""`shardkit verify`: check shards against index and manifest."""
