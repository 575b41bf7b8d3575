"""Verification of shards."""
