"""Textured meshes that turn in a page: as bytes, and the WebGL program that draws them."""
