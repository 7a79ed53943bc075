"""Shard formats: bytes to samples and back. Nothing here knows about stores or threads."""
