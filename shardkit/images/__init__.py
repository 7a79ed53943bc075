"""One image: its header, pixels, orientation, and metadata. Nothing here knows a dataset."""
