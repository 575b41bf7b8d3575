"""Images of one object in a folder, with their cameras: cameras.json, COLMAP, NeRF, or none."""
