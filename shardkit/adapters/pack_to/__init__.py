"""Packing a class tree while the first epoch reads it: `dataset("data/train", pack_to="shards/train")`."""
