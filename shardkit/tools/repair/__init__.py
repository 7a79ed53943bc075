"""`shardkit repair`: write what is still readable in damaged shards as a new dataset."""
