"""Tar shards in the WebDataset layout: headers, samples, streams, and what can be salvaged."""
