"""A person's own images: read, cut out, and brought to cameras that the network knows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from lgm.cameras import Cameras
from lgm.cameras.lens import Lens
from lgm.cameras.ray_geometry import meeting_point, middle
from lgm.cameras.upright import looking_along
from lgm.data.schema.sample import CameraRecord
from lgm.data.sources.images.background import Keep, PlainWhite, reached_from_edge
from lgm.data.sources.images.source import ImagesSource
from lgm.data.sources.images.warp import reimage
from lgm.data.views import OwnViews
from tests.own_images import RING, Shoot, over_white, render_rgba, some_similarity

CONFIGS = Path(__file__).parents[3] / "configs"
MANY = ([0.0] * 4 + [30.0, -20.0, 60.0, 10.0], [0.0, 90.0, 180.0, 270.0, 45.0, 135.0, 225.0, 315.0])
OPENCV = (0.12, -0.04, 0.003, -0.002)


def load(folder, background=None, **options):
    return ImagesSource(str(folder), background or Keep(), **options).load(0, 0)


def mean_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Over white, in 8-bit steps."""
    return float(np.abs(over_white(ours).astype(float) - over_white(theirs)).mean())


# ---- lenses and warps


@pytest.mark.parametrize("distortion", [(0.0,) * 4, OPENCV, (-0.2, 0.05, 0.0, 0.0)])
def test_a_lens_and_back(distortion):
    lens = Lens(90.0, 95.0, 60.0, 41.0, 128, 80, distortion)
    pixels = np.random.default_rng(0).uniform((0, 0), (128, 80), (200, 2))
    directions = lens.directions(pixels)
    again, seen = lens.project(directions)
    assert seen.all() and np.abs(again - pixels).max() < 1e-4
    assert np.allclose(np.linalg.norm(directions, axis=1), 1)


def test_a_lens_by_hand():
    lens = Lens(100.0, 100.0, 50.0, 50.0, 100, 100, (0.1, 0.0, 0.0, 0.0))
    pixel, seen = lens.project(np.array([0.3, 0.0, 1.0]))  # r² = 0.09, so 0.3 * 1.009
    assert seen and np.allclose(pixel, [50 + 100 * 0.3 * 1.009, 50])
    _, seen = lens.project(np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]]))
    assert seen.tolist() == [False, True]


def test_a_lens_ends_where_its_polynomial_turns_back():
    lens = Lens(100.0, 100.0, 50.0, 50.0, 100, 100, (-0.3, 0.0, 0.0, 0.0))  # turns at r = 1.054
    _, seen = lens.project(np.array([[1.0, 0.0, 1.0], [1.1, 0.0, 1.0]]))
    assert seen.tolist() == [True, False]


def test_the_same_camera_sees_the_same_image_bit_for_bit():
    rgba = Shoot.of().rgba[0]
    lens = Lens.from_fov(49.1, 64, 64)
    ours = reimage(rgba, lens, np.eye(3), lens)
    visible = rgba[..., 3] > 0
    assert np.array_equal(ours[visible], rgba[visible]) and not ours[~visible].any()


def test_another_camera_at_the_same_place_sees_what_a_renderer_draws_there():
    """Turned, off-centre, non-square and of another field of view."""
    shoot = Shoot.of(size=(192, 128), center=(0.56, 0.45), fov_y_deg=60.0)
    K = shoot.cameras.intrinsics(128, 192)[0].tolist()
    lens = Lens(K[0][0], K[1][1], K[0][2], K[1][2], 192, 128)
    angle = np.radians(5.0)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    ours = reimage(shoot.rgba[0], lens, turn, Lens.from_fov(49.1, 96, 96))
    c2w = shoot.cameras.c2w[:1].clone()
    c2w[0, :3, :3] = c2w[0, :3, :3] @ torch.from_numpy(turn).float()
    theirs = render_rgba(shoot.gaussians, Cameras.from_fov(c2w, 49.1), 96, 96)[0]
    assert mean_difference(ours, theirs) < 2.0
    assert mean_difference(ours, np.roll(theirs, 2, axis=1)) > 3.0  # two pixels would show


def test_a_large_image_is_averaged_down():
    rows, columns = np.mgrid[:256, :256]
    rgba = np.full((256, 256, 4), 255, np.uint8)
    rgba[..., :3] = 255 * ((rows + columns) % 2)[..., None]
    ours = reimage(rgba, Lens.from_fov(50, 256, 256), np.eye(3), Lens.from_fov(50, 32, 32))
    assert np.abs(ours[2:-2, 2:-2, :3].astype(int) - 127).max() <= 1


# ---- geometry


def test_rays_meet():
    origins = np.array([[0.0, 0, 5], [5, 0, 0], [0, 4, 0]])
    point = np.array([0.3, -0.2, 0.1])
    directions = point - origins
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found, missed = meeting_point(origins, directions)
    assert np.allclose(found, point) and missed < 1e-9
    assert meeting_point(origins, np.tile([0.0, 0, 1], (3, 1))) is None


def test_the_middle_of_an_outline():
    directions = np.array([[-0.1, -0.2, 1], [0.3, -0.2, 1], [0.3, 0.4, 1], [-0.1, 0.4, 1]])
    axis = middle(directions, np.array([0.0, -1.0, 0.0]))
    frame = looking_along(axis, np.array([0.0, -1.0, 0.0]))
    seen = directions @ frame
    seen = seen[:, :2] / seen[:, 2:]
    assert np.allclose(seen.min(axis=0), -seen.max(axis=0), atol=1e-3)


# ---- what is read


def check_frame(found, shoot: Shoot, distance: float = 1.5, tolerance: float = 1e-6) -> None:
    """The cameras, carried to the person's frame, stand where the person's stood and look at the object;
    in the network's they stand at that distance."""
    scale = np.cbrt(np.linalg.det(found.to_user[:3, :3]))
    centers = (found.to_user @ found.cameras.c2w)[:, :3, 3]
    assert np.allclose(centers, shoot.user_c2w[:, :3, 3], atol=1e-4 * scale)
    assert np.allclose(found.to_user[:3, 3], shoot.world[:3, 3], atol=1e-3 * scale)
    up = found.to_user[:3, 1] / scale
    assert up @ shoot.world[:3, 1] / np.linalg.norm(shoot.world[:3, 1]) > 1 - 1e-6
    assert np.linalg.norm(found.cameras.c2w[:, :3, 3], axis=1).mean() == pytest.approx(
        distance, rel=tolerance
    )


def test_four_images_are_the_canonical_ones(tmp_path):
    shoot = Shoot.of()
    shoot.write(tmp_path / "chair", "{:02d}.png")
    found = load(tmp_path / "chair", recenter=None)
    assert found.uid == "chair" and found.cameras.canonical_inputs == (0, 1, 2, 3)
    assert np.allclose(found.cameras.c2w, shoot.cameras.c2w, atol=1e-6) and found.cameras.fov_y_deg == 49.1
    for ours, theirs in zip(found.decode([0, 1, 2, 3]), shoot.rgba, strict=True):
        assert mean_difference(ours, theirs) == 0


def test_sub_folders_are_objects(tmp_path):
    for name in ("b", "a", "group/c"):
        Shoot.of().write(tmp_path / name)
    (tmp_path / "notes").mkdir()
    source = ImagesSource(str(tmp_path), Keep())
    assert [source.load(0, i).uid for i in range(source.num_objects)] == ["a", "b", "group/c"]


def test_names_are_sorted_as_people_count(tmp_path):
    shoot = Shoot.of()
    shoot.write(tmp_path, "shot{}.png")
    for view in (3, 2, 1, 0):
        (tmp_path / f"shot{view}.png").rename(tmp_path / f"shot{view + 8}.png")  # 8, 9, 10, 11
    found = load(tmp_path, recenter=None)
    for ours, theirs in zip(found.decode([0, 1, 2, 3]), shoot.rgba, strict=True):
        assert mean_difference(ours, theirs) == 0


def test_cameras_stand_where_the_protocol_puts_inputs(tmp_path):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        overrides = ["ckpt=x", "data=images", f"data.path={tmp_path}", "protocol.input_radius=2.5"]
        radius = compose("evaluate", overrides=overrides).data.source.radius
    assert radius == 2.5
    Shoot.of(size=(32, 32)).write(tmp_path / "ring")
    Shoot.of(MANY, size=(32, 32)).write_transforms(tmp_path / "posed")
    for name in ("ring", "posed"):
        centers = load(tmp_path / name, radius=radius).cameras.c2w[:, :3, 3]
        assert np.allclose(np.linalg.norm(centers, axis=1), radius, rtol=1e-3)


@pytest.mark.parametrize("count", [2, 3, 6, 8])
def test_rings_of_other_numbers(tmp_path, count):
    azimuths = [360 / count * i for i in range(count)]
    shoot = Shoot.of(([0.0] * count, azimuths))
    shoot.write(tmp_path)
    found = load(tmp_path, azimuths_deg=azimuths)
    assert np.allclose(found.cameras.c2w, shoot.cameras.c2w, atol=1e-6)
    assert OwnViews(count).choose(found.cameras, np.random.default_rng(0)).input == tuple(range(count))


def test_images_recentred_as_the_original_does(tmp_path):
    """Cut to the object, the longer side at 1 - 0.2 of the image's, wherever it was."""
    rgba = np.zeros((100, 140, 4), np.uint8)
    rgba[60:90, 5:25] = (200, 30, 30, 255)
    for view in range(4):
        Image.fromarray(rgba).save(tmp_path / f"{view}.png")
    pixels = load(tmp_path, recenter=0.2).decode([0])[0]
    solid = pixels[..., 3] >= 128
    size = pixels.shape[0]
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    assert len(rows) == pytest.approx(0.8 * size, abs=2)
    assert len(columns) == pytest.approx(0.8 * size * 20 / 30, abs=2)
    for extent in (rows, columns):
        assert extent[0] + extent[-1] + 1 == pytest.approx(size, abs=2)


def test_a_wide_image_does_not_lose_its_sides_without_a_word(tmp_path, caplog):
    for name, columns in (("wide", slice(10, 150)), ("narrow", slice(40, 120))):
        rgba = np.zeros((90, 160, 4), np.uint8)
        rgba[20:70, columns] = (200, 30, 30, 255)
        (tmp_path / name).mkdir()
        for view in range(4):
            Image.fromarray(rgba).save(tmp_path / name / f"{view}.png")
    load(tmp_path / "narrow", recenter=None)
    load(tmp_path / "wide")
    assert not caplog.messages
    load(tmp_path / "wide", recenter=None)
    (message,) = caplog.messages  # one for the four, which are alike
    assert "wide/0.png" in message and "25 pixels beyond" in message and "data.recenter=null" in message


@pytest.mark.parametrize("write", ["write_cameras_json", "write_transforms", "write_colmap"])
def test_every_format_gives_the_object_back(tmp_path, write):
    # cameras.json means its +y by up; the others are free.
    world = np.diag([3.0, 3, 3, 1]) if write == "write_cameras_json" else some_similarity()
    world[:3, 3] = (5.0, -20.0, 8.0)
    shoot = Shoot.of(MANY, world=world)
    found = load(getattr(shoot, write)(tmp_path / "set"))
    check_frame(found, shoot)
    for ours, theirs in zip(found.decode(range(8)), shoot.rgba, strict=True):
        assert mean_difference(ours, theirs) < 0.01


@pytest.mark.parametrize("write", ["write_transforms", "write_colmap"])
def test_other_lenses_radii_and_principal_points(tmp_path, write):
    shoot = Shoot.of(
        MANY, radius=3.2, fov_y_deg=24.0, size=(160, 120), center=(0.53, 0.47), world=some_similarity()
    )
    found = load(getattr(shoot, write)(tmp_path / "set"))
    # The object has the size that training shows: to 0.6 from its centre, as far as outlines tell.
    angles = [middle_angle(image, found.cameras.fov_y_deg) for image in found.decode(range(8))]
    distance = 0.6 / np.sin(max(angles))
    check_frame(found, shoot, distance, tolerance=0.03)
    assert found.cameras.fov_y_deg < 30 and max(angles) < np.radians(found.cameras.fov_y_deg) / 2


def middle_angle(rgba: np.ndarray, fov_y_deg: float) -> float:
    """How far the object reaches from the middle of a square image."""
    size = rgba.shape[0]
    rows, columns = np.nonzero(rgba[..., 3] >= 128)
    reach = np.hypot(rows + 0.5 - size / 2, columns + 0.5 - size / 2).max()
    return float(np.arctan(reach / (size / 2) * np.tan(np.radians(fov_y_deg) / 2)))


def test_angles_instead_of_focal_lengths(tmp_path):
    """NeRF's synthetic scenes: camera_angle_x alone, file names without extension, +z up."""
    z_up = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    shoot = Shoot.of(MANY, world=z_up)
    folder = shoot.write_transforms(tmp_path / "lego", {"camera_angle_x": float(np.radians(49.1))})
    content = json.loads((folder / "transforms.json").read_text())
    for frame in content["frames"]:
        frame["file_path"] = "./" + frame["file_path"].removesuffix(".png")
    (folder / "transforms.json").unlink()
    for part, frames in (("train", content["frames"][:5]), ("test", content["frames"][5:])):
        (folder / f"transforms_{part}.json").write_text(json.dumps({**content, "frames": frames}))
    check_frame(load(folder), Shoot.of(MANY, world=z_up))


def test_the_whole_is_not_read_with_its_parts(tmp_path):
    """Each image would be there twice, and an input a target."""
    shoot = Shoot.of(MANY)
    folder = shoot.write_transforms(tmp_path / "set")
    content = json.loads((folder / "transforms.json").read_text())
    (folder / "transforms_backup.json").write_text(json.dumps(content))
    for part, frames in (("train", content["frames"][:5]), ("test", content["frames"][5:])):
        (folder / f"transforms_{part}.json").write_text(json.dumps({**content, "frames": frames}))
    check_frame(load(folder), shoot)
    (folder / "transforms.json").unlink()
    check_frame(load(folder), shoot)


@pytest.mark.parametrize("write", ["write_transforms", "write_colmap", "write_cameras_json"])
def test_views_are_numbered_by_their_names_as_people_count(tmp_path, write):
    """Whatever the order in which a file names them."""
    shoot = Shoot.of(([0.0] * 11, [360 / 11 * view for view in range(11)]), size=(16, 16))
    names = "view_{}.png" if write == "write_cameras_json" else "img_{}.png"
    folder = getattr(shoot, write)(tmp_path / "set", names=names)
    if write == "write_transforms":
        content = json.loads((folder / "transforms.json").read_text())
        content["frames"].reverse()
        (folder / "transforms.json").write_text(json.dumps(content))
    check_frame(load(folder), shoot)


def test_distorted_lenses_are_straightened(tmp_path):
    """COLMAP's own default is SIMPLE_RADIAL: its images are read as they are."""
    shoot = Shoot.of(MANY, size=(96, 96))
    K = shoot.cameras.intrinsics(96, 96)[0].tolist()
    bent = Lens(K[0][0], K[1][1], K[0][2], K[1][2], 96, 96, (0.15, 0.0, 0.0, 0.0))
    straight = Lens(K[0][0], K[1][1], K[0][2], K[1][2], 96, 96)
    rows, columns = np.mgrid[:96, :96] + 0.5
    pixels, _ = straight.project(bent.directions(np.stack([columns, rows], axis=-1)))
    grid = torch.from_numpy(pixels / 96 * 2 - 1)[None]
    for view, image in enumerate(shoot.rgba):
        source = torch.from_numpy(image).permute(2, 0, 1)[None].double()
        moved = torch.nn.functional.grid_sample(source, grid, align_corners=False)
        shoot.rgba[view] = moved[0].permute(1, 2, 0).round().byte().numpy()
    original = Shoot.of(MANY, size=(96, 96)).rgba
    folder = shoot.write_colmap(tmp_path / "set", f"SIMPLE_RADIAL 96 96 {K[0][0]} {K[0][2]} {K[1][2]} 0.15")
    ours = load(folder).decode([0])[0]
    assert mean_difference(ours, original[0]) < 0.4 * mean_difference(shoot.rgba[0], original[0])


def test_images_at_another_resolution_than_the_file_says(tmp_path):
    folder = Shoot.of(MANY).write_colmap(tmp_path / "set")
    small = Shoot.of(MANY, size=(32, 32))
    small.write(folder / "images")
    check_frame(load(folder), small)


# ---- which views


def record(angles) -> CameraRecord:
    return CameraRecord(49.1, Shoot.of(angles).cameras.c2w.double().numpy(), ())


def test_inputs_are_level_and_spread():
    choice = OwnViews(4).choose(record(MANY), np.random.default_rng(0))
    assert choice.input == (0, 1, 2, 3) and choice.target == (4, 5, 6, 7)
    crowd = ([0.0] * 6 + [50.0] * 4, [0.0, 5.0, 92.0, 178.0, 181.0, 268.0, 0.0, 90.0, 180.0, 270.0])
    assert set(OwnViews(4).choose(record(crowd), np.random.default_rng(0)).input) in (
        {0, 2, 3, 5},
        {0, 2, 4, 5},
        {1, 2, 4, 5},
    )


def test_where_all_are_inputs_they_are_the_targets():
    choice = OwnViews(4).choose(record(RING), np.random.default_rng(0))
    assert choice.input == choice.target == (0, 1, 2, 3)


def test_inputs_of_ones_own_choice():
    choice = OwnViews(2, input_views=[5, 0], num_target_views=3).choose(
        record(MANY), np.random.default_rng(0)
    )
    assert choice.input == (5, 0) and len(choice.target) == 3 and not {5, 0} & set(choice.target)
    with pytest.raises(ValueError, match="must be 2 different views"):
        OwnViews(2, input_views=[5, 5])
    with pytest.raises(ValueError, match=r"views 0 to 7, input_views=\[8, 1\]"):
        OwnViews(2, input_views=[8, 1]).choose(record(MANY), np.random.default_rng(0))
    with pytest.raises(ValueError, match="it has 8 views, 9 are needed"):
        OwnViews(9).choose(record(MANY), np.random.default_rng(0))


# ---- backgrounds


def test_reached_from_the_edge():
    passable = torch.tensor(
        [[0, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 1, 0]],
        dtype=torch.bool,
    )
    expected = passable.clone()
    expected[3, 1] = False  # a hole, which nothing leads to
    assert torch.equal(reached_from_edge(passable), expected)
    spiral = torch.zeros(9, 9, dtype=torch.bool)
    spiral[0, 1], spiral[1, 1:8], spiral[1:8, 7], spiral[7, 2:8], spiral[3:8, 2] = (
        True,
        True,
        True,
        True,
        True,
    )
    assert torch.equal(reached_from_edge(spiral), spiral)


def test_plain_white_is_found_and_white_inside_stays(tmp_path):
    y, x = np.mgrid[:96, :96] + 0.5
    true = np.clip(30.5 - np.hypot(x - 50, y - 45), 0, 1)[..., None]  # a disc, antialiased
    white = (true * (180, 60, 40) + 255 * (1 - true)).round().astype(np.uint8)
    rgba = PlainWhite().cut(white, tmp_path / "a.png")
    assert np.abs(rgba[..., 3] / 255 - true[..., 0]).max() < 0.05
    assert np.abs(rgba[40:50, 45:55, :3].astype(int) - (180, 60, 40)).max() == 0
    assert np.abs(over_white(rgba).astype(int) - white).max() <= 10  # the tolerance, where it is invisible

    ring = np.full((40, 40, 3), 255, np.uint8)
    ring[10:30, 10:30] = (20, 40, 60)
    ring[16:24, 16:24] = 255
    alpha = PlainWhite().cut(ring, tmp_path / "b.png")[..., 3]
    assert (alpha[10:30, 10:30] == 255).all() and alpha.sum() == 255 * 400


def test_a_image_without_alpha_is_kept_if_so_told(tmp_path):
    Shoot.of().without_alpha().write(tmp_path)
    assert (load(tmp_path, Keep()).decode([0])[..., 3] == 255).all()


def test_an_alpha_that_is_there_is_taken(tmp_path):
    """Whatever is said of backgrounds."""

    class Refuses(Keep):
        def cut(self, rgb, path):
            raise AssertionError

    Shoot.of().write(tmp_path)
    assert (load(tmp_path, Refuses()).decode([0])[..., 3] < 255).any()


def test_copies_do_not_matter(tmp_path):
    """A folder that is read twice gives the same."""
    folder = Shoot.of(MANY).write_transforms(tmp_path / "a")
    shutil.copytree(folder, tmp_path / "b")
    one, two = load(folder), load(tmp_path / "b")
    assert np.array_equal(one.decode([4]), two.decode([4])) and np.array_equal(one.to_user, two.to_user)
