"""`shardkit upload` and `shardkit download`: copy a dataset to and from a store."""
