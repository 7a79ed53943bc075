"""Destinations of a packing: a disk or a bucket, conflicting files, and the results of earlier runs."""
