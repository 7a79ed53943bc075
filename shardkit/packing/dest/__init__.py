"""Destinations of a packing: a disk or a bucket, the files in the way, and the results of earlier runs."""
