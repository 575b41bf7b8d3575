"""Endless and finite streams of batches, and Lightning's datamodule around them."""
