"""The canonical frame that networks are trained in, as numbers. Imports no torch.

The first input view stands at (0, 0, RADIUS) and looks at the origin; objects are centred there, their
farthest vertex OBJECT_RADIUS from it: whole in the image from every direction, for the largest sphere that
these cameras see whole has a radius of RADIUS * sin(FOV_Y_DEG / 2) = 0.623.
"""

RADIUS = 1.5  # of the cameras' orbit
FOV_Y_DEG = 49.1  # vertical field of view
OBJECT_RADIUS = 0.6  # of the bounding sphere of an object
