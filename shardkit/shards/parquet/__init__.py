"""The Parquet files of a dataset: the index, and the fields that were added to it."""
