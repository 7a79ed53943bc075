"""`shardkit unpack`: shards back to a class tree."""
