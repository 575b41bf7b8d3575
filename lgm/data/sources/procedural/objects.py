"""Procedural objects: a textured mesh as a pure function of (seed, index)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from lgm.cameras.canonical import OBJECT_RADIUS
from lgm.data.sources.procedural import deformations
from lgm.data.sources.procedural.assemblies import ASSEMBLIES, Design, cut
from lgm.data.sources.procedural.booleans import Surface, require_manifold
from lgm.data.sources.procedural.draws import turn_y
from lgm.data.sources.procedural.painting import paint
from lgm.data.sources.procedural.products import transformed

# Changes whenever what (seed, index) stands for does.
VERSION = 1
_STREAM = 0x70726F63  # keeps these random numbers apart from those of the order and the views
_LARGE, _SMALL, _FEW = 256, 128, 2


@dataclass(frozen=True)
class ProceduralMesh:
    """A textured object, centred on its box, its farthest vertex at 0.6.

    kind: how it is put together. faces: counter-clockwise as seen from outside. uvs: (0, 0) is a texture's
    upper left corner. textures: sRGB, square, of sides that are powers of 2. skins: each face's texture.
    """

    kind: str
    positions: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    uvs: Float[np.ndarray, "n 2"]
    faces: Int[np.ndarray, "f 3"]
    skins: Int[np.ndarray, " f"]
    textures: tuple[UInt8[np.ndarray, "s s 3"], ...]


def make_object(seed: int, index: int, booleans: bool = True) -> ProceduralMesh:
    """The object of a seed and an index.

    booleans: whether there are objects cut by others, for which manifold3d is needed.

    Raises ValueError in one line where it is missing, or where seed or index are below 0.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed={seed} and index={index} of a procedural object must be at least 0")
    if booleans:
        require_manifold()
    # Nothing but these four numbers decides: any process, at any time, makes the same object.
    rng = np.random.default_rng([_STREAM, VERSION, seed, index])
    kinds = [kind for kind in ASSEMBLIES if booleans or kind is not cut]
    weights = np.array([ASSEMBLIES[kind] for kind in kinds])
    assemble = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
    design = Design(rng)
    assemble(design)
    _deform(design)
    surface = _one_surface(design)
    surface = _fitted(surface, rng)
    # Only textures that a face still has are painted: booleans cut some away.
    used, skins = np.unique(surface.skins, return_inverse=True)
    size = _LARGE if len(used) <= _FEW else _SMALL
    chosen = (design.skins[number] for number in used)
    textures = tuple(paint(solid, pattern, size) for solid, pattern in chosen)
    return ProceduralMesh(
        kind=assemble.__name__.replace("_", " "),
        positions=surface.positions.astype(np.float32),
        normals=surface.normals.astype(np.float32),
        uvs=np.clip(surface.uvs, 0, 1).astype(np.float32),
        faces=surface.faces.astype(np.int32),
        skins=skins.reshape(-1).astype(np.int32),
        textures=textures,
    )


def _deform(design: Design) -> None:
    """Bend, twist or taper all of some objects."""
    rng = design.rng
    if not design.solids or rng.random() > 0.2:
        return
    low, high = design.bounds()
    half = (high - low) / 2
    center = (low + high) / 2
    change = deformations.random_map(rng, max(half[1], 0.05), max(half[0], half[2]))
    design.deform(lambda points: change(points - center))


def _one_surface(design: Design) -> Surface:
    pieces = [
        Surface(solid.vertices, solid.normals(), solid.uvs, solid.faces, np.full(len(solid.faces), skin))
        for solid, skin in design.solids
    ] + design.surfaces
    first = np.cumsum([0, *(len(piece.positions) for piece in pieces)])
    return Surface(
        positions=np.concatenate([piece.positions for piece in pieces]),
        normals=np.concatenate([piece.normals for piece in pieces]),
        uvs=np.concatenate([piece.uvs for piece in pieces]),
        faces=np.concatenate([piece.faces + start for piece, start in zip(pieces, first, strict=False)]),
        skins=np.concatenate([piece.skins for piece in pieces]),
    )


def _fitted(surface: Surface, rng: np.random.Generator) -> Surface:
    """Turned about y, centred and scaled; only vertices that a face has count."""
    # Half of the objects stay aligned with the axes, as most modelled objects are.
    turn = turn_y(rng.choice([0.0, rng.uniform(0, 2 * np.pi)]))
    used, faces = np.unique(surface.faces, return_inverse=True)
    positions = transformed(surface.positions[used], turn)
    low, high = positions.min(0), positions.max(0)
    positions = positions - (low + high) / 2
    positions *= OBJECT_RADIUS / np.linalg.norm(positions, axis=1).max()
    normals = transformed(surface.normals[used], turn)
    return Surface(positions, normals, surface.uvs[used], faces.reshape(-1, 3), surface.skins)


def uid_of(seed: int, index: int, booleans: bool = True) -> str:
    """The name of an object, the same wherever it is made: by which generator, of what seed and index."""
    return f"procedural{VERSION}{'' if booleans else 'plain'}-{seed}-{index:07d}"
