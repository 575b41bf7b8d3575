"""Near-duplicate meshes, by geometry."""
