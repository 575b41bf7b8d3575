"""glTF 2.0 (.glb, .gltf), as the format demands: accessors, scene graph, skins, morph targets, materials.

No kept Python library reads all of it into triangles and materials (trimesh, pygltflib and others stop at
plain accessors of floats, or at the JSON), and the format is JSON over arrays, which numpy reads by itself.
Packed geometry goes through DracoPy and meshopt, where they are installed.
"""

from data_tools.meshes.gltf.reader import read_gltf

__all__ = ["read_gltf"]
