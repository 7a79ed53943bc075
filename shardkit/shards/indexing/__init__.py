"""Make the index of shards that have none: read each of them, keep their rows, and put manifest and index together."""
