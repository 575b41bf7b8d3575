"""Mesh files, read into triangles and materials that an engine can draw."""
