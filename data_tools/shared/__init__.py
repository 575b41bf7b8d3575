"""Shared by several commands: names, files of renders and shards, worker processes."""
