"""The reprojection test on objects that are no furniture: thin, flat, round, hollow, all in colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trimesh", reason="trimesh is missing; pip install 'lgm-training[mesh]'")
pytest.importorskip("moderngl", reason="moderngl is missing; pip install 'lgm-training[render]'")

import trimesh
from trimesh import creation

from data_tools.engines import EngineUnavailable, make_engine
from data_tools.reprojection import find_outlines, judge
from data_tools.shared.plan import make_plan

NUM_VIEWS = 20
OPENGL = np.array([1.0, -1.0, -1.0, 1.0])
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


def rod(start, end, radius: float = 0.02) -> trimesh.Trimesh:
    return creation.cylinder(radius, segment=[start, end])


def tilted(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    return mesh.apply_transform(trimesh.transformations.rotation_matrix(0.6, [0.3, 1, 0.2]))


def turn(angle: float) -> tuple[float, float, float]:
    return np.cos(angle), angle / 6 - 1, np.sin(angle)


OBJECTS = {
    "a tilted rod": lambda: rod([-0.6, -0.8, 0.1], [0.7, 0.6, -0.3], 0.02),
    "sticks from one point": lambda: trimesh.util.concatenate(
        [rod([0, 0, 0], end) for end in np.random.default_rng(0).normal(size=(12, 3)).tolist()]
    ),
    "a thin ring": lambda: tilted(creation.torus(0.8, 0.02)),
    "a spring": lambda: trimesh.util.concatenate(
        [rod(turn(a), turn(a + 0.3)) for a in np.arange(0, 12, 0.3)]
    ),
    "a sheet": lambda: tilted(creation.box((2, 1.2, 0.01))),
    "a bowl with a handle": lambda: trimesh.util.concatenate(
        [creation.annulus(0.5, 0.55, 1), creation.torus(0.3, 0.04).apply_translation([0.8, 0, 0])]
    ),
    "two things far apart": lambda: trimesh.util.concatenate(
        [creation.icosphere(2, 0.2), creation.box((0.2, 0.3, 0.4)).apply_translation([2, 0.5, 0.3])]
    ),
}


def drawn(engine, plan, mesh: trimesh.Trimesh, path: Path) -> np.ndarray:
    """Alphas [V, H, W] in 0..1."""
    spread = (mesh.vertices - mesh.bounds[0]) / np.maximum(mesh.extents, 1e-9)
    mesh.visual.vertex_colors = np.c_[spread * 255, np.full(len(spread), 255)].astype(np.uint8)
    mesh.export(path)
    return np.stack(list(engine.render(path, plan)[0]))[..., 3] / 255.0


def exchanged(alphas: np.ndarray, one: int, two: int) -> np.ndarray:
    order = np.arange(len(alphas))
    order[[one, two]] = two, one
    return alphas[order]


MISTAKES = {
    "flipped y": lambda a, c, f: (a[:, ::-1], c, f),
    "mirrored": lambda a, c, f: (a, MIRROR @ c @ MIRROR, f),
    "OpenGL axes": lambda a, c, f: (a, c * OPENGL, f),
    "field of view + 5 %": lambda a, c, f: (a, c, f * 1.05),
    "field of view - 5 %": lambda a, c, f: (a, c, f * 0.95),
    "field of view + 20 %": lambda a, c, f: (a, c, f * 1.2),
    "views exchanged": lambda a, c, f: (exchanged(a, 6, 13), c, f),
}

# The sticks' ends are what tells, and at 96 pixels they are two pixels wide; with 128 it is caught.
TOO_COARSE = {("sticks from one point", "field of view + 5 %")}


def test_no_false_fault_and_mistakes_caught(tmp_path):
    try:
        engine = make_engine("opengl", supersample=1)
    except EngineUnavailable as error:
        pytest.skip(str(error))
    plan = make_plan(resolution=96, num_views=NUM_VIEWS)
    missed = []
    for name, make in OBJECTS.items():
        alphas = drawn(engine, plan, make(), tmp_path / "a.ply")
        assert judge(find_outlines(alphas), plan.c2w, plan.fov_y_deg).faults == (), name
        for mistake, corrupt in MISTAKES.items():
            images, c2w, fov_y_deg = corrupt(alphas, plan.c2w, plan.fov_y_deg)
            if not judge(find_outlines(images), c2w, fov_y_deg).faults:
                missed.append((name, mistake))
    engine.close()
    assert set(missed) <= TOO_COARSE


def sheet(width: float, height: float, axis: int) -> trimesh.Trimesh:
    """Two triangles across an axis, without a thickness."""
    corners = np.array([[-width, -height], [width, -height], [width, height], [-width, height]])
    return trimesh.Trimesh(np.insert(corners, axis, 0, axis=1), [[0, 1, 2], [0, 2, 3]], process=False)


def block(center, size) -> trimesh.Trimesh:
    return creation.box(size).apply_translation(center)


SHEETS = {
    "a ground with a box": lambda: [sheet(1, 1, 1), block([0.5, 0.01, 0.3], [0.2, 0.02, 0.2])],
    "a ground with two things": lambda: [
        sheet(1, 0.6, 1), block([0.5, 0.01, 0.3], [0.2, 0.02, 0.2]), block([-0.8, 0, -0.3], [0.1, 0.01, 0.1]),
    ],
    "a ground between two things": lambda: [sheet(1, 1, 1), block([0, 0, 0], [0.1, 0.1, 0.1])],
    "a wall with a box": lambda: [sheet(1, 0.7, 2), block([0, 0, 0.01], [0.3, 0.3, 0.02])],
    "a wall seen from the side": lambda: [sheet(0.7, 1, 0), block([0.01, 0.3, 0.3], [0.02, 0.3, 0.2])],
    "a bare sheet": lambda: [sheet(1, 1, 1)],
}  # fmt: skip


@pytest.mark.parametrize("num_views", [6, 12, 20])
def test_a_sheet_that_vanishes_from_the_side_is_no_fault_and_mistakes_are_caught(tmp_path, num_views):
    try:
        engine = make_engine("opengl")
    except EngineUnavailable as error:
        pytest.skip(str(error))
    plan = make_plan(resolution=96, num_views=num_views)
    for name, make in SHEETS.items():
        alphas = drawn(engine, plan, trimesh.util.concatenate(make()), tmp_path / "a.ply")
        assert judge(find_outlines(alphas), plan.c2w, plan.fov_y_deg).faults == (), name
        for mistake in ("flipped y", "OpenGL axes", "field of view + 20 %", "views exchanged"):
            if num_views < 20:
                continue
            images, c2w, fov_y_deg = MISTAKES[mistake](alphas, plan.c2w, plan.fov_y_deg)
            assert judge(find_outlines(images), c2w, fov_y_deg).faults, (name, mistake)
    engine.close()
