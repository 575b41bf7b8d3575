""".ply files: what may be chosen when they are written, and what is no .ply of Gaussians."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement
from scipy.spatial.transform import Rotation

from lgm.cameras.conventions import UP_AXES, turn_from_y_up, y_up_to_z_up
from lgm.gaussians import Gaussians
from lgm.gaussians.compressed_ply import save_compressed_ply
from lgm.gaussians.ply import load_ply, save_ply
from lgm.gaussians.stored import FIELDS
from tests.golden_files import GOLDEN
from tests.unit.gaussians.test_gaussians import random_gaussians

POINT = torch.tensor([1.0, 2.0, 3.0])


def quats_to_matrices(quats: torch.Tensor) -> torch.Tensor:
    rotations = Rotation.from_quat(quats.reshape(-1, 4).numpy(), scalar_first=True).as_matrix()
    return torch.from_numpy(rotations).float().reshape(*quats.shape[:-1], 3, 3)


def covariances(gaussians: Gaussians) -> torch.Tensor:
    axes = quats_to_matrices(gaussians.quats) * gaussians.scales[..., None, :]
    return axes @ axes.transpose(-1, -2)


def one(**changes) -> Gaussians:
    values = {
        "means": POINT[None, None],
        "quats": torch.tensor([[[1.0, 0, 0, 0]]]),
        "scales": torch.tensor([[[0.1, 0.2, 0.3]]]),
        "opacities": torch.tensor([[0.5]]),
        "colors": torch.tensor([[[0.1, 0.5, 0.9]]]),
    }
    return Gaussians(**{**values, **changes})


@pytest.mark.parametrize(("up", "point"), [("y", (1, 2, 3)), ("z", (1, -3, 2)), ("-y", (1, -2, -3))])
def test_up_axis(tmp_path, up, point):
    save_ply(one(), tmp_path / "g.ply", up=up)
    vertex = PlyData.read(tmp_path / "g.ply")["vertex"]
    assert [float(vertex[name][0]) for name in "xyz"] == pytest.approx(point, abs=1e-6)
    back = load_ply(tmp_path / "g.ply", up=up)
    assert (back.means - POINT).abs().max() < 1e-6


@pytest.mark.parametrize("up", UP_AXES)
def test_gaussians_turn_with_their_axes(up):
    gaussians = random_gaussians(1, 8)
    turned = gaussians.turned(turn_from_y_up(up))
    matrix = quats_to_matrices(turn_from_y_up(up)[None])[0]
    assert (turned.means - gaussians.means @ matrix.T).abs().max() < 1e-6
    assert (covariances(turned) - matrix @ covariances(gaussians) @ matrix.T).abs().max() < 1e-6
    assert (turned.quats.norm(dim=-1) - 1).abs().max() < 1e-6


def test_z_up_is_blenders():
    pose = torch.eye(4)
    pose[:3, 3] = POINT
    expected = y_up_to_z_up(pose)[:3, 3]
    assert (one().turned(turn_from_y_up("z")).means[0, 0] - expected).abs().max() < 1e-6


def test_padding_follows_inrias_columns(tmp_path):
    save_ply(one(), tmp_path / "g.ply", sh_degree=3, normals=True)
    theirs = PlyData.read(GOLDEN / "inria_degree3.ply")["vertex"].data.dtype
    vertices = PlyData.read(tmp_path / "g.ply")["vertex"].data
    assert vertices.dtype == theirs
    padding = [name for name in vertices.dtype.names if name.startswith(("n", "f_rest"))]
    assert len(padding) == 48 and not any(vertices[name].any() for name in padding)
    assert (load_ply(tmp_path / "g.ply").packed() - one().packed()).abs().max() < 1e-6


@pytest.mark.parametrize(("degree", "rest"), [(0, 0), (1, 9), (2, 24), (3, 45)])
def test_degrees(tmp_path, degree, rest):
    save_ply(one(), tmp_path / "g.ply", sh_degree=degree)
    names = PlyData.read(tmp_path / "g.ply")["vertex"].data.dtype.names
    assert [name for name in names if name.startswith("f_rest_")] == [f"f_rest_{i}" for i in range(rest)]


def test_options_that_do_not_exist_are_refused(tmp_path):
    with pytest.raises(ValueError, match="up='x' is not one of y, z, -y"):
        save_ply(one(), tmp_path / "g.ply", up="x")
    with pytest.raises(ValueError, match="sh_degree=4 is not one of 0, 1, 2, 3"):
        save_ply(one(), tmp_path / "g.ply", sh_degree=4)


def apart(count: int) -> Gaussians:
    """Random Gaussians, no two of them near each other."""
    cells = torch.randperm(10**3)[:count]
    corners = torch.stack([cells // 100, cells // 10 % 10, cells % 10], dim=-1)
    return replace(random_gaussians(1, count), means=(corners + 0.5 * torch.rand(count, 3))[None] / 5 - 1)


@pytest.mark.parametrize("count", [1, 256, 257, 700])
def test_compressed_round_trip(tmp_path, count):
    pytest.importorskip("gsplat", reason="gsplat writes compressed files, and is not installed")
    gaussians = apart(count)
    path = tmp_path / "g.compressed.ply"
    save_compressed_ply(gaussians, path, min_opacity=0.0, up="-y")
    loaded = load_ply(path, up="-y")
    assert loaded.num_gaussians == count
    # In another order: each is the nearest to one of ours.
    nearest = torch.cdist(gaussians.means[0], loaded.means[0]).argmin(dim=-1)
    assert len(nearest.unique()) == count
    loaded = loaded.select(nearest)
    assert (loaded.means - gaussians.means).abs().max() < 2e-3
    assert (loaded.scales / gaussians.scales - 1).abs().max() < 2e-2
    assert (loaded.opacities - gaussians.opacities).abs().max() < 4e-3
    assert (loaded.colors - gaussians.colors).abs().max() < 4e-3
    assert ((loaded.quats * gaussians.quats).sum(dim=-1).abs() - 1).abs().max() < 1e-4
    header = path.read_bytes().split(b"end_header")[0].decode()
    # What PlayCanvas wants of a file without higher harmonics: these two and no third.
    assert [line.split()[1] for line in header.splitlines() if line.startswith("element")] == [
        "chunk",
        "vertex",
    ]
    assert path.stat().st_size < len(header) + 20 + 72 * (count // 256 + 1) + 16 * count


def test_compressed_agrees_with_another_reader(tmp_path):
    pytest.importorskip("gsplat", reason="gsplat writes compressed files, and is not installed")
    gsply = pytest.importorskip("gsply", reason="another reader of compressed files; not installed")
    path = tmp_path / "g.compressed.ply"
    save_compressed_ply(random_gaussians(1, 300), path)
    ours, theirs = load_ply(path), gsply.plyread(path)
    assert np.abs(theirs.means - ours.means[0].numpy()).max() < 1e-6
    assert np.abs(theirs.scales - ours.scales[0].log().numpy()).max() < 1e-5
    assert np.abs(theirs.quats - ours.quats[0].numpy()).max() < 1e-6


def test_compressed_without_gsplat_or_gaussians_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gsplat.exporter", None)
    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(ValueError, match=r"needs gsplat .* pip install gsplat"):
        save_compressed_ply(one(), tmp_path / "g.ply")
    monkeypatch.undo()
    pytest.importorskip("gsplat", reason="gsplat writes compressed files, and is not installed")
    with pytest.raises(ValueError, match=r"no Gaussian is left .* lower min_opacity=0.9"):
        save_compressed_ply(one(), tmp_path / "g.ply", min_opacity=0.9)


def write_vertices(path, names, *more: PlyElement, count: int = 3, value: float = 0.5):
    vertices = np.full(count, value, dtype=[(name, "f4") for name in names])
    PlyData([PlyElement.describe(vertices, "vertex"), *more]).write(str(path))


def test_a_mesh_is_refused_in_one_line(tmp_path):
    faces = np.array([([0, 1, 2],)], dtype=[("vertex_indices", "i4", (3,))])
    write_vertices(tmp_path / "mesh.ply", ("x", "y", "z"), PlyElement.describe(faces, "face"))
    with pytest.raises(ValueError, match=r"mesh\.ply is a mesh of 1 faces: it lacks f_dc_0") as raised:
        load_ply(tmp_path / "mesh.ply")
    assert "\n" not in str(raised.value)


def test_a_missing_field_is_named(tmp_path):
    write_vertices(tmp_path / "g.ply", [name for name in FIELDS if name != "scale_1"])
    with pytest.raises(ValueError, match=r"g\.ply is no \.ply of 3D Gaussians: it lacks scale_1;"):
        load_ply(tmp_path / "g.ply")


@pytest.mark.parametrize("content", [b"", b"ply\n", b"\x00\xff\xfe binary", b"ply\nformat ascii 1.0\n"])
def test_an_empty_or_broken_file_is_one_line(tmp_path, content):
    (tmp_path / "g.ply").write_bytes(content)
    with pytest.raises(ValueError, match=r"g\.ply (is empty|cannot be read)") as raised:
        load_ply(tmp_path / "g.ply")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_cut_off_is_one_line(tmp_path):
    save_ply(one(), tmp_path / "g.ply")
    (tmp_path / "g.ply").write_bytes((tmp_path / "g.ply").read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"g\.ply cannot be read: .*end-of-file"):
        load_ply(tmp_path / "g.ply")


def test_no_gaussians_no_vertices_and_no_numbers(tmp_path):
    write_vertices(tmp_path / "none.ply", FIELDS, count=0)
    with pytest.raises(ValueError, match="holds no Gaussians at all"):
        load_ply(tmp_path / "none.ply")
    faces = np.array([([0, 1, 2],)], dtype=[("vertex_indices", "i4", (3,))])
    PlyData([PlyElement.describe(faces, "face")]).write(str(tmp_path / "faces.ply"))
    with pytest.raises(ValueError, match="it has no vertices"):
        load_ply(tmp_path / "faces.ply")
    write_vertices(tmp_path / "nan.ply", FIELDS, value=float("nan"))
    with pytest.raises(ValueError, match="values that are no numbers, for 3 of its 3 Gaussians"):
        load_ply(tmp_path / "nan.ply")


def test_infinite_opacities_and_flat_scales_have_a_meaning(tmp_path):
    dtype = [(name, "f4") for name in FIELDS]
    vertices = np.zeros(3, dtype=dtype)
    vertices["rot_0"], vertices["scale_1"] = 1, -np.inf
    vertices["opacity"] = np.inf, -np.inf, 0
    PlyData([PlyElement.describe(vertices, "vertex")]).write(str(tmp_path / "g.ply"))
    gaussians = load_ply(tmp_path / "g.ply")
    assert gaussians.opacities.tolist() == [[1, 0, 0.5]]
    assert gaussians.scales[0, 0].tolist() == [1, 0, 1]
    save_ply(gaussians, tmp_path / "again.ply")
    assert load_ply(tmp_path / "again.ply").num_gaussians == 2
    vertices["scale_1"] = np.inf
    PlyData([PlyElement.describe(vertices, "vertex")]).write(str(tmp_path / "g.ply"))
    with pytest.raises(ValueError, match="3 of its 3 Gaussians"):
        load_ply(tmp_path / "g.ply")


@pytest.mark.parametrize("text", [False, True])
def test_comments_that_are_not_ascii_are_read(tmp_path, text):
    save_ply(one(), tmp_path / "plain.ply")
    ply = PlyData.read(str(tmp_path / "plain.ply"))
    PlyData(ply.elements, text=text).write(str(tmp_path / "other.ply"))  # not the file that is mapped
    content = (tmp_path / "other.ply").read_bytes()
    for comment in ("créé par José", "由高斯生成"):
        marked = content.replace(b"element", b"comment " + comment.encode() + b"\nelement", 1)
        (tmp_path / "marked.ply").write_bytes(marked)
        plain, marked = (load_ply(tmp_path / name).packed() for name in ("other.ply", "marked.ply"))
        assert torch.equal(plain, marked)


def test_mip_splattings_filter_is_baked_in(tmp_path, caplog):
    """By hand: variances 1, 4, 9 grow by 0.5² each; the opacity falls as the volume grows."""
    names = [*FIELDS, "filter_3D"]
    vertices = np.zeros(1, dtype=[(name, "f4") for name in names])
    vertices["rot_0"], vertices["filter_3D"], vertices["opacity"] = 1, 0.5, np.log(0.8 / 0.2)
    for axis, scale in enumerate((1, 2, 3)):
        vertices[f"scale_{axis}"] = np.log(scale)
    PlyData([PlyElement.describe(vertices, "vertex")]).write(str(tmp_path / "mip.ply"))
    with caplog.at_level("INFO"):
        gaussians = load_ply(tmp_path / "mip.ply")
    expected = np.sqrt([1.25, 4.25, 9.25])
    assert np.allclose(gaussians.scales[0, 0], expected, rtol=1e-5)
    assert gaussians.opacities.item() == pytest.approx(0.8 * 6 / expected.prod(), rel=1e-5)
    assert "filter_3D is baked into" in caplog.text
