"""All contestants. Importing this fills `harness.TABLE`; the libraries load when a contestant is made."""

from contestants import batches, pack, raw

__all__ = ["batches", "pack", "raw"]
