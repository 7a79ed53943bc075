"""The command line: one file per command, and main with the only error boundary."""
