"""Corrections of a finished dataset, without a change of its shards: new labels, deletions, versions."""
