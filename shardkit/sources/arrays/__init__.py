"""Arrays of images as sources: NumPy's .npz files, and HDF5."""
