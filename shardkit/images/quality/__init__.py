"""How good an image is, and which images are nearly the same."""
