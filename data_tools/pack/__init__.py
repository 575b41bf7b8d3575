"""Renders to shards."""
