"""Text or one image to views with cameras: the diffusion networks of MVDream and ImageDream."""
