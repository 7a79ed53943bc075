"""From what a user writes to what is there."""
