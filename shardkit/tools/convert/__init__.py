"""`shardkit convert`: write a dataset again in another format, order, or selection."""
