"""Several random crops of each image, of one or more sizes, from a single decode."""
