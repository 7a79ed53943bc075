"""Pack a source into a dataset: scan, plan, write, commit."""
