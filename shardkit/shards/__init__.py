"""A finished dataset, local or remote: file names, manifest, index, and the bytes of its shards."""
