"""LGM: four images in, a cloud of 3D Gaussians out; the framework that trains and measures it.

Importing this package imports nothing else: rooms are imported by name (`lgm.cameras`, `lgm.models`, …).
"""

__version__ = "0.1.0"
