"""From a source to a finished dataset: scan, plan, write, commit."""
