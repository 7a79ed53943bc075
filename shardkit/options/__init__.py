"""Options: what their fields carry, and the files and folders that they name."""
