"""The mesh rasterizer's kernels, in Triton.

Importing this room imports triton; `lgm.rendering.meshes.TritonMeshRenderer` does so when it is used.
"""
