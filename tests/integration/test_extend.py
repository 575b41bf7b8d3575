"""docs/extend.md holds what it says: its files are written elsewhere, and its commands run on them."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from lgm.cameras import Cameras
from lgm.models import Network
from tests.integration.running import ROOT, run_script

PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
NAMED = re.compile(r"^`(mylab/[\w/.]+)`:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What makes the commands short; nothing that the page says is replaced.
MICRO = ["model.net.input_size=16", "trainer=cpu", "data.num_workers=0"]
SHORTER = {
    "train.py": [
        *MICRO, "resolution.target_size=16", "debug=short", "train.max_steps=2", "train.val_every_steps=2",
        "data.max_val_objects=1",
    ],
    "evaluate.py": [*MICRO, "data.max_test_objects=1", "callbacks.measure.lpips=null"],
    "scripts/export.py": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def research(tmp_path_factory):
    """A folder with the page's package, from which Python imports."""
    folder = tmp_path_factory.mktemp("research")
    files = dict(NAMED.findall(PAGE))
    for name, text in {"mylab/__init__.py": "", **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


@pytest.fixture(scope="module")
def ran(research):
    """The page's commands, one after the other; their runs lie in the folder, too."""
    block = next(text for text in re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S))
    block = block.replace("\\\n", " ").replace("$MYLAB", str(research / "mylab/configs"))
    lines = block.splitlines()
    results = []
    for line in lines[1:]:
        python, script, *options = shlex.split(line)
        assert python == "python"
        options = [re.sub(r"^((?:run_dir|ckpt|init_from)=)", rf"\1{research}/", o) for o in options]
        places = {"runs/mine": f"{research}/runs/mine", "mine": f"{research}/mine"}
        options = [places.get(o, o) for o in options]
        if script == "evaluate.py":
            options.append(f"run_dir={research}/evaluation")
        results.append(run_script(script, *options, *SHORTER[script]))
        assert results[-1].returncode == 0, f"{line}\n{results[-1].stderr}"
    return results


def test_the_tree_is_what_the_page_writes():
    tree = re.search(r"^```\n(mylab/.*?)^```", PAGE, re.M | re.S)[1]
    assert {Path(name).name for name, _ in NAMED.findall(PAGE)} | {"__init__.py"} == {
        Path(line.split()[0]).name for line in tree.splitlines() if not line.split()[0].endswith("/")
    }


def test_its_network_is_short():
    code = dict(NAMED.findall(PAGE))["mylab/network.py"]
    assert len([line for line in code.splitlines() if line.strip()]) <= 30


def test_its_commands_run(ran, research):
    metrics = (research / "runs/mine/metrics.csv").read_text()
    assert "train/loss/opacity" in metrics.splitlines()[0]
    assert (research / "mine/model.safetensors").is_file()
    card = (research / "mine/README.md").read_text()
    assert "from mylab.network import Convolutions" in card and "Convolutions (" in card
    (written,) = (research / "evaluation/objects").glob("*/brightness.txt")
    assert 0 <= float(written.read_text()) <= 1


def test_its_weights_load_in_python(ran, research):
    from mylab.network import Convolutions

    net = Convolutions.from_pretrained(research / "mine")
    cameras = Cameras.orbit([0.0] * 4, [0.0, 90.0, 180.0, 270.0])[None]
    with torch.no_grad():
        assert net(torch.rand(1, 4, 3, 16, 16), cameras).num_gaussians == net.num_gaussians == 4 * 16**2


def test_a_record_does_not_choose_the_network(ran, research):
    place = f"run_dir={research}/refused"
    refused = run_script("evaluate.py", f"ckpt={research}/mine", "data=quickstart", "trainer=cpu", place)
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    assert "mylab.network.Convolutions" in refused.stderr and "choose it: model=" in refused.stderr


@pytest.mark.parametrize(
    ("script", "option", "said"),
    [
        ("train.py", "train.gradient_checkpointing=true", "Convolutions has no activation checkpointing"),
        ("evaluate.py", "trainer.precision=16-true", "Convolutions does not compute in half precision"),
        ("evaluate.py", "attention=xformers", "mylab.network.Convolutions takes no attention"),
        ("evaluate.py", "kernels=auto", "mylab.network.Convolutions takes no kernels"),
    ],
)
def test_what_a_network_lacks_is_refused(ran, research, script, option, said):
    given = ["--config-dir", research / "mylab/configs", "model=convolutions", f"run_dir={research}/refused"]
    given += [f"ckpt={research}/mine"] if script == "evaluate.py" else []
    result = run_script(script, *given, "data=quickstart", *SHORTER[script], option)
    assert result.returncode == 2 and said in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_what_is_no_network_is_refused(research):
    (research / "mylab/other.py").write_text("from torch import nn\n\n\nclass Other(nn.Module):\n    pass\n")
    options = ["model=nano", "model.net._target_=mylab.other.Other", "data=quickstart", "trainer=cpu"]
    result = run_script("train.py", *options, f"run_dir={research}/other")
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert "mylab.other.Other is not an lgm.models.Network; derive it" in result.stderr


def test_the_table_of_what_is_refused_names_what_there_is():
    rows = re.findall(r"^\| .* \| (.*) \| .* \|$", PAGE.split("## A loss")[0], re.MULTILINE)[2:]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)} - {
        "kernels", "attention", "StagedNetwork",
    }  # fmt: skip
    assert named and all(hasattr(Network, name) for name in named)
    configs = dict(NAMED.findall(PAGE))
    assert OmegaConf.create(configs["mylab/configs/model/convolutions.yaml"]).model.net.num_input_views == 4
