"""Data pipeline: from tar shards of rendered objects to batches on the device."""
