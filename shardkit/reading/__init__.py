"""Read a dataset as samples and batches: order, fetch, parse, shuffle, decode, batch."""
