"""What belongs to an image in its sample, and moves with it: boxes and masks."""
