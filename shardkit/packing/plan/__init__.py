"""Plan a packing: which samples go into which shard, and how large each shard will be."""
