"""What the threads of a reader do: the parts of a block as tasks, each of which makes a batch or a run of samples."""
