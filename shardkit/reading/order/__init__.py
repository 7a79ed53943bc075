"""The order of an epoch: the shuffle, the share of each rank, and views derived from them."""
