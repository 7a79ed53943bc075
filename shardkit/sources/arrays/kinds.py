"""Files of arrays, by the endings of their names."""

from __future__ import annotations

ARRAYS = {".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5"}
"""What the name of a file of arrays ends with -> how it is read."""


def ending_of_arrays(path: str) -> str:
    """The ending of a path that is that of a file of arrays; "" where it has none."""
    return next((ending for ending in ARRAYS if path.lower().endswith(ending)), "")
