"""`shardkit report`: the quality report of a dataset as one HTML page."""
