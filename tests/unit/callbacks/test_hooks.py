"""What an evaluation writes of each object, and that one object's failure is its own."""

import logging
from dataclasses import replace
from pathlib import Path

import imageio
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from PIL import Image

from lgm.callbacks import ExportPly, Turntable, WriteViews
from lgm.callbacks.evaluation import video
from lgm.callbacks.evaluation.objects import ObjectHook
from lgm.cameras import canonical_up, canonicalise, orbit_poses
from lgm.cameras.upright import tilt
from lgm.files import atomic
from lgm.gaussians import Gaussians
from lgm.gaussians.ply import load_ply
from lgm.rendering import TorchRenderer
from tests.unit.callbacks.test_callbacks import FakeModule, loader, make_batch, make_trainer

SIZE = 48
TURNTABLE = {"frames": 8, "seconds": 0.5, "size": SIZE, "gif_size": 24, "frames_per_call": 3}


class DrawingModule(FakeModule):
    renderer = TorchRenderer()


def figure(num: int = 600) -> Gaussians:
    """A green post upwards with a red arm towards +x."""
    noise = torch.rand(2, num // 2, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    post = noise[0] * torch.tensor([0.15, 0.9, 0.15])
    arm = noise[1] * torch.tensor([0.4, 0.15, 0.15]) + torch.tensor([0.25, 0.3, 0.0])
    colors = torch.tensor([[0.1, 0.7, 0.2], [0.9, 0.1, 0.1]]).repeat_interleave(num // 2, dim=0)
    return Gaussians(
        means=torch.cat([post, arm])[None],
        quats=torch.tensor([1.0, 0, 0, 0]).expand(1, num, 4),
        scales=torch.full((1, num, 3), 0.03),
        opacities=torch.full((1, num), 0.9),
        colors=colors[None],
    )


def drawn(turntable: Turntable, cameras=None) -> np.ndarray:
    cameras = turntable.orbit() if cameras is None else cameras
    return np.concatenate(list(turntable.draw(TorchRenderer(), figure(), cameras, (1.0, 1.0, 1.0))))


def reds(frames: np.ndarray) -> list[float]:
    """Where the red arm is, in pixels to the right of the middle; one number a frame."""
    red = (frames[..., 0] > 150) & (frames[..., 1] < 100)
    columns = np.arange(frames.shape[2]) + 0.5 - frames.shape[2] / 2
    return [float((mask * columns).sum() / max(mask.sum(), 1)) for mask in red]


def test_turntable_is_upright_and_turns_one_way():
    frames = drawn(Turntable(**TURNTABLE))
    assert frames.shape == (8, SIZE, SIZE, 3) and frames.dtype == np.uint8
    green = (frames[..., 1] > 100) & (frames[..., 0] < 100)
    red = (frames[..., 0] > 150) & (frames[..., 1] < 100)
    rows = np.arange(SIZE)[None, :, None]
    # The arm sits at the post's upper end in every frame in which it is seen.
    assert all((rows[0] * r).sum() / r.sum() < SIZE * 0.45 for r in red if r.sum() > 20) and all(
        g.any(axis=1).nonzero()[0].max() > SIZE * 0.7 for g in green
    )
    # The camera goes from +z to +x: the arm starts at the right, points at the camera after a
    # quarter, lies at the left after half, and is hidden behind the post after three quarters.
    place = reds(frames)
    assert place[0] > 5 and abs(place[2]) < 1.5 and place[4] < -5
    assert place[0] > place[1] > place[2] > place[3] > place[4]
    assert red[2].sum() > 2 * red[6].sum()


def test_turntable_goes_around_what_is_up_in_the_data():
    """With inputs from 20 degrees above, the object leans in the network's frame, but not in the video."""
    turntable = Turntable(**TURNTABLE, elevation_deg=20.0)
    poses = orbit_poses([20.0, 20.0], [0.0, 90.0])[None]
    up = canonical_up(poses[:, 0])[0]
    home = canonicalise(poses, poses[:, 0])[0]
    cameras = turntable.orbit(up=up)
    # The first frame is the first input's own camera, the third stands where the second input does.
    assert (cameras.c2w[0] - home[0]).abs().max() < 1e-5
    assert (cameras.c2w[2] - home[1]).abs().max() < 1e-5
    assert (turntable.orbit(up=torch.tensor([0.0, 1.0, 0.0])).c2w - turntable.orbit().c2w).abs().max() < 1e-6


@pytest.mark.parametrize("up", [(0.0, 1.0, 0.0), (0.3, -0.5, 0.2), (0.0, -1.0, 0.0), (1.0, 0.0, 0.0)])
def test_tilt_is_a_rotation_to_up(up):
    up = torch.nn.functional.normalize(torch.tensor(up), dim=0)
    rotation = tilt(up)
    assert (rotation @ torch.tensor([0.0, 1.0, 0.0]) - up).abs().max() < 1e-6
    assert (rotation @ rotation.T - torch.eye(3)).abs().max() < 1e-6 and torch.det(rotation) > 0.99


def test_gaussians_grow_during_the_first_part():
    frames = drawn(Turntable(**TURNTABLE, turns=2, growth=0.5))
    covered = (frames < 250).any(axis=-1).sum(axis=(1, 2))
    still = (drawn(Turntable(**TURNTABLE, turns=2)) < 250).any(axis=-1).sum(axis=(1, 2))
    assert (np.diff(covered[:4] / still[:4]) > 0).all() and covered[0] < 0.8 * still[0]
    assert (covered[3:] == still[3:]).all()  # full-grown at the end of the first half


def test_chunks_do_not_show():
    whole_turn = drawn(Turntable(**{**TURNTABLE, "frames_per_call": 100}, growth=0.6))
    for per_call in (1, 3):
        chunks = drawn(Turntable(**{**TURNTABLE, "frames_per_call": per_call}, growth=0.6))
        assert np.abs(chunks.astype(int) - whole_turn).max() <= 1


def test_videos_hold_the_frames(tmp_path):
    turntable = Turntable(**TURNTABLE)
    turntable.film(TorchRenderer(), figure(), turntable.orbit(), (1.0, 1.0, 1.0), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["turntable.gif", "turntable.mp4"]
    movie = (tmp_path / "turntable.mp4").read_bytes()
    assert movie.index(b"moov") < movie.index(b"mdat")  # a browser can begin before it has all
    with imageio.get_reader(tmp_path / "turntable.mp4") as reader:
        information = reader.get_meta_data()
    decoded = np.stack(imageio.mimread(tmp_path / "turntable.mp4"))
    assert information["fps"] == 16 and information["pix_fmt"].startswith("yuv420p(tv, bt709")
    expected = drawn(turntable)
    assert decoded.shape == expected.shape
    # Halved colours smear at edges; flat places keep theirs.
    difference = np.abs(decoded.astype(int) - expected)
    assert difference.mean() < 4 and np.median(difference) <= 2
    animation = imageio.mimread(tmp_path / "turntable.gif")
    assert len(animation) == 10 and animation[0].shape[:2] == (24, 24)  # half a second at 20 a second
    assert animation[0][0, 0, 0] == 255


def test_all_hooks_in_a_run(tmp_path):
    hooks = [ExportPly(up="-y", sh_degree=3), Turntable(**TURNTABLE), WriteViews(alphas=True)]
    make_trainer(tmp_path, hooks).test(
        DrawingModule(), loader(make_batch("a", "b"), make_batch("c")), verbose=False
    )
    views = [f"view_{i:03d}_{kind}.png" for i in range(4, 9) for kind in ("prediction", "target", "alpha")]
    inputs = [f"input_{i}.png" for i in range(4)]
    for uid in "abc":
        names = {path.name for path in (tmp_path / "objects" / uid).iterdir()}
        assert names == {
            "gaussians.ply",
            "input_cameras.json",
            "turntable.mp4",
            "turntable.gif",
            *views,
            *inputs,
        }
    folder = tmp_path / "objects" / "c"
    values = {
        name: np.asarray(Image.open(folder / f"{name}.png")).mean()
        for name in ("input_0", "view_004_target", "view_004_prediction", "view_004_alpha")
    }
    assert values == pytest.approx(
        {"input_0": 51, "view_004_target": 128, "view_004_prediction": 153, "view_004_alpha": 255}
    )
    assert load_ply(folder / "gaussians.ply", up="-y").num_gaussians == 6


def test_only_some_objects_and_only_predictions(tmp_path):
    hooks = [ExportPly(), WriteViews(targets=False, max_objects=2)]
    make_trainer(tmp_path, hooks).test(
        DrawingModule(), loader(make_batch("a"), make_batch("b", "c"), make_batch("d")), verbose=False
    )
    count = {uid: len(list((tmp_path / "objects" / uid).iterdir())) for uid in "abcd"}
    assert count == {"a": 7, "b": 7, "c": 2, "d": 2}


@pytest.fixture
def dying_encoder(tmp_path, monkeypatch):
    """An ffmpeg that reads a little and runs out of disk."""
    program = tmp_path / "ffmpeg"
    program.write_text(
        '#!/bin/sh\nhead -c 1000 >/dev/null\nfor last; do :; done\necho half > "$last"\n'
        "echo 'av_interleaved_write_frame(): No space left on device' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(video, "ffmpeg", lambda: str(program))


def failing_save(*arguments, **options):
    raise OSError(28, "No space left on device")


HOOKS = {
    "export": lambda: ExportPly(),
    "turntable": lambda: Turntable(**TURNTABLE, gif=False),
    "views": lambda: WriteViews(),
}


@pytest.mark.parametrize("name", HOOKS)
def test_an_object_whose_folder_cannot_be_made_is_reported_and_the_run_goes_on(tmp_path, caplog, name):
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "b").write_text("a file where a folder should be")
    hook = HOOKS[name]()
    make_trainer(tmp_path, [hook]).test(
        DrawingModule(), loader(make_batch("a", "b"), make_batch("c")), verbose=False
    )
    assert hook.failed == ["b"]
    assert f"{hook.what} failed for object b: FileExistsError" in caplog.text
    assert f"{hook.what}: missing for 1 objects" in caplog.text
    assert any((tmp_path / "objects" / "c").iterdir())


def test_a_full_disk_leaves_no_half_files(tmp_path, caplog, monkeypatch, dying_encoder):
    monkeypatch.setattr("lgm.callbacks.evaluation.export.save_ply", failing_save)
    monkeypatch.setattr(Image.Image, "save", failing_save)
    hooks = [make() for make in HOOKS.values()]
    make_trainer(tmp_path, hooks).test(
        DrawingModule(), loader(make_batch("a"), make_batch("b")), verbose=False
    )
    assert [hook.failed for hook in hooks] == [["a", "b"]] * 3
    assert caplog.text.count("No space left on device") == 6
    assert [list((tmp_path / "objects" / uid).iterdir()) for uid in "ab"] == [[], []]


def test_an_encoder_that_dies_while_frames_come(tmp_path, dying_encoder):
    frames = np.zeros((50, 64, 64, 3), np.uint8)
    with pytest.raises(OSError, match=r"could not write x\.mp4 \(exit code 1\): .*No space left"):  # noqa: PT012, SIM117
        with video.mp4(tmp_path / "x.mp4", 64, 10) as write:
            for _ in range(20):
                write(frames)


def test_of_two_encoders_the_one_that_died_is_named(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text(
        "#!/bin/sh\nfor last; do :; done\n"
        'case "$last" in *.mp4) echo "Unknown encoder libx264" >&2; exit 1;; *) cat >/dev/null;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(video, "ffmpeg", lambda: str(program))
    frames = np.zeros((16, 64, 64, 3), np.uint8)
    with (  # noqa: PT012
        pytest.raises(OSError, match=r"could not write x\.mp4 \(exit code 1\): Unknown encoder"),
        video.mp4(tmp_path / "x.mp4", 64, 10) as movie,
        video.gif(tmp_path / "x.gif", 64, 10, 32, 10) as animation,
    ):
        for _ in range(20):
            movie(frames)
            animation(frames)


def test_a_renderer_that_fails_ends_the_encoder(tmp_path):
    with pytest.raises(RuntimeError, match="out of memory"):  # noqa: PT012, SIM117
        with atomic(tmp_path / "x.mp4") as path, video.mp4(path, 64, 10) as write:
            write(np.zeros((5, 64, 64, 3), np.uint8))
            raise RuntimeError("out of memory")
    assert not list(tmp_path.iterdir())


def test_no_ffmpeg_is_told_before_the_work(monkeypatch):
    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(video, "get_ffmpeg_exe", missing)
    with pytest.raises(ValueError, match=r"videos need ffmpeg, .*pip install 'imageio\[ffmpeg\]'"):
        Turntable()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 255}, "size=255 must be even"),
        ({"frames": 0}, "frames=0 must be at least 1"),
        ({"seconds": 0}, "seconds=0"),
        ({"growth": 1.5}, "growth=1.5 is a share of the video"),
        ({"background": (1.0, 2.0, 0.0)}, "must be three numbers in 0..1"),
        ({"max_objects": 0}, "max_objects=0 must be at least 1"),
    ],
)
def test_turntables_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Turntable(**options)


@pytest.mark.parametrize(("options", "message"), [({"up": "x"}, "up='x'"), ({"sh_degree": 5}, "sh_degree=5")])
def test_exports_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ExportPly(**options)


def test_compressed_export_beside_the_plain_one(tmp_path):
    pytest.importorskip("gsplat", reason="gsplat writes compressed files, and is not installed")
    make_trainer(tmp_path, [ExportPly(compressed=True)]).test(
        DrawingModule(), loader(make_batch("a")), verbose=False
    )
    folder = tmp_path / "objects" / "a"
    plain, compressed = (load_ply(folder / f"gaussians{kind}.ply") for kind in ("", ".compressed"))
    assert plain.num_gaussians == compressed.num_gaussians


def test_an_object_without_a_visible_gaussian_is_reported_and_the_run_goes_on(tmp_path, caplog):
    hook = ExportPly(min_opacity=1.1)
    with caplog.at_level(logging.WARNING):
        make_trainer(tmp_path, [hook]).test(DrawingModule(), loader(make_batch("a", "b")), verbose=False)
    assert hook.failed == ["a", "b"] and "lower min_opacity=1.1" in caplog.text
    assert not list(tmp_path.rglob("*.ply*"))


def test_a_hook_of_ones_own_is_two_things(tmp_path, caplog):
    """What a mesh, or anything else, has to bring along."""

    class Count(ObjectHook):
        what = "count"

        def write(self, module, prediction, scene, folder: Path) -> None:
            if prediction.batch.uids[scene] == "b":
                raise MemoryError("too many")
            (folder / "count.txt").write_text(str(prediction.gaussians.num_gaussians))

    caplog.set_level(logging.WARNING)
    hook = Count()
    make_trainer(tmp_path, [hook]).test(DrawingModule(), loader(make_batch("a", "b", "c")), verbose=False)
    assert isinstance(hook, Callback) and hook.failed == ["b"]
    assert (tmp_path / "objects" / "c" / "count.txt").read_text() == "6"
    assert "count failed for object b: MemoryError: too many" in caplog.text


def test_background_and_frame_come_from_the_batch(tmp_path):
    batch = make_batch("a")
    batch = replace(batch, background=torch.tensor([[0.0, 0.0, 1.0]]), up=torch.tensor([[0.0, 1.0, 0.0]]))
    make_trainer(tmp_path, [Turntable(**TURNTABLE)]).test(DrawingModule(), loader(batch), verbose=False)
    corner = imageio.mimread(tmp_path / "objects" / "a" / "turntable.gif")[0][0, 0]
    assert tuple(corner[:3]) == (0, 0, 255)
