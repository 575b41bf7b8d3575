"""Streams of batches, endless for training and finite for evaluation, and Lightning's datamodule around
them.
"""
