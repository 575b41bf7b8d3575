"""3D Gaussians that turn in a page: what is drawn as bytes, and the WebGL program that draws it."""
