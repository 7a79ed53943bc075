"""Read and write bytes at locations. This package knows no shard format."""
