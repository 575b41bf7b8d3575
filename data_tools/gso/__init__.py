"""Google Scanned Objects, from the hub's tars to a set of shards for one of the protocols."""
