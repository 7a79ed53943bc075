"""`shardkit view --html`: a page that reads a dataset's index and images by HTTP ranges, and a server for it."""
