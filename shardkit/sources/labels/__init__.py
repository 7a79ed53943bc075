"""Labels that do not come from class folders: none, those in file names, and several classes merged into one."""
