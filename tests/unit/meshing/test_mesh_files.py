"""Mesh files, read back by other programs."""

import contextlib
import http.server
import io
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData

from data_tools.meshes.load import load_mesh
from lgm.meshing import Mesh, save_mesh
from lgm.meshing.files.corners import split
from tests.clock import wait_until
from tests.meshes import box


@pytest.fixture
def mesh() -> Mesh:
    """A box whose faces are charts of their own, with a texture in which each texel differs."""
    surface = box((1.0, 2.0, 0.5), (3.0, 0.0, 0.0))
    count = surface.num_faces
    corner = torch.tensor([[0.0, 0.0], [0.2, 0.0], [0.0, 0.2]])
    uvs = (
        corner + torch.stack([torch.arange(count) % 4, torch.arange(count) // 4], -1)[:, None] * 0.25
    ).view(-1, 2)
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    texture = torch.stack([columns, rows, torch.full_like(rows, 0.2)], -1)
    return Mesh(surface.vertices, surface.faces, uvs, torch.arange(3 * count).view(-1, 3), texture)


@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_the_reader_of_meshes_finds_positions_texture_and_orientation(mesh, suffix, tmp_path):
    path = tmp_path / f"a box.{suffix}"
    save_mesh(mesh, path)
    (surface,) = load_mesh(path, "box", np.eye(4), 1000).surfaces
    expected = (mesh.surface.corners - torch.tensor([3.0, 0.0, 0.0])) / 2  # centred, the longest side 1
    np.testing.assert_allclose(surface.positions, expected.numpy(), atol=1e-6)
    # The reader counts texture coordinates from the lower left corner.
    uvs = mesh.uvs[mesh.uv_faces] * torch.tensor([1.0, -1.0]) + torch.tensor([0.0, 1.0])
    np.testing.assert_allclose(surface.uv, uvs.numpy(), atol=1e-5)
    image = np.asarray(surface.material.base_image.convert("RGB")) / 255
    np.testing.assert_allclose(image, mesh.texture.numpy(), atol=1 / 255)
    assert surface.material.base_color == (1.0, 1.0, 1.0, 1.0)
    assert surface.material.unlit or suffix == "obj"
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        {"glb": ["a box.glb"], "obj": ["a box.obj", "a box.mtl", "a box.png"]}[suffix]
    )


def test_a_ply_has_the_colours_of_its_vertices(mesh, tmp_path):
    save_mesh(mesh, tmp_path / "box.ply")
    ply = PlyData.read(tmp_path / "box.ply")
    faces = np.stack(ply["face"].data["vertex_indices"])
    np.testing.assert_array_equal(faces, mesh.faces.numpy())
    positions = np.stack([ply["vertex"][axis] for axis in "xyz"], -1)
    np.testing.assert_allclose(positions, mesh.vertices.numpy())
    blue = ply["vertex"]["blue"]
    assert (np.abs(blue.astype(int) - 51) <= 1).all() and len(np.unique(ply["vertex"]["red"])) > 3


def test_a_suffix_without_a_writer_is_refused_in_one_line(mesh, tmp_path):
    with pytest.raises(ValueError, match="is not a mesh file that can be written"):
        save_mesh(mesh, tmp_path / "x.fbx")
    assert not list(tmp_path.iterdir())


def test_normals_have_unit_length_where_faces_have_no_area(mesh):
    flat = Mesh(mesh.vertices * 0, mesh.faces, mesh.uvs, mesh.uv_faces, mesh.texture)
    np.testing.assert_allclose(np.linalg.norm(split(flat).normals, axis=-1), 1)


def test_gltf_validator_finds_nothing(mesh, tmp_path):
    """LGM_GLTF_VALIDATOR names a folder in which `npm install gltf-validator` ran."""
    folder = os.environ.get("LGM_GLTF_VALIDATOR")
    if not folder or not shutil.which("node"):
        pytest.skip("LGM_GLTF_VALIDATOR names no folder with npm's gltf-validator, or node is missing")
    save_mesh(mesh, tmp_path / "box.glb")
    program = (
        "const fs=require('fs'); require('gltf-validator')"
        ".validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))"
        ".then(report => console.log(JSON.stringify(report.issues)))"
    )
    command = ["node", "-e", program, str(tmp_path / "box.glb")]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    issues = json.loads(result.stdout)
    assert issues["numErrors"] == issues["numWarnings"] == 0, issues


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing into the tests' output."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder's files: browsers load no modules from files."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.slow
def test_model_viewer_shows_a_mesh_the_right_way_up(tmp_path, browser):
    """LGM_MODEL_VIEWER names a folder in which `npm install @google/model-viewer` ran."""
    folder = os.environ.get("LGM_MODEL_VIEWER")
    script = Path(folder or "", "node_modules/@google/model-viewer/dist/model-viewer.min.js")
    if not folder or not script.is_file():
        pytest.skip("LGM_MODEL_VIEWER names no folder with npm's @google/model-viewer")
    tall = box((1.0, 2.0, 0.5))
    # Red above, blue below.
    uvs = torch.stack([0.5 - 0.25 * tall.vertices[:, 1].sign(), torch.full((8,), 0.5)], -1)
    texture = torch.tensor([[[1.0, 0, 0], [0, 0, 1]]])
    save_mesh(Mesh(tall.vertices, tall.faces, uvs, tall.faces, texture), tmp_path / "tall.glb")
    shutil.copy(script, tmp_path)
    viewer = '<model-viewer src="tall.glb" style="width:200px;height:200px" interaction-prompt="none">'
    head = '<link rel="icon" href="data:,"><script type="module" src="model-viewer.min.js"></script>'
    (tmp_path / "index.html").write_text(f"<!doctype html>{head}<body style='margin:0'>{viewer}")
    with served(tmp_path) as url:
        tab = browser.open(f"{url}/index.html", width=200, height=200)
        tab.until("document.querySelector('model-viewer').modelIsVisible")
        size = tab.page.evaluate("document.querySelector('model-viewer').getDimensions()")
        assert [size[axis] for axis in "xyz"] == pytest.approx([1.0, 2.0, 0.5], abs=1e-3)

        def is_upright() -> bool:
            image = Image.open(io.BytesIO(tab.page.screenshot())).convert("RGB")
            above, below = image.getpixel((100, 70)), image.getpixel((100, 130))
            return above[0] > above[2] + 50 and below[2] > below[0] + 50

        wait_until(is_upright)
        tab.check()
