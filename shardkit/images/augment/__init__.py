"""Augmentation: what may be done to an image (`Augment`), what is drawn for one, and the pixels of it."""
