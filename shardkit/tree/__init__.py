"""A class-directory tree as columns: what is in it, in which order, and under which keys."""
