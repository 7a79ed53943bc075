"""Archives as sources: tar, zip, and 7z members without unpacking to a folder."""
