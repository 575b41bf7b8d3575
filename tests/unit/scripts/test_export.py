"""Weights for others: what the exported folder holds and says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lgm.models import LGM
from lgm.models.checkpoint import weights_hash
from lgm.models.pretrained import read_weights
from scripts.export import export, measured
from tests.forked import run_program
from tests.unit.models.test_pretrained import CONFIG, NET, checkpoint

ROOT = Path(__file__).parents[3]


@pytest.fixture
def net():
    return LGM(**NET)


def typed(*arguments):
    return run_program(ROOT / "scripts" / "export.py", *arguments, cwd=ROOT)


def test_export_and_back(net, tmp_path):
    path = export(read_weights(checkpoint(tmp_path / "run.ckpt", net)), tmp_path / "mine", torch.float16)
    assert path.stat().st_size < 2.1 * sum(p.numel() for p in net.parameters()) + 20_000
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert json.loads((path.parent / "config.json").read_text()).items() >= CONFIG.items()
    for where in (path, path.parent):
        loaded = LGM.from_pretrained(where)
        assert loaded.input_size == 32
        for name, tensor in loaded.state_dict().items():
            assert torch.equal(tensor, net.state_dict()[name].half().float())


def test_export_as_a_person_types_it(net, tmp_path):
    path = checkpoint(tmp_path / "run.ckpt", net)
    command = [sys.executable, "scripts/export.py", path, "--float32", "--out", tmp_path / "out"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "tensors" in done.stdout, done.stderr
    failed = typed(tmp_path / "absent.ckpt", "--float32", "--out", tmp_path / "no")
    assert failed.returncode == 2 and failed.stderr.startswith("error: no weights at")
    assert len(failed.stderr.splitlines()) == 1


def trained(path: Path, net: LGM) -> Path:
    """A checkpoint as a run leaves it."""
    content = torch.load(checkpoint(path, net), weights_only=True)
    run = str(path.parent)
    content["config"] = {
        **CONFIG,
        "run_dir": run,
        "train": {"seed": 7},
        "data": {
            "path": f"{run}/set",
            "sets": ["https://u:key@host/shards?sig=1", "shards", "pipe:cat key {}"],
        },
        "logger": {"wandb": {"entity": "somebody"}},
        "init_from": "~/weights.ckpt",
    }
    content["global_step"] = 1200
    content["callbacks"] = {"TrainingCost": {"device_minutes": 3.5, "devices": "2 × CPU"}, "Other": {}}
    torch.save(content, path)
    return path


def evaluation(folder: Path, tensors: dict, protocol: str = "canonical4") -> Path:
    folder.mkdir()
    numbers = {"protocol": protocol, "protocol_hash": "e4a8", "psnr": 25.5, "protocol_content": {"name": "x"}}
    numbers["lpips_reason"] = "no file at /home/somebody"
    numbers["made_with"] = {"weights_hash": weights_hash(tensors)}
    (folder / "metrics.json").write_text(json.dumps(numbers))
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"split": "val"}}))
    return folder


def test_how_they_were_trained_and_what_was_measured_goes_along(net, tmp_path):
    path = trained(tmp_path / "run.ckpt", net)
    folder = evaluation(tmp_path / "evaluation", net.state_dict())
    done = typed(path, "--out", tmp_path / "out", "--evaluation", folder)
    assert done.returncode == 0, done.stderr
    weights = read_weights(tmp_path / "out")
    assert weights.config == CONFIG
    numbers = weights.metrics["canonical4"]
    assert numbers.pop("made_with") == {"weights_hash": weights_hash(net.state_dict())}
    assert numbers == {"split": "val", "protocol_hash": "e4a8", "psnr": 25.5}
    config = weights.training.pop("config")
    assert weights.training == {"step": 1200, "seed": 7, "device_minutes": 3.5, "devices": "2 × CPU"}
    # What lay where, and what may be secret, does not.
    assert config == {
        **CONFIG,
        "train": {"seed": 7},
        "data": {"path": "…/set", "sets": ["…/shards", "shards", "pipe:…"]},
        "init_from": "…/weights.ckpt",
    }
    # Of an exported file, what it says is handed on.
    again = read_weights(export(read_weights(tmp_path / "out"), tmp_path / "again", torch.float16))
    assert again.metrics["canonical4"].items() >= numbers.items()
    assert again.training == {**weights.training, "config": config}


def test_numbers_of_other_weights_are_refused(net, tmp_path):
    tensors, half = net.state_dict(), {name: tensor.half() for name, tensor in net.state_dict().items()}
    folder = evaluation(tmp_path / "evaluation", tensors)
    with pytest.raises(
        ValueError, match=r"evaluation is an evaluation of other weights \(weights_hash \w{16}, "
    ):
        measured([folder], half)
    with pytest.raises(ValueError, match=r"again is a second evaluation by protocol canonical4"):
        measured([folder, evaluation(tmp_path / "again", tensors)], tensors)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty is no folder of an evaluation: .*metrics.json"):
        measured([tmp_path / "empty"], tensors)
    for file, content in {
        "metrics.json": "[]",
        "config.yaml": "",
        "metrics.json ": '{"made_with": null}',
    }.items():
        broken = evaluation(tmp_path / f"broken {file}", tensors)
        (broken / file.strip()).write_text(content)
        with pytest.raises(ValueError, match="is no folder of an evaluation: "):
            measured([broken], tensors)


def test_the_hash_is_of_names_and_numbers(net):
    weights = net.state_dict()
    same = dict(reversed([(name, tensor.clone()) for name, tensor in weights.items()]))
    same["unet.conv_in.weight"] = same["unet.conv_in.weight"].to(memory_format=torch.channels_last)
    assert weights_hash(same) == weights_hash(weights)
    name = "conv.bias"
    others = [weights | {name: weights[name] + 1e-6}, weights | {name: weights[name].half()}]
    assert len({weights_hash(w) for w in [weights, *others]}) == 3


def test_values_that_half_precision_cannot_hold(net, tmp_path):
    net.conv.bias.data[0] = 1e6
    with pytest.raises(ValueError, match="float16 cannot; export it with --float32"):
        export(read_weights(checkpoint(tmp_path / "run.ckpt", net)), tmp_path / "out", torch.float16)
