"""Rewrite images while packing: recode, transcode, and lossless changes of JPEG files."""
