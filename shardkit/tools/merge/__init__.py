"""`shardkit merge`: one dataset of the parts of a packing, or of several datasets."""
