"""Blocks of samples: index rows and the bytes of their shards, mapped or fetched ahead of use."""
