"""Write one shard from its task: samples, encoders, labels, and the receipt."""
