"""One object in its light, before a camera that moves. Runs inside Blender: bpy and numpy alone.

The world is the project's own, +y up: Blender draws it as well as its own, so no object has to be turned.
"""

import contextlib
import math
from pathlib import Path

import bpy
import numpy as np
from materials import albedo_material, color_material, geometry_material

# See-through layers behind each other before Cycles gives up and draws black.
_MAX_LAYERS = 64
# Light on a diffuse face changes no more with a finer environment.
_MAX_ENVIRONMENT_WIDTH = 1024


class Studio:
    """command: "file", an .npz with `environment` [H, 2H, 3], linear, bottom row first, `texture_<i>`
    [h, w, 4] uint8 sRGB (bottom row first) and, for surface i, `positions_<i>`, `normals_<i>`, `uv_<i>`,
    `emission_uv_<i>`, `colors_<i>`; "pole", the axis that the environment's upper edge stands for, y or z;
    "materials", one a surface; "kind", color, geometry or albedo; "resolution"; "samples"; "threads";
    "fov_deg"; "far", beyond which nothing lies.
    """

    def __init__(self, command: dict, on_gpu: bool) -> None:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        if on_gpu:
            take_gpu()  # the line above forgot it
        self._far = command["far"]
        self._is_geometry = command["kind"] == "geometry"
        self._scene = _scene(command, on_gpu)
        if self._is_geometry:
            # One sample in the middle of each pixel: depths may not be averaged across an edge.
            self._scene.cycles.filter_width = 0.01
        self._camera = self._scene.camera = _camera(command["fov_deg"], self._far)
        self._scene.collection.objects.link(self._camera)
        with np.load(command["file"]) as arrays:
            self._scene.world = _world(arrays["environment"], command["pole"])
            textures = {
                name: _texture(name, arrays[name]) for name in arrays.files if name.startswith("texture_")
            }
            for number, material in enumerate(command["materials"]):
                mesh = _mesh(arrays, number)
                if self._is_geometry:
                    mesh.materials.append(geometry_material(material, textures, self._far))
                elif command["kind"] == "albedo":
                    mesh.materials.append(albedo_material(material, textures))
                else:
                    mesh.materials.append(color_material(material, textures))
                self._scene.collection.objects.link(bpy.data.objects.new(mesh.name, mesh))

    def draw(self, c2w: np.ndarray, stem: str) -> np.ndarray:
        """One view: colours [R, R, 4] uint8, or normal and depth [R, R, 4] float32.

        stem: what a file may be called for a moment.
        """
        # From OpenCV's camera axes to Blender's, which look along -z with +y up.
        self._camera.matrix_world = (c2w * (1.0, -1.0, -1.0, 1.0)).T.tolist()
        pixels = _render(self._scene, Path(f"{stem}.exr"))
        return _unpack_geometry(pixels, self._far) if self._is_geometry else _straight_srgb(pixels)


def take_gpu() -> None:
    """Let Cycles draw on the first kind of GPU that it finds; raises RuntimeError where there is none."""
    preferences = bpy.context.preferences.addons["cycles"].preferences
    for kind in ("OPTIX", "CUDA", "HIP", "ONEAPI", "METAL"):
        # A kind that this build does not know raises TypeError.
        with contextlib.suppress(TypeError):
            preferences.compute_device_type = kind
            preferences.get_devices()
            for device in preferences.devices:
                device.use = device.type == kind
            if any(device.use for device in preferences.devices):
                return
    raise RuntimeError("Cycles finds no GPU here; leave --gpus out")


def _camera(fov_deg: float, far: float):
    camera = bpy.data.cameras.new("camera")
    camera.sensor_fit = "VERTICAL"
    camera.angle_y = math.radians(fov_deg)
    camera.clip_start, camera.clip_end = 0.01, far
    return bpy.data.objects.new("camera", camera)


def _scene(command: dict, on_gpu: bool):
    scene = bpy.context.scene
    render, cycles = scene.render, scene.cycles
    render.engine = "CYCLES"
    render.resolution_x = render.resolution_y = command["resolution"]
    render.resolution_percentage = 100
    render.film_transparent = True
    render.use_persistent_data = True  # only the camera moves between two views
    render.threads_mode, render.threads = "FIXED", command["threads"]
    settings = render.image_settings
    # In float, linear and with premultiplied alpha; _straight_srgb does what the view transform "Standard"
    # would, and no look or exposure of a user's can come between.
    settings.file_format, settings.color_mode, settings.color_depth = "OPEN_EXR", "RGBA", "32"
    scene.view_settings.view_transform = "Standard"
    cycles.device = "GPU" if on_gpu else "CPU"
    cycles.samples = command["samples"]
    cycles.use_adaptive_sampling = cycles.use_denoising = False
    cycles.pixel_filter_type, cycles.filter_width = "BOX", 1.0
    cycles.max_bounces = cycles.diffuse_bounces = 2
    cycles.transparent_max_bounces = _MAX_LAYERS
    cycles.seed = 0
    return scene


def read_environment(path: str) -> np.ndarray:
    """Radiance [H, W, 3] float32, linear, bottom row first; a larger image is averaged down.

    Raises RuntimeError where Blender can't read it.
    """
    image = bpy.data.images.load(path)
    try:
        width, height = image.size
        if not width or not height or image.channels < 3:
            raise RuntimeError("it is no image that Blender reads")
        pixels = np.empty(width * height * image.channels, dtype=np.float32)
        image.pixels.foreach_get(pixels)
        pixels = pixels.reshape(height, width, -1)[..., :3]
        factor = -(-width // _MAX_ENVIRONMENT_WIDTH)
        height, width = height // factor, width // factor
        # Averaged, and not picked: the sun may be a pixel, and all of the light.
        parts = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
        return parts.mean(axis=(1, 3), dtype=np.float64).astype(np.float32)
    finally:
        bpy.data.images.remove(image)


def _world(radiance: np.ndarray, pole: str):
    height, width, _ = radiance.shape
    image = bpy.data.images.new("environment", width, height, float_buffer=True, is_data=True)
    image.pixels.foreach_set(np.concatenate([radiance, np.ones_like(radiance[..., :1])], axis=-1).ravel())
    world = bpy.data.worlds.new("studio")
    world.use_nodes = True
    tree = world.node_tree
    tree.nodes.clear()
    texture = tree.nodes.new("ShaderNodeTexEnvironment")
    texture.image = image
    if pole == "y":
        # Blender's pole is z. Our x stays, and with it the image's middle: as a glTF is turned on import.
        turn = tree.nodes.new("ShaderNodeMapping")
        turn.inputs["Rotation"].default_value = (math.pi / 2, 0.0, 0.0)
        tree.links.new(tree.nodes.new("ShaderNodeTexCoord").outputs["Generated"], turn.inputs["Vector"])
        tree.links.new(turn.outputs["Vector"], texture.inputs["Vector"])
    background = tree.nodes.new("ShaderNodeBackground")
    output = tree.nodes.new("ShaderNodeOutputWorld")
    tree.links.new(texture.outputs["Color"], background.inputs["Color"])
    tree.links.new(background.outputs[0], output.inputs["Surface"])
    return world


def _texture(name: str, pixels: np.ndarray):
    height, width, _ = pixels.shape
    image = bpy.data.images.new(name, width, height, alpha=True)
    image.alpha_mode = "CHANNEL_PACKED"  # colours stay as they are where alpha is small
    image.pixels.foreach_set((pixels.astype(np.float32) / 255).ravel())
    return image


def _mesh(arrays, number: int):
    """Each corner is a vertex of its own; normals and colours are attributes, exact to the last digit."""
    positions = arrays[f"positions_{number}"]
    corners = 3 * len(positions)
    mesh = bpy.data.meshes.new(f"mesh_{number}")
    mesh.vertices.add(corners)
    mesh.vertices.foreach_set("co", positions.ravel())
    mesh.loops.add(corners)
    mesh.loops.foreach_set("vertex_index", np.arange(corners, dtype=np.int32))
    mesh.polygons.add(len(positions))
    mesh.polygons.foreach_set("loop_start", np.arange(0, corners, 3, dtype=np.int32))
    mesh.update(calc_edges=True)
    normal = mesh.attributes.new("corner_normal", "FLOAT_VECTOR", "CORNER")
    normal.data.foreach_set("vector", arrays[f"normals_{number}"].ravel())
    for name in ("uv", "emission_uv"):
        if f"{name}_{number}" in arrays:
            uv = mesh.attributes.new(f"corner_{name}", "FLOAT2", "CORNER")
            uv.data.foreach_set("vector", arrays[f"{name}_{number}"].ravel())
    if f"colors_{number}" in arrays:
        color = mesh.attributes.new("corner_color", "FLOAT_COLOR", "CORNER")
        color.data.foreach_set("color", arrays[f"colors_{number}"].ravel())
    return mesh


def _render(scene, path: Path) -> np.ndarray:
    """[R, R, 4] float32, linear, premultiplied, top row first."""
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(str(path))
    try:
        image.colorspace_settings.name = "Non-Color"
        pixels = np.empty(image.size[0] * image.size[1] * 4, dtype=np.float32)
        image.pixels.foreach_get(pixels)
        return pixels.reshape(image.size[1], image.size[0], 4)[::-1]
    finally:
        bpy.data.images.remove(image)
        path.unlink()


def _straight_srgb(pixels: np.ndarray) -> np.ndarray:
    """The last pass of the OpenGL engine, step by step."""
    alpha = np.clip(pixels[..., 3:], 0.0, 1.0)
    linear = np.clip(pixels[..., :3] / np.maximum(alpha, 1e-6), 0.0, 1.0)
    srgb = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    shown = np.concatenate([srgb, alpha], axis=-1)
    return np.uint8(np.round(np.where(alpha < 0.002, 0.0, shown) * 255))


def _unpack_geometry(pixels: np.ndarray, far: float) -> np.ndarray:
    """[R, R, 4] float32: the unit normal and the depth, all 0 where there is nothing."""
    hit = pixels[..., 3:] > 0.5
    below = pixels[..., 2:3] > far
    xy = pixels[..., :2] * 2 - 1
    z = np.sqrt(np.maximum(1 - (xy**2).sum(axis=-1, keepdims=True), 0.0)) * np.where(below, -1, 1)
    depth = pixels[..., 2:3] - np.where(below, far, 0.0)
    return np.where(hit, np.concatenate([xy, z, depth], axis=-1), 0.0).astype(np.float32)
