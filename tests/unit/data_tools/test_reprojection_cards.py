"""Objects of flat cards: what a view sees edge-on is missing there, and its camera is right."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

pytest.importorskip("moderngl", reason="moderngl is missing; pip install 'lgm-training[render]'")

from data_tools.engines import make_engine
from data_tools.reprojection import find_outlines, judge
from data_tools.shared.decoded import decode_image
from data_tools.shared.plan import make_plan
from data_tools.shared.renders import encode_image

PLAN = make_plan(resolution=128, num_views=36)


def card(width: float, height: float, yaw_deg: float = 0.0, pitch_deg: float = 0.0, at=(0.0, 0.0, 0.0)):
    """[4, 3] corners; it stands on the middle of its lower edge, tilted, then turned."""
    flat = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0.5, 1, 0], [-0.5, 1, 0]]) * (width, height, 1)
    yaw, pitch = np.radians([yaw_deg, pitch_deg])
    tilt = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    return flat @ (turn @ tilt).T + at


CARDS = {
    "crossed, one lower": [card(1, 1), card(1, 0.9, 90)],
    "crossed, one narrow": [card(1, 1), card(0.3, 0.6, 90)],
    "nearly one": [card(1, 1), card(1, 0.6, 20)],
    "a kite on a strip": [card(0.6, 0.8, 0, 70), card(0.05, 0.6, at=(0, -0.6, 0))],
    "a swing": [card(0.02, 0.8, at=(x, 0, 0)) for x in (-0.3, 0.3)] + [card(0.7, 0.25, 0, -90)],
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A function from a name to silhouettes [V, S, S] and thumbnails."""
    engine, folder = make_engine("opengl", supersample=1), tmp_path_factory.mktemp("cards")

    @cache
    def draw(name: str) -> tuple[np.ndarray, np.ndarray]:
        colors = np.random.default_rng(0).uniform(0.1, 0.9, (len(CARDS[name]), 4, 3))
        corners = np.concatenate([np.stack(CARDS[name]), colors], axis=-1).reshape(-1, 6)
        lines = ["v " + " ".join(f"{number:.4f}" for number in corner) for corner in corners]
        lines += [f"f {i + 1} {i + 2} {i + 3} {i + 4}" for i in range(0, len(corners), 4)]
        (folder / "a.obj").write_text("\n".join(lines))
        views = engine.render(folder / "a.obj", PLAN.for_object({"uid": "a"}))[0]
        decoded = [decode_image(encode_image(view, "png")) for view in views]
        return np.stack([d.silhouette for d in decoded]), np.stack([d.thumbnail for d in decoded])

    yield draw
    engine.close()


def faults(drawn, name: str, order=None, fov: float = 1.0, flip: bool = False) -> tuple[str, ...]:
    alphas, thumbnails = (part if order is None else part[order] for part in drawn(name))
    if flip:
        alphas, thumbnails = alphas[:, ::-1], thumbnails[:, ::-1]
    return judge(find_outlines(alphas), PLAN.c2w, PLAN.fov_y_deg * fov, thumbnails).faults


@pytest.mark.parametrize("name", CARDS)
def test_right_cameras_of_cards_are_right(drawn, name):
    """Each of these was "view N: its image matches no camera"."""
    assert faults(drawn, name) == ()


@pytest.mark.parametrize("name", CARDS)
def test_wrong_cameras_of_cards_are_found(drawn, name):
    views = np.arange(PLAN.num_views)
    assert faults(drawn, name, fov=0.8) and faults(drawn, name, fov=1.2)
    assert faults(drawn, name, flip=True)
    for one, two in ((0, 1), (8, 15), (5, 20)):
        order = views.copy()
        order[[one, two]] = two, one
        assert faults(drawn, name, order=order), (one, two)


def test_a_view_without_what_it_sees_face_on_is_faulted(drawn):
    """What is missing there is no sheet in a plane through its camera."""
    alphas, thumbnails = (part.copy() for part in drawn("crossed, one lower"))
    alphas[0, :64], thumbnails[0, :32] = 0, 0
    found = judge(find_outlines(alphas), PLAN.c2w, PLAN.fov_y_deg, thumbnails).faults
    assert any(fault.startswith("view 0: its image matches no camera") for fault in found)
