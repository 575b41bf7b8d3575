"""The renderer's kernels, in Triton: projection, tile binning and alpha compositing, forward and backward.

Importing this package imports triton; `lgm.rendering.triton_backend` does so when a renderer is made.
Letters in shapes: I images (scenes × views), P = I × N pairs of an image and a Gaussian, M
intersections of a pair and a tile.
"""
