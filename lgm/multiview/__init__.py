"""Multi-view diffusion: text or one image to views with cameras (MVDream and ImageDream)."""
