"""Bytes to samples and back. Knows no store and no thread."""
