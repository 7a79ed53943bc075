"""`shardkit bench`: measure reading, compare it with the machine's limits, and advise."""
