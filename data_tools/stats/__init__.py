"""Numbers, histograms and a contact sheet of shards."""
