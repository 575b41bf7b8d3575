"""Rendering by Cycles, the path tracer of Blender.

The same surfaces, cameras and lights as the OpenGL engine, with shadows and light from one face on another.
Blender runs as a program of its own: its Python is another, and a crash costs one object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_tools.engines.base import Engine, EngineUnavailable, ViewPasses
from data_tools.engines.blender_process import BlenderFault, BlenderProcess, find_blender
from data_tools.engines.coincident import set_apart
from data_tools.engines.hdri import check_hdri, check_radiance
from data_tools.engines.textures import texture_pixels, within_its_edges
from data_tools.meshes.images import MAX_TEXTURE_SIZE
from data_tools.meshes.load import load_mesh
from data_tools.meshes.normals import face_normals
from data_tools.meshes.surfaces import Sampler, Surface
from data_tools.shared.lights import environment
from data_tools.shared.plan import RenderPlan

DEFAULT_SAMPLES = 32


class BlenderEngine(Engine):
    """Diffuse surfaces under an environment that is the studio's lights.

    blender: a Blender executable or a python that has bpy; None to look for one.
    samples: light paths a pixel.
    threads: of Cycles, a worker.
    device_index: the GPU to use (nvidia-smi's number); None for the CPU.
    hdri: an equirectangular environment image (.hdr, .exr) that lights objects in place of the plan's lights;
        its upper edge is +y and its middle lies at azimuth 90, +x, as Blender lights an imported glTF.
    hdri_strength: factor on its radiance.
    """

    name = "blender"
    version = "2"
    draws_geometry = draws_albedo = True

    def __init__(
        self,
        blender: str | None = None,
        samples: int = DEFAULT_SAMPLES,
        threads: int = 2,
        device_index: int | None = None,
        hdri: str | None = None,
        hdri_strength: float = 1.0,
    ) -> None:
        if samples < 1 or threads < 1:
            raise ValueError(f"--samples {samples} and threads={threads} must be at least 1")
        self._command, _ = find_blender(blender)
        self._samples, self._threads = samples, threads
        self._device_index = device_index
        self._processes: dict[str, BlenderProcess] = {}
        try:
            self._started("color")
        except BlenderFault as error:
            raise EngineUnavailable(f"Blender ({self._command[0]}) does not start: {error}") from error
        self._radiance = None
        if hdri is not None:
            self._radiance = hdri_strength * _read_hdri(self._processes["color"], hdri)

    @classmethod
    def settings(
        cls,
        blender: str | None = None,
        samples: int = DEFAULT_SAMPLES,
        hdri: str | None = None,
        hdri_strength: float | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """The engine's entry of an index: Blender's version, samples, and the environment image's
        checksum.
        """
        command, version = find_blender(blender)
        return {
            **super().settings(),
            "engine_version": f"{cls.version} Blender {version}",
            "samples": samples,
            **_hdri_settings(command, hdri, hdri_strength),
        }

    def render(
        self, path: Path, plan: RenderPlan
    ) -> tuple[Iterator[np.ndarray] | Iterator[ViewPasses], list[str]]:
        """A view at a time, images or passes, from one Blender process per pass; and the mesh's notes."""
        mesh = load_mesh(
            path, plan.normalize, plan.world_from_file, plan.max_triangles, plan.companions, plan.tints
        )
        set_apart(mesh.surfaces)
        return self._views(mesh.surfaces, plan), mesh.notes

    def close(self) -> None:
        """End all Blender processes."""
        for process in self._processes.values():
            process.close()
        self._processes.clear()

    def _started(self, kind: str) -> BlenderProcess:
        """The running Blender, or a new one where the last has died.

        kind: "color", "geometry" or "albedo". Each has a Blender of its own, where nothing but the camera
        changes from view to view; one that changes between them builds its tree of triangles each time.
        """
        if kind in self._processes and not self._processes[kind].is_alive:
            self._processes.pop(kind).close()
        if kind not in self._processes:
            gpu = None if kind == "geometry" else self._device_index
            self._processes[kind] = BlenderProcess(self._command, gpu)
        return self._processes[kind]

    def _views(self, surfaces: list[Surface], plan: RenderPlan) -> Iterator[np.ndarray | ViewPasses]:
        asked = {"color": True, "geometry": plan.geometry, "albedo": plan.albedo}
        kinds = [kind for kind, is_asked in asked.items() if is_asked]
        arrays, materials = describe(surfaces)
        arrays["environment"] = environment(plan.lights) if self._radiance is None else self._radiance
        # Blender gets its own copy: the memory of ours is free while it draws.
        surfaces.clear()
        for kind in kinds:
            process = self._started(kind)
            scene_file = process.folder / "scene.npz"
            np.savez(scene_file, **arrays)
            process.ask(
                do="scene", kind=kind, file=str(scene_file), materials=materials,
                # Depth and normals are taken at pixel centres: one sample, no antialiasing.
                resolution=plan.resolution, samples=1 if kind == "geometry" else self._samples,
                # `far`: beyond any depth, for an object reaches 0.87 from the origin at most (a cube's
                # corner).
                threads=self._threads, fov_deg=plan.fov_y_deg, far=plan.distances[1] + 1.0,
                pole="z" if self._radiance is None else "y",
            )  # fmt: skip
            # Blender has read it: /dev/shm is small.
            scene_file.unlink()
        arrays.clear()
        for c2w in plan.c2w:
            drawn = {kind: _draw(self._processes[kind], c2w) for kind in kinds}
            geometry = drawn.get("geometry")
            depth, normal = (None, None) if geometry is None else (geometry[..., 3], geometry[..., :3])
            passes = ViewPasses(drawn["color"], depth, normal, drawn.get("albedo"))
            yield passes if plan.has_passes else passes.image


def _hdri_settings(command: list[str], hdri: str | None, strength: float | None) -> dict[str, Any]:
    """The index's entry of the environment image, which is read once to see that it can be; raises
    ValueError."""
    if hdri is None and strength is not None:
        raise ValueError(f"--hdri-strength {strength} has no effect without --hdri; leave it out")
    if hdri is None:
        return {}
    strength = 1.0 if strength is None else strength
    if not 0 < strength < float("inf"):
        raise ValueError(f"--hdri-strength {strength} must be a positive number")
    digest = check_hdri(Path(hdri))
    process = BlenderProcess(command)
    try:
        _read_hdri(process, hdri)
    finally:
        process.close()
    return {"lighting": "hdri", "hdri_sha256": digest, "hdri_strength": strength}


def _read_hdri(process: BlenderProcess, hdri: str) -> np.ndarray:
    """Radiance [H, 2H, 3] float32, bottom row first; raises ValueError."""
    file = process.folder / "environment.npy"
    try:
        process.ask(do="environment", image=str(Path(hdri).absolute()), file=str(file))
    except BlenderFault as error:
        reason = " ".join(str(error).split()).removeprefix("RuntimeError: ")
        raise ValueError(f"--hdri {hdri} cannot be read: {reason}") from error
    radiance = np.load(file)
    check_radiance(radiance, hdri)
    return radiance


def _draw(process: BlenderProcess, c2w: np.ndarray) -> np.ndarray:
    file = process.folder / "view.npy"
    process.ask(do="view", c2w=c2w.ravel().tolist(), file=str(file))
    return np.load(file)


def describe(surfaces: list[Surface]) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Arrays and materials as `blender_side/studio.py` takes them."""
    arrays: dict[str, np.ndarray] = {}
    materials, names = [], {}

    def texture(
        image: Image.Image | None, sampler: Sampler, uv: np.ndarray | None, attribute: str
    ) -> dict[str, Any] | None:
        if image is None or uv is None:
            return None
        if id(image) not in names:  # each image once, however many materials share it
            names[id(image)] = f"texture_{len(names)}"
            arrays[names[id(image)]] = texture_pixels(image, MAX_TEXTURE_SIZE)
        return {"name": names[id(image)], "uv": attribute, **asdict(within_its_edges(sampler, uv))}

    for number, surface in enumerate(surfaces):
        arrays[f"positions_{number}"] = surface.positions.astype(np.float32)
        arrays[f"normals_{number}"] = _on_the_wound_side(surface).astype(np.float32)
        corners = {"uv": surface.uv, "emission_uv": surface.emission_uv, "colors": surface.colors}
        for name, values in corners.items():
            if values is not None:
                arrays[f"{name}_{number}"] = values.astype(np.float32)
        material = surface.material
        glow_uv = (surface.uv, "uv") if surface.emission_uv is None else (surface.emission_uv, "emission_uv")
        materials.append(
            {
                "base_color": [float(x) for x in material.base_color],
                "base_image": texture(material.base_image, material.base_sampler, surface.uv, "uv"),
                "emission": [float(x) for x in material.emission],
                "emission_image": texture(material.emission_image, material.emission_sampler, *glow_uv),
                "alpha_mode": material.alpha_mode,
                "alpha_cutoff": material.alpha_cutoff,
                "has_colors": surface.colors is not None,
                "unlit": material.unlit,
                "is_shell": material.is_shell,
            }
        )
    return arrays, materials


def _on_the_wound_side(surface: Surface) -> np.ndarray:
    """Corner normals [F, 3, 3] on the side that the corners' order calls the front: files disagree with
    themselves, and Cycles turns normals round by that order. Where there is none, the face's own."""
    face = face_normals(surface.positions)[:, None]
    face = face / np.linalg.norm(face, axis=-1, keepdims=True)
    normals = np.where(
        (surface.normals * face).sum(axis=-1, keepdims=True) < 0, -surface.normals, surface.normals
    )
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(length > 1e-12, normals / np.maximum(length, 1e-12), face)
