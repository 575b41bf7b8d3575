"""A person's own images: found, cut out, and brought to the cameras that the network knows."""
