"""Meshes as Blender shows them: a row of images per mesh, from six sides, or all meshes in one row.

    python scripts/docs/meshes_in_blender.py runs/mine/evaluation/objects/*/mesh.glb --out sides.webp
    python scripts/docs/meshes_in_blender.py objects/*/mesh.glb --one --out docs/images/meshes.webp

Runs in a Python of its own that has `bpy` (pip install bpy), on the CPU. Views are orthographic, over white.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

# Azimuth and elevation in degrees: front, right, back, left, top, bottom.
SIDES = ((0, 0), (90, 0), (180, 0), (270, 0), (0, 90), (0, -90))
ONE = ((30, 20),)
QUALITY = 80
MARGIN = 1.03


def opened(path: Path, size: int) -> tuple[Any, np.ndarray]:
    """A scene with one mesh; its camera, and the corners [N, 3] of the mesh's box."""
    import bpy
    from mathutils import Vector

    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=str(path))
    scene = bpy.context.scene
    corners = np.array([o.matrix_world @ Vector(corner) for o in scene.objects for corner in o.bound_box])
    data = bpy.data.cameras.new("camera")
    data.type = "ORTHO"
    camera = bpy.data.objects.new("camera", data)
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.render.engine, scene.cycles.device, scene.cycles.samples = "CYCLES", "CPU", 8
    scene.render.resolution_x = scene.render.resolution_y = size
    scene.render.film_transparent = True
    scene.render.image_settings.file_format = "PNG"
    scene.view_settings.view_transform = "Standard"  # colours as they are in the texture
    return camera, corners


def axes(side: tuple[int, int]) -> np.ndarray:
    """Rows: right, up and towards the camera. The front of a glTF file, +z, is -y in Blender."""
    azimuth, elevation = (math.radians(angle) for angle in side)
    sine, cosine = math.sin(azimuth), math.cos(azimuth)
    high, flat = math.sin(elevation), math.cos(elevation)
    return np.array(
        [[cosine, sine, 0], [-sine * high, cosine * high, flat], [sine * flat, -cosine * flat, high]]
    )


def drawn(camera: Any, corners: np.ndarray, side: tuple[int, int], scale: float) -> np.ndarray:
    """One view over white [size, size, 4], row 0 at the bottom as Blender has it; `scale` is its height."""
    import bpy

    azimuth, elevation = (math.radians(angle) for angle in side)
    camera.data.ortho_scale = scale
    camera.location = (corners.min(0) + corners.max(0)) / 2 + axes(side)[2] * 2 * scale
    camera.rotation_euler = (math.pi / 2 - elevation, 0, azimuth)
    with tempfile.TemporaryDirectory() as folder:
        bpy.context.scene.render.filepath = f"{folder}/view.png"
        bpy.ops.render.render(write_still=True)
        image = bpy.data.images.load(f"{folder}/view.png")
        pixels = np.array(image.pixels[:], np.float32).reshape(*image.size, 4)
    alpha = pixels[..., 3:]
    pixels[..., :3] = pixels[..., :3] * alpha + 1 - alpha
    pixels[..., 3] = 1
    return pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help=".glb")
    parser.add_argument("--out", type=Path, required=True, help=".webp")
    parser.add_argument("--one", action="store_true", help="one view of each mesh, all in one row")
    parser.add_argument("--size", type=int, default=128, help="pixels along a side of a view (%(default)s)")
    arguments = parser.parse_args()
    import bpy  # after the arguments are read: `--help` needs no Blender

    rows = []
    for path in arguments.files:
        camera, corners = opened(path, arguments.size)
        sides = ONE if arguments.one else SIDES
        scale = MARGIN * max(np.ptp(corners @ axes(side)[:2].T, axis=0).max() for side in sides)
        rows.append(np.concatenate([drawn(camera, corners, side, float(scale)) for side in sides], 1))
    sheet = np.concatenate(rows, 1) if arguments.one else np.concatenate(rows[::-1], 0)
    image = bpy.data.images.new("sheet", sheet.shape[1], sheet.shape[0])
    image.pixels = sheet.ravel()
    image.file_format, image.filepath_raw = "WEBP", str(arguments.out)
    image.save(quality=QUALITY)


if __name__ == "__main__":
    main()
