"""The version of shardkit, for those that would import the whole package for it."""

__version__ = "0.1.0"
