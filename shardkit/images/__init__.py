"""Single images: header, pixels, orientation, and metadata. Nothing here knows about datasets."""
