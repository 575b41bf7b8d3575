"""Posed images of other layouts to renders."""
