"""Locations to bytes and back. Knows no format."""
