"""Stores: local disk, memory, object stores, fsspec, and the slow and faulty ones for tests."""
