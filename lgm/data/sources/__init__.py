"""Where objects come from: shards, mixtures of sets, images, synthetic ones; filters and caches."""
