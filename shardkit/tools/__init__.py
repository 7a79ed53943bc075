"""What the commands besides pack do."""
