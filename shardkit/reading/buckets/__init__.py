"""Size buckets: shapes for batches of images of several sizes, and the samples of each."""
