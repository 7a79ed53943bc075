"""What an iteration spends its time on: recorded in all threads, summed up on demand, and acted on."""
