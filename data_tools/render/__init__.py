"""Meshes to RGBA views with cameras."""
