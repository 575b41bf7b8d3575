"""Meshes in diffuse light, against numbers that are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lgm.cameras import Cameras
from lgm.lights import studio_lights
from lgm.rendering.meshes import TorchMeshRenderer
from lgm.rendering.meshes.lit import LitMeshes, draw_depths, draw_lit

FRONT = Cameras.orbit([0.0], [0.0])[None]


def square(texture: np.ndarray, size: float = 1.0, normal=(0.0, 0.0, 1.0)) -> SimpleNamespace:
    """Upright in the plane z = 0, its texture upright as seen from +z."""
    corners = np.array([[-1, 1, 0], [1, 1, 0], [1, -1, 0], [-1, -1, 0]], np.float32) * size / 2
    return SimpleNamespace(
        positions=corners,
        normals=np.tile(np.array(normal, np.float32), (4, 1)),
        uvs=np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32),
        faces=np.array([[0, 2, 1], [0, 3, 2]], np.int32),
        skins=np.zeros(2, np.int32),
        textures=(texture,),
    )


def plain(color: tuple[int, int, int], side: int = 8) -> np.ndarray:
    return np.broadcast_to(np.array(color, np.uint8), (side, side, 3)).copy()


def draw(meshes, cameras=FRONT, size=32, supersampling=1) -> np.ndarray:
    packed = LitMeshes.pack(meshes)
    return draw_lit(TorchMeshRenderer(), packed, cameras, size, studio_lights(), supersampling).numpy()


def srgb(linear) -> np.ndarray:
    linear = np.asarray(linear)
    return np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255


@pytest.mark.parametrize("azimuth", [0.0, 180.0])
def test_a_face_is_lit_from_the_side_that_is_seen(azimuth):
    """Whatever its normals say: these look the other way from one of the two sides."""
    image = draw([square(plain((255, 255, 255)))], Cameras.orbit([0.0], [azimuth])[None])[0, 0]
    normal = np.array([0, 0, 1.0 if azimuth == 0 else -1.0])
    expected = srgb(studio_lights().irradiance(normal))
    np.testing.assert_allclose(image[16, 16], [*[round(float(expected))] * 3, 255], atol=1)
    assert (image[0, 0] == 0).all()


def test_textures_are_upright_and_colours_unmixed_at_a_silhouette():
    texture = plain((255, 0, 0))
    texture[:4] = (0, 255, 0)
    image = draw([square(texture, 0.9)], size=31, supersampling=3)[0, 0]
    upper, lower = image[10, 16], image[20, 16]
    assert upper[1] > 150 and upper[0] == 0 and lower[0] > 150 and lower[1] == 0
    edge = image[(image[..., 3] > 0) & (image[..., 3] < 255)]
    assert len(edge) and (edge[:, :2].max(-1) > 150).all()  # straight alpha: no black from outside


def test_textures_seen_small_are_averaged_in_linear_light():
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    texture = np.repeat(checks[..., None], 3, -1).astype(np.uint8)
    image = draw([square(texture, 0.5)], size=16)[0, 0]
    shade = studio_lights().irradiance(np.array([0, 0, 1.0]))
    np.testing.assert_allclose(image[8, 8, :3], srgb(0.5 * shade), atol=2)


def test_meshes_of_a_batch_are_drawn_as_alone_whatever_their_textures_sizes():
    meshes = [
        square(plain((200, 10, 10))),
        square(plain((10, 200, 10), 16), 0.6),
        square(plain((10, 10, 200))),
    ]
    cameras = Cameras.orbit([0.0, 20.0], [0.0, 30.0])[None]
    every = torch.cat([cameras.c2w] * 3)
    together = draw(meshes, Cameras.from_fov(every, 49.1))
    for mesh, image in zip(meshes, together, strict=True):
        np.testing.assert_array_equal(draw([mesh], cameras)[0], image)


def test_depth_is_the_distance_along_the_axis():
    meshes = LitMeshes.pack([square(plain((9, 9, 9)), 0.5)])
    depths = draw_depths(TorchMeshRenderer(), meshes, FRONT, 16)[0, 0]
    assert depths[8, 8].item() == pytest.approx(1.5, abs=1e-5) and depths[0, 0] == 0
