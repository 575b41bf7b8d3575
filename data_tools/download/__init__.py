"""Meshes of Objaverse, or of a list of URLs, with their licences."""
