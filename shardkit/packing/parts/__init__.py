"""Parts of a packing that several machines write, and what they leave for the merge."""
