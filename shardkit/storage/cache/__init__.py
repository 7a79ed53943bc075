"""A cache of remote objects on this machine, shared by processes and bounded in size."""
