"""`shardkit export`: files that let other libraries read a dataset's shards as their own."""
