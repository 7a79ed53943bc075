"""Class trees as sources: walk folders, list ahead, and recognize split folders."""
