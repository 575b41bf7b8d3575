"""The reprojection test: the bundled set passes; the same set with each known mistake does not."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.reprojection import Outlines, Tally, find_outlines, judge
from data_tools.shared.shard_reader import Sample, read_samples
from data_tools.verify import command as verify
from lgm.cameras import Cameras, spiral_angles
from lgm.data.schema.sample import parse_cameras
from lgm.files import file_sha256

QUICKSTART = Path(verify.__file__).parents[2] / "lgm" / "assets" / "quickstart"
NUM_OBJECTS = 75
OPENGL = np.array([1.0, -1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    found = [sample for path in sorted(QUICKSTART.glob("*.tar")) for sample in read_samples(path)]
    assert len(found) == NUM_OBJECTS
    return found


@pytest.fixture(scope="module")
def bundled(samples) -> list[tuple[str, np.ndarray, np.ndarray, float]]:
    """uid, alphas [V, H, W], c2w and field of view of each object."""
    found = []
    for sample in samples:
        record = parse_cameras(sample.files["cameras.json"], sample.uid)
        alphas = np.stack([sample.decoded(number).silhouette for number in sample.images])
        found.append((sample.uid, alphas, record.c2w, record.fov_y_deg))
    return found


@pytest.fixture(scope="module")
def thumbnails(samples) -> dict[str, np.ndarray]:
    """[V, 64, 64, 4] of each object."""
    return {s.uid: np.stack([s.decoded(number).thumbnail for number in s.images]) for s in samples}


def exchanged(count: int, one: int, two: int) -> np.ndarray:
    order = np.arange(count)
    order[[one, two]] = two, one
    return order


# What is done to an object's images and cameras, the mistake that must be named, and how many of the 75
# objects must be faulted by their silhouettes, and with their colours. The silhouettes of the others are the
# same afterwards: a ball upside down, a lamp mirrored.
CORRUPTIONS = {
    "images upside down": (lambda a, c, f: (a[:, ::-1], c, f), "flipped y", 74, 75),
    "images mirrored": (lambda a, c, f: (a[:, :, ::-1], c, f), "mirrored", 71, 75),
    "world mirrored": (lambda a, c, f: (a, mirrored_world(c), f), "mirrored", 71, 75),
    "cameras turned over": (lambda a, c, f: (a, c * [-1, -1, 1, 1], f), "rolled", 74, 75),
    "OpenGL axes": (lambda a, c, f: (a, c * OPENGL, f), "OpenGL axes", 75, 75),
    "inverse matrices": (lambda a, c, f: (a, np.linalg.inv(c), f), "world to camera", 75, 75),
    "field of view + 5 %": (lambda a, c, f: (a, c, f * 1.05), "fov -5 %", 72, 72),
    "field of view - 5 %": (lambda a, c, f: (a, c, f * 0.95), "fov +5 %", 72, 72),
    "field of view + 20 %": (lambda a, c, f: (a, c, f * 1.2), "fov -17 %", 74, 74),
    "field of view - 20 %": (lambda a, c, f: (a, c, f * 0.8), "fov +25 %", 74, 74),
}


def mirrored_world(c2w: np.ndarray) -> np.ndarray:
    """Cameras at the azimuths of the wrong sign."""
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    return mirror @ c2w @ mirror


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_mistake_is_caught_and_named(bundled, thumbnails, name):
    corrupt, mistake, by_silhouettes, with_colors = CORRUPTIONS[name]
    num_by_silhouettes, faulty = 0, []
    for uid, alphas, c2w, fov_y_deg in bundled:
        images, cameras, fov = corrupt(alphas, c2w, fov_y_deg)
        outlines = find_outlines(images)
        verdict = judge(outlines, cameras, fov)
        num_by_silhouettes += bool(verdict.faults)
        if not verdict.faults:
            verdict = judge(outlines, cameras, fov, corrupt(thumbnails[uid], c2w, fov_y_deg)[0])
        faulty += [verdict] if verdict.faults else []
    assert num_by_silhouettes >= by_silhouettes
    assert len(faulty) >= with_colors
    named = [v for v in faulty if v.mistake == mistake]
    assert len(named) >= 0.95 * len(faulty)


# Two views, and how many of the 75 objects must be faulted by silhouettes, and with colours. The others
# look much the same from both sides: a table from behind.
EXCHANGES = {
    "spiral views": (5, 6, 74, 74),
    "far views": (10, 23, 74, 74),
    "front and side": (0, 1, 65, 68),
    "front and back": (0, 2, 53, 64),
    "right and left": (1, 3, 53, 58),
}


@pytest.mark.parametrize("name", EXCHANGES)
def test_exchanged_views_are_caught_and_named(bundled, thumbnails, name):
    one, two, by_silhouettes, with_colors = EXCHANGES[name]
    order = exchanged(24, one, two)
    num_by_silhouettes, num_faulty, num_named = 0, 0, 0
    for uid, alphas, c2w, fov_y_deg in bundled:
        outlines = find_outlines(alphas[order])
        verdict = judge(outlines, c2w, fov_y_deg)
        num_by_silhouettes += bool(verdict.faults)
        if not verdict.faults:
            verdict = judge(outlines, c2w, fov_y_deg, thumbnails[uid][order])
            assert not verdict.faults or [fault.split(":")[0] for fault in verdict.faults] == [
                f"view {one}",
                f"view {two}",
            ]
        num_faulty += bool(verdict.faults)
        num_named += bool(verdict.faults) and verdict.mistake is None
    assert num_by_silhouettes >= by_silhouettes
    assert num_faulty >= with_colors
    assert num_named >= 0.95 * num_faulty


VARIATIONS = {
    "as it is": lambda a, c, f: (a, c, f),
    "half the resolution": lambda a, c, f: (a.reshape(len(a), 64, 2, 64, 2).mean((2, 4)), c, f),
    "a quarter": lambda a, c, f: (a.reshape(len(a), 32, 4, 32, 4).mean((2, 4)), c, f),
    "an eighth": lambda a, c, f: (a.reshape(len(a), 16, 8, 16, 8).mean((2, 4)), c, f),
    "hard edges": lambda a, c, f: (a > 0.5, c, f),
    "twelve views": lambda a, c, f: (a[:12], c[:12], f),
    "six views": lambda a, c, f: (a[:6], c[:6], f),
    "canonical views alone": lambda a, c, f: (a[:4], c[:4], f),
    "one view": lambda a, c, f: (a[:1], c[:1], f),
    "a larger world": lambda a, c, f: (a, scaled(c), f),
    "cut off by the image": lambda a, c, f: (a[:, 16:-16, 16:-16], c, cropped_fov(f, 0.75)),
    "cut off on all sides": lambda a, c, f: (a[:, 40:-40, 40:-40], c, cropped_fov(f, 0.375)),
    "opaque": lambda a, c, f: (np.ones_like(a), c, f),
    "empty": lambda a, c, f: (np.zeros_like(a), c, f),
}


def scaled(c2w: np.ndarray) -> np.ndarray:
    larger = c2w.copy()
    larger[:, :3, 3] *= 2.5
    return larger


def cropped_fov(fov_y_deg: float, share: float) -> float:
    return float(np.degrees(2 * np.arctan(np.tan(np.radians(fov_y_deg / 2)) * share)))


@pytest.mark.parametrize("name", VARIATIONS)
def test_right_cameras_are_no_fault(bundled, name):
    for uid, alphas, c2w, fov_y_deg in bundled:
        alphas, c2w, fov_y_deg = VARIATIONS[name](alphas, c2w, fov_y_deg)
        assert judge(find_outlines(alphas), c2w, fov_y_deg).faults == (), uid


def ball(num_views: int, size: int = 64) -> tuple[Outlines, np.ndarray]:
    cameras = Cameras.orbit(*spiral_angles(num_views))
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    disc = (x**2 + y**2 < (0.3 * size) ** 2).astype(np.float32)
    return find_outlines(np.tile(disc, (num_views, 1, 1))), cameras.c2w.double().numpy()


def test_a_ball_cannot_tell():
    outlines, c2w = ball(16)
    for fov_y_deg in (49.1, 40.0):
        verdict = judge(outlines, c2w, fov_y_deg)
        assert verdict.faults == ()
        assert {"flipped y", "mirrored", "rolled", "fov -5 %", "fov +5 %"} <= set(verdict.undecided)
    # That the cameras look at it, even a ball can tell.
    assert judge(outlines, c2w * OPENGL, 49.1).mistake == "OpenGL axes"


@pytest.mark.parametrize("mistake", ["none", "half of them rolled", "twice as far"])
def test_images_that_can_tell_nothing_are_not_counted_as_fitting(mistake):
    _, c2w = ball(8)
    if mistake == "half of them rolled":
        c2w[4:] = c2w[4:] @ np.diag([-1.0, -1.0, 1.0, 1.0])
    if mistake == "twice as far":
        c2w[:, :3, 3] *= 2
    tally = Tally()
    assert tally.summary() == "cameras not tested"
    for _ in range(3):
        full = judge(find_outlines(np.ones((8, 64, 64))), c2w, 49.1)
        assert full.faults == () and not full.is_tested
        tally.add(full)
    reason = "without an alpha, cut off, or too few views"
    assert tally.summary() == f"cameras not tested: images of 3 objects cannot tell, {reason}"
    other = Tally()
    other.add(judge(*ball(16), 49.1))
    tally.merge(other)
    assert tally.summary().startswith("cameras fit 1 of 1 tested objects (cannot tell: ")
    assert tally.summary().endswith(f"), 3 not tested: {reason}")
    assert tally.undecided["fov"] == 1  # of those alone of which something was learned


def test_a_image_of_something_else_is_named(bundled):
    _, alphas, c2w, fov_y_deg = bundled[1]
    strange = alphas.copy()
    strange[9] = 0
    strange[9, 10:30, 60:120] = 1
    (fault,) = judge(find_outlines(strange), c2w, fov_y_deg).faults
    assert fault.startswith("view 9: its image matches no camera")


def test_a_hundred_views_of_a_ball_are_no_fault():
    outlines, c2w = ball(100)
    assert judge(outlines, c2w, 49.1).faults == ()


def corrupted_copy(folder: Path, change_cameras, change_image) -> Path:
    """The bundled validation shard alone, its cameras and images changed, its checksums right."""
    folder.mkdir()
    index = json.loads((QUICKSTART / "index.json").read_text())
    (entry,) = [shard for shard in index["shards"] if shard["name"] == "val-000000.tar"]
    path = folder / entry["name"]
    with tarfile.open(QUICKSTART / entry["name"]) as source, tarfile.open(path, "w") as target:
        for member in source:
            content = source.extractfile(member).read()
            if member.name.endswith("cameras.json"):
                record = json.loads(content)
                change_cameras(record)
                content = json.dumps(record).encode()
            elif member.name.endswith(".webp"):
                content = change_image(content)
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    entry |= {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    render = {**index["render"], "fov_y_deg": record["fov_y_deg"]}
    content = {"version": 1, "shards": [entry], "render": render, "splits": {"val": [entry["name"]]}}
    (folder / "index.json").write_text(json.dumps(content))
    return folder


def unchanged(content):
    return content


def upside_down(content: bytes) -> bytes:
    held = io.BytesIO()
    image = Image.open(io.BytesIO(content)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    image.save(held, "WEBP", lossless=True, quality=10, method=0)
    return held.getvalue()


def opengl_axes(record: dict) -> None:
    c2w = np.array(record["c2w"]).reshape(-1, 4, 4) * OPENGL
    record["c2w"] = c2w.reshape(-1, 16).tolist()


def wider(record: dict) -> None:
    record["fov_y_deg"] *= 1.05


def exchange(record: dict) -> None:
    c2w = record["c2w"]
    c2w[7], c2w[12] = c2w[12], c2w[7]


@pytest.mark.parametrize(
    ("cameras", "image", "says"),
    [
        (unchanged, upside_down, "objects say 'flipped y'"),
        (opengl_axes, unchanged, "15 of 15 objects say 'OpenGL axes'"),
        (wider, unchanged, "objects say 'fov -5 %'"),
        (exchange, unchanged, "objects: images do not fit their cameras"),
    ],
)
def test_the_command_faults_objects_and_the_set(tmp_path, capsys, cameras, image, says):
    folder = corrupted_copy(tmp_path / "set", cameras, image)
    assert verify.main([str(folder), "--workers", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert says in lines[-1]
    assert sum(line.startswith("shard val-000000.tar: object ") for line in lines) >= 14
    assert verify.main([str(folder), "--workers", "1", "--no-reprojection"]) == 0
    assert "cameras not tested" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_passes_the_whole_bundled_set(capsys):
    assert verify.main([str(QUICKSTART), "--workers", "1"]) == 0
    assert "cameras fit 75 of 75 tested objects (cannot tell: mirrored " in capsys.readouterr().out


def test_the_command_passes_a_sample_of_the_bundled_set(capsys):
    assert verify.main([str(QUICKSTART), "--workers", "1", "--sample", "0.3"]) == 0
    said = re.search(r"cameras fit (\d+) of (\d+) tested objects \(cannot tell: ", capsys.readouterr().out)
    assert said[1] == said[2] and 10 < int(said[2]) < 35
    with pytest.raises(ValueError, match=r"--sample 1.5 must lie"):
        verify.main([str(QUICKSTART), "--sample", "1.5"])


def test_a_truncated_tar_and_a_changed_byte_of_the_bundled_set(tmp_path, capsys):
    folder = shutil.copytree(QUICKSTART, tmp_path / "set")
    path = folder / "train-000001.tar"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert verify.main([str(folder), "--workers", "1", "--no-reprojection"]) == 1
    output = capsys.readouterr().out
    assert "bytes, index.json says" in output and "truncated" in output
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    path.write_bytes(changed)
    assert verify.main([str(folder), "--workers", "1", "--no-reprojection"]) == 1
    assert "shard train-000001.tar: its sha256 is not the one in index.json" in capsys.readouterr().out
