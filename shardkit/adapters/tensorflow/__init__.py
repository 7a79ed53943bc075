"""Hand batches to TensorFlow: from shardkit's own threads, or as a graph of TensorFlow's operations."""
