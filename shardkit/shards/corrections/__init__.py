"""Corrections of a finished dataset: labels that changed and samples that are deleted, in files beside its index."""
