"""Samples to batches: decode in threads, encode labels, and collate."""
