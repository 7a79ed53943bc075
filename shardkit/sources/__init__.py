"""Sources that can be packed: a class tree, an archive, a list of files, or a bucket."""
