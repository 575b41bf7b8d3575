"""A person's own pictures: found, cut out, and brought to the cameras that the network knows."""
