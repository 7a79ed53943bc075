"""Implementations of all commands except `pack`."""
