"""Objects without end from a seed: made of random shapes, painted with random patterns (numpy alone).

After the ideas of MegaSynth (Jiang et al. 2024, arXiv 2412.14166), LRM-Zero (Xie et al. 2024, arXiv
2406.09371) and Zeroverse therein: what a reconstruction network has to learn is in shapes and textures of any
kind, not in what they mean.
"""

from lgm.data.sources.procedural.booleans import require_manifold
from lgm.data.sources.procedural.objects import ProceduralMesh, make_object, uid_of

__all__ = ["ProceduralMesh", "make_object", "require_manifold", "uid_of"]
