"""From a dataset to samples and batches: order, fetch, parse, shuffle, decode, batch."""
