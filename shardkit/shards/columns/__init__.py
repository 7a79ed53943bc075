"""The columns of an index that a list of samples brought along: their names, types and values."""
