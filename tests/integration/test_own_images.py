"""evaluate.py on a person's own images: what it writes, and in whose frame."""

import csv
import json

import numpy as np
import pytest
import torch

from data_tools.adapt import command as adapt
from data_tools.pack import command as pack
from data_tools.verify import command as verify
from lgm.data.sources.images.background import Keep
from lgm.gaussians.ply import load_ply, save_ply
from lgm.gaussians.similarity import moved
from lgm.inference import reconstruct
from lgm.metrics import psnr
from lgm.models import LGM
from lgm.refinement import Refinement
from lgm.rendering import TorchRenderer
from tests.integration.running import composed, run_evaluate, run_script, run_train
from tests.own_images import Shoot, over_white, some_similarity

ANGLES = ([0.0] * 4 + [30.0, -20.0, 60.0, 10.0], [0.0, 90.0, 180.0, 270.0, 45.0, 135.0, 225.0, 315.0])
OWN = ["data=images", "data/background=keep", "callbacks.measure.lpips=null", "data.num_workers=0"]


@pytest.fixture(scope="module")
def ckpt(dataset, tmp_path_factory):
    """A few steps: with anchors at its pixels a network needs no more to show which way round things are."""
    run_dir = tmp_path_factory.mktemp("run")
    run_train(dataset, run_dir, "train.max_steps=2")
    return run_dir / "checkpoints" / "last.ckpt"


def measured(run_dir) -> dict:
    return json.loads((run_dir / "metrics.json").read_text())


def seen_by_the_person(ply, shoot: Shoot) -> float:
    """PSNR of the .ply, drawn by the person's own cameras, against the person's own images."""
    height, width = shoot.rgba[0].shape[:2]
    # In a world of their own size renderers clip nothing; a similarity moves cameras and splats alike.
    to_object = torch.from_numpy(np.linalg.inv(shoot.world))
    gaussians = moved(load_ply(ply), to_object)
    with torch.no_grad():
        images = TorchRenderer()(gaussians, shoot.cameras[None], height, width).images[0]
    targets = torch.from_numpy(np.stack([over_white(image) for image in shoot.rgba]))
    return float(psnr(images, targets.permute(0, 3, 1, 2) / 255).mean())


def test_four_images_are_exported_with_nothing_to_measure(ckpt, tmp_path):
    shoot = Shoot.of()
    for name in ("cup", "hat"):
        shoot.write(tmp_path / "set" / name)
    assert run_evaluate(tmp_path / "set", tmp_path / "out", ckpt, *OWN) is None
    metrics = measured(tmp_path / "out")
    for name in ("psnr", "ssim", "lpips", "alpha_iou"):
        assert metrics[name] is None and "is an input" in metrics[f"{name}_reason"]
    assert metrics["num_objects"] == 2 and metrics["num_views"] == 0
    assert metrics["protocol"] == "own_images"
    rows = list(csv.DictReader((tmp_path / "out" / "per_object.csv").open()))
    assert [(row["uid"], row["psnr"]) for row in rows] == [("cup", ""), ("hat", "")]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "inputs.png" in page and page.count("New views") == page.count("Drag to turn") == 2
    assert str(tmp_path) not in page
    for name in ("cup", "hat"):
        for file in ("gaussians.ply", "inputs.png", "new_5_prediction.png"):
            assert (tmp_path / "out" / "objects" / name / file).is_file()


@pytest.mark.parametrize("layout", ["ring", "colmap"])
def test_python_and_the_command_give_the_same_gaussians(layout, ckpt, tmp_path):
    shoot = Shoot.of(ANGLES, world=some_similarity()) if layout == "colmap" else Shoot.of()
    (shoot.write_colmap if layout == "colmap" else shoot.write)(tmp_path / "cup")
    run_evaluate(tmp_path / "cup", tmp_path / "out", ckpt, *OWN)
    objects = reconstruct(tmp_path / "cup", ckpt, device="cpu", background=Keep())
    assert list(objects) == ["cup"]
    save_ply(objects["cup"], tmp_path / "mine.ply")
    mine = load_ply(tmp_path / "mine.ply").packed()
    assert torch.allclose(mine, load_ply(tmp_path / "out/objects/cup/gaussians.ply").packed(), atol=1e-5)
    run_evaluate(tmp_path / "cup", tmp_path / "refined", ckpt, *OWN, "refine.steps=2")
    fitted = reconstruct(tmp_path / "cup", ckpt, background=Keep(), refinement=Refinement(steps=2))
    save_ply(fitted["cup"], tmp_path / "mine.ply")
    refined = load_ply(tmp_path / "mine.ply").packed()
    assert not torch.allclose(refined, mine, atol=1e-4)
    theirs = load_ply(tmp_path / "refined/objects/cup/gaussians.ply").packed()
    assert torch.allclose(refined, theirs, atol=2e-3)  # Adam's first steps follow the sign of a gradient
    net = LGM.from_pretrained(ckpt)  # of LGM's own scene, as this checkpoint's is
    again = reconstruct(tmp_path / "cup", net, background=Keep(), num_input_views=4)["cup"]
    assert torch.equal(again.packed(), objects["cup"].packed())


def test_the_answer_is_in_the_persons_frame(ckpt, tmp_path):
    """As good, seen by the person's cameras, as what the canonical path gives in its own frame."""
    plain = Shoot.of(ANGLES)
    there = Shoot.of(ANGLES, world=some_similarity())
    plain.write_cameras_json(tmp_path / "plain")
    there.write_colmap(tmp_path / "there")
    values = {}
    for name in ("plain", "there"):
        values[name] = run_evaluate(tmp_path / name, tmp_path / f"{name}_out", ckpt, *OWN)
        assert measured(tmp_path / f"{name}_out")["num_views"] == 4
    assert values["there"] == pytest.approx(values["plain"], abs=0.01)
    plies = [tmp_path / f"{name}_out" / "objects" / name / "gaussians.ply" for name in ("plain", "there")]
    seen = [seen_by_the_person(ply, shoot) for ply, shoot in zip(plies, (plain, there), strict=True)]
    assert seen[1] == pytest.approx(seen[0], abs=0.02)
    wrong = seen_by_the_person(plies[0], there)  # the answer in another frame
    assert seen[1] > wrong + 1


@pytest.mark.parametrize(("radius", "fov_y_deg"), [(4.0, 19.0), (0.9, 80.0)])
def test_other_lenses_and_radii(ckpt, tmp_path, radius, fov_y_deg):
    """Nearer and farther the network sees nearly the same, and nearly the same comes back."""
    plain = Shoot.of(ANGLES)
    there = Shoot.of(ANGLES, radius, fov_y_deg, size=(80, 64), center=(0.52, 0.49), world=some_similarity())
    plain.write_cameras_json(tmp_path / "plain")
    there.write_colmap(tmp_path / "there")
    for name in ("plain", "there"):
        run_evaluate(tmp_path / name, tmp_path / f"{name}_out", ckpt, *OWN)
    plies = [tmp_path / f"{name}_out" / "objects" / name / "gaussians.ply" for name in ("plain", "there")]
    assert seen_by_the_person(plies[1], there) > seen_by_the_person(moved_ply(plies[0], there), there) - 1.5


def moved_ply(ply, shoot: Shoot):
    """The canonical answer, carried to the person's frame by what only a test knows."""
    from lgm.gaussians.ply import save_ply

    path = ply.with_name("moved.ply")
    save_ply(moved(load_ply(ply), torch.from_numpy(shoot.world)), path, 0.0)
    return path


def test_the_networks_frame_on_request(ckpt, tmp_path):
    shoot = Shoot.of(ANGLES, world=some_similarity())
    shoot.write_transforms(tmp_path / "set")
    for frame in ("user", "network"):
        run_evaluate(tmp_path / "set", tmp_path / frame, ckpt, *OWN, f"callbacks.export_ply.frame={frame}")
    network, user = (
        load_ply(tmp_path / frame / "objects" / "set" / "gaussians.ply") for frame in ("network", "user")
    )
    assert network.means.abs().max() < 1.5 and user.means.abs().max() > 10
    back = moved(user, torch.from_numpy(np.linalg.inv(shoot.world)))
    assert torch.allclose(back.means, network.means, atol=1e-3)
    assert torch.allclose(back.scales, network.scales, rtol=1e-3)


@pytest.mark.parametrize("count", [2, 6, 8])
def test_other_numbers_of_inputs_than_in_training(ckpt, tmp_path, count):
    Shoot.of(ANGLES).write_transforms(tmp_path / "set")
    run_evaluate(tmp_path / "set", tmp_path / "out", ckpt, *OWN, f"protocol.views.num_input_views={count}")
    metrics = measured(tmp_path / "out")
    assert metrics["num_views"] == 8 - count and (metrics["psnr"] is None) == (count == 8)
    assert (tmp_path / "out" / "objects" / "set" / "gaussians.ply").is_file()


def test_too_few_images_say_which_option(ckpt, tmp_path):
    Shoot.of(([0.0] * 3, [0.0, 120.0, 240.0])).write_transforms(tmp_path / "set")
    with pytest.raises(ValueError, match=r"it has 3 views, 4 are needed as input.*num_input_views"):
        run_evaluate(tmp_path / "set", tmp_path / "out", ckpt, *OWN)


def test_training_on_a_folder_of_images_is_refused(tmp_path):
    from lgm.cli.train import train

    Shoot.of().write(tmp_path / "set")
    cfg = composed(
        "train", "data=images", "data/background=keep", f"data.path={tmp_path / 'set'}", "trainer=cpu"
    )
    cfg.run_dir = str(tmp_path / "run")
    with pytest.raises(ValueError, match="data=images has no split 'train'"):
        train(cfg)


def test_a_mistake_is_one_line_as_a_person_types_it(ckpt, tmp_path):
    Shoot.of().write(tmp_path / "set")
    (tmp_path / "set" / "002.png").write_bytes(b"")
    result = run_script(
        "evaluate.py", f"ckpt={ckpt}", "data=images", f"data.path={tmp_path / 'set'}", "trainer=cpu",
        f"run_dir={tmp_path / 'out'}",
    )  # fmt: skip
    assert result.returncode == 2 and "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "002.png cannot be decoded" in lines[0]


def test_photographs_train(tmp_path):
    """A COLMAP set to renders to shards to a training, with views drawn at random."""
    angles = ([(-15.0, 10.0, 35.0)[view % 3] for view in range(12)], [30.0 * view for view in range(12)])
    for seed in range(2):
        shoot = Shoot.of(angles, 2.0, 40.0, (64, 48), some_similarity(seed=seed), (0.52, 0.5), seed)
        shoot.write_colmap(tmp_path / "posed" / f"cup{seed}")
    (tmp_path / "splits.txt").write_text("cup0 train\ncup1 val\n")
    renders, shards = tmp_path / "renders", tmp_path / "shards"
    assert adapt.main(f"{tmp_path}/posed --layout colmap --out {renders} --workers 1".split()) == 0
    packed = f"{renders} --out {shards} --assign {tmp_path}/splits.txt --format png --workers 1"
    assert pack.main(packed.split()) == 0
    assert verify.main([str(shards), "--workers", "1"]) == 0
    one = ["data.micro_batch_size=1", "train.global_batch_size=1", "train.max_steps=2"]
    with pytest.raises(ValueError, match=r"names 0 canonical_inputs, .*; train with data/views=random or "):
        run_train(shards, tmp_path / "refused", *one)
    run_train(shards, tmp_path / "run", *one, "data/views=random", "protocol=own_images")
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
