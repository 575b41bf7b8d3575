"""scripts/model_card.py: the numbers it prints, and whom its sheets show."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SIZE = 40
VALUES = {"chair": 21.5, "sphinx/1": 18.25, "lamp": 27.0}  # a slash, as uids may have


@pytest.fixture
def evaluation(tmp_path) -> Path:
    """What evaluate.py leaves behind, as far as the card reads it; each object has a colour of its own."""
    from lgm.callbacks.evaluation.objects import object_dir

    folder = tmp_path / "evaluation"
    folder.mkdir()
    with (folder / "per_object.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uid", "num_views", "psnr", "alpha_iou"])
        writer.writerows([uid, 2, psnr, 0.9] for uid, psnr in VALUES.items())
    for uid, psnr in VALUES.items():
        images = object_dir(folder, uid)
        images.mkdir(parents=True)
        names = [*(f"input_{i}" for i in range(4)), "view_004_target", "view_004_prediction"]
        for name in [*names, "view_009_target", "view_009_prediction"]:
            Image.new("RGB", (SIZE, SIZE), (int(psnr * 8), 0, 0)).save(images / f"{name}.png")
    band = {"psnr": 23.0, "ssim": 0.9, "alpha_iou": 0.95, "psnr_confidence": [22.0, 24.0], "num_views": 3}
    summary = {
        "psnr": 22.25, "ssim": 0.876, "lpips": None, "alpha_iou": 0.9, "num_objects": 3, "num_views": 6,
        "protocol": "canonical4", "protocol_hash": "0123456789ab",
        "confidence": {"level": 0.95, "psnr": [21, 23.5], "ssim": [0.8, 0.9], "alpha_iou": None},
        "bands": {"level": band, "above": {**band, "psnr": None, "psnr_confidence": None}},
        "baselines": {"untrained": {"psnr": 14.5, "ssim": 0.7, "num_objects": 2},
                      "white": {"psnr": 12.0, "ssim": 0.78, "num_objects": 3}},
        "protocol_content": {"target_size": SIZE, "metrics": {"level_elevation_deg": 30}},
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], int]:
    path = ROOT / "scripts" / "model_card.py"
    spec = importlib.util.spec_from_file_location("model_card", path)
    module = sys.modules["model_card"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def reds(path: Path) -> list[int]:
    """The colours of the objects from the top: of the last prediction of each."""
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    column = sheet[:, -40]
    is_red = (column[:, 1] < 40) & (column[:, 0] > 90)
    starts = np.flatnonzero(np.diff(is_red.astype(int), prepend=0) == 1)[::2]  # targets, then predictions
    return [int(column[start + 20, 0]) for start in starts]


def test_numbers_with_their_protocol_and_the_worst_and_best_objects(main, evaluation, tmp_path, capsys):
    assert main([str(evaluation), "--out", str(tmp_path / "card"), "--count", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "`canonical4` (0123456789ab), 3 objects, 6 images of 40²; in brackets 95% intervals over objects:",
        "",
        "| | PSNR, dB | SSIM | alpha IoU |",
        "|---|---|---|---|",
        "| all views | 22.25 (21.00 to 23.50) | 0.876 (0.800 to 0.900) | 0.900 |",
        "| within 30° of the horizon | 23.00 (22.00 to 24.00) | 0.900 | 0.950 |",
        "| more than 30° above | – | 0.900 | 0.950 |",
        "| untrained (2 objects) | 14.50 | 0.700 | – |",
        "| all white | 12.00 | 0.780 | – |",
    ]
    expected = {"worst": ("sphinx/1", "chair"), "best": ("lamp", "chair")}
    for name, uids in expected.items():
        shown = reds(tmp_path / "card" / f"{name}.webp")
        assert np.abs(np.array(shown) - [VALUES[uid] * 8 for uid in uids]).max() < 6


def test_all_on_one_sheet(main, evaluation, tmp_path):
    assert main([str(evaluation), "--out", str(tmp_path / "card"), "--count", "0"]) == 0
    assert [path.name for path in (tmp_path / "card").iterdir()] == ["all.webp"]
    assert len(reds(tmp_path / "card" / "all.webp")) == 3


def test_what_is_missing_is_one_line(main, evaluation, tmp_path, capsys):
    for path in (evaluation / "objects" / "lamp").glob("view_*"):
        path.unlink()
    assert main([str(evaluation), "--out", str(tmp_path / "card")]) == 2
    said = capsys.readouterr().err
    assert "no images of lamp; evaluate with callbacks.report.max_objects=3" in said
    (evaluation / "metrics.json").unlink()
    assert main([str(evaluation)]) == 2
    assert "metrics.json" in (more := capsys.readouterr().err)
    assert said.count("\n") == more.count("\n") == 1
