"""TFRecord shards of `tf.train.Example`: features, samples, streams, and what can be salvaged."""
