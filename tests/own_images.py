"""Images of one object as a person has them: any lens, any world, any of the files that say where they
were taken from."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lgm.cameras import Cameras, orbit_poses
from lgm.cameras.conventions import opencv_to_opengl
from lgm.data.sources.synthetic import blobs
from lgm.gaussians import Gaussians
from lgm.gaussians.similarity import moved
from lgm.rendering import TorchRenderer

RING = ([0.0] * 4, [0.0, 90.0, 180.0, 270.0])


def some_similarity(scale: float = 7.0, seed: int = 3) -> np.ndarray:
    """A rotated, scaled and shifted world."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = scale * rotation, rng.normal(size=3) * 10
    return world


@dataclass(frozen=True)
class Shoot:
    """cameras: [V] in the object's frame. rgba: V images. world: from there to the person's frame."""

    gaussians: Gaussians
    cameras: Cameras
    rgba: list[np.ndarray]
    world: np.ndarray

    @classmethod
    def of(
        cls,
        angles: tuple[list[float], list[float]] = RING,
        radius: float = 1.5,
        fov_y_deg: float = 49.1,
        size: tuple[int, int] = (64, 64),
        world: np.ndarray | None = None,
        center: tuple[float, float] = (0.5, 0.5),
        seed: int = 0,
    ) -> Shoot:
        """size: width and height. center: the principal point, as parts of these."""
        width, height = size
        gaussians = blobs(seed, 48)
        cameras = Cameras.from_fov(orbit_poses(*angles, radius), fov_y_deg, width / height)
        K = cameras.K_norm.clone()
        K[:, 0, 2], K[:, 1, 2] = center
        cameras = Cameras(cameras.c2w, K)
        rgba = render_rgba(gaussians, cameras, height, width)
        return cls(gaussians, cameras, rgba, np.eye(4) if world is None else world)

    @property
    def user_c2w(self) -> np.ndarray:
        """[V, 4, 4], OpenCV axes, in the person's frame."""
        scale = np.cbrt(np.linalg.det(self.world[:3, :3]))
        c2w = self.world @ self.cameras.c2w.double().numpy()
        c2w[:, :3, :3] /= scale
        return c2w

    @property
    def user_cameras(self) -> Cameras:
        return Cameras(torch.from_numpy(self.user_c2w).float(), self.cameras.K_norm)

    @property
    def user_gaussians(self) -> Gaussians:
        return moved(self.gaussians, torch.from_numpy(self.world))

    def without_alpha(self) -> Shoot:
        """Over plain white."""
        return replace(self, rgba=[over_white(image) for image in self.rgba])

    def write(self, folder: Path, names: str = "{:03d}.png") -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        files = [names.format(view) for view in range(len(self.rgba))]
        for name, image in zip(files, self.rgba, strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / name)
        return files

    def write_cameras_json(self, folder: Path, names: str = "view_{:03d}.png") -> Path:
        self.write(folder, names)
        content = {
            "version": 1,
            "convention": "opencv_c2w_y_up",
            "fov_y_deg": float(self.cameras.fov_y_deg[0]),
            "c2w": self.user_c2w.reshape(-1, 16).tolist(),
        }
        (folder / "cameras.json").write_text(json.dumps(content))
        return folder

    def write_transforms(self, folder: Path, lens: dict | None = None, names: str = "{:03d}.png") -> Path:
        """lens: the fields that say it; all of nerfstudio's where None."""
        files = self.write(folder / "images", names)
        height, width = self.rgba[0].shape[:2]
        K = self.cameras.intrinsics(height, width)[0].double()
        pinhole = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "w": width, "h": height}
        poses = opencv_to_opengl(torch.from_numpy(self.user_c2w))
        frames = [
            {"file_path": f"images/{name}", "transform_matrix": pose.tolist()}
            for name, pose in zip(files, poses, strict=True)
        ]
        content = {**({k: float(v) for k, v in pinhole.items()} if lens is None else lens), "frames": frames}
        (folder / "transforms.json").write_text(json.dumps(content))
        return folder

    def write_colmap(self, folder: Path, model: str | None = None, names: str = "{:03d}.png") -> Path:
        """model: the line of cameras.txt after its number; PINHOLE's where None."""
        files = self.write(folder / "images", names)
        height, width = self.rgba[0].shape[:2]
        K = self.cameras.intrinsics(height, width)[0].tolist()
        sparse = folder / "sparse" / "0"
        sparse.mkdir(parents=True)
        pinhole = f"PINHOLE {width} {height} {K[0][0]} {K[1][1]} {K[0][2]} {K[1][2]}"
        (sparse / "cameras.txt").write_text(f"# Camera list\n1 {model or pinhole}\n")
        lines = ["# Image list"]
        for number, (name, c2w) in enumerate(zip(files, self.user_c2w, strict=True), 1):
            w2c = np.linalg.inv(c2w)
            pose = " ".join(f"{x:.12g}" for x in [*_quat(w2c[:3, :3]), *w2c[:3, 3]])
            points = "" if number % 2 else "12.5 30.25 -1 3.0 4.0 7"
            lines += [f"{number} {pose} 1 {name}", points]
        (sparse / "images.txt").write_text("\n".join(lines) + "\n")
        return folder


def render_rgba(gaussians: Gaussians, cameras: Cameras, height: int, width: int) -> list[np.ndarray]:
    with torch.no_grad():
        render = TorchRenderer()(gaussians, cameras[None], height, width, background=(0.0, 0.0, 0.0))
    alphas = render.alphas[0].clamp(0, 1)
    colors = (render.images[0] / alphas.clamp_min(1e-3)).clamp(0, 1)
    pixels = (torch.cat([colors, alphas], dim=1) * 255).round().to(torch.uint8)
    return list(pixels.permute(0, 2, 3, 1).numpy())


def over_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:] / 255
    return (rgba[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)


def _quat(rotation: np.ndarray) -> np.ndarray:
    """wxyz, by the eigenvector of a matrix that the rotation makes."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    matrix = np.array(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h],
            [d - b, c + g, f + h, i - a - e],
        ]
    )
    return np.linalg.eigh(matrix)[1][:, -1]
