"""A Dataset as each framework's own kind of dataset."""
