"""Lists of files with labels as sources: CSV, TSV, JSON lines, Parquet, and imagefolder metadata."""
