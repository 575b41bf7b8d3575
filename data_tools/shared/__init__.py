"""What several commands share: names, files of renders and shards, worker processes."""
